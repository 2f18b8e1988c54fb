//! What the agent does: serve the monitor's requests until the sandbox ends.
//!
//! ```text
//! Asleep (set up, then connected) --Wake--> Server
//!
//! monitor ==control==> Connection --> a queue for each container --+
//!                                                                  |   Server (one epoll loop, one thread)
//! container's pipes <=== Pump ==> streams to the host              |
//! (a connection each)                                              +--> Container, Process
//! SIGCHLD, cgroup.events, container's descriptors -----------------+
//!                                                                  '--> Worker (a forked process): files
//! ```
//!
//! - [`Asleep`] is an agent before its first request, [`Asleep::serve`] its whole life from there to the [`End`].
//! - It knows neither vsock nor virtual machines: the streams come from a function, the places from
//!   [`Surroundings`]; so it runs on the host as well.
//!
//! Invariants: one thread (spawning requires it); nothing in the loop waits but the opening of a stream, which the host
//! answers at once; memory held for a stream is a pipe, or one small buffer for a terminal.
//!
//! Deliberately absent: what only PID 1 of a guest does (main.rs, `guest`), and what only the host's form does
//! (hull_native.rs).

mod asleep;
mod connection;
mod containers;
mod disks;
mod ending;
mod failure;
mod files;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod layers;
mod older;
mod poll;
mod processes;
mod pump;
mod rehearsal;
mod remains;
mod requests;
mod roots;
mod sandbox;
mod server;
mod streaming;
mod streams;
mod usage;
mod worker;
mod working;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use asleep::Asleep;
use protocol::agent::Wake;

/// Opens a stream to a port of the host.
pub type Dial = Box<dyn Fn(u32) -> io::Result<OwnedFd>>;

/// Makes the machine one of its own: its clock and its random numbers, see [`protocol::agent::Request::Wake`].
pub type WakeUp = Box<dyn Fn(&Wake) -> Result<(), NotAwake>>;

/// Why a machine did not wake: the step that failed. It must not run anything.
#[derive(Debug, thiserror::Error)]
#[error("the machine does not wake: cannot {step}")]
pub struct NotAwake {
    /// What was attempted.
    pub step: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

/// Where the agent finds itself.
pub struct Surroundings {
    /// Opens streams.
    pub dial: Dial,
    /// A directory for containers' files and mounts; in memory.
    pub run_dir: PathBuf,
    /// The cgroup (v2) below which containers get theirs.
    pub cgroup: PathBuf,
    /// The block device of the layers; `None` finds it by its virtio serial.
    pub layer_device: Option<PathBuf>,
    /// How a network interface that has this address is found among the machine's.
    pub interface: fn(&protocol::agent::Interface) -> container::Which,
    /// The machine is the sandbox's own: containers may change what concerns all of it.
    pub is_own_machine: bool,
    /// Open files of a process, soft and hard, where its document does not say; `None` leaves it the agent's own.
    pub open_files: Option<(u64, u64)>,
    /// Wakes the machine.
    pub wake: WakeUp,
    /// Called when the first container's process has executed.
    pub on_exec: Box<dyn Fn()>,
}

/// The virtio serial of the device that holds the layers.
pub const LAYER_SERIAL: &str = "layers";

/// Why a container could not be made and run for practice: see [`Asleep::rehearse`].
#[derive(Debug, thiserror::Error)]
#[error("the rehearsal failed")]
pub struct Rehearsal(#[source] failure::Refusal);

impl<E: Into<failure::Refusal>> From<E> for Rehearsal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Why the agent stops. Its containers are gone by then, and what could be written has been.
#[derive(Debug)]
pub enum End {
    /// The monitor asked for it, with this code.
    Shutdown(u32),
    /// The control connection closed or failed, or carried what is not the protocol.
    ControlLost(protocol::frame::Error),
}

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the agent's event loop failed")]
pub struct Broken(#[from] io::Error);
