//! Which namespaces are made with the process, which are joined, which are shared.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec::{self, NamespaceKind};

/// Namespaces that the request decides about, not the document.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// The network namespace to join.
    pub(crate) network: Option<OwnedFd>,
    /// The process is made in a PID namespace that exists.
    pub(crate) joins_pid: bool,
}

/// A container's namespaces.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of those to make.
    new: i32,
    /// Those to join by their paths.
    join: Vec<(LinkNameSpaceType, PathBuf)>,
    /// The network namespace to join.
    network: Option<OwnedFd>,
    /// `CLONE_NEW*` of all that are joined.
    joined: i32,
}

impl Namespaces {
    /// The document's namespaces, but for those of `elsewhere`.
    pub(crate) fn parse(
        document: &[spec::Namespace],
        elsewhere: Elsewhere,
    ) -> Result<Namespaces, Error> {
        let mut namespaces = Namespaces {
            network: elsewhere.network,
            ..Namespaces::default()
        };
        let mut decided = 0;
        if namespaces.network.is_some() {
            decided |= libc::CLONE_NEWNET;
        }
        if elsewhere.joins_pid {
            decided |= libc::CLONE_NEWPID;
        }
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
            if decided & flag != 0 {
                continue;
            }
            match &namespace.path {
                None => namespaces.new |= flag,
                // A user namespace is joined before all else, a PID namespace by a pidfd (Request::pid), and a mount
                // namespace has its root already: all of that is exec's.
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
        namespaces.joined |= decided;
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

    /// The network namespace to join, if it is given as a descriptor.
    pub(crate) fn network(&self) -> Option<BorrowedFd<'_>> {
        self.network.as_ref().map(AsFd::as_fd)
    }

    /// `CLONE_NEW*` of all that the container does not share with its parent.
    pub(crate) fn flags(&self) -> i32 {
        self.new | self.joined
    }

    /// Those that are made with the process. The cgroup namespace is not: clone3 would root it at the parent's
    /// cgroup, before the child is in its own.
    pub(crate) fn clone_flags(&self) -> i32 {
        self.new & !libc::CLONE_NEWCGROUP
    }

    /// Opens those to join, where their paths can be named.
    pub(crate) fn open(&self) -> Result<Vec<(LinkNameSpaceType, OwnedFd)>, Error> {
        let mut opened = Vec::new();
        for (kind, path) in &self.join {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::openat(CWD, path, flags, Mode::empty());
            opened.push((*kind, namespace.at(Step::Namespace, path.display())?));
        }
        if let Some(network) = &self.network {
            let network = network.try_clone().at(Step::Namespace, "network")?;
            opened.push((LinkNameSpaceType::Network, network));
        }
        Ok(opened)
    }
}

/// Enters opened namespaces.
pub(crate) fn join(namespaces: &[(LinkNameSpaceType, OwnedFd)]) -> Result<(), Error> {
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
