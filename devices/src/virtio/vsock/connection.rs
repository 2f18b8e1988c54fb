//! One stream between a guest's socket and a descriptor of the host.
//!
//! ```text
//!  guest --RW--> [unsent] --writev--> fd      the buffer is used only while the fd takes no more; the guest may send as
//!                                             much as fits it (buf_alloc), and learns what has left it (fwd_cnt)
//!  guest <--RW--          <--readv--  fd      nothing is buffered here: without the guest's credit or a buffer of its
//!                                             receive queue, the bytes stay in the fd
//! ```
//! Each direction ends on its own: the guest's SHUTDOWN(SEND) becomes shutdown(2) of the fd once `unsent` is empty, the
//! fd's end of file becomes SHUTDOWN(SEND) to the guest once all before it was sent.

use std::collections::VecDeque;
use std::io;
use std::num::Wrapping;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memory::Segments;
use rustix::net::Shutdown;
use vmm_sys_util::epoll::EventSet;

use super::offers::StreamError;
use super::spec::{HOST_CID, Header, Op, Type, shutdown};

#[cfg(test)]
mod model;
mod to_host;

/// The most data in a packet to the guest. Linux refuses packets above 64 KiB (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
const MAX_DATA: usize = 64 << 10;

/// Identifies a connection; the context ids are always the same two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) guest: u32,
    pub(super) host: u32,
}

/// The guest violated the protocol: the connection is reset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation;

/// What a connection did with a chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// A packet of this many bytes, the header included.
    Packet(usize),
    /// The connection has data to send and the chain has no room behind the header.
    NoRoom,
    /// There was nothing to send after all.
    Nothing,
}

pub(super) struct Connection {
    pub(super) ports: Ports,
    guest_cid: u64,
    fd: OwnedFd,

    /// Bytes from the guest that the descriptor has not taken; at most `buf_alloc`.
    unsent: VecDeque<u8>,
    buf_alloc: u32,
    /// Bytes that came from the guest.
    received: Wrapping<u32>,
    /// Bytes of them that have left `unsent`; and the count in the last packet to the guest.
    forwarded: Wrapping<u32>,
    told_forwarded: Wrapping<u32>,
    writable: bool,
    /// The guest may send: it has not shut this direction down.
    guest_sends: bool,
    /// The host may receive: its end has not been closed.
    host_receives: bool,

    /// Bytes that went to the guest, and the size of its own buffer as it announced it.
    sent: Wrapping<u32>,
    peer_buf_alloc: u32,
    peer_forwarded: Wrapping<u32>,
    readable: bool,
    hung_up: bool,
    /// The descriptor has not reached its end of file.
    host_sends: bool,
    /// The guest has not shut this direction down.
    guest_receives: bool,

    response_due: bool,
    credit_update_due: bool,
    /// The guest was asked for credit and has given none since.
    credit_asked: bool,
    /// Flags of the last SHUTDOWN that was sent.
    told_shutdown: u32,

    /// The descriptor has failed: the connection is to be ended, and the failure reported.
    failure: Option<StreamError>,
    /// In the worker's queue of connections with something to send.
    pub(super) queued: bool,
    /// The guest has forgotten this connection; only `unsent` is left to be done.
    pub(super) lingering: bool,
}

impl Connection {
    /// The connection that `request` asks for, joined to `fd`, which does not block.
    pub(super) fn new(request: &Header, fd: OwnedFd, buf_alloc: u32) -> Self {
        Self {
            ports: Ports {
                guest: request.src_port,
                host: request.dst_port,
            },
            guest_cid: request.src_cid,
            fd,
            unsent: VecDeque::new(),
            buf_alloc,
            received: Wrapping(0),
            forwarded: Wrapping(0),
            told_forwarded: Wrapping(0),
            writable: true,
            guest_sends: true,
            host_receives: true,
            sent: Wrapping(0),
            peer_buf_alloc: request.buf_alloc,
            peer_forwarded: Wrapping(0),
            readable: true,
            hung_up: false,
            host_sends: true,
            guest_receives: true,
            response_due: true,
            credit_update_due: false,
            credit_asked: false,
            told_shutdown: 0,
            failure: None,
            queued: false,
            lingering: false,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes note of what the descriptor is ready for (edges), and sends what waited for it.
    pub(super) fn ready(&mut self, events: EventSet) {
        let failed = EventSet::ERROR | EventSet::HANG_UP;
        self.readable |= events.intersects(EventSet::IN | EventSet::READ_HANG_UP | failed);
        self.writable |= events.intersects(EventSet::OUT | failed);
        self.hung_up |= events.contains(EventSet::HANG_UP);
        self.flush();
        self.consider_hang_up();
    }

    /// Takes note of the guest's credit, which every packet of its carries.
    pub(super) fn update_credit(&mut self, header: &Header) {
        self.peer_buf_alloc = header.buf_alloc;
        // Senders on several vCPUs may overtake each other: a count that does not lie between the last one and what was
        // sent is old or forged.
        let fwd_cnt = Wrapping(header.fwd_cnt);
        if fwd_cnt - self.peer_forwarded <= self.sent - self.peer_forwarded {
            self.peer_forwarded = fwd_cnt;
        }
        if self.credit() > 0 {
            self.credit_asked = false;
        }
    }

    /// Takes the data of an RW packet.
    pub(super) fn receive(&mut self, data: &mut Segments<'_>) -> Result<(), Violation> {
        let len = u32::try_from(data.len()).map_err(|_| Violation)?;
        let unread = (self.received - self.forwarded).0;
        if !self.guest_sends || len > self.buf_alloc - unread {
            return Err(Violation);
        }
        self.received += len;
        if self.unsent.is_empty() && self.writable && self.host_receives {
            let done = uninterrupted(|| data.write_to(self.fd.as_fd()));
            self.wrote(len as usize, done);
        }
        match self.host_receives {
            true => to_host::buffer(&mut self.unsent, data, self.buf_alloc as usize),
            // It cannot be delivered and counts as if it were, as bytes in a closed socket's buffer do.
            false => self.forwarded = self.received,
        }
        self.consider_credit_update();
        Ok(())
    }

    /// Answers CREDIT_REQUEST.
    pub(super) fn credit_requested(&mut self) {
        self.credit_update_due = true;
    }

    /// The guest ends one direction or both. `true` if it is done with the connection.
    pub(super) fn guest_shut_down(&mut self, flags: u32) -> bool {
        if flags & shutdown::RECEIVE != 0 && self.guest_receives {
            self.guest_receives = false;
            self.shut_fd(Shutdown::Read);
        }
        if flags & shutdown::SEND != 0 && self.guest_sends {
            self.guest_sends = false;
            self.flush();
            self.end_writing_when_flushed();
        }
        !self.guest_receives && !self.guest_sends
    }

    /// The guest has forgotten the connection. `true` if bytes are left that the host shall still get.
    pub(super) fn guest_gone(&mut self) -> bool {
        self.lingering = true;
        self.guest_receives = false;
        self.guest_sends = false;
        self.shut_fd(Shutdown::Read);
        self.has_unsent()
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Why the connection cannot go on, once.
    pub(super) fn take_failure(&mut self) -> Option<StreamError> {
        self.failure.take()
    }

    /// What is lost if the connection ends now.
    pub(super) fn loss(&self) -> Option<StreamError> {
        self.has_unsent()
            .then_some(StreamError::Stopped(self.unsent.len()))
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.unsent.len(), self.unsent.capacity())
    }

    /// Whether a packet to the guest is due.
    pub(super) fn has_work(&self) -> bool {
        !self.lingering
            && (self.response_due
                || self.credit_update_due
                || self.can_read()
                || self.wants_credit()
                || self.shutdown_due() != self.told_shutdown)
    }

    /// Puts the next packet that is due into a chain: its header into `head`, which has room for it, data into `room`.
    pub(super) fn fill(&mut self, head: &mut Segments<'_>, room: &mut Segments<'_>) -> Filled {
        let (op, len) = match self.next(room) {
            Ok(next) => next,
            Err(nothing) => return nothing,
        };
        self.credit_update_due = false;
        self.told_forwarded = self.forwarded;
        head.put(&self.header(op, len).encode());
        Filled::Packet(Header::LEN + len as usize)
    }

    /// A packet's header as it would be now.
    pub(super) fn header(&self, op: Op, len: u32) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: Type::STREAM,
            op,
            flags: if op == Op::SHUTDOWN {
                self.told_shutdown
            } else {
                0
            },
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.forwarded.0,
        }
    }

    /// Decides on the next packet; data goes to `room` at once.
    fn next(&mut self, room: &mut Segments<'_>) -> Result<(Op, u32), Filled> {
        if std::mem::take(&mut self.response_due) {
            return Ok((Op::RESPONSE, 0));
        }
        if self.can_read() {
            if room.is_empty() {
                return Err(Filled::NoRoom);
            }
            match self.read(room) {
                Ok(0) => {
                    self.host_sends = false;
                    self.consider_hang_up();
                }
                Ok(count) => {
                    self.sent += count as u32;
                    return Ok((Op::RW, count as u32));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                // The host has closed its end without reading everything; whatever it had written was read before.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.host_sends = false;
                    self.host_gone();
                }
                Err(error) => self.fail(StreamError::Read(error)),
            }
        }
        if self.failure.is_some() {
            return Err(Filled::Nothing);
        }
        if self.shutdown_due() != self.told_shutdown {
            self.told_shutdown = self.shutdown_due();
            return Ok((Op::SHUTDOWN, 0));
        }
        if self.credit_update_due {
            return Ok((Op::CREDIT_UPDATE, 0));
        }
        if self.wants_credit() {
            self.credit_asked = true;
            return Ok((Op::CREDIT_REQUEST, 0));
        }
        Err(Filled::Nothing)
    }

    /// Reads as much as the guest, a packet and `room` have room for.
    fn read(&self, room: &mut Segments<'_>) -> io::Result<usize> {
        let limit = MAX_DATA.min(self.credit() as usize);
        match limit < room.len() {
            true => uninterrupted(|| room.prefix(limit).read_from(self.fd.as_fd())),
            false => uninterrupted(|| room.read_from(self.fd.as_fd())),
        }
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        self.peer_buf_alloc
            .saturating_sub((self.sent - self.peer_forwarded).0)
    }

    fn wants_to_read(&self) -> bool {
        self.readable && self.host_sends && self.guest_receives && !self.response_due
    }

    fn can_read(&self) -> bool {
        self.wants_to_read() && self.credit() > 0
    }

    fn wants_credit(&self) -> bool {
        self.wants_to_read() && self.credit() == 0 && !self.credit_asked
    }

    /// Flags of the SHUTDOWN that the host's end calls for.
    fn shutdown_due(&self) -> u32 {
        (if self.host_sends { 0 } else { shutdown::SEND })
            | (if self.host_receives {
                0
            } else {
                shutdown::RECEIVE
            })
    }
}

/// Repeats what a signal interrupted.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
