//! A device's work on the main loop: from its start to its end.

use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber, SubscriberId};
use memory::Memory;
use vmm_sys_util::eventfd::EventFd;

use super::ring::{Chain, Ring};
use super::{Reactor, StartError, Subscriber};

/// The most chains that are served before kicks are enabled again: as long as the longest queue served here.
const MAX_BATCH: usize = 64;
/// The most batches before the loop turns to others.
const ROUNDS: usize = 2;

/// Work that the main loop does. It is on the loop from [`OnLoop::add`] to [`OnLoop::remove`].
pub(super) struct OnLoop<W> {
    work: Arc<Mutex<W>>,
    id: SubscriberId,
    reactor: Reactor,
}

impl<W: MutEventSubscriber + Send + 'static> OnLoop<W> {
    /// Hands work to the loop. Call it from another thread.
    pub(super) fn add(work: W, reactor: Reactor) -> Result<Self, StartError> {
        let work = Arc::new(Mutex::new(work));
        let subscriber: Subscriber = work.clone();
        let id = reactor
            .call_blocking(move |ops| Ok(ops.add_subscriber(subscriber)))
            .map_err(StartError::Reactor)?;
        Ok(Self { work, id, reactor })
    }

    /// Takes the work off the loop, which has finished what it was doing, and gives `take` a last look at it.
    pub(super) fn remove<T>(self, take: impl FnOnce(&mut W) -> T) -> T {
        let id = self.id;
        // It fails when the loop has ended, and then the work has ended with it.
        let _ = self
            .reactor
            .call_blocking(move |ops| ops.remove_subscriber(id));
        take(&mut self.work.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Has the loop watch a queue's kick.
pub(super) fn watch(ops: &mut EventOps, kick: &EventFd) {
    if let Err(error) = ops.add(Events::new(kick, EventSet::IN)) {
        // Only want of kernel memory, or of descriptors to watch: the device stays silent, the VM goes on.
        tracing::warn!(%error, "the main loop cannot watch a virtio queue");
    }
}

/// Serves the chains of a queue that its driver has kicked: `serve` does the work and returns how many bytes it wrote. One
/// interrupt for all of them. A driver that adds chains as fast as they are served waits its turn on the loop.
pub(super) fn work(
    ring: &mut Ring,
    memory: &Memory,
    mut serve: impl FnMut(&mut Chain<'_>) -> usize,
) {
    ring.clear_kick();
    for _ in 0..ROUNDS {
        ring.disable_kicks(memory);
        for _ in 0..MAX_BATCH {
            let Some(mut chain) = ring.pop(memory) else {
                break;
            };
            let written = serve(&mut chain);
            ring.push(memory, chain.head, written);
        }
        if !ring.enable_kicks(memory) {
            ring.notify(memory);
            return;
        }
    }
    ring.notify(memory);
    ring.kick_again();
}
