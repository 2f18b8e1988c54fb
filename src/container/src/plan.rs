//! A request, understood: everything that can be refused without touching the system has been refused.

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit};

use crate::capabilities::Capabilities;
use crate::command::Command;
use crate::devices::{self, Device};
use crate::error::{Attempt, Error, Refusal, Step};
use crate::inside::Root;
use crate::namespaces::Namespaces;
use crate::network::Interface;
use crate::options;
use crate::spec::{self, Spec};
use crate::user::{self, Identity};
use crate::{EtcFiles, Request, sysctl};

/// What a container's process is built from.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) rootfs: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) namespaces: Namespaces,
    pub(crate) devices: Vec<Device>,
    pub(crate) identity: Identity,
    pub(crate) capabilities: Capabilities,
    pub(crate) rlimits: Vec<(Resource, Rlimit)>,
    pub(crate) command: Command,
    pub(crate) seccomp: Option<Vec<u8>>,
    pub(crate) init: bool,
    pub(crate) interface: Option<Interface>,
    /// `MS_*` of the root mount in the end, and whether recursively.
    pub(crate) propagation: Option<(u64, bool)>,
    /// Files outside and where they go inside.
    pub(crate) etc: Vec<(PathBuf, PathBuf)>,
}

impl Plan {
    /// Understands a request, but for its streams.
    pub(crate) fn new(request: Request) -> Result<Plan, Error> {
        let Request {
            spec,
            rootfs,
            user,
            seccomp,
            init,
            etc,
            interface,
            cgroup,
            run_dir,
            ..
        } = request;
        let namespaces = Namespaces::parse(&spec.linux.namespaces)?;
        let in_user_namespace = namespaces.has(libc::CLONE_NEWUSER);
        if in_user_namespace
            && (spec.linux.uid_mappings.is_empty() || spec.linux.gid_mappings.is_empty())
        {
            return Err(Refusal::Missing).at(Step::IdMapping, "uidMappings and gidMappings");
        }
        sysctl::check(&spec.linux.sysctl, &namespaces)?;
        if interface.is_some() && !namespaces.makes(libc::CLONE_NEWNET) {
            return Err(Refusal::NeedsNamespace).at(Step::Interface, "eth0");
        }
        let has_own_names = namespaces.has(libc::CLONE_NEWUTS);
        if !has_own_names && (spec.hostname.is_some() || spec.domainname.is_some()) {
            return Err(Refusal::NeedsNamespace).at(Step::Hostname, "");
        }
        if !spec.process.cwd.is_absolute() {
            return Err(Refusal::NotAnAbsolutePath)
                .at(Step::WorkingDirectory, spec.process.cwd.display());
        }
        let propagation = match spec.linux.rootfs_propagation.as_deref() {
            None | Some("") => None,
            Some(word) => Some(
                options::propagation(word)
                    .ok_or(Refusal::UnknownName)
                    .at(Step::Propagation, word)?,
            ),
        };
        let root = Root::open(&rootfs).at(Step::PivotRoot, rootfs.display())?;
        let identity = identity(&root, user.as_deref(), &spec.process.user)?;
        let process = &spec.process;
        Ok(Plan {
            devices: devices::list(&spec.linux.devices)?,
            capabilities: Capabilities::parse(&process.capabilities)?,
            rlimits: process
                .rlimits
                .iter()
                .map(rlimit)
                .collect::<Result<_, _>>()?,
            command: Command::new(&process.args, &process.env, identity.home.as_deref())?,
            etc: etc_paths(&etc, &run_dir),
            spec,
            rootfs,
            cgroup,
            namespaces,
            identity,
            seccomp,
            init,
            interface,
            propagation,
        })
    }

    /// The user as the outside numbers it: another one where there is a user namespace.
    pub(crate) fn outside_uid(&self) -> u32 {
        let inside = self.identity.uid;
        let mut mappings = self.spec.linux.uid_mappings.iter();
        let mapped = mappings.find_map(|mapping| {
            let offset = inside.checked_sub(mapping.container_id)?;
            (offset < mapping.size).then(|| mapping.host_id.checked_add(offset))?
        });
        match mapped {
            Some(outside) if self.namespaces.makes(libc::CLONE_NEWUSER) => outside,
            _ => inside,
        }
    }
}

fn identity(root: &Root, wanted: Option<&str>, document: &spec::User) -> Result<Identity, Error> {
    let additional = &document.additional_gids;
    match wanted.filter(|wanted| !wanted.is_empty()) {
        Some(wanted) => user::by_name(root, wanted, additional),
        None => user::by_number(root, document.uid, document.gid, additional),
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

/// The files of `etc` and where each goes. Written by [`write_etc`].
fn etc_paths(etc: &EtcFiles, run_dir: &std::path::Path) -> Vec<(PathBuf, PathBuf)> {
    named(etc)
        .map(|(name, _)| (run_dir.join(name), PathBuf::from("/etc").join(name)))
        .collect()
}

/// Makes the run directory and the files of `etc` in it.
pub(crate) fn write_etc(etc: &EtcFiles, run_dir: &std::path::Path) -> Result<(), Error> {
    std::fs::create_dir_all(run_dir).at(Step::RunDirectory, run_dir.display())?;
    for (name, content) in named(etc) {
        std::fs::write(run_dir.join(name), content)
            .at(Step::EtcFile, format_args!("/etc/{name}"))?;
    }
    Ok(())
}

fn named(etc: &EtcFiles) -> impl Iterator<Item = (&'static str, &String)> {
    let files = [
        ("hosts", &etc.hosts),
        ("hostname", &etc.hostname),
        ("resolv.conf", &etc.resolv_conf),
    ];
    files
        .into_iter()
        .filter_map(|(name, content)| Some((name, content.as_ref()?)))
}
