//! A started queue: takes chains from the driver, checks each as a whole, and gives them back.
//!
//! Everything that a hostile driver can do to a queue is handled here, once for all devices. A chain is walked once and every
//! descriptor checked before the device sees it. What no conforming driver does is a fault
//! ([`Fault`]): more chains than the queue is long, a chain that loops, leaves guest memory or has no end, a buffer of the
//! wrong direction. Then the device needs a reset (virtio 1.2, 2.1.2): its driver gets a configuration interrupt, and none of its queues is touched
//! again until the driver has reset it. Other devices are not affected.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, MAX_SEGMENTS, Permissions,
    Segments,
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::{Interrupt, StartedQueue};

#[cfg(test)]
mod model;

/// The most descriptors of one chain, those without bytes included. The longest queue has 512, and no chain may be longer
/// than its queue (2.7.5.3.1); an indirect table could have 65535, each of which costs the device's thread a read.
const MAX_DESCRIPTORS: usize = MAX_SEGMENTS;

/// One request of the driver's: its readable bytes, then its writable ones.
#[derive(Debug)]
pub(super) struct Chain<'m> {
    /// Identifies the chain when it is given back.
    pub(super) head: u16,
    /// What the driver wrote for the device.
    pub(super) readable: Segments<'m>,
    /// What the device fills.
    pub(super) writable: Segments<'m>,
}

/// The buffers that every chain of a queue must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The driver sends: at least one readable byte, and none to write.
    Readable,
    /// The driver receives: at least one writable byte, and none to read.
    Writable,
    /// The driver sends a request and gets an answer: at least this many bytes of each.
    Request { readable: usize, writable: usize },
}

impl Shape {
    fn fits(self, readable: usize, writable: usize) -> bool {
        match self {
            Self::Readable => readable > 0 && writable == 0,
            Self::Writable => readable == 0 && writable > 0,
            Self::Request {
                readable: least_readable,
                writable: least_writable,
            } => readable >= least_readable && writable >= least_writable,
        }
    }
}

/// How a driver broke a queue: the device needs a reset.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The queue's rings or indices.
    #[error("the queue cannot be used: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// With those in flight, more chains than the queue is long.
    #[error("more chains are available than the queue is long")]
    TooMany,
    /// The available ring names a descriptor that is not there.
    #[error("a chain begins at descriptor {0}, outside of the table")]
    Head(u16),
    /// An index outside the table, a table outside memory or of an odd length, a loop, more than 4 GiB.
    #[error("a chain has no end")]
    Endless,
    /// A buffer that is not memory.
    #[error("a buffer lies outside of memory")]
    OutsideMemory,
    /// 2.7.4.2: device-readable elements come first.
    #[error("a readable buffer comes after a writable one")]
    Order,
    /// More descriptors than a chain may have.
    #[error("a chain has more than {MAX_DESCRIPTORS} pieces")]
    TooLong,
    /// Buffers of the wrong direction, or none.
    #[error(
        "a chain has {readable} readable and {writable} writable bytes, which this queue is not for"
    )]
    Shape { readable: usize, writable: usize },
}

/// A started queue.
pub(super) struct Ring {
    queue: Queue,
    pub(super) kick: Arc<EventFd>,
    /// Its number in the device.
    index: usize,
    shape: Shape,
    interrupt: Interrupt,
    /// Chains in flight.
    taken: u16,
    /// The used index at the last decision about an interrupt.
    notified: Wrapping<u16>,
}

impl Ring {
    /// Starts work on a queue that has no chain in flight.
    pub(super) fn new(
        index: usize,
        started: StartedQueue,
        shape: Shape,
        interrupt: &Interrupt,
    ) -> Self {
        Self {
            notified: Wrapping(started.queue.next_used()),
            queue: started.queue,
            kick: started.kick,
            index,
            shape,
            interrupt: interrupt.clone(),
            taken: 0,
        }
    }

    /// Stops work: chains that were not taken stay in the queue.
    pub(super) fn into_queue(self) -> Queue {
        self.queue
    }

    /// Whether the driver may still put chains here.
    pub(super) fn usable(&self) -> bool {
        self.queue.ready() && !self.interrupt.is_reset_needed()
    }

    /// How many chains the queue can hold.
    pub(super) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The next chain, or `None` when there is none now.
    pub(super) fn pop<'m>(&mut self, memory: &'m GuestMemoryMmap) -> Option<Chain<'m>> {
        if !self.usable() {
            return None;
        }
        match self.try_pop(memory) {
            Ok(chain) => chain,
            Err(fault) => {
                self.report(&fault);
                None
            }
        }
    }

    fn try_pop<'m>(&mut self, memory: &'m GuestMemoryMmap) -> Result<Option<Chain<'m>>, Fault> {
        let Some(chain) = self.queue.iter(memory)?.next() else {
            return Ok(None);
        };
        // Without this, a device that gathers chains would never finish against a driver that adds them as fast.
        if self.taken >= self.queue.size() {
            return Err(Fault::TooMany);
        }
        let head = chain.head_index();
        if head >= self.queue.size() {
            return Err(Fault::Head(head));
        }
        let (readable, writable) = collect(memory, chain)?;
        if !self.shape.fits(readable.len(), writable.len()) {
            return Err(Fault::Shape {
                readable: readable.len(),
                writable: writable.len(),
            });
        }
        self.taken += 1;
        Ok(Some(Chain {
            head,
            readable,
            writable,
        }))
    }

    /// Puts back the `count` chains that were popped last: they will be popped again.
    pub(super) fn unpop(&mut self, count: u16) {
        for _ in 0..count {
            self.queue.go_to_previous_position();
        }
        self.taken -= count;
    }

    /// Gives a chain back, of which `written` bytes of its writable part were written.
    pub(super) fn push(&mut self, memory: &GuestMemoryMmap, head: u16, written: usize) {
        self.push_all(memory, &[(head, written)]);
    }

    /// Gives several chains back at once: the driver sees all of them or none. Each with the bytes written to it.
    pub(super) fn push_all(&mut self, memory: &GuestMemoryMmap, chains: &[(u16, usize)]) {
        let Some((&(last, written), others)) = chains.split_last() else {
            return;
        };
        self.taken -= chains.len() as u16;
        if !self.usable() {
            return;
        }
        let done = self.push_unseen(memory, others).and_then(|()| {
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            // Writes the last element and moves the index past all of them.
            self.queue.add_used(memory, last, written)
        });
        if let Err(error) = done {
            self.report(&error.into());
        }
    }

    /// Puts elements behind the end of the used ring (virtio 1.2, 2.7.8), where the driver does not look yet.
    fn push_unseen(
        &mut self,
        memory: &GuestMemoryMmap,
        chains: &[(u16, usize)],
    ) -> Result<(), virtio_queue::Error> {
        const FLAGS_AND_INDEX: u64 = 4;
        const ELEMENT: u64 = 8;
        let mut next = Wrapping(self.queue.next_used());
        for &(head, written) in chains {
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            let element = u64::from(written) << 32 | u64::from(head);
            let slot = u64::from(next.0 % self.queue.size());
            let address = self.queue.used_ring() + FLAGS_AND_INDEX + ELEMENT * slot;
            memory
                .write_slice(&element.to_le_bytes(), GuestAddress(address))
                .map_err(virtio_queue::Error::GuestMemory)?;
            next += 1;
        }
        self.queue.set_next_used(next.0);
        Ok(())
    }

    /// Interrupts the driver if chains were given back and it asked for interrupts.
    pub(super) fn notify(&mut self, memory: &GuestMemoryMmap) {
        let used = Wrapping(self.queue.next_used());
        let before = std::mem::replace(&mut self.notified, used);
        if before == used || !self.usable() {
            return;
        }
        match self.wanted(memory, before, used) {
            Ok(true) => self.interrupt.used(self.index),
            Ok(false) => {}
            Err(error) => self.report(&virtio_queue::Error::GuestMemory(error).into()),
        }
    }

    /// Whether the driver wants an interrupt for the used index's way from `before` to `used` (virtio 1.2, 2.7.7.2).
    fn wanted(
        &self,
        memory: &GuestMemoryMmap,
        before: Wrapping<u16>,
        used: Wrapping<u16>,
    ) -> Result<bool, GuestMemoryError> {
        const NO_INTERRUPT: u16 = 1;
        // The index must be visible before the driver's event index is read.
        fence(Ordering::SeqCst);
        let available = self.queue.avail_ring();
        if !self.queue.event_idx_enabled() {
            let flags: u16 = memory.load(GuestAddress(available), Ordering::Relaxed)?;
            return Ok(u16::from_le(flags) & NO_INTERRUPT == 0);
        }
        let used_event = available + 4 + 2 * u64::from(self.queue.size());
        let used_event: u16 = memory.load(GuestAddress(used_event), Ordering::Relaxed)?;
        let used_event = Wrapping(u16::from_le(used_event));
        Ok(used - used_event - Wrapping(1) < used - before)
    }

    /// Asks the driver not to kick: the worker is looking at the queue.
    pub(super) fn disable_kicks(&mut self, memory: &GuestMemoryMmap) {
        if self.usable()
            && let Err(error) = self.queue.disable_notification(memory)
        {
            self.report(&error.into());
        }
    }

    /// Asks the driver to kick again. `true` if chains came in the meantime, for which no kick will come.
    pub(super) fn enable_kicks(&mut self, memory: &GuestMemoryMmap) -> bool {
        if !self.usable() {
            return false;
        }
        match self.queue.enable_notification(memory) {
            Ok(more) => more,
            Err(error) => {
                self.report(&error.into());
                false
            }
        }
    }

    /// As [`Ring::enable_kicks`], after `seen` chains were looked at and put back: `true` if there are more than those.
    pub(super) fn enable_kicks_beyond(&mut self, memory: &GuestMemoryMmap, seen: u16) -> bool {
        let next = self.queue.next_avail();
        // The index at which the driver kicks is written with this, too.
        self.queue.set_next_avail(next.wrapping_add(seen));
        let more = self.enable_kicks(memory);
        self.queue.set_next_avail(next);
        more
    }

    /// Kicks the queue, so that the worker returns to it after the other devices' turn.
    pub(super) fn kick_again(&self) {
        // Fails only when the counter is full, and then the kick is pending anyway.
        let _ = self.kick.write(1);
    }

    /// Clears the kick. A kick that is not there is no error: kicks may be merged or forged.
    pub(super) fn clear_kick(&self) {
        let _ = self.kick.read();
    }

    fn report(&mut self, fault: &Fault) {
        if self.interrupt.needs_reset() {
            let queue = self.index;
            tracing::warn!(queue, %fault, "the guest broke a virtio queue: its device stops until a reset; later faults are not logged");
        }
    }
}

/// The readable and the writable part of a chain.
fn collect<'m>(
    memory: &'m GuestMemoryMmap,
    chain: DescriptorChain<&'m GuestMemoryMmap>,
) -> Result<(Segments<'m>, Segments<'m>), Fault> {
    let mut readable = Segments::new();
    let mut writable = Segments::new();
    // virtio-queue ends a chain silently where it cannot go on: then the last descriptor that it gave still announces
    // another.
    let mut complete = false;
    for (count, descriptor) in chain.enumerate() {
        if count == MAX_DESCRIPTORS {
            return Err(Fault::TooLong);
        }
        complete = !descriptor.has_next();
        let len = descriptor.len() as usize;
        if len == 0 {
            continue;
        }
        let (part, access) = match descriptor.is_write_only() {
            true => (&mut writable, Permissions::Write),
            false if !writable.is_empty() => return Err(Fault::Order),
            false => (&mut readable, Permissions::Read),
        };
        let slices = memory
            .get_slices(descriptor.addr(), len, access)
            .map_err(|_| Fault::OutsideMemory)?;
        for slice in slices {
            let slice = slice.map_err(|_| Fault::OutsideMemory)?;
            part.push(slice).map_err(|_| Fault::TooLong)?;
        }
    }
    match complete {
        true => Ok((readable, writable)),
        false => Err(Fault::Endless),
    }
}
