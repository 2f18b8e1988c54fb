//! What the loop waits for: an epoll set, with a number for each thing in it.
//!
//! A thing has at most two descriptors in the set, one for each [`Side`]. Numbers are never used again, so an event of a
//! thing that is gone is recognized and dropped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
pub(crate) use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

/// Events taken at a time.
const EVENTS: usize = 32;

/// Number of the control connection.
pub(crate) const CONTROL: Number = Number(0);
/// Number of the descriptor that child signals arrive on.
pub(crate) const SIGNALS: Number = Number(1);

/// Names a thing in the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(u64);

/// Which descriptor of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Bytes are read from it. Things of one descriptor have this side only.
    From,
    /// Bytes are written to it.
    To,
}

/// The set.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    next: u64,
}

impl Poll {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            next: SIGNALS.0 + 1,
        })
    }

    /// A number for a new thing.
    pub(crate) fn number(&mut self) -> Number {
        self.next += 1;
        Number(self.next)
    }

    /// Puts a descriptor into the set.
    pub(crate) fn add(
        &self,
        fd: impl AsFd,
        number: Number,
        side: Side,
        flags: EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, key(number, side), flags)?)
    }

    /// Changes what is waited for.
    pub(crate) fn modify(
        &self,
        fd: impl AsFd,
        number: Number,
        side: Side,
        flags: EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, key(number, side), flags)?)
    }

    /// Takes a descriptor out of the set. One that has duplicates, here or in a process forked since, does not leave it by
    /// being closed.
    pub(crate) fn delete(&self, fd: impl AsFd) {
        // It fails only when the descriptor is not in the set.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events; the numbers of what has any.
    pub(crate) fn wait(&self) -> io::Result<Vec<Number>> {
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(events
            .iter()
            .map(|event| Number(event.data.u64() / 2))
            .collect())
    }
}

fn key(number: Number, side: Side) -> epoll::EventData {
    epoll::EventData::new_u64(2 * number.0 + u64::from(side == Side::To))
}
