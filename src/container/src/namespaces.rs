//! Which namespaces are made with the process, which are joined, which are shared.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec::{self, NamespaceKind};

/// A container's namespaces.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of those to make.
    new: i32,
    /// Those to join.
    join: Vec<(LinkNameSpaceType, PathBuf)>,
    /// `CLONE_NEW*` of `join`.
    joined: i32,
}

impl Namespaces {
    pub(crate) fn parse(document: &[spec::Namespace]) -> Result<Namespaces, Error> {
        let mut namespaces = Namespaces::default();
        for namespace in document {
            let name = || format!("{:?}", namespace.kind).to_lowercase();
            let (flag, kind) = match namespace.kind {
                NamespaceKind::Pid => (libc::CLONE_NEWPID, LinkNameSpaceType::ProcessID),
                NamespaceKind::Network => (libc::CLONE_NEWNET, LinkNameSpaceType::Network),
                NamespaceKind::Mount => (libc::CLONE_NEWNS, LinkNameSpaceType::Mount),
                NamespaceKind::Ipc => (
                    libc::CLONE_NEWIPC,
                    LinkNameSpaceType::InterProcessCommunication,
                ),
                NamespaceKind::Uts => (
                    libc::CLONE_NEWUTS,
                    LinkNameSpaceType::HostNameAndNISDomainName,
                ),
                NamespaceKind::User => (libc::CLONE_NEWUSER, LinkNameSpaceType::User),
                NamespaceKind::Cgroup => (libc::CLONE_NEWCGROUP, LinkNameSpaceType::ControlGroup),
                NamespaceKind::Time => return Err(Refusal::NotBuilt).at(Step::Namespace, name()),
            };
            if namespaces.has(flag) {
                return Err(Refusal::Twice).at(Step::Namespace, name());
            }
            match &namespace.path {
                None => namespaces.new |= flag,
                // A PID namespace is joined by a process's children and a user namespace by one thread before all
                // else: both belong to exec in a running container, which is not built.
                Some(_)
                    if matches!(
                        namespace.kind,
                        NamespaceKind::Pid | NamespaceKind::User | NamespaceKind::Mount
                    ) =>
                {
                    return Err(Refusal::NotBuilt)
                        .at(Step::Namespace, format_args!("{} by its path", name()));
                }
                Some(path) => {
                    namespaces.joined |= flag;
                    namespaces.join.push((kind, path.clone()));
                }
            }
        }
        if namespaces.new & libc::CLONE_NEWNS == 0 {
            return Err(Refusal::NeedsNamespace).at(Step::Namespace, "mount");
        }
        Ok(namespaces)
    }

    /// The container does not share this namespace with its parent.
    pub(crate) fn has(&self, flag: i32) -> bool {
        (self.new | self.joined) & flag != 0
    }

    /// The container gets a new one.
    pub(crate) fn makes(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    /// Those that are made with the process. The cgroup namespace is not: clone3 would root it at the parent's
    /// cgroup, before the child is in its own.
    pub(crate) fn clone_flags(&self) -> i32 {
        self.new & !libc::CLONE_NEWCGROUP
    }

    /// Opens those to join, where their paths can be named.
    pub(crate) fn open(&self) -> Result<Vec<(LinkNameSpaceType, OwnedFd)>, Error> {
        self.join
            .iter()
            .map(|(kind, path)| {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let namespace = rustix::fs::openat(CWD, path, flags, Mode::empty());
                Ok((*kind, namespace.at(Step::Namespace, path.display())?))
            })
            .collect()
    }
}

/// Enters opened namespaces.
pub(crate) fn join(namespaces: &[(LinkNameSpaceType, OwnedFd)]) -> Result<(), Error> {
    use std::os::fd::AsFd;
    for (kind, namespace) in namespaces {
        move_into_link_name_space(namespace.as_fd(), Some(*kind))
            .at(Step::Namespace, format_args!("{kind:?}"))?;
    }
    Ok(())
}

/// Writes a user namespace's mappings, from outside.
pub(crate) fn map_ids(pid: rustix::process::Pid, linux: &spec::Linux) -> Result<(), Error> {
    for (file, mappings) in [
        ("uid_map", &linux.uid_mappings),
        ("gid_map", &linux.gid_mappings),
    ] {
        let lines: String = mappings
            .iter()
            .map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size))
            .collect();
        let path = format!("/proc/{}/{file}", pid.as_raw_pid());
        std::fs::write(&path, lines).at(Step::IdMapping, file)?;
    }
    Ok(())
}
