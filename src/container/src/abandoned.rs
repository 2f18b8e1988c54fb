//! Processes that were given up: killed, but not reaped yet, since their end may take a while.
//!
//! Invariant: a process of this crate's own making is either known to the caller (as a pid and a pidfd of
//! [`crate::Running`] and the like) or in this list until it is reaped.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::cgroup::{Cgroup, Removal};
use crate::channel::{self, Message, Report};

thread_local! {
    static ABANDONED: RefCell<Vec<Abandoned>> = const { RefCell::new(Vec::new()) };
}

/// A process that ends, and the cgroup that is to go with it.
#[derive(Default)]
struct Abandoned {
    /// The channel of a process that enters namespaces to make another there. It always ends by itself, and has then
    /// said which process it made.
    entering: Option<(OwnedFd, OwnedFd)>,
    /// `None` once it is reaped.
    process: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
}

fn push(abandoned: Abandoned) {
    ABANDONED.with_borrow_mut(|list| list.push(abandoned));
}

/// Kills a process. [`sweep`] will reap it and remove the cgroup.
pub(crate) fn kill(pidfd: OwnedFd, cgroup: Option<Cgroup>) {
    // It may have ended already.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    push(Abandoned {
        process: Some(pidfd),
        cgroup,
        ..Abandoned::default()
    });
}

/// Leaves a process that ends by itself to [`sweep`].
pub(crate) fn leave(pidfd: OwnedFd) {
    push(Abandoned {
        process: Some(pidfd),
        ..Abandoned::default()
    });
}

/// Leaves a process that enters namespaces to [`sweep`], which will kill the one that it makes there.
pub(crate) fn leave_entering(channel: OwnedFd, pidfd: OwnedFd, cgroup: Option<Cgroup>) {
    push(Abandoned {
        entering: Some((channel, pidfd)),
        cgroup,
        ..Abandoned::default()
    });
}

/// Leaves an empty cgroup to [`sweep`].
pub(crate) fn leave_cgroup(cgroup: Cgroup) {
    push(Abandoned {
        cgroup: Some(cgroup),
        ..Abandoned::default()
    });
}

/// Reaps processes that were given up and have ended, and removes their cgroups. Returns how many are left.
///
/// To be called when a child has ended (SIGCHLD): the first process of a PID namespace is not seen to end before every
/// other one of the namespace has been reaped. Everything that makes or advances a process calls it as well. It does not
/// matter when the caller has reaped such a process itself.
pub fn sweep() -> usize {
    ABANDONED.with_borrow_mut(|list| {
        list.retain_mut(|abandoned| !abandoned.is_gone());
        list.len()
    })
}

impl Abandoned {
    fn is_gone(&mut self) -> bool {
        if let Some((_, pidfd)) = &self.entering
            && !has_been_reaped(pidfd)
        {
            return false;
        }
        if let Some((channel, _)) = self.entering.take()
            && let Ok(Message::Report(Report::Entered { .. }, made)) = channel::next(&channel)
        {
            self.process = made;
            if let Some(made) = &self.process {
                let _ = pidfd_send_signal(made, Signal::KILL);
            }
        }
        if let Some(pidfd) = &self.process
            && !has_been_reaped(pidfd)
        {
            return false;
        }
        self.process = None;
        match &self.cgroup {
            // A cgroup that cannot be removed for another reason than its processes is replaced when its name is used
            // again.
            Some(cgroup) => {
                let _ = cgroup.kill();
                !matches!(cgroup.try_remove(), Ok(Removal::StillPopulated))
            }
            None => true,
        }
    }
}

fn has_been_reaped(pidfd: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(None) | Err(Errno::INTR) => false,
        // ECHILD: the caller's loop was faster.
        Ok(Some(_)) | Err(_) => true,
    }
}
