//! The first half of a container's first process: from a copy of its parent to a process in its own namespaces, root and
//! names.
//!
//! ```text
//! namespaces -> mounts made outside -> change of the root -> mounts attached inside, devices, volumes, streams,
//! names, network, parameters -> masks
//! ```

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{chdir, pivot_root, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use sys::fork::InChild;
use sys::mount::{Attributes, set_attributes};

use crate::error::{Attempt, Error, Step};
use crate::execute::Streams;
use crate::inside::{Make, Root};
use crate::limits::ManyFiles;
use crate::mounts::{self, Cgroup, Detached};
use crate::options::Options;
use crate::plan::Plan;
use crate::streams::{self, Place};
use crate::{
    Interface, Stdio, destinations, devices, namespaces, network, paths, spec, sysctl, volumes,
};

/// Builds the process up. Gives back the standard streams, and the master if they are a terminal.
pub(crate) fn build(
    plan: &Plan,
    stdio: &Stdio,
    in_child: &InChild,
) -> Result<(Streams, Option<OwnedFd>), Error> {
    let _many_files = ManyFiles::allow();
    umask(Mode::empty());
    enter_namespaces(plan, in_child)?;
    let prepared = prepare(plan)?;
    enter_root(&plan.rootfs)?;
    // Inside: no path leads out any more.
    let root = Root::open("/").at(Step::PivotRoot, plan.rootfs.display())?;
    attach(plan, prepared, &root)?;
    volumes::make(&root, &plan.volumes, plan.spec.root.readonly)?;
    let place = Place {
        root: &root,
        uid: plan.execution.identity.uid,
        has_console: true,
        in_user_namespace: plan.namespaces.makes(libc::CLONE_NEWUSER),
    };
    let connected = streams::connect(stdio, &place)?;
    set_names(plan)?;
    if plan.namespaces.makes(libc::CLONE_NEWNET) {
        network::loopback_up()?;
    }
    plan.interfaces.iter().try_for_each(Interface::set_up)?;
    sysctl::write(&root, &plan.spec.linux.sysctl)?;
    let cwd = &plan.spec.process.cwd;
    root.get_or_make(cwd, Make::Directory)
        .at(Step::WorkingDirectory, cwd.display())?;
    close_paths(plan, &root)?;
    Ok(connected)
}

/// Enters the namespaces that are not made with the process, and cuts its mounts off from the outside's.
fn enter_namespaces(plan: &Plan, in_child: &InChild) -> Result<(), Error> {
    let joined = plan.namespaces.open()?;
    if plan.namespaces.makes(libc::CLONE_NEWUSER) {
        become_root()?;
    }
    namespaces::join(&joined)?;
    drop(joined);
    if plan.namespaces.makes(libc::CLONE_NEWCGROUP) {
        in_child.unshare_cgroup().at(Step::Namespace, "cgroup")?;
    }
    let everything = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", everything).at(Step::Propagation, "/")
}

/// What needs a path of the outside.
struct Prepared {
    mounts: Vec<Detached>,
    etc: Vec<Detached>,
    devices: Vec<devices::Device>,
}

fn prepare(plan: &Plan) -> Result<Prepared, Error> {
    let cgroup = Cgroup {
        path: &plan.cgroup,
        has_namespace: plan.namespaces.has(libc::CLONE_NEWCGROUP),
    };
    let mounts = plan
        .spec
        .mounts
        .iter()
        .map(|mount| match plan.share(mount) {
            Some(fill) => mounts::share(mount, fill),
            None => mounts::prepare(mount, &cgroup),
        });
    let etc = plan
        .etc
        .iter()
        .map(|(file, target)| mounts::bind(file, target, &Options::default()));
    let mut devices = plan.devices.clone();
    if plan.namespaces.makes(libc::CLONE_NEWUSER) {
        devices
            .iter_mut()
            .try_for_each(devices::Device::take_from_outside)?;
    }
    Ok(Prepared {
        mounts: mounts.collect::<Result<_, _>>()?,
        etc: etc.collect::<Result<_, _>>()?,
        devices,
    })
}

fn attach(plan: &Plan, prepared: Prepared, root: &Root) -> Result<(), Error> {
    let Prepared {
        mounts,
        etc,
        devices,
    } = prepared;
    mounts
        .into_iter()
        .try_for_each(|mount| mount.attach(root))?;
    if has_own_dev(plan) {
        devices.iter().try_for_each(|device| device.make(root))?;
        devices::make_links(root)?;
    }
    etc.into_iter().try_for_each(|mount| mount.attach(root))
}

/// Read-only and masked paths, the root itself, and its propagation.
fn close_paths(plan: &Plan, root: &Root) -> Result<(), Error> {
    paths::make_read_only(root, &plan.spec.linux.readonly_paths)?;
    paths::mask(root, &plan.spec.linux.masked_paths)?;
    if plan.spec.root.readonly {
        paths::make_root_read_only(root)?;
    }
    if let Some((propagation, recursive)) = plan.propagation {
        let attributes = Attributes {
            propagation,
            ..Attributes::default()
        };
        set_attributes(root, attributes, recursive).at(Step::Propagation, "/")?;
    }
    Ok(())
}

/// Root of the new user namespace, whose mappings the parent has written.
pub(crate) fn become_root() -> Result<(), Error> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_groups(&[]).at(Step::Credentials, "root of the user namespace")?;
    set_thread_res_gid(gid, gid, gid).at(Step::Credentials, "root of the user namespace")?;
    set_thread_res_uid(uid, uid, uid).at(Step::Credentials, "root of the user namespace")
}

/// The container's /dev is made by us, unless the document mounts one of the outside there.
fn has_own_dev(plan: &Plan) -> bool {
    let is_theirs = |mount: &spec::Mount| {
        destinations::is_bind(mount) && destinations::is_at(mount, Path::new("/dev"))
    };
    !plan.spec.mounts.iter().any(is_theirs)
}

/// Makes a directory the root of this mount namespace and leaves nothing of the old one.
fn enter_root(rootfs: &Path) -> Result<(), Error> {
    let enter = || -> Result<(), Errno> {
        // pivot_root wants a mount; and one of our own can be changed in a user namespace.
        mount_bind_recursive(rootfs, rootfs)?;
        chdir(rootfs)?;
        // The old root comes to lie on top of the new one, at the same place, and is taken off.
        pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        chdir("/")
    };
    enter().at(Step::PivotRoot, rootfs.display())
}

fn set_names(plan: &Plan) -> Result<(), Error> {
    if let Some(name) = &plan.spec.hostname {
        rustix::system::sethostname(name.as_bytes()).at(Step::Hostname, name)?;
    }
    if let Some(name) = &plan.spec.domainname {
        rustix::system::setdomainname(name.as_bytes()).at(Step::Hostname, name)?;
    }
    Ok(())
}
