//! The driver's side of a split virtqueue (virtio 1.2, section 2.7), able to be wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use memory::{Bytes, GuestAddress, Memory};
use virtio_queue::QueueState;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Descriptor flags (2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// One descriptor's worth of guest memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u32,
    /// Flags but NEXT.
    pub(crate) flags: u16,
}

impl Buffer {
    pub(crate) fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            flags: 0,
        }
    }

    pub(crate) fn writable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            flags: WRITE,
        }
    }

    /// The bytes of a descriptor.
    fn descriptor(self, next: Option<u16>) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        let flags = self.flags | if next.is_some() { NEXT } else { 0 };
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.unwrap_or(0).to_le_bytes());
        bytes
    }
}

/// A chain that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) len: u32,
}

/// A queue as its driver sees it. Descriptors are taken round and round: a test keeps fewer in flight than there are.
pub(crate) struct DriverQueue {
    pub(crate) kick: Arc<EventFd>,
    memory: Memory,
    base: u64,
    size: u16,
    next_descriptor: u16,
    avail_index: u16,
    used_index: u16,
}

impl DriverQueue {
    /// A queue in the page at `base`: descriptors at its start, the available ring at 0x400, the used ring at 0x800.
    pub(crate) fn new(memory: Memory, base: u64, size: u16) -> Self {
        assert!(size <= 64, "the rings would overlap");
        Self {
            kick: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            memory,
            base,
            size,
            next_descriptor: 0,
            avail_index: 0,
            used_index: 0,
        }
    }

    /// What the transport hands to the device.
    pub(super) fn state(&self, max_size: u16, event_idx_enabled: bool) -> QueueState {
        QueueState {
            max_size,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled,
            size: self.size,
            ready: true,
            desc_table: self.base,
            avail_ring: self.base + 0x400,
            used_ring: self.base + 0x800,
        }
    }

    /// The queue as it was at first.
    pub(crate) fn clear(&mut self) {
        self.memory
            .write_slice(&[0; 0x1000], GuestAddress(self.base))
            .unwrap();
        (self.next_descriptor, self.avail_index, self.used_index) = (0, 0, 0);
    }

    pub(crate) fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Makes a chain of these buffers available, without a kick. Returns its head.
    pub(crate) fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor % self.size;
        for (i, &buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor % self.size;
            self.next_descriptor = self.next_descriptor.wrapping_add(1);
            let next = (i + 1 < buffers.len()).then_some(self.next_descriptor % self.size);
            self.write_descriptor(index, buffer, next);
        }
        self.publish(head);
        head
    }

    /// Makes a chain available by an indirect table at `table`.
    pub(crate) fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (i, &buffer) in buffers.iter().enumerate() {
            let next = (i + 1 < buffers.len()).then_some(i as u16 + 1);
            let address = GuestAddress(table + 16 * i as u64);
            self.memory
                .write_slice(&buffer.descriptor(next), address)
                .unwrap();
        }
        let len = 16 * buffers.len() as u32;
        self.add(&[Buffer {
            address: table,
            len,
            flags: INDIRECT,
        }])
    }

    /// Writes one descriptor.
    pub(crate) fn write_descriptor(&self, index: u16, buffer: Buffer, next: Option<u16>) {
        let address = GuestAddress(self.base + 16 * u64::from(index));
        self.memory
            .write_slice(&buffer.descriptor(next), address)
            .unwrap();
    }

    /// Puts a head into the available ring.
    pub(crate) fn publish(&mut self, head: u16) {
        let slot = self.base + 0x404 + 2 * u64::from(self.avail_index % self.size);
        self.memory
            .write_obj(head.to_le(), GuestAddress(slot))
            .unwrap();
        self.set_avail_index(self.avail_index.wrapping_add(1));
    }

    /// Sets the available index, right or wrong.
    pub(crate) fn set_avail_index(&mut self, index: u16) {
        self.avail_index = index;
        let address = GuestAddress(self.base + 0x402);
        self.memory
            .store(index.to_le(), address, Ordering::SeqCst)
            .unwrap();
    }

    /// With EVENT_IDX: interrupt when the used index goes past this one.
    pub(crate) fn set_used_event(&self, index: u16) {
        let address = GuestAddress(self.base + 0x404 + 2 * u64::from(self.size));
        self.memory
            .store(index.to_le(), address, Ordering::SeqCst)
            .unwrap();
    }

    /// With EVENT_IDX: the available index at which the device wants a kick.
    pub(crate) fn avail_event(&self) -> u16 {
        let address = GuestAddress(self.base + 0x804 + 8 * u64::from(self.size));
        u16::from_le(self.memory.load(address, Ordering::SeqCst).unwrap())
    }

    /// Without EVENT_IDX: whether the driver wants no interrupts.
    pub(crate) fn set_interrupts_unwanted(&self, unwanted: bool) {
        let flags = u16::from(unwanted).to_le();
        let address = GuestAddress(self.base + 0x400);
        self.memory.store(flags, address, Ordering::SeqCst).unwrap();
    }

    /// The next chain that came back, if any.
    pub(crate) fn next_used(&mut self) -> Option<Used> {
        let address = GuestAddress(self.base + 0x802);
        let index = u16::from_le(self.memory.load(address, Ordering::SeqCst).unwrap());
        if index == self.used_index {
            return None;
        }
        let slot = self.base + 0x804 + 8 * u64::from(self.used_index % self.size);
        let element: [u8; 8] = self.memory.read_obj(GuestAddress(slot)).unwrap();
        self.used_index = self.used_index.wrapping_add(1);
        let [h0, h1, _, _, len @ ..] = element;
        Some(Used {
            head: u16::from_le_bytes([h0, h1]),
            len: u32::from_le_bytes(len),
        })
    }
}
