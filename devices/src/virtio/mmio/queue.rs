//! A queue's registers, until the device takes the queue.

use memory::{GuestAddress, Memory};
use virtio_queue::{Queue, QueueT};

use super::registers::*;

/// What the driver has written so far, unchecked until [`QueueSetup::build`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueSetup {
    pub(super) max_size: u16,
    pub(super) size: u32,
    pub(super) ready: bool,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

impl QueueSetup {
    pub(super) fn new(max_size: u16) -> Self {
        let size = max_size.into();
        Self {
            max_size,
            size,
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }

    pub(super) fn set(&mut self, offset: u64, value: u32) {
        match offset {
            QUEUE_NUM => self.size = value,
            QUEUE_DESC_LOW => set_low(&mut self.descriptors, value),
            QUEUE_DESC_HIGH => set_high(&mut self.descriptors, value),
            QUEUE_DRIVER_LOW => set_low(&mut self.available, value),
            QUEUE_DRIVER_HIGH => set_high(&mut self.available, value),
            QUEUE_DEVICE_LOW => set_low(&mut self.used, value),
            QUEUE_DEVICE_HIGH => set_high(&mut self.used, value),
            _ => {}
        }
    }

    /// The queue, if its size and alignments are legal and its rings lie in guest memory (2.7).
    pub(super) fn build(&self, memory: &Memory, event_idx: bool) -> Option<Queue> {
        let mut queue = Queue::new(self.max_size).ok()?;
        queue.try_set_size(self.size.try_into().ok()?).ok()?;
        queue
            .try_set_desc_table_address(GuestAddress(self.descriptors))
            .ok()?;
        queue
            .try_set_avail_ring_address(GuestAddress(self.available))
            .ok()?;
        queue
            .try_set_used_ring_address(GuestAddress(self.used))
            .ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        // An available ring at 0 would be taken for a queue that was never set up.
        (self.available != 0 && queue.is_valid(memory.as_ref())).then_some(queue)
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}
