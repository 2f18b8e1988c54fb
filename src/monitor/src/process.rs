//! hull-vmm as a process: whose child it is, what was made for it, and how it ended.
//!
//! ```text
//!  Ours (the warden's) --part, in the speaker's copy--> Parents: only the end is known, as the warden tells it
//! ```

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Signal, WaitOptions, pidfd_send_signal, waitpid};
use sys::fork::Child;

use crate::cgroup::{OutOfMemory, VmCgroup};
use crate::users::Users;

/// A machine's process: hull-vmm or hull-native. Dropping it kills it, waits for its end and removes its cgroup, if it is
/// this process's child.
#[derive(Debug)]
pub(crate) struct Process(Whose);

#[derive(Debug)]
enum Whose {
    /// This process's child, with what was made for it.
    Ours {
        child: Child,
        /// Held, so that they are not given out twice.
        users: Option<Users>,
        cgroup: Option<VmCgroup>,
        /// How it ended, once it has been waited for.
        ended: Option<Ended>,
    },
    /// The parent's, which says here how it ended.
    Parents { pid: u32, status: OwnedFd },
}

/// How a hull-vmm ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    status: ExitStatus,
    out_of_memory: Option<OutOfMemory>,
    without_shares: bool,
}

impl Ended {
    /// Length of [`Ended::bytes`].
    const LEN: usize = 5;

    /// As the warden tells the speaker.
    pub(crate) fn bytes(self) -> [u8; Self::LEN] {
        let cause = match self.out_of_memory {
            _ if self.without_shares => 3,
            None => 0,
            Some(OutOfMemory::Limit) => 1,
            Some(OutOfMemory::Host) => 2,
        };
        let [a, b, c, d] = self.status.into_raw().to_ne_bytes();
        [a, b, c, d, cause]
    }

    fn of([a, b, c, d, cause]: [u8; Self::LEN]) -> Self {
        Self {
            status: ExitStatus::from_raw(i32::from_ne_bytes([a, b, c, d])),
            out_of_memory: match cause {
                1 => Some(OutOfMemory::Limit),
                2 => Some(OutOfMemory::Host),
                _ => None,
            },
            without_shares: cause == 3,
        }
    }

    /// It was killed because its hull-fs had ended.
    pub(crate) fn for_want_of_shares(self) -> Self {
        Self {
            without_shares: true,
            ..self
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.out_of_memory {
            _ if self.without_shares => f.write_str(
                "hull-fs, which served its shared directories, had ended before it",
            ),
            Some(OutOfMemory::Limit) => f.write_str(
                "the kernel killed it because the VM met the memory limit of its cgroup on the host; give it more memory \
                 (-m), or find out who lowered memory.max",
            ),
            Some(OutOfMemory::Host) => f.write_str(
                "the kernel killed it because the host had no memory left; free some, or run fewer or smaller VMs (-m)",
            ),
            None => self.status.fmt(f),
        }
    }
}

impl Process {
    /// A child of this process.
    pub(crate) fn ours(child: Child, users: Option<Users>, cgroup: Option<VmCgroup>) -> Process {
        Process(Whose::Ours {
            child,
            users,
            cgroup,
            ended: None,
        })
    }

    /// Leaves it to the parent of this process, of which this value is a copy, and which writes to the other end of `status`
    /// how it ended.
    pub(crate) fn part(&mut self, status: OwnedFd) {
        let pid = self.pid();
        self.0 = Whose::Parents { pid, status };
    }

    /// The directory of its cgroup, for what belongs to it.
    pub(crate) fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Whose::Ours { cgroup, .. } => cgroup.as_ref().map(VmCgroup::directory),
            Whose::Parents { .. } => None,
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        match &self.0 {
            Whose::Ours { child, .. } => child.pid.as_raw_pid().unsigned_abs(),
            Whose::Parents { pid, .. } => *pid,
        }
    }

    /// The user that belongs to its monitor, where there is one.
    pub(crate) fn monitor_user(&self) -> Option<u32> {
        match &self.0 {
            Whose::Ours { users, .. } => users.as_ref().map(Users::monitor),
            Whose::Parents { .. } => None,
        }
    }

    /// To be polled for its end, where it is this process's child and has not been waited for.
    pub(crate) fn end_descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Whose::Ours {
                child, ended: None, ..
            } => Some(child.pidfd.as_fd()),
            _ => None,
        }
    }

    /// Whether it has ended by then.
    pub(crate) fn has_ended_by(&self, deadline: Instant) -> bool {
        match &self.0 {
            Whose::Ours { child, .. } => is_ready(&child.pidfd, deadline),
            Whose::Parents { status, .. } => is_ready(status, deadline),
        }
    }

    /// Waits for its end and says how it was, if that can be known.
    pub(crate) fn wait(&mut self) -> Option<Ended> {
        match &mut self.0 {
            Whose::Ours {
                child,
                ended,
                cgroup,
                ..
            } => {
                if ended.is_none() {
                    *ended = wait_for_end(child).map(|status| Ended {
                        status,
                        out_of_memory: cgroup.as_ref().and_then(VmCgroup::out_of_memory),
                        without_shares: false,
                    });
                }
                *ended
            }
            Whose::Parents { status, .. } => {
                let mut bytes = [0; Ended::LEN];
                match retry_on_intr(|| rustix::io::read(&*status, &mut bytes)) {
                    Ok(Ended::LEN) => Some(Ended::of(bytes)),
                    _ => None,
                }
            }
        }
    }

    /// Kills it. False if it is not this process's to kill.
    pub(crate) fn kill(&self) -> bool {
        let Whose::Ours { child, ended, .. } = &self.0 else {
            return false;
        };
        if ended.is_none()
            && let Err(error) = pidfd_send_signal(&child.pidfd, Signal::KILL)
        {
            tracing::debug!(%error, "hull-vmm has ended in the meantime");
        }
        true
    }

    /// Kills it, waits for its end and removes its cgroup, if it is this process's child.
    fn take_down(&mut self) {
        if !self.kill() {
            return;
        }
        self.wait();
        if let Whose::Ours { cgroup, .. } = &mut self.0
            && let Some(cgroup) = cgroup.take()
        {
            cgroup.remove();
        }
    }
}

impl Drop for Process {
    /// What was started is taken down, also when the machine could not be put together.
    fn drop(&mut self) {
        self.take_down();
    }
}

/// Kills a child of this process, if it has not ended yet, and waits for its end.
pub(crate) fn reap(child: &Child) -> Option<ExitStatus> {
    if let Err(error) = pidfd_send_signal(&child.pidfd, Signal::KILL) {
        tracing::debug!(%error, "it has ended in the meantime");
    }
    wait_for_end(child)
}

/// Waits for the end of a child of this process and says how it was, if that can be known.
pub(crate) fn wait_for_end(child: &Child) -> Option<ExitStatus> {
    match retry_on_intr(|| waitpid(Some(child.pid), WaitOptions::empty())) {
        Ok(waited) => waited.map(|(_, status)| ExitStatus::from_raw(status.as_raw())),
        Err(error) => {
            tracing::warn!(%error, pid = child.pid.as_raw_pid(), "a child cannot be waited for");
            None
        }
    }
}

/// Waits until a descriptor can be read, or has come to its end.
pub(crate) fn is_ready(descriptor: &impl AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(
            &mut [PollFd::new(descriptor, PollFlags::IN)],
            Some(&timeout),
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::debug!(%error, "hull-vmm cannot be waited for");
                return false;
            }
            Ok(count) => return count > 0,
        }
    }
}
