//! From a process that waits to one that executes its command: a container's first, or one executed in it later.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;
use sys::fork;

use crate::Progress;
use crate::abandoned::sweep;
use crate::channel::{Line, Message, Report};
use crate::error::{Error, Refusal, Step};
use crate::exec::Joinable;
use crate::limits::Outside;

/// A process that is about to execute. Readable (as a descriptor) when [`Starting::advance`] has news. Dropping it kills
/// the process; and removes the cgroup, if it is the container's first.
#[derive(Debug)]
pub struct Starting {
    line: Line,
    terminal: Option<OwnedFd>,
    joinable: Joinable,
    /// What a process that enters is to be given.
    outside: Outside,
    /// Why the process could not be told to go on.
    failure: Option<Error>,
}

/// A process that executes.
#[derive(Debug)]
pub struct Running {
    /// Its number in our PID namespace.
    pub pid: Pid,
    /// The same as a descriptor: to wait for (waitid with P_PIDFD), by whatever loop the caller has, and to signal.
    pub pidfd: OwnedFd,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    /// What it takes to execute further processes in the container, and the container's cgroup.
    pub joinable: Joinable,
}

impl Starting {
    /// A container's first process, which waits to be let go on.
    pub(crate) fn new(
        line: Line,
        terminal: Option<OwnedFd>,
        joinable: Joinable,
        outside: &Outside,
    ) -> Starting {
        let failure = outside.apply(line.pid()).and_then(|()| line.go()).err();
        if failure.is_some() {
            // The descriptor tells that there is news.
            line.close();
        }
        Starting {
            line,
            terminal,
            joinable,
            outside: Outside::default(),
            failure,
        }
    }

    /// A process that enters a container.
    pub(crate) fn entering(line: Line, joinable: Joinable, outside: Outside) -> Starting {
        Starting {
            line,
            terminal: None,
            joinable,
            outside,
            failure: None,
        }
    }

    /// The process in the caller's PID namespace. (For one that is executed in a container: at first the process that
    /// enters it for that one.)
    pub fn pid(&self) -> Pid {
        self.line.pid()
    }

    /// Takes what the process has reported. Does not wait.
    pub fn advance(mut self) -> Progress<Starting, Running> {
        sweep();
        if let Some(error) = self.failure.take() {
            return Progress::Failed(error);
        }
        loop {
            let step = match self.line.next() {
                Ok(Message::Nothing) => return Progress::Pending(self),
                Ok(Message::Report(Report::Entered { pid }, pidfd)) => self.entered(pid, pidfd),
                Ok(Message::Report(Report::Built, terminal)) => {
                    self.terminal = terminal;
                    Ok(())
                }
                Ok(Message::Report(Report::Failed(error), _)) | Err(error) => Err(error),
                Ok(Message::Closed) => return self.executes(),
            };
            if let Err(error) = step {
                return Progress::Failed(error);
            }
        }
    }

    fn entered(&mut self, pid: i32, pidfd: Option<OwnedFd>) -> Result<(), Error> {
        self.line.entered(pid, pidfd)?;
        self.outside.apply(self.pid())?;
        self.line.go()
    }

    /// The channel is close-on-exec: that it closed without a report means that the command runs. (Or that the process was
    /// killed this very moment, which is an end of its own and seen by what waits for it.)
    fn executes(self) -> Progress<Starting, Running> {
        match self.line.into_process() {
            Some(fork::Child { pid, pidfd }) => Progress::Done(Running {
                pid,
                pidfd,
                terminal: self.terminal,
                joinable: self.joinable,
            }),
            None => Progress::Failed(Error::new(Step::Start, "", Refusal::ChildDied)),
        }
    }

    /// Waits until the process executes.
    pub fn wait(mut self) -> Result<Running, Error> {
        loop {
            self.line.wait()?;
            self = match self.advance() {
                Progress::Pending(starting) => starting,
                Progress::Done(running) => return Ok(running),
                Progress::Failed(error) => return Err(error),
            };
        }
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
