//! A forked process of the agent's that carries one request out: files are walked, read and written there, so that the
//! loop never waits for them and nothing of a container's tree is opened in the agent.
//!
//! ```text
//! agent --fork--> worker: enters the container's root, works, writes a report ----> agent: reply
//!                    '- killed, or it panics: the report's pipe closes without one
//! ```

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::agent::{Done, Failure};
use protocol::frame::MAX_REPLY_LEN;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::stdio::{stderr, stdin, stdout};
use sys::fork::{self, Child, InChild};
use sys::nonblocking::set_nonblocking;
use sys::sigset::{self, Set};

use crate::failure::Refusal;

/// Bytes read of a report at a time.
const READ_LEN: usize = 16 << 10;

/// A worker, and what it is for.
pub(crate) struct Worker {
    pub(crate) seq: u64,
    pub(crate) container: String,
    /// Its end is that of a Delete.
    pub(crate) is_removal: bool,
    child: Child,
    pipe: File,
    report: Vec<u8>,
}

impl Worker {
    /// Forks a process that does `work`. Of the agent's descriptors it has the standard streams and those of `keep`: others
    /// would keep a container's input open that the agent has closed.
    pub(crate) fn start(
        seq: u64,
        container: &str,
        keep: &[BorrowedFd<'_>],
        work: impl FnOnce() -> Result<Done, Refusal>,
    ) -> Result<Worker, Refusal> {
        let begin = || -> io::Result<(Child, OwnedFd)> {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
            set_nonblocking(&ours)?;
            let child = fork::fork(0, None, |in_child| {
                let mut keep = keep.to_vec();
                keep.extend([stdin(), stdout(), stderr(), theirs.as_fd()]);
                let result = alone(&in_child, &keep).and_then(|()| work());
                let result: Result<Done, Failure> = result.map_err(Into::into);
                let report = serde_json::to_vec(&result).unwrap_or_default();
                i32::from(File::from(theirs).write_all(&report).is_err())
            })?;
            Ok((child, ours))
        };
        let (child, pipe) = begin().map_err(Refusal::Worker)?;
        Ok(Worker {
            seq,
            container: container.to_owned(),
            is_removal: false,
            child,
            pipe: pipe.into(),
            report: Vec::new(),
        })
    }

    /// Reads what has come of the report; `None` until it is complete.
    pub(crate) fn report(&mut self) -> Option<Result<Done, Failure>> {
        let mut bytes = [0; READ_LEN];
        loop {
            match self.pipe.read(&mut bytes) {
                Ok(0) => break,
                Ok(len) => self.report.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            if self.report.len() > MAX_REPLY_LEN {
                break;
            }
        }
        let report = serde_json::from_slice(&self.report);
        Some(report.unwrap_or_else(|_| Err(Refusal::WorkerDied.into())))
    }

    /// Ends it at once. It is reaped with whatever else has been orphaned.
    pub(crate) fn kill(&self) {
        // It may have ended by itself.
        let _ = sigset::send(&self.child.pidfd, libc::SIGKILL);
    }
}

/// Makes the process one that works: nothing of the agent's is open, signals end it, and so does the agent's end.
fn alone(in_child: &InChild, keep: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
    // The agent waits for signals, a worker for none. Of a stream that the host has closed, an error tells.
    let signals = Set::of(&[libc::SIGPIPE]).block_only();
    let closed = signals.and_then(|()| in_child.close_all_but(keep));
    closed
        .and_then(|()| Ok(set_parent_process_death_signal(Some(Signal::KILL))?))
        .map_err(Refusal::Worker)
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
