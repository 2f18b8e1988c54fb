//! How a session ends.

use std::io;

use protocol::agent::{ExitStatus, Failure};
use protocol::monitor::Measured;

/// Why the client could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Waiting failed.
    #[error("cannot wait for the container")]
    Wait(#[source] io::Error),
    /// The terminal cannot be set.
    #[error("cannot make the terminal raw")]
    Terminal(#[source] io::Error),
    /// The streams cannot be pumped.
    #[error("cannot pass the container's streams on")]
    Streams(#[source] io::Error),
    /// What the container wrote could not be passed on.
    #[error("cannot pass the container's output on")]
    Output(#[source] io::Error),
    /// The monitor cannot be talked to.
    #[error("cannot talk to the sandbox's monitor")]
    Monitor(#[source] io::Error),
    /// The monitor is gone.
    #[error("the sandbox's monitor ended unexpectedly ({0})")]
    MonitorGone(String),
}

/// How a container ended, for its client.
#[derive(Debug)]
pub enum End {
    /// Its process did.
    Exited {
        /// How.
        status: ExitStatus,
        /// For want of memory.
        oom_killed: bool,
        /// What was measured at the end.
        measured: Box<Measured>,
        /// What was measured two seconds after the first output, if it ran so long.
        idle: Option<Box<Measured>>,
        /// T6.
        first_output: Option<u64>,
    },
    /// It could not be made or started.
    Failed(Failure),
    /// The sandbox broke.
    Broken {
        /// What happened.
        message: String,
        /// The guest's last lines.
        console: Vec<String>,
    },
    /// The user ended it, by this signal.
    Interrupted(i32),
}
