//! An OCI runtime-spec document to a running process: namespaces, mounts, devices, limits and credentials.
//!
//! ```text
//!            create                          start
//! Request ----------> Created (waits) -----------------> Running (executes)
//!            |                                |
//!            '--- Error: which step, on what, why; nothing is left behind
//!
//! our process                         the container's process
//! plan        all parsing, users
//! create      cgroup, clone3 -------> built up: mounts, root, devices, names   (child::build)
//!             move the interface in, under its own address
//! start       go --------------------> executed: limits, user, seccomp, exec   (child::execute)
//! ```
//!
//! Used by the agent in the guest and by the monitor on the host (`--isolation native`): the same code, so that both
//! can be compared. Invariants: the calling program has one thread; of the image, no path is ever resolved outside
//! its root; no descriptor of ours is open in what is executed.
//!
//! Deliberately absent: virtual machines, images, streams, waiting for the end of a process (each caller has its own
//! loop), and executing a further process in a running container (a later issue).

mod capabilities;
pub mod cgroup;
mod child;
mod command;
mod create;
mod devices;
pub mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod init;
mod inside;
mod mounts;
mod namespaces;
mod network;
mod options;
mod paths;
mod plan;
pub mod rootfs;
mod spec;
mod sysctl;
mod user;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use create::{Created, Running, create, set_terminal_size};
pub use error::{Error, Kind};
pub use network::{Interface, Which};
pub use spec::{Spec, Unreadable};

/// A container to make.
#[derive(Debug)]
pub struct Request {
    /// Its document.
    pub spec: Spec,
    /// Where its root file system is mounted.
    pub rootfs: PathBuf,
    /// `USER[:GROUP]`, looked up in the image; replaces the document's.
    pub user: Option<String>,
    /// A compiled seccomp program: an array of `struct sock_filter` in this machine's byte order.
    pub seccomp: Option<Vec<u8>>,
    /// Run the command under a small init.
    pub init: bool,
    /// The standard streams.
    pub stdio: Stdio,
    /// Files for /etc.
    pub etc: EtcFiles,
    /// The network interface to move in and set up; without it there is only loopback.
    pub interface: Option<Interface>,
    /// The cgroup to make: an absolute path in a cgroup v2 hierarchy.
    pub cgroup: PathBuf,
    /// A directory to make for the container's files outside (those of `etc`), on this machine. With a user
    /// namespace, its users must be able to pass through it and through the directories above the root file system.
    pub run_dir: PathBuf,
}

/// A container's standard streams.
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
