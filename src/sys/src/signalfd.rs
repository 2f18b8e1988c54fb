//! Signals as a readable descriptor.
//!
//! Invariant: made before any thread is spawned, so that all threads inherit the mask and the signals are only ever
//! seen here. Deliberately absent: handlers.
#![expect(unsafe_code, reason = "rustix has neither signal masks nor signalfd")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Blocked signals, readable as they come.
#[derive(Debug)]
pub struct SignalFd(File);

impl SignalFd {
    /// Blocks `signals` for this thread and those it spawns, and reads them without blocking.
    pub fn new(signals: &[i32]) -> io::Result<SignalFd> {
        // SAFETY: `set` is initialised by sigemptyset before use and outlives the calls; signalfd returns a fresh
        // descriptor, which nothing else owns.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in signals {
                if libc::sigaddset(&mut set, *signal) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(SignalFd(File::from(OwnedFd::from_raw_fd(fd))))
        }
    }

    /// The next pending signal's number, or `None`.
    pub fn take(&mut self) -> io::Result<Option<i32>> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        match self.0.read(&mut info) {
            // ssi_signo, the first field (signalfd(2)).
            Ok(_) => Ok(Some(i32::from_ne_bytes([
                info[0], info[1], info[2], info[3],
            ]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_and_not_delivered() {
        // In a thread of its own, since the mask is the thread's.
        std::thread::spawn(|| {
            let mut signals = SignalFd::new(&[libc::SIGUSR2]).unwrap();
            assert_eq!(signals.take().unwrap(), None);
            // SAFETY: raises a signal that this thread blocks.
            unsafe { libc::raise(libc::SIGUSR2) };
            assert_eq!(signals.take().unwrap(), Some(libc::SIGUSR2));
            assert_eq!(signals.take().unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
