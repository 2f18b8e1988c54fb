//! The main loop's part of a network device. One turn of the loop moves at most [`BUDGET`] packets each way.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_manager::{EventOps, Events, MutEventSubscriber};
use memory::{GuestMemoryMmap, Memory};
use vmm_sys_util::epoll::EventSet;

use sys::tap::Offload;

use super::Plug;
use super::rx::{Delivered, Receiver};
use super::spec::{MAX_PACKET, MIN_PACKET};
use crate::virtio::Interrupt;
use crate::virtio::ring::{Chain, Ring};

/// The most packets of a queue in one turn of the main loop.
const BUDGET: usize = 64;

/// Tokens of the main loop.
const KICK: u32 = 0;
const WIRE: u32 = 1;
const PLUG: u32 = 2;

pub(super) struct Worker {
    /// Without one, the link is down.
    pub(super) wire: Option<Arc<OwnedFd>>,
    pub(super) plug: Arc<Plug>,
    /// What the driver leaves to a tap.
    pub(super) offload: Option<Offload>,
    pub(super) interrupt: Interrupt,
    pub(super) memory: Memory,
    pub(super) rx: Ring,
    pub(super) tx: Ring,
    pub(super) receiver: Receiver,
    /// The wire may have packets (edge-triggered).
    pub(super) readable: bool,
    /// The wire takes packets.
    pub(super) writable: bool,
    /// The guest has no receive buffers: packets stay in the wire, which is not watched.
    pub(super) starved: bool,
    /// A failure of the wire was logged, now or before another start.
    pub(super) failure_logged: Arc<AtomicBool>,
}

impl MutEventSubscriber for Worker {
    fn init(&mut self, ops: &mut EventOps) {
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let rings = [&self.rx, &self.tx].map(|ring| Events::with_data(&*ring.kick, KICK, edge));
        let plug = Events::with_data(&self.plug.changed, PLUG, edge);
        for events in rings.into_iter().chain([plug]).chain(self.wire_events()) {
            if let Err(error) = ops.add(events) {
                // For want of kernel memory only. The device stays silent; the VM goes on.
                tracing::warn!(%error, "the main loop cannot watch a network device");
            }
        }
        // Chains may be there from before a save, for which no kick will come.
        self.turn(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if events.data() == PLUG {
            self.replug(ops);
        }
        if events.data() == WIRE {
            let failed = EventSet::ERROR | EventSet::HANG_UP;
            self.readable |= events.event_set().intersects(EventSet::IN | failed);
            self.writable |= events.event_set().intersects(EventSet::OUT | failed);
        }
        self.turn(ops);
    }
}

impl Worker {
    /// Takes the wire that there is now, and tells the driver if it is another.
    fn replug(&mut self, ops: &mut EventOps) {
        let _ = self.plug.changed.read();
        let wire = self.plug.wire();
        if wire.as_ref().map(Arc::as_ptr) == self.wire.as_ref().map(Arc::as_ptr) {
            return;
        }
        if let Some(events) = self.wire_events() {
            // It fails where the wire could not be watched either.
            let _ = ops.remove(events);
        }
        self.wire = wire;
        (self.readable, self.writable, self.starved) = (true, true, false);
        self.receiver.forget();
        if let (Some(offload), Some(tap)) = (self.offload, &self.wire)
            && let Err(error) = sys::tap::set_offload(&**tap, offload)
        {
            tracing::warn!(%error, "a tap does not take what the guest's driver leaves to it");
        }
        if let Some(events) = self.wire_events()
            && let Err(error) = ops.add(events)
        {
            tracing::warn!(%error, "the main loop cannot watch a wire");
        }
        self.interrupt.config_changed();
    }

    fn turn(&mut self, ops: &mut EventOps) {
        let memory = self.memory.clone();
        let more = self.transmit(&memory) | self.receive(&memory, ops);
        self.tx.notify(&memory);
        self.rx.notify(&memory);
        if more {
            self.tx.kick_again();
        }
    }

    /// Sends what the guest has queued. `true` if there is more than one turn sends.
    fn transmit(&mut self, memory: &GuestMemoryMmap) -> bool {
        self.tx.disable_kicks(memory);
        for _ in 0..BUDGET {
            if !self.writable {
                return false;
            }
            let Some(Chain {
                head, mut readable, ..
            }) = self.tx.pop(memory)
            else {
                if self.tx.enable_kicks(memory) {
                    self.tx.disable_kicks(memory);
                    continue;
                }
                return false;
            };
            // What cannot be a packet is dropped here; what the kernel refuses, it drops itself.
            if (MIN_PACKET..=MAX_PACKET).contains(&readable.len()) {
                let sent = match &self.wire {
                    Some(wire) => readable.write_to(wire.as_fd()),
                    // Dropped, as on a cable that is not plugged in.
                    None => Ok(readable.len()),
                };
                match sent {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.tx.unpop(1);
                        self.writable = false;
                        return false;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        self.tx.unpop(1);
                        continue;
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            self.tx.push(memory, head, 0);
        }
        true
    }

    /// Delivers what the wire has. `true` if there is more than one turn delivers.
    fn receive(&mut self, memory: &GuestMemoryMmap, ops: &mut EventOps) -> bool {
        let Some(wire) = self.wire.clone() else {
            return false;
        };
        self.rx.disable_kicks(memory);
        for _ in 0..BUDGET {
            if !self.readable && !self.starved {
                return false;
            }
            match self.receiver.deliver(wire.as_fd(), &mut self.rx, memory) {
                Delivered::Packet => {}
                Delivered::NothingToRead => {
                    self.readable = false;
                    self.set_starved(false, ops);
                    return false;
                }
                Delivered::NoBuffers { seen } if self.rx.enable_kicks_beyond(memory, seen) => {
                    self.rx.disable_kicks(memory);
                }
                Delivered::NoBuffers { .. } => {
                    self.set_starved(true, ops);
                    return false;
                }
                Delivered::Failed(kind) => {
                    if !self.failure_logged.swap(true, Ordering::Relaxed) {
                        tracing::warn!(?kind, "a wire failed; later failures are not logged");
                    }
                    self.readable = false;
                    return false;
                }
            }
        }
        true
    }

    /// Stops and resumes listening to the wire. Resuming finds out at once whether it has packets.
    fn set_starved(&mut self, starved: bool, ops: &EventOps) {
        if std::mem::replace(&mut self.starved, starved) != starved
            && let Some(events) = self.wire_events()
            && let Err(error) = ops.modify(events)
        {
            tracing::warn!(%error, "the main loop cannot watch a wire");
        }
    }

    fn wire_events(&self) -> Option<Events> {
        let direction = if self.starved {
            EventSet::OUT
        } else {
            EventSet::OUT | EventSet::IN
        };
        let wire = self.wire.as_deref()?;
        let events = direction | EventSet::EDGE_TRIGGERED;
        Some(Events::with_data(wire, WIRE, events))
    }
}
