//! From the wire to the guest: each packet straight into receive buffers, as many as it takes.
//!
//! A packet's length is known only when it has been read, and a wire cuts off what does not fit. So the last piece of
//! each read is a buffer of our own behind the guest's: what lands there is copied on into further receive buffers. Their
//! number is guessed from the packets before, so that under load nothing lands there.

use std::io;
use std::os::fd::BorrowedFd;

use memory::{GuestMemoryMmap, MAX_SEGMENTS, Segments, VolatileSlice};

use super::spec::{MAX_PACKET, full_packet, header};
use crate::virtio::ring::{Chain, Ring};

/// The outcome of an attempt to deliver a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// A packet went to the guest, or was dropped because it can never fit its buffers.
    Packet,
    /// The wire has no packet.
    NothingToRead,
    /// The guest has too few receive buffers; this many were looked at.
    NoBuffers {
        /// Less than the queue is long.
        seen: u16,
    },
    /// The wire failed.
    Failed(io::ErrorKind),
}

/// The receiving half of a device.
pub(super) struct Receiver {
    /// MRG_RXBUF: a packet may take several buffers.
    mergeable: bool,
    /// Bytes of receive buffers to take for the next packet.
    expected: usize,
    least_expected: usize,
    /// What a packet does not find room for while it is read. Its pages are touched only when that happens.
    overflow: Vec<u8>,
    /// A packet that was read and waits for receive buffers.
    held: Option<Vec<u8>>,
}

/// Receive buffers that were taken for one packet: one run of bytes for it.
#[derive(Default)]
struct Taken<'m> {
    /// Heads and lengths, in their order.
    chains: Vec<(u16, usize)>,
    run: Segments<'m>,
    /// The run has as many pieces as may be.
    full: bool,
}

impl Receiver {
    pub(super) fn new(mergeable: bool, mtu: u16) -> Self {
        Self {
            mergeable,
            expected: full_packet(mtu),
            least_expected: full_packet(mtu),
            overflow: vec![0; MAX_PACKET],
            held: None,
        }
    }

    /// Forgets a packet that was read from a wire that is gone.
    pub(super) fn forget(&mut self) {
        self.held = None;
    }

    /// Moves one packet from the wire to the guest.
    pub(super) fn deliver(
        &mut self,
        wire: BorrowedFd<'_>,
        rx: &mut Ring,
        memory: &GuestMemoryMmap,
    ) -> Delivered {
        let mut taken = Taken::default();
        let wanted = self.held.as_ref().map_or(self.expected, Vec::len);
        self.take(&mut taken, wanted, rx, memory);
        if taken.chains.is_empty() || !rx.usable() {
            rx.unpop(taken.chains.len() as u16);
            return Delivered::NoBuffers { seen: 0 };
        }
        let delivered = match self.held.take() {
            Some(packet) => self.deliver_held(packet, &mut taken, rx, memory),
            None => self.deliver_read(wire, &mut taken, rx, memory),
        };
        // What was not given back remains for the next packet.
        rx.unpop(taken.chains.len() as u16);
        delivered
    }

    fn deliver_held(
        &mut self,
        packet: Vec<u8>,
        taken: &mut Taken<'_>,
        rx: &mut Ring,
        memory: &GuestMemoryMmap,
    ) -> Delivered {
        if taken.run.len() < packet.len() {
            return self.hold_or_drop(packet, taken, rx);
        }
        taken.run.prefix(packet.len()).put(&packet);
        taken.give_back(packet.len(), rx, memory);
        Delivered::Packet
    }

    fn deliver_read<'m>(
        &mut self,
        wire: BorrowedFd<'_>,
        taken: &mut Taken<'m>,
        rx: &mut Ring,
        memory: &'m GuestMemoryMmap,
    ) -> Delivered {
        let room = taken.run.len();
        let len = match read(wire, &taken.run, &mut self.overflow) {
            Ok(len) if len < header::LEN => return Delivered::NothingToRead,
            Ok(len) => len,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Delivered::NothingToRead,
                    kind => Delivered::Failed(kind),
                };
            }
        };
        // Grows at once, shrinks slowly: packets of one size come in a row.
        self.expected = len
            .max(self.expected - self.expected / 8)
            .max(self.least_expected);
        if let Some(beyond) = len.checked_sub(room).filter(|&beyond| beyond > 0) {
            self.take(taken, len, rx, memory);
            if taken.run.len() < len {
                let mut packet = vec![0; room];
                taken.run.prefix(room).take(&mut packet);
                packet.extend(&self.overflow[..beyond]);
                return self.hold_or_drop(packet, taken, rx);
            }
            let mut rest = taken.run.prefix(len);
            rest.advance(room);
            rest.put(&self.overflow[..beyond]);
        }
        taken.give_back(len, rx, memory);
        Delivered::Packet
    }

    /// Keeps a packet until the guest has room for it. Where it never will, the packet is dropped: without merging a buffer is
    /// too small, and a run of as many buffers as may be is too short.
    fn hold_or_drop(&mut self, packet: Vec<u8>, taken: &Taken<'_>, rx: &Ring) -> Delivered {
        let seen = taken.chains.len() as u16;
        if !self.mergeable || taken.full || seen == rx.size() {
            return Delivered::Packet;
        }
        self.held = Some(packet);
        Delivered::NoBuffers { seen }
    }

    /// Takes receive buffers until `wanted` bytes fit, or there are no more.
    fn take<'m>(
        &self,
        taken: &mut Taken<'m>,
        wanted: usize,
        rx: &mut Ring,
        memory: &'m GuestMemoryMmap,
    ) {
        while taken.run.len() < wanted && (self.mergeable || taken.chains.is_empty()) {
            let Some(Chain { head, writable, .. }) = rx.pop(memory) else {
                return;
            };
            // One piece of a run is left for the overflow.
            if taken.run.pieces() + writable.pieces() >= MAX_SEGMENTS {
                taken.full = true;
                return rx.unpop(1);
            }
            taken.chains.push((head, writable.len()));
            taken.run.append(writable).expect("the pieces were counted");
        }
    }
}

impl Taken<'_> {
    /// Gives those buffers back that `len` bytes fill, all at once, and keeps the others.
    fn give_back(&mut self, len: usize, rx: &mut Ring, memory: &GuestMemoryMmap) {
        let mut left = len;
        let mut count = 0;
        for (_, chain_len) in &mut self.chains {
            count += 1;
            *chain_len = left.min(*chain_len);
            left -= *chain_len;
            if left == 0 {
                break;
            }
        }
        let mut number = self.run.prefix(header::LEN);
        number.advance(header::NUM_BUFFERS);
        // At most a queue's length.
        number.put(&(count as u16).to_le_bytes());
        rx.push_all(memory, &self.chains[..count]);
        self.chains.drain(..count);
    }
}

/// Reads a packet into `room` and what does not fit into `overflow`. Returns its length.
fn read(wire: BorrowedFd<'_>, room: &Segments<'_>, overflow: &mut [u8]) -> io::Result<usize> {
    let mut run = room.prefix(room.len());
    run.push(VolatileSlice::from(overflow))
        .expect("one piece was left");
    loop {
        match run.read_from(wire) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
