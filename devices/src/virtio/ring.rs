//! A queue at work: takes chains from the driver, checks them as a whole, and gives them back.
//!
//! What a hostile driver can do to a queue is dealt with here, once for all devices:
//! - A chain is walked once and every descriptor checked before the device sees it. One that loops, leaves guest memory,
//!   names a descriptor outside its table, puts a readable buffer after a writable one or has too many pieces is given
//!   back with used length 0, and the device never hears of it.
//! - A queue whose available index has run further than the queue is long, or whose rings cannot be reached, stops until
//!   the driver resets the device: there is nothing in it that could be believed.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions, Segments,
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::{Interrupt, StartedQueue};

/// One request of the driver's: its readable bytes, then its writable ones.
#[derive(Debug)]
pub(super) struct Chain<'m> {
    /// Says which chain it is when it is given back.
    pub(super) head: u16,
    /// What the driver wrote for the device.
    pub(super) readable: Segments<'m>,
    /// What the driver wants written.
    pub(super) writable: Segments<'m>,
}

/// A chain that cannot be believed: all that can be done with it is to give it back.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) head: u16,
}

/// A started queue and what its worker knows of it.
pub(super) struct Ring {
    queue: Queue,
    pub(super) kick: EventFd,
    /// Its number in the device.
    index: usize,
    /// The driver broke the queue itself: nothing more is taken from it.
    broken: bool,
    /// The used index when the driver was last asked whether it wants to know.
    notified: Wrapping<u16>,
}

impl Ring {
    pub(super) fn new(index: usize, started: StartedQueue) -> Self {
        Self {
            notified: Wrapping(started.queue.next_used()),
            queue: started.queue,
            kick: started.kick,
            index,
            broken: false,
        }
    }

    /// Ends the work: what was not taken stays for whoever works on the queue next.
    pub(super) fn into_queue(self) -> Queue {
        self.queue
    }

    /// Whether the driver may still put chains here.
    pub(super) fn usable(&self) -> bool {
        self.queue.ready() && !self.broken
    }

    /// The next chain, or `None` when there is none now. Malformed chains on the way are given back; they are as many
    /// as the queue is long at the most, however fast the driver adds more.
    pub(super) fn pop<'m>(&mut self, memory: &'m GuestMemoryMmap) -> Option<Chain<'m>> {
        for _ in 0..self.queue.size() {
            match self.pop_any(memory)? {
                Ok(chain) => return Some(chain),
                Err(Malformed { head }) => self.push(memory, head, 0),
            }
        }
        None
    }

    /// The next chain, malformed or not: for who takes several before it knows whether it needs them.
    pub(super) fn pop_any<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
    ) -> Option<Result<Chain<'m>, Malformed>> {
        if !self.usable() {
            return None;
        }
        let chain = match self.queue.iter(memory) {
            Ok(mut chains) => chains.next()?,
            Err(error) => {
                self.break_off(&error);
                return None;
            }
        };
        let head = chain.head_index();
        let parts = collect(memory, chain).map(|(readable, writable)| Chain {
            head,
            readable,
            writable,
        });
        Some(parts.ok_or(Malformed { head }))
    }

    /// Puts back the chains that were popped last: they will be popped again.
    pub(super) fn unpop(&mut self, count: usize) {
        for _ in 0..count {
            self.queue.go_to_previous_position();
        }
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
        if !self.usable() {
            return;
        }
        let done = self.push_unseen(memory, others).and_then(|()| {
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            // Writes the last element and moves the index past all of them.
            self.queue.add_used(memory, last, written)
        });
        // Fails for a head that the driver's ring named outside the table: such a chain cannot be given back at all.
        if let Err(error) = done {
            self.break_off(&error);
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

    /// Interrupts the driver if chains were given back and it wants to know.
    pub(super) fn notify(&mut self, memory: &GuestMemoryMmap, interrupt: &Interrupt) {
        let used = Wrapping(self.queue.next_used());
        let before = std::mem::replace(&mut self.notified, used);
        if before == used || !self.usable() {
            return;
        }
        match self.wanted(memory, before, used) {
            Ok(true) => interrupt.used(self.index),
            Ok(false) => {}
            Err(error) => self.break_off(&virtio_queue::Error::GuestMemory(error)),
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
        // The index must be visible before the driver's wish is read.
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

    /// Tells the driver not to kick: the worker is looking at the queue.
    pub(super) fn disable_kicks(&mut self, memory: &GuestMemoryMmap) {
        if self.usable()
            && let Err(error) = self.queue.disable_notification(memory)
        {
            self.break_off(&error);
        }
    }

    /// Tells the driver to kick again. `true` if chains came in the meantime, for which no kick will come.
    pub(super) fn enable_kicks(&mut self, memory: &GuestMemoryMmap) -> bool {
        if !self.usable() {
            return false;
        }
        match self.queue.enable_notification(memory) {
            Ok(more) => more,
            Err(error) => {
                self.break_off(&error);
                false
            }
        }
    }

    /// Clears the kick. A kick that is not there is no error: kicks may be merged or forged.
    pub(super) fn clear_kick(&self) {
        let _ = self.kick.read();
    }

    fn break_off(&mut self, error: &virtio_queue::Error) {
        // Once for each start of the device, so a guest cannot flood the log with it.
        tracing::warn!(queue = self.index, %error, "the guest broke a virtio queue; it stops until a reset");
        self.broken = true;
    }
}

/// The readable and the writable part of a chain, or `None` if the chain is malformed.
fn collect<'m>(
    memory: &'m GuestMemoryMmap,
    chain: DescriptorChain<&'m GuestMemoryMmap>,
) -> Option<(Segments<'m>, Segments<'m>)> {
    let mut readable = Segments::new();
    let mut writable = Segments::new();
    // virtio-queue ends a chain silently where it cannot go on (an index outside the table, a table outside memory, a
    // loop, more than 4 GiB): then the last descriptor that it gave still announces another.
    let mut complete = false;
    for descriptor in chain {
        complete = !descriptor.has_next();
        let len = descriptor.len() as usize;
        if len == 0 {
            continue;
        }
        let (part, access) = match descriptor.is_write_only() {
            true => (&mut writable, Permissions::Write),
            // virtio 1.2, 2.7.4.2: device-readable elements come first.
            false if !writable.is_empty() => return None,
            false => (&mut readable, Permissions::Read),
        };
        for slice in memory.get_slices(descriptor.addr(), len, access).ok()? {
            part.push(slice.ok()?).ok()?;
        }
    }
    complete.then_some((readable, writable))
}
