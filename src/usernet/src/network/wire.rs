//! The end of a member's wire: what is sent there, and what waits for room.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, writev};

use super::timers::Armed;
use crate::poller::Interest;

/// Bytes of frames that wait for room: enough for some packets of 64 KiB of neighbours. What is too much is dropped, as
/// on any wire. Connections of the gateway's do not wait here: they keep their data.
const MAX_WAITING: usize = 1 << 20;
/// Frames that wait, as short ones cost more than their bytes.
const MAX_FRAMES: usize = 1024;

/// Bytes that wait when neighbours that send are held back, and when they may go on.
const CONGESTED: usize = MAX_WAITING / 2;
const RELIEVED: usize = MAX_WAITING / 8;

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
    /// Nothing is read: its frames go to a neighbour that is congested.
    pub(crate) paused: bool,
    /// Members that are paused for this one.
    pub(crate) senders: Vec<u64>,
    /// Until when, and whether that time has passed without any relief.
    pub(crate) patience: Armed,
    pub(crate) stuck: bool,
}

impl WireEnd {
    pub(crate) fn new(socket: OwnedFd) -> WireEnd {
        WireEnd {
            socket,
            full: false,
            waiting: VecDeque::new(),
            bytes: 0,
            flows: VecDeque::new(),
            paused: false,
            senders: Vec::new(),
            patience: None,
            stuck: false,
        }
    }

    /// Whether there is no room now.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// What it is to be waited for.
    pub(crate) fn interest(&self) -> Interest {
        match (self.paused, self.full) {
            (false, false) => Interest::Read,
            (false, true) => Interest::Both,
            (true, true) => Interest::Write,
            (true, false) => Interest::End,
        }
    }

    /// Whether so much waits that neighbours are to be held back.
    pub(crate) fn is_congested(&self) -> bool {
        self.bytes > CONGESTED && !self.stuck
    }

    /// Whether they may go on.
    pub(crate) fn is_relieved(&self) -> bool {
        self.bytes <= RELIEVED
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
