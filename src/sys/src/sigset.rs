//! Signal sets, for processes that end in another program or live as an init; sending a signal by its number.
//!
//! Deliberately absent: handlers, and signals as descriptors (see [`crate::signals`]).

#![expect(
    unsafe_code,
    reason = "rustix has no wrapper for signal sets, sigwait and real-time signals"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The largest signal number (SIGRTMAX of the kernel).
pub const MAX: i32 = 64;

/// A set of signals.
#[derive(Clone, Copy)]
pub struct Set(libc::sigset_t);

impl Set {
    /// No signal.
    pub fn empty() -> Set {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: sigemptyset initializes the whole set.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            Set(set.assume_init())
        }
    }

    /// Every signal.
    pub fn all() -> Set {
        let mut set = Set::empty();
        // SAFETY: the set is valid and initialized.
        unsafe { libc::sigfillset(&mut set.0) };
        set
    }

    /// These signals.
    pub fn of(signals: &[i32]) -> Set {
        let mut set = Set::empty();
        for &signal in signals {
            // SAFETY: the set is valid and initialized; an invalid number is refused by the call and left out.
            unsafe { libc::sigaddset(&mut set.0, signal) };
        }
        set
    }

    /// Blocks exactly these signals in the calling thread.
    pub fn block_only(&self) -> io::Result<()> {
        // SAFETY: the set is valid; the old one is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for one of these signals, which must be blocked, and returns its number.
    pub fn wait(&self) -> io::Result<i32> {
        // SAFETY: the set is valid; no information or timeout is asked for.
        match unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), std::ptr::null()) } {
            -1 => Err(io::Error::last_os_error()),
            signal => Ok(signal),
        }
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
