//! A request, understood: everything that can be refused without touching the system has been refused.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::devices::{self, Device};
use crate::draft::Draft;
use crate::error::{Attempt, Error, Refusal, Step};
use crate::execute::Execution;
use crate::inside::Root;
use crate::namespaces::{Elsewhere, Namespaces};
use crate::network::Interface;
use crate::spec::{self, Spec};
use crate::user::{self, Wanted};
use crate::{EtcFiles, Network, PidNamespace, Request, destinations, options, sysctl, volumes};

/// What a container's process is built from.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) rootfs: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) namespaces: Namespaces,
    /// A process in the PID namespace to join, as a pidfd.
    pub(crate) pid: Option<OwnedFd>,
    pub(crate) devices: Vec<Device>,
    pub(crate) execution: Execution,
    pub(crate) interfaces: Vec<Interface>,
    /// `MS_*` of the root mount in the end, and whether recursively.
    pub(crate) propagation: Option<(u64, bool)>,
    /// Files outside and where they go inside.
    pub(crate) etc: Vec<(PathBuf, PathBuf)>,
    /// Directories inside that are to be writable.
    pub(crate) volumes: Vec<PathBuf>,
    /// Where the document's bind mounts share something of the host's, and whether that is filled.
    pub(crate) shares: BTreeMap<PathBuf, bool>,
    /// Supplementary groups of every process of the container, as the request names them.
    pub(crate) groups: Vec<String>,
    /// The machine is the container's own.
    pub(crate) own_machine: bool,
}

impl Plan {
    /// Understands a request, but for its streams.
    pub(crate) fn new(request: Request) -> Result<Plan, Error> {
        let mut spec = request.spec;
        let (interfaces, network) = match request.network {
            Network::Loopback => (Vec::new(), None),
            Network::Interfaces(interfaces) => (interfaces, None),
            Network::Join(namespace) => (Vec::new(), Some(namespace)),
        };
        let pid = match request.pid {
            PidNamespace::Own => None,
            PidNamespace::Join(process) => Some(process),
        };
        let elsewhere = Elsewhere {
            network,
            joins_pid: pid.is_some(),
        };
        let namespaces = Namespaces::parse(&spec.linux.namespaces, elsewhere)?;
        sysctl::check(&spec.linux.sysctl, &namespaces, request.own_machine)?;
        check_namespaces(&spec, &namespaces, !interfaces.is_empty())?;
        let propagation = match spec.linux.rootfs_propagation.as_deref() {
            None | Some("") => None,
            Some(word) => Some(
                options::propagation(word)
                    .ok_or(Refusal::UnknownName)
                    .at(Step::Propagation, word)?,
            ),
        };
        destinations::order(&mut spec.mounts);
        spec.mounts.iter().try_for_each(destinations::check)?;
        let root = Root::open(&request.rootfs).at(Step::PivotRoot, request.rootfs.display())?;
        let wanted = Wanted {
            user: request.user.as_deref(),
            document: &spec.process.user,
            groups: &request.groups,
        };
        let execution = Draft::new(&spec.process, request.seccomp, request.init)?
            .finish(user::find(&root, &wanted)?)?;
        Ok(Plan {
            devices: devices::list(&spec.linux.devices)?,
            etc: etc_paths(&request.etc, &request.run_dir, &spec.mounts),
            volumes: volumes::list(request.volumes, &spec.mounts)?,
            shares: request
                .shares
                .into_iter()
                .map(|share| (destinations::clean(&share.destination), share.fill))
                .collect(),
            rootfs: request.rootfs,
            cgroup: request.cgroup,
            groups: request.groups,
            own_machine: request.own_machine,
            spec,
            namespaces,
            pid,
            execution,
            interfaces,
            propagation,
        })
    }

    /// Whether a mount shares something of the host's, and if so, whether that is filled.
    pub(crate) fn share(&self, mount: &spec::Mount) -> Option<bool> {
        let fill = self.shares.get(&destinations::clean(&mount.destination))?;
        destinations::is_bind(mount).then_some(*fill)
    }

    /// The user as the outside numbers it: another one where there is a user namespace.
    pub(crate) fn outside_uid(&self) -> u32 {
        let inside = self.execution.identity.uid;
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

/// Refuses what needs a namespace that the container does not have of its own.
fn check_namespaces(
    spec: &Spec,
    namespaces: &Namespaces,
    has_interface: bool,
) -> Result<(), Error> {
    if namespaces.has(libc::CLONE_NEWUSER)
        && (spec.linux.uid_mappings.is_empty() || spec.linux.gid_mappings.is_empty())
    {
        return Err(Refusal::Missing).at(Step::IdMapping, "uidMappings and gidMappings");
    }
    if has_interface && !namespaces.makes(libc::CLONE_NEWNET) {
        return Err(Refusal::NeedsNamespace).at(Step::Interface, "eth0");
    }
    let has_own_names = namespaces.has(libc::CLONE_NEWUTS);
    if !has_own_names && (spec.hostname.is_some() || spec.domainname.is_some()) {
        return Err(Refusal::NeedsNamespace).at(Step::Hostname, "");
    }
    Ok(())
}

/// The files of `etc` and where each goes, but for those on whose path the document mounts something. Written by
/// [`write_etc`].
fn etc_paths(etc: &EtcFiles, run_dir: &Path, mounts: &[spec::Mount]) -> Vec<(PathBuf, PathBuf)> {
    named(etc)
        .map(|(name, _)| (run_dir.join(name), Path::new("/etc").join(name)))
        .filter(|(_, target)| {
            !mounts
                .iter()
                .any(|mount| destinations::is_at(mount, target))
        })
        .collect()
}

/// Makes the run directory and the files of `etc` in it.
pub(crate) fn write_etc(etc: &EtcFiles, run_dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(run_dir).at(Step::RunDirectory, run_dir.display())?;
    for (name, content) in named(etc) {
        std::fs::write(run_dir.join(name), content)
            .at(Step::EtcFile, format_args!("/etc/{name}"))?;
    }
    Ok(())
}

pub(crate) fn named(etc: &EtcFiles) -> impl Iterator<Item = (&'static str, &String)> {
    let files = [
        ("hosts", &etc.hosts),
        ("hostname", &etc.hostname),
        ("resolv.conf", &etc.resolv_conf),
    ];
    files
        .into_iter()
        .filter_map(|(name, content)| Some((name, content.as_ref()?)))
}
