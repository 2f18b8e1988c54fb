//! The socket to one hull-fs, which never blocks.
//!
//! What the socket has no room for waits here, and while something does, no request is taken from the queues: so what waits
//! is one request, and at most two messages of the device's own for each request in flight.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use sys::packet;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::spec::{InHeader, Opcode, release_in, u64_at};
use super::worker::SOCKET;

/// The bit of `unique` that marks the device's own requests. A guest counts from 2 and never gets there.
const OWN: u64 = 1 << 63;

/// Whether a request with this `unique` is the device's own.
pub(super) fn is_own(unique: u64) -> bool {
    unique & OWN != 0
}

/// A conversation with hull-fs.
pub(super) struct Link {
    socket: OwnedFd,
    /// Messages that wait for room in the socket.
    outbox: VecDeque<Vec<u8>>,
    /// The thread is woken when there is room.
    watches_room: bool,
    /// The guest has sent INIT, and no DESTROY since.
    pub(super) mounted: bool,
    /// Replies are dropped until the one to this DESTROY of the device's own.
    destroying: Option<u64>,
    /// The number of the next request of the device's own.
    next: u64,
}

/// What came from hull-fs.
pub(super) enum Received {
    /// Nothing, for now.
    Nothing,
    /// hull-fs is gone.
    Gone,
    /// A packet of this length, with descriptors; some more were lost if `lost`.
    Packet {
        len: usize,
        descriptors: Vec<OwnedFd>,
        lost: bool,
    },
}

/// Why a message did not go.
pub(super) enum Unsent {
    /// hull-fs is gone.
    Gone,
    /// This message alone could not be sent, for want of memory or because it is longer than the socket's buffer.
    Message { unique: u64, errno: Errno },
}

impl Link {
    /// Begins with a socket that does not block.
    pub(super) fn new(socket: OwnedFd, wakeups: &Epoll) -> io::Result<Self> {
        let link = Self {
            socket,
            outbox: VecDeque::new(),
            watches_room: false,
            mounted: false,
            destroying: None,
            next: OWN,
        };
        link.watch(ControlOperation::Add, wakeups)?;
        Ok(link)
    }

    fn watch(&self, operation: ControlOperation, wakeups: &Epoll) -> io::Result<()> {
        let room = match self.watches_room {
            true => EventSet::OUT,
            false => EventSet::empty(),
        };
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED | room;
        wakeups.ctl(
            operation,
            self.socket.as_raw_fd(),
            EpollEvent::new(events, SOCKET),
        )
    }

    /// Whether messages wait for room.
    pub(super) fn is_blocked(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Puts a message behind those that wait, for the next [`Link::flush`].
    pub(super) fn send(&mut self, message: Vec<u8>) {
        self.outbox.push_back(message);
    }

    /// Takes an open, and the lookup that came with it if there was one, back.
    pub(super) fn undo_open(&mut self, node: u64, handle: u64, looked_up: bool) {
        let unique = self.own_unique();
        self.send(InHeader::request(
            Opcode::RELEASE,
            unique,
            node,
            &release_in(handle),
        ));
        if looked_up {
            let unique = self.own_unique();
            let once = 1u64.to_le_bytes();
            self.send(InHeader::request(Opcode::FORGET, unique, node, &once));
        }
    }

    /// Ends what the guest has begun. What it has sent and hull-fs has not read is void; so are replies that are under way.
    pub(super) fn destroy(&mut self) {
        let unique = self.own_unique();
        self.outbox.clear();
        self.send(InHeader::request(Opcode::DESTROY, unique, 0, &[]));
        self.destroying = Some(unique);
        self.mounted = false;
    }

    fn own_unique(&mut self) -> u64 {
        let unique = self.next;
        self.next = OWN | unique.wrapping_add(1);
        unique
    }

    /// Whether a reply belongs to no request of the guest's: to one of the device's own, or to one from before a reset.
    pub(super) fn is_void(&mut self, unique: u64) -> bool {
        if self.destroying == Some(unique) {
            self.destroying = None;
            return true;
        }
        is_own(unique) || self.destroying.is_some()
    }

    /// Sends what waits, as long as there is room; the thread is woken when there is more. To be called again after
    /// [`Unsent::Message`].
    pub(super) fn flush(&mut self, wakeups: &Epoll) -> Result<(), Unsent> {
        while let Some(message) = self.outbox.front() {
            // Not sendmsg(2), which a filter cannot keep from sending descriptors.
            match rustix::io::write(&self.socket, message) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Err(Unsent::Gone),
                Err(errno) => {
                    let unique = u64_at(message, 8);
                    self.outbox.pop_front();
                    return Err(Unsent::Message { unique, errno });
                }
                Ok(_) => drop(self.outbox.pop_front()),
            }
        }
        if self.is_blocked() != self.watches_room {
            self.watches_room = self.is_blocked();
            // It was added: a change needs no memory.
            let _ = self.watch(ControlOperation::Modify, wakeups);
        }
        Ok(())
    }

    /// The next packet. Of one that is longer than `buffer` there is the beginning, as a packet of the buffer's length.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> Received {
        match packet::receive_at_limit(&self.socket, buffer) {
            Ok((packet, _)) if packet.len == 0 => Received::Gone,
            Ok((packet, lost)) => Received::Packet {
                len: packet.len,
                descriptors: packet.descriptors,
                lost,
            },
            Err(packet::Error::Truncated) => Received::Packet {
                len: buffer.len(),
                descriptors: Vec::new(),
                lost: false,
            },
            Err(packet::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Received::Nothing
            }
            Err(packet::Error::Io(_)) => Received::Gone,
        }
    }
}
