//! The monitor (hull-monitor): the supervisor of one sandbox, in two processes.
//!
//! ```text
//! engine --(socket)--> speaker: clients, agent, streams, logs    --(vsock)--> agent in the guest
//!                         |  ^
//!               a few messages (link)
//!                         v  |
//!                      warden: hull-vmm, network, cgroup, records, restarts
//! ```
//!
//! - [`warden`] has rights on the host and reads nothing that a guest wrote; [`speaker`] is the reverse.
//! - [`machine`] is what they start and use: a VM ([`vmm`], [`devices`], [`template`]) or the host's kernel ([`native`]).
//!
//! Invariants: each process has one thread; neither blocks on the guest; the sandbox's lock is held for as long as the
//! warden lives, and its end takes the speaker and the machine with it (death signals). A container's life is decided by
//! its record, not by a connection. docs/lifecycle.md is the contract.
//!
//! It is a static program of its own, since its memory counts for each container and its start for each boot. Deliberately
//! absent: databases, TLS, an async runtime.

pub use protocol::chain;
use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::monitor::{LISTENER_FD, LOCK_FD};
use protocol::record::SandboxConfig;
use rustix::event::{PollFd, Timespec, poll};
use sys::signalfd::SignalFd;

mod agent;
mod attached;
mod cgroup;
mod console;
mod devices;
mod doctor;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod jail;
mod lease;
mod link;
mod machine;
mod measure;
mod native;
mod process;
mod programs;
pub mod resolver;
mod scratch;
mod sealed;
mod shares;
mod sockets;
mod speaker;
mod sweep;
mod template;
mod text;
pub mod users;
mod vmm;
mod warden;

use warden::Warden;
use warden::members;

/// Why a monitor cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not started by hull.
    #[error("the monitor is started by hull itself, not by hand")]
    NotInherited(#[source] io::Error),
    /// A record.
    #[error(transparent)]
    Record(Box<dyn StdError + Send + Sync>),
    /// It could not wait.
    #[error("cannot wait for events")]
    Poll(#[source] io::Error),
    /// The process that talks to the guest could not be made.
    #[error("cannot make the process that talks to the guest")]
    Part(#[source] io::Error),
}

impl From<members::Error> for Error {
    fn from(error: members::Error) -> Error {
        Error::Record(error.into())
    }
}

/// Runs the monitor of the sandbox in `folder` until the sandbox has ended.
pub fn run(folder: &Path) -> Result<(), Error> {
    let listener = sys::spawn::inherited(LISTENER_FD).map_err(Error::NotInherited)?;
    let _lock = sys::spawn::inherited(LOCK_FD).map_err(Error::NotInherited)?;
    let quit = SignalFd::new(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT])
        .map_err(Error::Poll)?;
    let path = folder.join(protocol::record::CONFIG);
    let config: Option<SandboxConfig> = members::read(&path)?;
    let config = config.ok_or_else(|| members::Error::Absent(path.display().to_string()))?;
    Warden::new(folder, config, listener, quit)?.run()
}

/// Removes what dead monitors of the state `root` left on the host, and what that of `held` left, a sandbox whose lock the
/// caller holds.
pub fn sweep(root: &Path, held: Option<&str>) {
    sweep::all(root, held);
}

/// What this host lacks of what monitors need, as a JSON document for `hull doctor`.
pub fn doctor() -> String {
    doctor::report()
}

fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Error> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Error::Poll(error.into())),
    }
}
