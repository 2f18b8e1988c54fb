//! A queue at work: takes chains from the driver, checks them as a whole, and gives them back.
//!
//! What a hostile driver can do to a queue is dealt with here, once for all devices:
//! - A chain is walked once and every descriptor checked before the device sees it. One that loops, leaves guest memory,
//!   names a descriptor outside its table, puts a readable buffer after a writable one or has too many pieces is given
//!   back with used length 0, and the device never hears of it.
//! - A queue whose available index has run further than the queue is long, or whose rings cannot be reached, stops until
//!   the driver resets the device: there is nothing in it that could be believed.

use memory::{GuestMemory, GuestMemoryMmap, Permissions, Segments};
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

/// A started queue and what its worker knows of it.
pub(super) struct Ring {
    queue: Queue,
    pub(super) kick: EventFd,
    /// Its number in the device.
    index: usize,
    /// The driver broke the queue itself: nothing more is taken from it.
    broken: bool,
    /// Chains were given back since the driver was last asked whether it wants to know.
    returned: bool,
}

impl Ring {
    pub(super) fn new(index: usize, started: StartedQueue) -> Self {
        Self {
            queue: started.queue,
            kick: started.kick,
            index,
            broken: false,
            returned: false,
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
        if !self.usable() {
            return None;
        }
        for _ in 0..self.queue.size() {
            let chain = match self.queue.iter(memory) {
                Ok(mut chains) => chains.next()?,
                Err(error) => {
                    self.break_off(&error);
                    return None;
                }
            };
            let head = chain.head_index();
            match collect(memory, chain) {
                Some((readable, writable)) => {
                    return Some(Chain {
                        head,
                        readable,
                        writable,
                    });
                }
                None => self.push(memory, head, 0),
            }
        }
        None
    }

    /// Puts back the chain that was popped last: it will be popped again. Nothing may have been given back in between.
    pub(super) fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back, of which `written` bytes of its writable part were written.
    pub(super) fn push(&mut self, memory: &GuestMemoryMmap, head: u16, written: usize) {
        if !self.usable() {
            return;
        }
        self.returned = true;
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        // Fails for a head that the driver's ring named outside the table: such a chain cannot be given back at all.
        if let Err(error) = self.queue.add_used(memory, head, written) {
            self.break_off(&error);
        }
    }

    /// Interrupts the driver if chains were given back and it wants to know.
    pub(super) fn notify(&mut self, memory: &GuestMemoryMmap, interrupt: &Interrupt) {
        if !std::mem::take(&mut self.returned) {
            return;
        }
        match self.queue.needs_notification(memory) {
            Ok(true) => interrupt.used(self.index),
            Ok(false) => {}
            Err(error) => self.break_off(&error),
        }
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
