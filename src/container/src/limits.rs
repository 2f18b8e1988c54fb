//! Resource limits (setrlimit(2)), and what the outside sets for a process, or for the machine on its behalf.
//!
//! Invariant: a process has the limits of its document, and the parent's own where that has none: nothing here lowers
//! one.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec;

/// The most files that any process of the machine may have open.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";
/// The largest value of fs.nr_open (fs/file.c: sysctl_nr_open_max, on 64 bits).
const MAX_NR_OPEN: u64 = 0x7fff_ffc0;

const RESOURCES: [(&str, Resource); 16] = [
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_STACK", Resource::Stack),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
];

/// A resource limit of a document.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    name: &'static str,
    resource: Resource,
    value: Rlimit,
}

impl Limit {
    pub(crate) fn parse(limit: &spec::Rlimit) -> Result<Limit, Error> {
        let found = RESOURCES.iter().find(|(name, _)| *name == limit.kind);
        let &(name, resource) = found
            .ok_or(Refusal::UnknownName)
            .at(Step::ResourceLimit, &limit.kind)?;
        if limit.soft > limit.hard {
            return Err(Refusal::OutOfRange).at(Step::ResourceLimit, &limit.kind);
        }
        let bound = |value: u64| Some(value).filter(|&value| value != u64::MAX);
        let value = Rlimit {
            current: bound(limit.soft),
            maximum: bound(limit.hard),
        };
        Ok(Limit {
            name,
            resource,
            value,
        })
    }

    /// Sets it for this process.
    pub(crate) fn set(&self) -> Result<(), Error> {
        setrlimit(self.resource, self.value).at(Step::ResourceLimit, self.name)
    }

    /// Sets it for a child that has not been reaped.
    fn set_for(&self, child: Pid) -> Result<(), Error> {
        let set = prlimit(Some(child), self.resource, self.value);
        set.map(drop).at(Step::ResourceLimit, self.name)
    }
}

/// What the outside sets for a process before it goes on.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// How the process is chosen when memory runs out.
    pub(crate) oom_score_adj: Option<i32>,
    /// Limits that the process cannot set itself: in a user namespace it may not raise any.
    pub(crate) limits: Vec<Limit>,
}

impl Outside {
    /// Sets it for a child that has not been reaped.
    pub(crate) fn apply(&self, child: Pid) -> Result<(), Error> {
        if let Some(score) = self.oom_score_adj {
            let path = format!("/proc/{}/oom_score_adj", child.as_raw_pid());
            std::fs::write(path, score.to_string()).at(Step::OomScore, score)?;
        }
        self.limits
            .iter()
            .try_for_each(|limit| limit.set_for(child))
    }
}

/// Refuses a limit of open files that is higher than the machine's bound; or raises that, where the machine is the
/// container's own.
pub(crate) fn check_machines(limits: &[Limit], own_machine: bool) -> Result<(), Error> {
    let is_files = |limit: &&Limit| limit.resource == Resource::Nofile;
    let Some(limit) = limits.iter().find(is_files) else {
        return Ok(());
    };
    let wanted = limit.value.maximum.unwrap_or(u64::MAX);
    let bound = std::fs::read_to_string(NR_OPEN).at(Step::ResourceLimit, NR_OPEN)?;
    if bound.trim().parse().is_ok_and(|bound: u64| wanted <= bound) {
        return Ok(());
    }
    if !own_machine || wanted > MAX_NR_OPEN {
        return Err(Refusal::MoreThanMachine).at(Step::ResourceLimit, limit.name);
    }
    std::fs::write(NR_OPEN, wanted.to_string())
        .at(Step::ResourceLimit, format_args!("{NR_OPEN} to {wanted}"))
}

/// This process's limit of open files, as high as it may be until this is dropped: a document may have more mounts than
/// the limit that the container's process is to have.
pub(crate) struct ManyFiles(Rlimit);

impl ManyFiles {
    pub(crate) fn allow() -> ManyFiles {
        let own = getrlimit(Resource::Nofile);
        let high = Rlimit {
            current: own.maximum,
            maximum: own.maximum,
        };
        // Where that fails, there may still be enough.
        let _ = setrlimit(Resource::Nofile, high);
        ManyFiles(own)
    }
}

impl Drop for ManyFiles {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}
