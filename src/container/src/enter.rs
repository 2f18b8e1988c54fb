//! Making a process inside namespaces that exist already.
//!
//! A PID namespace is entered by a process's children only, so it takes two processes: the first enters all namespaces
//! at once (setns with a pidfd), makes the second as its own sibling, and ends. The first never looks at a path of the
//! container, which could block it without limit (FUSE), and stays in the caller's cgroup: so it always ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::fork::{self, InChild};

use crate::abandoned;
use crate::cgroup::Cgroup;
use crate::channel::{Line, Report, pair, report};
use crate::child::{FAILED, hide};
use crate::error::{Attempt, Cause, Error, Refusal, Step};

/// What is entered.
#[derive(Debug)]
pub(crate) struct Entrance<'a> {
    /// A pidfd of a process in the namespaces.
    pub(crate) process: BorrowedFd<'a>,
    /// `CLONE_NEW*` of the namespaces to enter.
    pub(crate) namespaces: i32,
    /// `CLONE_NEW*` of the namespaces to make.
    pub(crate) new: i32,
    /// The directory of the cgroup in which the second process begins.
    pub(crate) cgroup: BorrowedFd<'a>,
    /// Descriptors that the second process needs.
    pub(crate) keep: Vec<BorrowedFd<'a>>,
}

/// Makes the first process; the second runs `child`, given the channel, and must wait there until the parent lets it go on.
/// `cgroup` is removed if the second never executes.
pub(crate) fn fork_inside(
    entrance: &Entrance<'_>,
    cgroup: Option<Cgroup>,
    child: impl FnOnce(&OwnedFd, &InChild) -> i32,
) -> Result<Line, Error> {
    let made = pair().and_then(|(ours, theirs)| {
        let first = fork::fork(0, None, |in_child| {
            match enter(entrance, &theirs, &in_child, child) {
                Ok(()) => 0,
                Err(error) => {
                    report(&theirs, &Report::Failed(error), None);
                    FAILED
                }
            }
        });
        Ok((ours, first.at(Step::Fork, "")?))
    });
    match made {
        Ok((ours, first)) => Ok(Line::entering(ours, first, cgroup)),
        Err(error) => {
            if let Some(cgroup) = cgroup {
                abandoned::leave_cgroup(cgroup);
            }
            Err(error)
        }
    }
}

/// The whole life of the first process.
fn enter(
    entrance: &Entrance<'_>,
    channel: &OwnedFd,
    in_child: &InChild,
    child: impl FnOnce(&OwnedFd, &InChild) -> i32,
) -> Result<(), Error> {
    // Before the container's processes can see it: close what is ours, and forbid ptrace.
    let mut keep = vec![channel.as_fd(), entrance.process, entrance.cgroup];
    keep.extend(&entrance.keep);
    in_child
        .close_all_but(&keep)
        .at(Step::Stdio, "descriptors")?;
    hide()?;
    in_child
        .enter_namespaces_of(entrance.process, entrance.namespaces)
        .map_err(gone)
        .at(Step::Enter, "")?;
    let second = fork::fork_sibling(entrance.new, Some(entrance.cgroup), |in_child| {
        child(channel, &in_child)
    })
    .map_err(gone)
    .at(Step::Enter, "")?;
    let pid = second.pid.as_raw_pid();
    report(
        channel,
        &Report::Entered { pid },
        Some(second.pidfd.as_fd()),
    );
    Ok(())
}

/// What the kernel says of namespaces and cgroups that are no more.
fn gone(error: io::Error) -> Cause {
    match error.raw_os_error() {
        // setns: the process has been reaped; clone3: the PID namespace's first process has ended; the cgroup is removed.
        Some(libc::ESRCH | libc::ENOMEM | libc::ENODEV) => Refusal::NotRunning.into(),
        _ => error.into(),
    }
}
