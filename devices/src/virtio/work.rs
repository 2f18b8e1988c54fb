//! Work on the main loop by a worker that owns its queues: the worker is taken back whole when the work stops.

use event_manager::{EventOps, Events, MutEventSubscriber};

use super::on_loop::OnLoop;
use super::{Reactor, StartError};

/// A worker on the main loop.
pub(super) struct Scheduled<W>(OnLoop<Slot<W>>);

/// The worker, until it is taken back.
struct Slot<W>(Option<W>);

impl<W: MutEventSubscriber> MutEventSubscriber for Slot<W> {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if let Some(worker) = &mut self.0 {
            worker.process(events, ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Some(worker) = &mut self.0 {
            worker.init(ops);
        }
    }
}

impl<W: MutEventSubscriber + Send + 'static> Scheduled<W> {
    /// Lets the main loop begin with `worker`; blocks until its `init` is done.
    pub(super) fn start(worker: W, reactor: Reactor) -> Result<Self, StartError> {
        OnLoop::add(Slot(Some(worker)), reactor).map(Self)
    }

    /// Takes the worker off the main loop, which has let go of its descriptors when this returns.
    pub(super) fn stop(self) -> W {
        self.0
            .remove(|slot| slot.0.take())
            .expect("a worker is taken back once")
    }
}
