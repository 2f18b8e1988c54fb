//! What the one thread waits for: an epoll set whose members have a key.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::Errno;

/// Events taken at a time.
const EVENTS: usize = 64;

/// What a member is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Something to be read.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
    /// Nothing but its end.
    End,
    /// Either, said once whenever it comes to be so: a stream that is read and written until it would block. A read that gave
    /// less than was asked for has emptied it, unless its other side had ended.
    Edges,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The member.
    pub(crate) key: u64,
    /// There is something to be read, or an end.
    pub(crate) readable: bool,
    /// There is room.
    pub(crate) writable: bool,
    /// The other side will send nothing more.
    pub(crate) ended: bool,
    /// The other side is gone, or the socket has failed.
    pub(crate) gone: bool,
}

/// The set.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub(crate) fn add(&self, fd: impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::add(&self.0, fd, data, flags(interest))?)
    }

    pub(crate) fn change(&self, fd: impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::modify(&self.0, fd, data, flags(interest))?)
    }

    /// Waits for members, at most until `deadline`; those that are ready.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<Ready>> {
        let timeout = deadline.map(sys::clock::time_until);
        let mut events = Vec::with_capacity(EVENTS);
        let space = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.0, space, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(Vec::new()),
            result => result?,
        };
        let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let ready = events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                key: event.data.u64(),
                readable: flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
                ended: flags.intersects(gone | epoll::EventFlags::RDHUP),
                gone: flags.intersects(gone),
            }
        });
        Ok(ready.collect())
    }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    match interest {
        Interest::Read => epoll::EventFlags::IN,
        Interest::Write => epoll::EventFlags::OUT,
        Interest::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        Interest::Edges => {
            let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            both | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
        }
        Interest::End => epoll::EventFlags::empty(),
    }
}
