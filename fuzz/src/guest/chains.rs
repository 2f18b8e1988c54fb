//! How a guest lays out its queues: chains of pieces, right and wrong (virtio 1.2, 2.7).

use devices::virtio::mmio::registers::QUEUE_NOTIFY;
use memory::{Bytes, GuestAddress};

use super::{AVAILABLE, BORDER, BUFFERS, Guest, MEMORY, Request};
use crate::input::Input;

/// The longest piece that one operation fills with bytes of its own.
const MAX_LEN: u64 = 0x6000;

// Flags of a descriptor (virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub(super) base: u64,
    pub(super) size: u16,
    pub(super) next_descriptor: u16,
    pub(super) available: u16,
}

#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
}

impl Guest {
    pub(super) fn queue(&self, input: &mut Input<'_>) -> usize {
        usize::from(input.u8()) % self.queues.len()
    }

    /// Guest memory, used again and again.
    pub(super) fn alloc(&mut self, len: u64) -> u64 {
        let len = len.min(MAX_LEN);
        if self.next_buffer + len > MEMORY {
            self.next_buffer = BUFFERS;
        }
        let address = self.next_buffer;
        self.next_buffer += len;
        address
    }

    pub(super) fn poke(&mut self, address: u64, bytes: &[u8]) {
        // What lies outside of memory is not written: a guest's own affair.
        let _ = self.memory.write(bytes, GuestAddress(address));
    }

    /// A piece of a chain: bytes of the input's, room, or anything.
    pub(super) fn piece(&mut self, input: &mut Input<'_>) -> Piece {
        let kind = input.u8();
        let flags =
            if kind & 1 != 0 { WRITE } else { 0 } | if kind & 0x40 != 0 { INDIRECT } else { 0 };
        let (address, len) = match kind >> 1 & 3 {
            0 => {
                let bytes = input.short();
                let address = self.alloc(bytes.len() as u64);
                self.poke(address, bytes);
                (address, bytes.len() as u32)
            }
            1 => {
                let len = input.u16();
                (self.alloc(len.into()), len.into())
            }
            2 => (u64::from(input.u32()) << ((kind >> 3 & 7) * 4), input.u32()),
            _ => (BORDER - u64::from(input.u8()), input.u8().into()),
        };
        Piece {
            address,
            len,
            flags,
        }
    }

    pub(super) fn add(&mut self, queue: usize, pieces: &[Piece], indirect: bool) {
        if indirect {
            let table = self.alloc(16 * pieces.len() as u64);
            for (i, piece) in pieces.iter().enumerate() {
                let next = (i + 1 < pieces.len()).then_some(i as u16 + 1);
                self.poke(table + 16 * i as u64, &descriptor(*piece, next));
            }
            let table = Piece {
                address: table,
                len: 16 * pieces.len() as u32,
                flags: INDIRECT,
            };
            return self.add(queue, &[table], false);
        }
        let Queue { base, size, .. } = self.queues[queue];
        let head = self.queues[queue].next_descriptor % size;
        for (i, piece) in pieces.iter().enumerate() {
            let index = self.queues[queue].next_descriptor % size;
            let following = self.queues[queue].next_descriptor.wrapping_add(1);
            self.queues[queue].next_descriptor = following;
            let next = (i + 1 < pieces.len()).then_some(following % size);
            self.poke(base + 16 * u64::from(index), &descriptor(*piece, next));
        }
        let available = self.queues[queue].available;
        let slot = base + AVAILABLE + 4 + 2 * u64::from(available % size);
        self.poke(slot, &head.to_le_bytes());
        let available = available.wrapping_add(1);
        self.queues[queue].available = available;
        self.poke(base + AVAILABLE + 2, &available.to_le_bytes());
    }

    pub(super) fn submit(&mut self, request: &Request) {
        let queue = request.queue % self.queues.len();
        let mut pieces = Vec::new();
        for bytes in &request.readable {
            let address = self.alloc(bytes.len() as u64);
            self.poke(address, bytes);
            pieces.push(Piece {
                address,
                len: bytes.len() as u32,
                flags: 0,
            });
        }
        for &len in &request.writable {
            pieces.push(Piece {
                address: self.alloc(len.into()),
                len,
                flags: WRITE,
            });
        }
        self.add(queue, &pieces, false);
        self.set(QUEUE_NOTIFY, queue as u32);
    }
}

fn descriptor(piece: Piece, next: Option<u16>) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&piece.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&piece.len.to_le_bytes());
    let flags = piece.flags | if next.is_some() { NEXT } else { 0 };
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.unwrap_or(0).to_le_bytes());
    bytes
}
