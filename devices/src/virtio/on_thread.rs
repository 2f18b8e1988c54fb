//! What a device shares with a thread of its own: the thread is made with the device, waits for a start, and ends with
//! the device.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How a device tells its worker to stop.
pub(super) struct Stop {
    asked: AtomicBool,
    wake: EventFd,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            asked: AtomicBool::new(false),
            wake: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // Fails only when the counter is full, and then the worker is awake.
        let _ = self.wake.write(1);
    }

    /// Has the worker look around, without asking it to stop.
    pub(super) fn wake_up(&self) {
        // As in `ask`.
        let _ = self.wake.write(1);
    }

    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// The worker has stopped.
    pub(super) fn done(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// What the worker sleeps on, among others: readable when it is to look whether it was asked.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }
}
