//! How a session ends.

use std::io;

use engine::protocol::agent::{ExitStatus, Failure};
use engine::protocol::monitor::{Exit, Measured};

/// Why the client could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    /// The engine.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The process did.
    Exited {
        /// How.
        exit: Box<Exit>,
        /// What was measured two seconds after the first output, if it ran so long.
        idle: Option<Box<Measured>>,
        /// When the first byte of output was passed on.
        first_output: Option<u64>,
    },
    /// It could not be attached to or started.
    Failed(Failure),
    /// The user ended the session, by this signal.
    Interrupted(i32),
    /// The user left, by the detach keys or by closing the terminal.
    Detached,
}

/// The code that a command which stayed with a process exits with.
pub(crate) fn code(exit: &Exit) -> u8 {
    match (exit.status, &exit.error) {
        // It did not end by itself, or succeeded and a part of its output is missing: hull's own failure.
        (ExitStatus::Signal(_) | ExitStatus::Code(0), Some(_)) => crate::FAILED,
        (status, _) => status.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_with_lost_output_is_none() {
        let code_of = |status, error: Option<&str>| {
            code(&Exit {
                status,
                oom_killed: false,
                error: error.map(str::to_owned),
                console: Vec::new(),
                measured: None,
            })
        };
        assert_eq!(code_of(ExitStatus::Code(0), None), 0);
        assert_eq!(
            code_of(ExitStatus::Code(0), Some("output was lost")),
            crate::FAILED
        );
        assert_eq!(code_of(ExitStatus::Code(3), Some("output was lost")), 3);
        assert_eq!(
            code_of(ExitStatus::Signal(9), Some("the VM broke")),
            crate::FAILED
        );
    }
}
