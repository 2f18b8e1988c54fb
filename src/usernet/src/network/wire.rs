//! The end of a member's wire: what is sent there, and what waits for room.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, writev};

/// Bytes of frames that wait for room: enough for some packets of 64 KiB of neighbours. What is too much is dropped, as
/// on any wire. Connections of the gateway's do not wait here: they keep their data.
const MAX_WAITING: usize = 1 << 20;
/// Frames that wait, as short ones cost more than their bytes.
const MAX_FRAMES: usize = 1024;

/// What has become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way, or was lost.
    Done,
    /// There is no room for it now.
    Full,
}

/// The end.
#[derive(Debug)]
pub(crate) struct WireEnd {
    pub(crate) socket: OwnedFd,
    full: bool,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Flows that have something to send.
    pub(crate) flows: VecDeque<u64>,
}

impl WireEnd {
    pub(crate) fn new(socket: OwnedFd) -> WireEnd {
        WireEnd {
            socket,
            full: false,
            waiting: VecDeque::new(),
            bytes: 0,
            flows: VecDeque::new(),
        }
    }

    /// Whether it is to be said when there is room.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Sends a frame that its sender keeps until there is room.
    pub(crate) fn send(&mut self, parts: &[IoSlice<'_>]) -> Sent {
        if self.full {
            return Sent::Full;
        }
        loop {
            match writev(&self.socket, parts) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.full = true;
                    return Sent::Full;
                }
                // A wire that is closed is read as such; other failures lose a frame.
                Ok(_) | Err(_) => return Sent::Done,
            }
        }
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes
    }

    /// Sends a frame now or, if it `may_wait`, later; or drops it.
    pub(crate) fn post(&mut self, parts: &[&[u8]], may_wait: bool) {
        let mut slices = [IoSlice::new(&[]), IoSlice::new(&[])];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        if self.send(&slices[..parts.len().min(2)]) == Sent::Done {
            return;
        }
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if may_wait && self.bytes + len <= MAX_WAITING && self.waiting.len() < MAX_FRAMES {
            self.bytes += len;
            self.waiting.push_back(parts.concat());
        }
    }

    /// There is room: sends what waits, as far as it goes.
    pub(crate) fn flush(&mut self) {
        self.full = false;
        while let Some(frame) = self.waiting.pop_front() {
            if self.send(&[IoSlice::new(&frame)]) == Sent::Full {
                self.waiting.push_front(frame);
                break;
            }
            self.bytes -= frame.len();
        }
    }
}
