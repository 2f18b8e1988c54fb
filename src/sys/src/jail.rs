//! A process that is born without everything it was not given: namespaces, an empty root, no capabilities.
//!
//! ```text
//! parent                                   child (clone3 into its namespaces and cgroup)
//!   clone3 ------------------------------>   waits
//!   maps one user and one group ---------->  descriptors, then every other is closed
//!                                            root: an empty, read-only tmpfs; the old one is detached
//!                                            limits, bounding set, securebits
//!                                            groups, group, user; every capability set emptied
//!                                            no_new_privs, death signal (or a session of its own)
//!                                            execveat of the program's descriptor, which must be static
//! ```
//!
//! Invariants: what fails is written to the jail's pipe ([`crate::last_words`]) with its step, and nothing is executed;
//! the program's file is opened before, so that no path is looked up after the clone. Deliberately absent: seccomp,
//! which the program installs itself when it knows its threads.

#![expect(
    unsafe_code,
    reason = "execveat and dup3 onto chosen numbers have no safe form"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, chdir, fchdir, pivot_root, set_parent_process_death_signal,
    setrlimit, setsid,
};
use rustix::thread::{
    CapabilitySet, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::fork::{self, Child, InChild};
use crate::last_words::{self, LastWords};

mod capabilities;

/// The code of a child that could not become what it was to be.
pub const FAILED: i32 = 71;

/// Namespaces of every jail besides the user namespace and the cgroup namespace, which is made in the child: it begins at
/// the cgroup of the process that makes it.
const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// How much of a jail the host allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walls {
    /// Namespaces of every kind.
    All,
    /// All but a user namespace: where the host forbids those; needs root.
    NoUserNamespace,
    /// No namespace at all and the parent's root: what remains without root where user namespaces are forbidden. No new
    /// privileges, limits and closed descriptors there are.
    None,
}

/// The network of a jail that has namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// None: a namespace of its own.
    None,
    /// The parent's.
    Shared,
}

/// How long a jailed process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is killed when its parent dies.
    WithParent,
    /// Until it is killed; the leader of a session of its own. See [`spawn_apart`].
    Apart,
}

/// Steps that may fail, as a person reads them; [`LastWords::SetUp`] carries an index.
pub const STEPS: [&str; 9] = [
    "wait for its user namespace's maps",
    "place its descriptors",
    "enter an empty root",
    "set its limits",
    "drop its capabilities",
    "change its user",
    "renounce privileges",
    "tie its life to the monitor's, or part from it",
    "execute its program",
];

#[derive(Debug, Clone, Copy)]
enum Step {
    Maps,
    Descriptors,
    Root,
    Limits,
    Capabilities,
    User,
    Privileges,
    Death,
    Execute,
}

/// A jail to be made.
#[derive(Debug)]
pub struct Jail<'a> {
    /// The walls.
    pub walls: Walls,
    /// The host's user and group that the program runs as; the only ones mapped in the user namespace, to themselves. An
    /// ordinary user's own, or any of root's choice.
    pub user: (u32, u32),
    /// The cgroup v2 directory in which it is born.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Resource limits, soft and hard alike.
    pub limits: &'a [(Resource, u64)],
    /// Its standard input, output and error output, and further descriptors at the numbers from 3 on.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Which of them is the pipe for last words.
    pub words: RawFd,
    /// Its own directory of descriptors (/proc/self/fd), which it finds by no path, comes behind them.
    pub links: bool,
    /// The network that it is on.
    pub network: Network,
    /// How long it lives.
    pub life: Life,
    /// The capabilities that it keeps; none but with the host's user namespace.
    pub kept: CapabilitySet,
    /// The program: a static one, which any user may read and execute.
    pub program: BorrowedFd<'a>,
    /// Its arguments, the name included.
    pub arguments: &'a [CString],
    /// Its environment.
    pub environment: &'a [CString],
}

/// Why a jail could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host does not let this user have a user namespace.
    #[error("this host does not allow user namespaces to this user")]
    UserNamespaces(#[source] io::Error),
    /// The process could not be made.
    #[error("the jailed process could not be made")]
    Clone(#[source] io::Error),
    /// Its user namespace could not be mapped.
    #[error("the jail's user namespace could not be given its user")]
    Maps(#[source] io::Error),
}

/// Makes the jail and the process in it, without waiting for its exec: what fails there is in the pipe for last words.
/// The caller must be a process of one thread.
pub fn spawn(jail: &Jail<'_>) -> Result<Child, Error> {
    let network = match jail.network {
        Network::None => libc::CLONE_NEWNET,
        Network::Shared => 0,
    };
    let namespaces = match jail.walls {
        Walls::All => libc::CLONE_NEWUSER | NAMESPACES | network,
        Walls::NoUserNamespace => NAMESPACES | network,
        Walls::None => 0,
    };
    let (go, may_go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map(|(read, write)| (write, read))
        .map_err(|errno| Error::Clone(errno.into()))?;
    let child = fork::fork(namespaces, jail.cgroup, |in_child| {
        // The parent's copy of the pipe's end must not keep the child waiting for a parent that died.
        let closed = in_child.close(go.as_fd());
        let error = match closed {
            Ok(()) => become_program(jail, &may_go, &in_child),
            Err(error) => (Step::Maps, error),
        };
        tell(jail, error)
    });
    let child = child.map_err(|error| match jail.walls {
        Walls::All => refused(error),
        Walls::NoUserNamespace | Walls::None => Error::Clone(error),
    })?;
    if jail.walls == Walls::All {
        map(&child, jail.user).map_err(Error::Maps)?;
    }
    match rustix::io::write(&go, &[1]) {
        // It has ended already: its last words say why.
        Ok(_) | Err(Errno::PIPE) => Ok(child),
        Err(errno) => Err(Error::Clone(errno.into())),
    }
}

/// As [`spawn`], for a process that lives apart from the caller: it is no child of the caller's, which does not have to reap
/// it. Returns its number.
pub fn spawn_apart(jail: &Jail<'_>) -> Result<Pid, Error> {
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::Clone(errno.into()))?;
    // The parent of the jailed process: it ends at once, and leaves its child to the host's first process.
    let parent = fork::fork(0, None, |_| {
        let (pid, errno) = match spawn(jail) {
            Ok(child) => (child.pid.as_raw_pid(), 0),
            Err(Error::UserNamespaces(error) | Error::Clone(error) | Error::Maps(error)) => {
                (0, error.raw_os_error().unwrap_or(libc::EIO))
            }
        };
        let said = [pid, errno].map(i32::to_ne_bytes);
        match rustix::io::write(&tell, said.as_flattened()) {
            Ok(8) => 0,
            _ => FAILED,
        }
    });
    let parent = parent.map_err(Error::Clone)?;
    drop(tell);
    let mut said = [[0; 4]; 2];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(&told, said.as_flattened_mut()));
    let reaped = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(parent.pid), rustix::process::WaitOptions::empty())
    });
    reaped.map_err(|errno| Error::Clone(errno.into()))?;
    let [pid, errno] = said.map(i32::from_ne_bytes);
    match (read, Pid::from_raw(pid)) {
        (Ok(8), Some(pid)) => Ok(pid),
        (Ok(8), None) => Err(Error::Clone(io::Error::from_raw_os_error(errno))),
        _ => Err(Error::Clone(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Tries whether this host lets this user have namespaces of every kind, and leaves nothing behind.
pub fn try_namespaces() -> Result<(), Error> {
    let namespaces = libc::CLONE_NEWUSER | NAMESPACES | libc::CLONE_NEWNET;
    let child = fork::fork(namespaces, None, |_| 0).map_err(refused)?;
    rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty())
    })
    .map(drop)
    .map_err(|errno| Error::Clone(errno.into()))
}

/// Why clone3 refused a user namespace.
fn refused(error: io::Error) -> Error {
    match error.raw_os_error() {
        // EPERM: a sysctl or a security module; ENOSPC and EUSERS: max_user_namespaces; EINVAL: not in this kernel.
        Some(libc::EPERM | libc::ENOSPC | libc::EUSERS | libc::EINVAL) => {
            Error::UserNamespaces(error)
        }
        _ => Error::Clone(error),
    }
}

/// Maps the user and the group to themselves.
fn map(child: &Child, (user, group): (u32, u32)) -> io::Result<()> {
    let file = |name: &str| format!("/proc/{}/{name}", child.pid.as_raw_pid());
    if !rustix::process::geteuid().is_root() {
        // Only then may an ordinary user map a group.
        std::fs::write(file("setgroups"), "deny")?;
    }
    std::fs::write(file("uid_map"), format!("{user} {user} 1"))?;
    std::fs::write(file("gid_map"), format!("{group} {group} 1"))
}

/// Writes what went wrong where the parent reads it, and gives the exit code.
fn tell(jail: &Jail<'_>, (step, error): (Step, io::Error)) -> i32 {
    let words = LastWords::SetUp {
        step: step as u32,
        errno: error.raw_os_error().unwrap_or(0),
    };
    // Before its descriptors are in place the pipe has the parent's number, afterwards its own.
    let pipe = match step {
        Step::Maps | Step::Descriptors => jail.descriptors[jail.words as usize].as_raw_fd(),
        _ => jail.words,
    };
    last_words::write(pipe, &words);
    FAILED
}

/// The child's life up to exec. Returns only when that failed.
fn become_program(jail: &Jail<'_>, may_go: &OwnedFd, in_child: &InChild) -> (Step, io::Error) {
    let result = (|| {
        at(Step::Maps, wait(may_go))?;
        let program = at(Step::Descriptors, place_descriptors(jail, in_child))?;
        if jail.walls != Walls::None {
            at(Step::Root, in_child.unshare_cgroup())?;
            if jail.walls == Walls::All {
                forbid_namespaces();
            }
            at(Step::Root, enter_empty_root())?;
        }
        for &(resource, limit) in jail.limits {
            at(Step::Limits, limit_to(resource, limit))?;
        }
        at(
            Step::Capabilities,
            capabilities::lock(jail.walls, jail.kept),
        )?;
        at(Step::User, change_user(jail))?;
        at(Step::Capabilities, capabilities::keep(jail.kept))?;
        at(Step::Privileges, set_no_new_privs(true))?;
        // After the change of user, which would take it back. A parent that died before it has closed its sockets.
        let bound = match jail.life {
            Life::WithParent => set_parent_process_death_signal(Some(Signal::KILL)),
            Life::Apart => setsid().map(drop),
        };
        at(Step::Death, bound)?;
        Ok(program)
    })();
    match result {
        Err(failed) => failed,
        Ok(program) => (
            Step::Execute,
            fork::execve_descriptor(program, jail.arguments, jail.environment),
        ),
    }
}

fn at<T>(step: Step, result: Result<T, impl Into<io::Error>>) -> Result<T, (Step, io::Error)> {
    result.map_err(|error| (step, error.into()))
}

fn wait(may_go: &OwnedFd) -> io::Result<()> {
    let mut word = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(may_go, &mut word))? {
        1 => Ok(()),
        // The parent died or could not map.
        _ => fork::exit(FAILED),
    }
}

/// Puts the descriptors at their numbers and closes every other but the program's, whose number it returns.
fn place_descriptors(jail: &Jail<'_>, in_child: &InChild) -> io::Result<RawFd> {
    // This process is the one that will execute the program.
    let own_links = jail.links.then(own_links).transpose()?;
    let links = own_links.as_ref().map(AsFd::as_fd);
    let count = (jail.descriptors.len() + usize::from(jail.links)) as RawFd;
    // Out of the way first: a source may have the number of another's target.
    let moved = jail
        .descriptors
        .iter()
        .chain(&links)
        .chain([&jail.program])
        .map(|descriptor| {
            rustix::io::fcntl_dupfd_cloexec(descriptor, count + 1).map(IntoRawFd::into_raw_fd)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // By its owner, before every number is closed that is not a target.
    drop(own_links);
    for (from, to) in moved.iter().zip(0..count) {
        // SAFETY: plain system call on integers. Nothing in this process, which only executes a program from here on,
        // relies on what the target number was.
        if unsafe { libc::dup2(*from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // The program's descriptor comes right after them and is closed by its execution.
    let program = count;
    // SAFETY: as above.
    if unsafe { libc::dup3(moved[moved.len() - 1], program, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    in_child.close_from(program + 1, None)?;
    Ok(program)
}

/// A mount of it that has no parent: nothing else of /proc can be reached from there.
fn own_links() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, "/proc/self/fd", flags)?)
}

/// Makes an empty, read-only tmpfs the root and leaves nothing of the old one.
fn enter_empty_root() -> rustix::io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0555")?;
    fsconfig_set_string(&context, "nr_inodes", "1")?;
    fsconfig_set_string(&context, "nr_blocks", "1")?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(&root)?;
    // The old root is then stacked on the new one, whence it is taken.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// Forbids processes in the jail's user namespace to make another, in which it would have every capability. One reason more than
/// seccomp; a host whose /proc/sys cannot be written has the others.
fn forbid_namespaces() {
    let _ = std::fs::write("/proc/sys/user/max_user_namespaces", "0");
}

fn limit_to(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    // Never raised: a lower limit of the parent's stays.
    let old = rustix::process::getrlimit(resource);
    let limit = old.maximum.map_or(limit, |maximum| maximum.min(limit));
    setrlimit(
        resource,
        Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        },
    )
}

fn change_user(jail: &Jail<'_>) -> rustix::io::Result<()> {
    let (user, group) = jail.user;
    if rustix::process::getuid().as_raw() == user {
        // An ordinary user, or root in a user namespace: may not drop groups, and has nothing else to change.
        return Ok(());
    }
    become_user(user, group)
}

fn become_user(user: u32, group: u32) -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Takes everything from the calling process that a program does not need which only talks over what it has open: every
/// capability for ever, the right to gain privileges, and its user, if it is to become another. It dies with its parent.
pub fn renounce(user: Option<(u32, u32)>) -> io::Result<()> {
    let may_lock = rustix::process::geteuid().is_root();
    let walls = if may_lock { Walls::All } else { Walls::None };
    capabilities::lock(walls, CapabilitySet::empty())?;
    if let Some((user, group)) = user {
        become_user(user, group)?;
    }
    capabilities::keep(CapabilitySet::empty())?;
    set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// /dev/null, for standard streams that a jailed program does not have.
pub fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
