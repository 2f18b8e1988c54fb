//! A process of the document, checked: all of an [`Execution`] but for its user, whom only the container's files name.

use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};

use crate::capabilities::Capabilities;
use crate::command::Command;
use crate::error::{Attempt, Error, Refusal, Step};
use crate::execute::Execution;
use crate::spec;
use crate::user::Identity;

/// The largest file mode creation mask.
const MAX_UMASK: u32 = 0o777;

/// What is known of a process before its user is.
#[derive(Debug)]
pub(crate) struct Draft {
    capabilities: Capabilities,
    rlimits: Vec<(Resource, Rlimit)>,
    command: Command,
    cwd: PathBuf,
    umask: Mode,
    no_new_privileges: bool,
    seccomp: Option<Vec<u8>>,
    init: bool,
}

impl Draft {
    pub(crate) fn new(
        process: &spec::Process,
        seccomp: Option<Vec<u8>>,
        init: bool,
    ) -> Result<Draft, Error> {
        if !process.cwd.is_absolute() {
            return Err(Refusal::NotAnAbsolutePath)
                .at(Step::WorkingDirectory, process.cwd.display());
        }
        let umask = process.user.umask.unwrap_or(0o022);
        if umask > MAX_UMASK {
            return Err(Refusal::OutOfRange).at(Step::Document, format_args!("(umask {umask:#o})"));
        }
        if let Some(score) = process.oom_score_adj
            && !(-1000..=1000).contains(&score)
        {
            return Err(Refusal::OutOfRange).at(Step::OomScore, score);
        }
        let rlimits = process.rlimits.iter().map(rlimit);
        Ok(Draft {
            capabilities: Capabilities::parse(&process.capabilities)?,
            rlimits: rlimits.collect::<Result<_, _>>()?,
            command: Command::new(&process.args, &process.env)?,
            cwd: process.cwd.clone(),
            umask: Mode::from_raw_mode(umask),
            no_new_privileges: process.no_new_privileges,
            seccomp,
            init,
        })
    }

    /// The process, now that its user is known.
    pub(crate) fn finish(self, identity: Identity) -> Result<Execution, Error> {
        Ok(Execution {
            command: self.command.with_home(identity.home.as_deref())?,
            identity,
            capabilities: self.capabilities,
            rlimits: self.rlimits,
            cwd: self.cwd,
            umask: self.umask,
            no_new_privileges: self.no_new_privileges,
            seccomp: self.seccomp,
            init: self.init,
        })
    }
}

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

fn rlimit(limit: &spec::Rlimit) -> Result<(Resource, Rlimit), Error> {
    let found = RESOURCES.iter().find(|(name, _)| *name == limit.kind);
    let (_, resource) = found
        .ok_or(Refusal::UnknownName)
        .at(Step::ResourceLimit, &limit.kind)?;
    if limit.soft > limit.hard {
        return Err(Refusal::OutOfRange).at(Step::ResourceLimit, &limit.kind);
    }
    let bound = |value: u64| Some(value).filter(|&value| value != u64::MAX);
    Ok((
        *resource,
        Rlimit {
            current: bound(limit.soft),
            maximum: bound(limit.hard),
        },
    ))
}
