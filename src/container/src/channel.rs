//! The channel between the parent and the process that becomes the container's.
//!
//! ```text
//! process                                 parent
//! Entered + pidfd (only when it entered) ->
//!                                      <- go       build up
//! Built (+ terminal's master)            ->
//!                                      <- go       execute (a container's first process only)
//! closed by exec, or Failed              ->
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use sys::{fork, packet};

use crate::abandoned;
use crate::cgroup::Cgroup;
use crate::error::{Attempt, Error, MAX_SUBJECT_LEN, Refusal, Step};

/// Larger than any report: a step, a subject (six bytes for a byte that JSON escapes) and a number.
const MAX_REPORT_LEN: usize = 6 * MAX_SUBJECT_LEN + 1024;

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process that becomes the command has been made, inside; its pidfd comes with this.
    Entered {
        /// Its number, as the parent counts.
        pid: i32,
    },
    /// It is built up; with the terminal's master as descriptor, if there is a terminal.
    Built,
    /// It failed and ends.
    Failed(Error),
}

/// What the parent says: go on, to build up and then to execute.
const GO: &[u8] = b"go";

/// What the parent has read from the channel.
pub(crate) enum Message {
    /// Nothing yet.
    Nothing,
    /// A report and its descriptor.
    Report(Report, Option<OwnedFd>),
    /// The process has closed the channel: it executes the command, or it has ended.
    Closed,
}

/// The parent's end, and the processes at the other. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Line {
    /// Taken only by drop.
    channel: Option<OwnedFd>,
    /// The process that entered namespaces for the other one.
    entering: Option<fork::Child>,
    /// The process that becomes the command.
    process: Option<fork::Child>,
    /// Removed when the process is given up.
    cgroup: Option<Cgroup>,
}

impl Line {
    /// To a process that becomes the command itself.
    pub(crate) fn direct(channel: OwnedFd, process: fork::Child, cgroup: Cgroup) -> Line {
        Line {
            channel: Some(channel),
            entering: None,
            process: Some(process),
            cgroup: Some(cgroup),
        }
    }

    /// To a process that enters namespaces and makes the other one there.
    pub(crate) fn entering(
        channel: OwnedFd,
        entering: fork::Child,
        cgroup: Option<Cgroup>,
    ) -> Line {
        Line {
            channel: Some(channel),
            entering: Some(entering),
            process: None,
            cgroup,
        }
    }

    /// The process that becomes the command, or makes it.
    pub(crate) fn pid(&self) -> Pid {
        let process = self.process.as_ref().or(self.entering.as_ref());
        process.expect("there is one until it is taken").pid
    }

    /// The process that becomes the command, once it has been made.
    pub(crate) fn process(&self) -> Option<&fork::Child> {
        self.process.as_ref()
    }

    /// The process that becomes the command has been made.
    pub(crate) fn entered(&mut self, pid: i32, pidfd: Option<OwnedFd>) -> Result<(), Error> {
        let (Some(pid), Some(pidfd), None) = (Pid::from_raw(pid), pidfd, &self.process) else {
            return Err(Refusal::ChildDied).at(Step::Start, "");
        };
        self.process = Some(fork::Child { pid, pidfd });
        // What it had to do is done, and it ends.
        if let Some(entering) = self.entering.take() {
            abandoned::leave(entering.pidfd);
        }
        Ok(())
    }

    /// Lets the process go on.
    pub(crate) fn go(&self) -> Result<(), Error> {
        match packet::send(self, GO, &[]) {
            // It has ended: its last words tell why.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => result.at(Step::Start, ""),
        }
    }

    /// Ends the conversation: both ends are readable, and the process ends.
    pub(crate) fn close(&self) {
        // It may be closed already.
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
    }

    /// The next message, without waiting for one.
    pub(crate) fn next(&self) -> Result<Message, Error> {
        next(self)
    }

    /// Waits until there is a message.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        let mut channel = [PollFd::new(self, PollFlags::IN)];
        loop {
            match poll(&mut channel, None) {
                Err(Errno::INTR) => {}
                result => return result.map(drop).at(Step::Start, ""),
            }
        }
    }

    /// The process, which executes the command, and the cgroup that was made for it. From here on they are the caller's.
    pub(crate) fn into_process(mut self) -> Option<fork::Child> {
        self.cgroup = None;
        self.process.take()
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_ref().expect("taken only by drop").as_fd()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let cgroup = self.cgroup.take();
        if let Some(process) = self.process.take() {
            abandoned::kill(process.pidfd, cgroup);
        } else if let (Some(channel), Some(entering)) = (self.channel.take(), self.entering.take())
        {
            abandoned::leave_entering(channel, entering.pidfd, cgroup);
        }
    }
}

/// A connected pair of ends: the parent's, which never waits, and the process's.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let (ours, theirs) = packet::pair().at(Step::Fork, "")?;
    sys::nonblocking::set_nonblocking(&ours).at(Step::Fork, "")?;
    Ok((ours, theirs))
}

/// The next message of a parent's end, without waiting for one.
pub(crate) fn next(channel: impl AsFd) -> Result<Message, Error> {
    let mut buffer = [0; MAX_REPORT_LEN];
    let mut packet = match packet::receive(channel, &mut buffer) {
        Ok(packet) => packet,
        Err(packet::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Ok(Message::Nothing);
        }
        Err(_) => return Err(Refusal::ChildDied).at(Step::Start, ""),
    };
    if packet.len == 0 {
        return Ok(Message::Closed);
    }
    match serde_json::from_slice(&buffer[..packet.len]) {
        Ok(report) => Ok(Message::Report(report, packet.descriptors.pop())),
        Err(_) => Err(Refusal::ChildDied).at(Step::Start, ""),
    }
}

/// In the process: waits for the parent to say go. Without a parent there is nothing to go on for.
pub(crate) fn wait_for_go(channel: impl AsFd) -> Result<(), Error> {
    let mut word = [0; GO.len()];
    match packet::receive(channel, &mut word) {
        Ok(packet) if packet.len == GO.len() => Ok(()),
        Ok(_) | Err(packet::Error::Truncated) => fork::exit(crate::child::FAILED),
        Err(packet::Error::Io(error)) => Err(error).at(Step::Start, ""),
    }
}

/// In the process: tells the parent.
pub(crate) fn report(channel: impl AsFd, report: &Report, descriptor: Option<BorrowedFd<'_>>) {
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    if packet::send(channel, &bytes, descriptor.as_slice()).is_err() {
        // Either the parent is gone, or the report cannot be sent: the closed channel tells the parent that it failed.
        fork::exit(crate::child::FAILED);
    }
}
