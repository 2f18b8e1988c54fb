//! Signal sets, for processes that end in another program or live as an init; sending a signal by its number.
//!
//! Deliberately absent: handlers, and signals as descriptors (see [`crate::signalfd`]).

#![expect(
    unsafe_code,
    reason = "rustix has no wrapper for signal sets, sigwait and real-time signals"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The largest signal number (SIGRTMAX of the kernel).
pub const MAX: i32 = 64;

/// A set of signals.
///
/// Kept and used as the kernel's own (64 bits), and not by the C library, which leaves the two or three real-time
/// signals that it uses itself out of every set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// No signal.
    pub fn empty() -> Set {
        Set(0)
    }

    /// Every signal.
    pub fn all() -> Set {
        Set(u64::MAX)
    }

    /// These signals. A number that is none is left out.
    pub fn of(signals: &[i32]) -> Set {
        let valid = signals.iter().filter(|signal| (1..=MAX).contains(signal));
        Set(valid.fold(0, |set, signal| set | 1 << (signal - 1)))
    }

    /// Blocks exactly these signals in the calling thread, as far as they can be.
    pub fn block_only(&self) -> io::Result<()> {
        // SAFETY: the set is valid for the call and its size is given; the old one is not asked for.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const self.0,
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
        check(result).map(drop)
    }

    /// Waits for one of these signals, which must be blocked.
    pub fn wait(&self) -> io::Result<Received> {
        // SAFETY: zeros are a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set and the information are valid for the call and the set's size is given; no timeout is.
        let signal = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const self.0,
                &raw mut info,
                std::ptr::null::<libc::timespec>(),
                size_of::<u64>(),
            )
        };
        Ok(Received {
            signal: check(signal)?,
            // SI_USER, SI_QUEUE, SI_TKILL and the like are not positive (sigaction(2)).
            is_from_a_process: info.si_code <= 0,
        })
    }
}

/// A signal that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// A process sent it; otherwise the kernel did.
    pub is_from_a_process: bool,
}

fn check(result: libc::c_long) -> io::Result<i32> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}

/// Gives every signal its default action. Rust's runtime ignores SIGPIPE, and ignored signals survive exec.
pub fn reset_actions() {
    /// `struct sigaction` of the kernel (x86-64), which is not the C library's.
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: u64,
        restorer: usize,
        mask: u64,
    }
    let default = Action {
        handler: libc::SIG_DFL,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    for signal in 1..=MAX {
        // Not by the C library, which refuses the two or three signals that it uses itself.
        // SAFETY: the action is valid for the call, its mask's size is given; the default action runs no code of ours.
        // The calls for SIGKILL and SIGSTOP fail and change nothing, as it should be.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null_mut::<Action>(),
                size_of::<u64>(),
            )
        };
    }
}

/// Sends a signal, by number, to the process that a pidfd stands for: never to another that got its number.
pub fn send(process: impl AsFd, signal: i32) -> io::Result<()> {
    let process = process.as_fd().as_raw_fd();
    // SAFETY: no information is given (a null pointer); the descriptor is open for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process,
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal, by number, to a process.
pub fn kill(pid: rustix::process::Pid, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers; a Pid is positive, so this addresses one process and not a group.
    match unsafe { libc::kill(pid.as_raw_pid(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_can_be_waited_for_and_its_sender_told() {
        // In a thread of its own: the signal mask belongs to the thread.
        let thread = std::thread::spawn(|| {
            Set::all().block_only().unwrap();
            let of_thread = |signal: i32| {
                // SAFETY: no pointers; the thread is this one.
                let thread = unsafe { libc::syscall(libc::SYS_gettid) };
                // SAFETY: as above; the signal is blocked.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) }
            };
            // Among them those that C libraries keep for themselves (32 to 34).
            for signal in [1, 17, 21, 31, 32, 33, 34, 64] {
                assert_eq!(of_thread(signal), 0);
                let expected = Received {
                    signal,
                    is_from_a_process: true,
                };
                assert_eq!(Set::of(&[signal]).wait().unwrap(), expected);
            }
        });
        thread.join().unwrap();
        assert_eq!(Set::of(&[0, -1, 65]), Set::empty());
    }
}
