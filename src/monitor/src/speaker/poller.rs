//! What the speaker waits for: an epoll set whose members are named.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::Errno;

/// Events taken at a time.
const EVENTS: usize = 64;
/// Bits of a key that tell the kind of source; the rest is its number.
const KIND_BITS: u32 = 3;

/// A member of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The agent's connection: first, so that an end is heard before what follows from it.
    Agent,
    /// A stream of the guest's, by its port.
    Guest(u32),
    /// A client's end of a stream.
    Sink(u64),
    /// hull-vmm's packets.
    Vmm,
    /// How the machine's process ended.
    Status,
    /// The guest's console.
    Console,
    /// The warden.
    Warden,
    /// A client's connection.
    Client(u64),
}

impl Source {
    fn key(self) -> u64 {
        let (kind, number) = match self {
            Source::Agent => (0, 0),
            Source::Vmm => (0, 1),
            Source::Status => (0, 2),
            Source::Console => (0, 3),
            Source::Warden => (0, 4),
            Source::Guest(port) => (1, u64::from(port)),
            Source::Sink(id) => (2, id),
            Source::Client(id) => (3, id),
        };
        number << KIND_BITS | kind
    }

    fn of(key: u64) -> Option<Source> {
        let number = key >> KIND_BITS;
        Some(match (key & ((1 << KIND_BITS) - 1), number) {
            (0, 0) => Source::Agent,
            (0, 1) => Source::Vmm,
            (0, 2) => Source::Status,
            (0, 3) => Source::Console,
            (0, 4) => Source::Warden,
            (1, port) => Source::Guest(u32::try_from(port).ok()?),
            (2, id) => Source::Sink(id),
            (3, id) => Source::Client(id),
            _ => return None,
        })
    }
}

/// What a member is waited for, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ready {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// The other side is gone. Always waited for.
    pub(crate) gone: bool,
}

impl Ready {
    pub(crate) const READ: Ready = Ready {
        read: true,
        write: false,
        gone: false,
    };

    /// Read, and write if there is something to be written.
    pub(crate) fn read_and(write: bool) -> Ready {
        Ready {
            write,
            ..Ready::READ
        }
    }
}

/// The set.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub(crate) fn add(&self, fd: impl AsFd, source: Source, wanted: Ready) -> io::Result<()> {
        let data = epoll::EventData::new_u64(source.key());
        Ok(epoll::add(&self.0, fd, data, flags(wanted))?)
    }

    pub(crate) fn change(&self, fd: impl AsFd, source: Source, wanted: Ready) -> io::Result<()> {
        let data = epoll::EventData::new_u64(source.key());
        Ok(epoll::modify(&self.0, fd, data, flags(wanted))?)
    }

    /// Waits for what is wanted of a descriptor. One of which nothing is wanted is no member: the kernel would report its
    /// other side's end again and again.
    pub(crate) fn want(
        &self,
        fd: impl AsFd,
        source: Source,
        wanted: Ready,
        is_member: &mut bool,
    ) -> io::Result<()> {
        let wants = wanted.read || wanted.write;
        match (std::mem::replace(is_member, wants), wants) {
            (false, true) => self.add(fd, source, wanted),
            (true, true) => self.change(fd, source, wanted),
            (true, false) => {
                self.remove(fd);
                Ok(())
            }
            (false, false) => Ok(()),
        }
    }

    /// Takes a member out. That it is not in is as good.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits for members, at most until `deadline`; those that are ready, the agent first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<(Source, Ready)>> {
        let timeout = deadline.map(sys::clock::time_until);
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(
            &self.0,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Err(Errno::INTR) => return Ok(Vec::new()),
            result => result?,
        };
        let mut ready: Vec<(Source, Ready)> = events
            .iter()
            .filter_map(|event| Some((Source::of(event.data.u64())?, of(event.flags))))
            .collect();
        ready.sort_by_key(|(source, _)| *source);
        Ok(ready)
    }
}

fn flags(wanted: Ready) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, wanted.read);
    flags.set(epoll::EventFlags::OUT, wanted.write);
    flags
}

fn of(flags: epoll::EventFlags) -> Ready {
    Ready {
        read: flags.contains(epoll::EventFlags::IN),
        write: flags.contains(epoll::EventFlags::OUT),
        gone: flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_key_of_its_own() {
        let all = [
            Source::Agent,
            Source::Vmm,
            Source::Status,
            Source::Console,
            Source::Warden,
            Source::Guest(0),
            Source::Guest(u32::MAX),
            Source::Sink(7),
            Source::Client(7),
        ];
        for source in all {
            assert_eq!(Source::of(source.key()), Some(source));
        }
        assert_eq!(Source::of(7), None);
    }

    #[test]
    fn a_member_that_is_ready_is_named() {
        let poller = Poller::new().unwrap();
        let (a, b) = sys::packet::stream_pair().unwrap();
        poller.add(&a, Source::Client(3), Ready::READ).unwrap();
        assert!(poller.wait(Some(Instant::now())).unwrap().is_empty());
        rustix::io::write(&b, b"x").unwrap();
        let ready = poller.wait(None).unwrap();
        assert_eq!(ready, [(Source::Client(3), Ready::READ)]);
        drop(b);
        assert!(poller.wait(None).unwrap()[0].1.gone);
    }
}
