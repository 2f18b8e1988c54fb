//! The child's side: what becomes the container's process.
//!
//! ```text
//! build     enter namespaces, make mounts, change the root, attach mounts, devices, terminal, names,
//!           masks; report "built" and wait
//! execute   descriptors, session, limits, user, capabilities, seccomp, exec
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{DumpableBehavior, Signal, chdir, fchdir, pivot_root, setrlimit, umask};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use sys::fork::InChild;
use sys::mount::{Attributes, set_attributes};
use sys::sigset::{self, Set};
use sys::{fork, packet};

use crate::create::{GO, Report, set_terminal_size};
use crate::error::{Attempt, Error, Refusal, Step};
use crate::inside::{Make, Root};
use crate::mounts::{self, Cgroup};
use crate::options::Options;
use crate::plan::Plan;
use crate::{Stdio, devices, init, namespaces, network, paths, sysctl};

/// The code with which the process ends when it could not execute; its report says more.
pub(crate) const FAILED: i32 = 127;

/// The whole life of the process up to exec. Returns only when that failed.
pub(crate) fn run(plan: &Plan, stdio: Stdio, channel: OwnedFd, in_child: &InChild) -> i32 {
    let streams = wait(&channel)
        .and_then(|()| build(plan, stdio, &channel, in_child))
        .and_then(|streams| {
            wait(&channel)?;
            Ok(streams)
        });
    let error = match streams {
        Ok(streams) => execute(plan, streams, channel.as_fd(), in_child),
        Err(error) => error,
    };
    report(&channel, &Report::Failed(error), None);
    FAILED
}

/// Waits for the parent's word. Without a parent there is nothing to be built for.
fn wait(channel: &OwnedFd) -> Result<(), Error> {
    let mut word = [0; GO.len()];
    match packet::receive(channel, &mut word) {
        Ok(packet) if packet.len == GO.len() => Ok(()),
        Ok(_) => fork::exit(FAILED),
        Err(packet::Error::Io(error)) => Err(error).at(Step::Start, ""),
        Err(packet::Error::Truncated) => fork::exit(FAILED),
    }
}

fn report(channel: impl AsFd, report: &Report, descriptor: Option<BorrowedFd<'_>>) {
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    if packet::send(channel, &bytes, descriptor.as_slice()).is_err() {
        // The parent is gone, or would wait for ever for what did not get through: this end tells it.
        fork::exit(FAILED);
    }
}

/// The standard streams as they will be, in the order of their numbers.
struct Streams {
    descriptors: [OwnedFd; 3],
    is_terminal: bool,
}

fn build(
    plan: &Plan,
    stdio: Stdio,
    channel: &OwnedFd,
    in_child: &InChild,
) -> Result<Streams, Error> {
    let linux = &plan.spec.linux;
    let in_user_namespace = plan.namespaces.makes(libc::CLONE_NEWUSER);
    umask(Mode::empty());
    let joined = plan.namespaces.open()?;
    if in_user_namespace {
        become_root()?;
    }
    namespaces::join(&joined)?;
    drop(joined);
    if plan.namespaces.makes(libc::CLONE_NEWCGROUP) {
        in_child.unshare_cgroup().at(Step::Namespace, "cgroup")?;
    }
    let everything = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", everything).at(Step::Propagation, "/")?;

    // Outside: everything that needs a path of the outside.
    let cgroup = Cgroup {
        path: &plan.cgroup,
        has_namespace: plan.namespaces.has(libc::CLONE_NEWCGROUP),
    };
    let prepared = plan
        .spec
        .mounts
        .iter()
        .map(|mount| mounts::prepare(mount, &cgroup))
        .collect::<Result<Vec<_>, _>>()?;
    let etc = plan
        .etc
        .iter()
        .map(|(file, target)| mounts::bind(file, target, &Options::default()));
    let etc = etc.collect::<Result<Vec<_>, _>>()?;
    let mut devices = plan.devices.clone();
    if in_user_namespace {
        devices
            .iter_mut()
            .try_for_each(devices::Device::take_from_outside)?;
    }
    let null = openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Step::Stdio, "/dev/null")?;

    enter_root(&plan.rootfs)?;

    // Inside: no path leads out any more.
    let root = Root::open("/").at(Step::PivotRoot, plan.rootfs.display())?;
    prepared
        .into_iter()
        .try_for_each(|mount| mount.attach(&root))?;
    if has_own_dev(plan) {
        devices.iter().try_for_each(|device| device.make(&root))?;
        devices::make_links(&root)?;
    }
    etc.into_iter().try_for_each(|mount| mount.attach(&root))?;
    let (streams, master) = connect(plan, stdio, null, &root)?;
    set_names(plan)?;
    if plan.namespaces.makes(libc::CLONE_NEWNET) {
        network::loopback_up()?;
    }
    if let Some(interface) = &plan.interface {
        interface.set_up()?;
    }
    sysctl::write(&root, &linux.sysctl)?;
    let cwd = &plan.spec.process.cwd;
    root.get_or_make(cwd, Make::Directory)
        .at(Step::WorkingDirectory, cwd.display())?;
    paths::make_read_only(&root, &linux.readonly_paths)?;
    paths::mask(&root, &linux.masked_paths)?;
    if plan.spec.root.readonly {
        paths::make_root_read_only(&root)?;
    }
    if let Some((propagation, recursive)) = plan.propagation {
        let attributes = Attributes {
            propagation,
            ..Attributes::default()
        };
        set_attributes(&root, attributes, recursive).at(Step::Propagation, "/")?;
    }
    report(channel, &Report::Built, master.as_ref().map(AsFd::as_fd));
    Ok(streams)
}

/// Root of the new user namespace, whose mappings the parent has written.
fn become_root() -> Result<(), Error> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_groups(&[]).at(Step::Credentials, "root of the user namespace")?;
    set_thread_res_gid(gid, gid, gid).at(Step::Credentials, "root of the user namespace")?;
    set_thread_res_uid(uid, uid, uid).at(Step::Credentials, "root of the user namespace")
}

/// The container's /dev is made by us, unless the document mounts one of the outside there.
fn has_own_dev(plan: &Plan) -> bool {
    !plan.spec.mounts.iter().any(|mount| {
        let is_bind = mount
            .options
            .iter()
            .any(|option| option == "bind" || option == "rbind");
        is_bind
            && mount
                .destination
                .components()
                .eq(Path::new("/dev").components())
    })
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

/// The standard streams, and the master if they are a terminal.
fn connect(
    plan: &Plan,
    stdio: Stdio,
    null: OwnedFd,
    root: &Root,
) -> Result<(Streams, Option<OwnedFd>), Error> {
    let uid = plan.identity.uid;
    let copy = |fd: &OwnedFd| fd.try_clone().at(Step::Stdio, "copy");
    match stdio {
        Stdio::Terminal { rows, columns } => {
            let devices::Terminal { master, slave } = devices::terminal(root, uid)?;
            set_terminal_size(&master, rows, columns).at(Step::Terminal, "size")?;
            let descriptors = [copy(&slave)?, copy(&slave)?, slave];
            Ok((
                Streams {
                    descriptors,
                    is_terminal: true,
                },
                Some(master),
            ))
        }
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let or_null = |stream: Option<OwnedFd>| match stream {
                Some(stream) => Ok(stream),
                None => copy(&null),
            };
            let descriptors = [or_null(stdin)?, or_null(stdout)?, or_null(stderr)?];
            Ok((
                Streams {
                    descriptors,
                    is_terminal: false,
                },
                None,
            ))
        }
    }
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

/// Becomes the command, or its init. Returns only when that failed.
fn execute(plan: &Plan, streams: Streams, channel: BorrowedFd<'_>, in_child: &InChild) -> Error {
    let prepare = || -> Result<bool, Error> {
        // Until exec, the program behind /proc/<pid>/exe is the outside's (CVE-2019-5736).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .at(Step::Credentials, "")?;
        rustix::process::setsid().at(Step::Terminal, "session")?;
        let is_terminal = take_streams(streams)?;
        // From here on nothing of the outside is open, whatever path the document or the image names.
        in_child
            .close_from(3, Some(channel))
            .at(Step::Stdio, "descriptors")?;
        for (resource, limit) in &plan.rlimits {
            setrlimit(*resource, *limit).at(Step::ResourceLimit, format_args!("{resource:?}"))?;
        }
        sigset::reset_actions();
        umask(Mode::from_raw_mode(
            plan.spec.process.user.umask.unwrap_or(0o022),
        ));
        Ok(is_terminal)
    };
    match prepare() {
        Ok(is_terminal) if plan.init => under_init(plan, is_terminal, in_child, channel),
        Ok(_) => execute_command(plan),
        Err(error) => error,
    }
}

/// Puts the streams in their places. True if they are a terminal, which then is the session's.
fn take_streams(streams: Streams) -> Result<bool, Error> {
    let high = |stream| fcntl_dupfd_cloexec(stream, 3).at(Step::Stdio, "copy");
    // Out of the way first: a stream may have the number of another's place.
    let [stdin, stdout, stderr] = streams.descriptors;
    let (stdin, stdout, stderr) = (high(stdin)?, high(stdout)?, high(stderr)?);
    rustix::stdio::dup2_stdin(&stdin).at(Step::Stdio, "stdin")?;
    rustix::stdio::dup2_stdout(&stdout).at(Step::Stdio, "stdout")?;
    rustix::stdio::dup2_stderr(&stderr).at(Step::Stdio, "stderr")?;
    if streams.is_terminal {
        rustix::process::ioctl_tiocsctty(&stdin).at(Step::Terminal, "controlling terminal")?;
    }
    Ok(streams.is_terminal)
}

/// The process splits: its child executes the command, it becomes the init. Returns only when that failed.
fn under_init(
    plan: &Plan,
    is_terminal: bool,
    in_child: &InChild,
    channel: BorrowedFd<'_>,
) -> Error {
    let forked = init::fork(|| {
        let error = match init::lead_group(is_terminal) {
            Ok(()) => execute_command(plan),
            Err(error) => error,
        };
        report(channel, &Report::Failed(error), None);
        FAILED
    });
    let command = match forked {
        Ok(command) => command,
        Err(error) => return error,
    };
    // The init keeps nothing open, so that the streams end with the command, and no right that the command lacks but
    // for its seccomp program.
    if in_child.close_from(0, None).is_err() || enter_user(plan, false).is_err() {
        fork::exit(FAILED);
    }
    fork::exit(init::serve(command))
}

/// The last steps. Returns only when one failed.
fn execute_command(plan: &Plan) -> Error {
    let last = || -> Result<(), Error> {
        enter_user(plan, true)?;
        Set::empty().block_only().at(Step::Signals, "")?;
        // A container does not outlive what looks after it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .at(Step::Signals, "parent's end")?;
        if let Some(program) = plan
            .seccomp
            .as_ref()
            .filter(|_| plan.spec.process.no_new_privileges)
        {
            sys::seccomp::install(program).at(Step::Seccomp, "")?;
        }
        Ok(())
    };
    match last() {
        Ok(()) => plan.command.execute(),
        Err(error) => error,
    }
}

/// Working directory, user, groups and capabilities.
///
/// A seccomp program needs CAP_SYS_ADMIN or no_new_privs. Without the latter it goes in (if asked for) before the
/// capabilities are given up, and must itself allow the calls that do that, as Docker's does; with it, it comes last.
fn enter_user(plan: &Plan, with_seccomp: bool) -> Result<(), Error> {
    let (identity, process) = (&plan.identity, &plan.spec.process);
    let groups: Vec<Gid> = identity
        .groups
        .iter()
        .map(|&gid| Gid::from_raw(gid))
        .collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let name = format!("{}:{}", identity.uid, identity.gid);
    // Before the change of user for directories that only root may enter, after it for those that root may not
    // (a network file system's).
    let entered = enter_directory(&process.cwd);
    if process.no_new_privileges {
        set_no_new_privs(true).at(Step::NoNewPrivileges, "")?;
    } else if let Some(program) = plan.seccomp.as_ref().filter(|_| with_seccomp) {
        sys::seccomp::install(program).at(Step::Seccomp, "")?;
    }
    plan.capabilities.bound()?;
    set_keep_capabilities(true).at(Step::Credentials, &name)?;
    set_thread_groups(&groups).at(Step::Credentials, format_args!("{name} (groups)"))?;
    set_thread_res_gid(gid, gid, gid).at(Step::Credentials, &name)?;
    set_thread_res_uid(uid, uid, uid).at(Step::Credentials, &name)?;
    set_keep_capabilities(false).at(Step::Credentials, &name)?;
    if entered.is_err() {
        enter_directory(&process.cwd)?;
    }
    plan.capabilities.install()
}

fn enter_directory(path: &Path) -> Result<(), Error> {
    let enter = || -> Result<(), crate::error::Cause> {
        // Not a plain chdir: through /proc/self/fd it would follow a descriptor that was left open (CVE-2024-21626).
        let directory = Root::open("/")?.get(path, OFlags::PATH | OFlags::DIRECTORY)?;
        fchdir(&directory)?;
        let inside = rustix::process::getcwd(Vec::new())?;
        if !inside.as_bytes().starts_with(b"/") {
            return Err(Refusal::NotAnAbsolutePath.into());
        }
        Ok(())
    };
    enter().at(Step::WorkingDirectory, path.display())
}
