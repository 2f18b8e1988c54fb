//! An OCI runtime-spec document to a running process: namespaces, mounts, devices, limits and credentials; and further
//! processes in a container that runs.
//!
//! ```text
//!            create            advance            start            advance
//! Request ----------> Building -------> Created ---------> Starting -------> Running (executes)
//! ExecRequest ----------------- exec ---------------------> Starting -------> Running
//!                \_______________________________________________/
//!                   Error: which step, on what, why; the process is killed
//!
//! our process                          the container's process
//! plan         all parsing, users
//! create       cgroup, clone3 -------> built up: mounts, root, devices, names   (build)
//!              move the interface in, under its own address
//! start        go --------------------> executed: limits, user, seccomp, exec   (execute)
//! exec         clone3 ----------------> enter the namespaces, clone3 (enter), then the same execute
//! ```
//!
//! Nothing here waits for the container's process: making, starting and executing are begun, and advanced whenever their
//! descriptor is readable. A value that is dropped half-way kills its process; [`sweep`] reaps such processes.
//!
//! Used by the agent, in the guest and on the host (`--isolation native`): the same code, so that both can be compared.
//! Invariants: the calling program has one thread; no path of the image is ever resolved outside its root; no descriptor
//! of ours is open in the program that is executed; signals go by pidfd.
//!
//! Deliberately absent: virtual machines, images, streams, and waiting for the end of a process (each caller has its own
//! loop).

mod abandoned;
mod build;
mod capabilities;
pub mod cgroup;
mod channel;
mod child;
mod command;
mod copy;
mod create;
mod destinations;
mod devices;
mod draft;
mod enter;
pub mod error;
mod etc;
mod exec;
mod execute;
mod fill;
#[cfg(fuzzing)]
pub mod fuzzing;
mod init;
mod inside;
mod interpreter;
mod limits;
mod mounts;
mod namespaces;
mod network;
mod options;
mod paths;
mod plan;
pub mod rootfs;
mod shared;
mod spec;
mod start;
mod streams;
mod sysctl;
mod user;
mod volumes;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

pub use abandoned::sweep;
pub use create::{Building, Created, create};
pub use devices::set_terminal_size;
pub use error::{Error, Kind};
pub use etc::edit as edit_etc;
pub use exec::{ExecRequest, Joinable, exec};
pub use network::{Interface, Which, change_interfaces};
pub use shared::{Holder, network_namespace, pid_namespace};
pub use spec::{Process, Resources, Rlimit, Spec, Unreadable};
pub use start::{Running, Starting};

/// A container to make.
#[derive(Debug)]
pub struct Request {
    /// Its document.
    pub spec: Spec,
    /// Where its root file system is mounted.
    pub rootfs: PathBuf,
    /// `USER[:GROUP]`, looked up in the image; replaces the document's.
    pub user: Option<String>,
    /// Supplementary groups by name or number, looked up in the image, besides the user's own. They hold for processes
    /// that are executed later as well.
    pub groups: Vec<String>,
    /// A compiled seccomp program: an array of `struct sock_filter` in this machine's byte order.
    pub seccomp: Option<Vec<u8>>,
    /// Run the command under a small init.
    pub init: bool,
    /// The standard streams.
    pub stdio: Stdio,
    /// Files for /etc. One on whose path the document mounts something is left out.
    pub etc: EtcFiles,
    /// The network.
    pub network: Network,
    /// The PID namespace.
    pub pid: PidNamespace,
    /// Absolute paths that are to be writable directories: made when missing (0755). Where the root is read-only each is
    /// a tmpfs that begins with the image's content. A path that the document mounts something on is left alone.
    pub volumes: Vec<PathBuf>,
    /// The document's bind mounts that share a directory or a file of the host's.
    pub shares: Vec<Share>,
    /// The machine is the container's own: the document's sysctls may concern all of it, and a limit of open files may
    /// exceed the machine's, which is then raised.
    pub own_machine: bool,
    /// The cgroup to make: an absolute path in a cgroup v2 hierarchy.
    pub cgroup: PathBuf,
    /// A directory to make for the container's files outside (those of `etc`), on this machine. With a user
    /// namespace, its users must be able to pass through it and through the directories above the root file system.
    pub run_dir: PathBuf,
}

/// A bind mount of the document that shares a directory or a file of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The mount's destination in the document. No component of its source may be a symlink: what it was when it was looked
    /// at is what is mounted, or nothing.
    pub destination: PathBuf,
    /// Where it is an empty directory, it is given the image's content at its destination first, with owner and mode.
    pub fill: bool,
}

/// A container's network.
#[derive(Debug)]
pub enum Network {
    /// What the document says: a namespace of its own has loopback alone.
    Loopback,
    /// These interfaces as well: the document must ask for a namespace.
    Interfaces(Vec<Interface>),
    /// This network namespace, whatever the document says.
    Join(OwnedFd),
}

/// A container's PID namespace.
#[derive(Debug)]
pub enum PidNamespace {
    /// What the document says.
    Own,
    /// That of the process which this pidfd stands for, whatever the document says.
    Join(OwnedFd),
}

/// How far something that was begun has come.
#[derive(Debug)]
pub enum Progress<P, D> {
    /// Not done: advance it again when its descriptor is readable.
    Pending(P),
    /// Done.
    Done(D),
    /// It failed, and its process ends.
    Failed(Error),
}

/// The standard streams of a container or of a process executed in it.
#[derive(Debug)]
pub enum Stdio {
    /// A terminal of the container's own devpts; its master is given back by [`Running::terminal`].
    Terminal {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// A descriptor each; `None` is /dev/null. Pipes are given to the container's user, so that /dev/stdout and the
    /// like can be opened again.
    Pipes {
        /// To read from.
        stdin: Option<OwnedFd>,
        /// To write to.
        stdout: Option<OwnedFd>,
        /// To write to.
        stderr: Option<OwnedFd>,
    },
}

impl Stdio {
    /// The descriptors that are given.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let streams = match self {
            Stdio::Terminal { .. } => [&None, &None, &None],
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => [stdin, stdout, stderr],
        };
        streams.into_iter().flatten().map(AsFd::as_fd)
    }
}

/// Contents of files that are mounted over the image's. `None` leaves the image's own.
#[derive(Debug, Clone, Default)]
pub struct EtcFiles {
    /// /etc/hosts
    pub hosts: Option<String>,
    /// /etc/hostname
    pub hostname: Option<String>,
    /// /etc/resolv.conf
    pub resolv_conf: Option<String>,
}
