//! Namespaces that several containers share and none of them owns.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::Pid;
use sys::fork::{self, InChild};
use sys::sigset::Set;

use crate::abandoned;
use crate::channel::{Line, Message, Report, pair, report, wait_for_go};
use crate::child::{FAILED, hide};
use crate::error::{Attempt, Error, Refusal, Step};
use crate::network::{self, Interface};

/// Makes a network namespace with loopback and these interfaces, for [`crate::Network::Join`]. It lasts as long as
/// the descriptor or a container in it.
///
/// Waits for a process of our own, which looks at nothing of a container's.
pub fn network_namespace(interfaces: &[Interface]) -> Result<OwnedFd, Error> {
    let (ours, theirs) = pair()?;
    let process = fork::fork(libc::CLONE_NEWNET, None, |in_child| {
        let result = set_up(interfaces, ours.as_fd(), &theirs, &in_child);
        let said = match result {
            Ok(()) => Report::Built,
            Err(error) => Report::Failed(error),
        };
        report(&theirs, &said, None);
        0
    })
    .at(Step::Fork, "")?;
    drop(theirs);
    let pid = process.pid;
    // Dropped, it leaves the process to be reaped.
    let line = Line::entering(ours, process, None);
    let path = format!("/proc/{}/ns/net", pid.as_raw_pid());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(CWD, &path, flags, Mode::empty()).at(Step::Namespace, "network")?;
    interfaces.iter().try_for_each(|it| it.move_to(pid))?;
    line.go()?;
    line.wait()?;
    match line.next()? {
        Message::Report(Report::Built, _) => Ok(namespace),
        Message::Report(Report::Failed(error), _) => Err(error),
        _ => Err(Refusal::ChildDied).at(Step::Namespace, "network"),
    }
}

fn set_up(
    interfaces: &[Interface],
    parents: BorrowedFd<'_>,
    channel: &OwnedFd,
    in_child: &InChild,
) -> Result<(), Error> {
    in_child.close(parents).at(Step::Fork, "")?;
    wait_for_go(channel)?;
    network::loopback_up()?;
    interfaces.iter().try_for_each(Interface::set_up)
}

/// The first process of a PID namespace that containers share: it reaps what they leave behind. Dropping it kills it,
/// and with it every process of the namespace.
#[derive(Debug)]
pub struct Holder {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

/// Makes a PID namespace, for [`crate::PidNamespace::Join`].
pub fn pid_namespace() -> Result<Holder, Error> {
    let process = fork::fork(libc::CLONE_NEWPID, None, |in_child| match hold(&in_child) {
        Ok(never) => never,
        Err(_) => FAILED,
    })
    .at(Step::Fork, "")?;
    Ok(Holder {
        pid: process.pid,
        pidfd: Some(process.pidfd),
    })
}

/// The first process: it has no descriptors and reaps orphans.
fn hold(in_child: &InChild) -> Result<i32, Error> {
    in_child.close_all_but(&[]).at(Step::Stdio, "descriptors")?;
    hide()?;
    rustix::process::setsid().at(Step::Init, "session")?;
    Set::all().block_only().at(Step::Init, "")?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .at(Step::Signals, "parent's end")?;
    loop {
        crate::init::wait_for_child();
    }
}

impl Holder {
    /// The process in the caller's PID namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

impl AsFd for Holder {
    /// The pidfd: readable when the namespace has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().expect("taken only by drop").as_fd()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            abandoned::kill(pidfd, None);
        }
    }
}
