//! The entropy device (virtio 1.2, section 5.4): random bytes of the host's kernel.
//!
//! It has no features and no configuration. A request gets at most [`MAX_BYTES`]; a request for
//! nothing, or with something to read, is a fault.

use event_manager::{EventOps, Events, MutEventSubscriber};
use memory::Memory;
use virtio_queue::Queue;

use super::on_loop::{self, OnLoop};
use super::ring::{Ring, Shape};
use super::{Activation, Device, DeviceId, StartError};

#[cfg(test)]
mod tests;

const QUEUE_SIZE: u16 = 64;
/// The most bytes of one request: what one call fills without holding up the main loop. The driver asks again.
const MAX_BYTES: usize = 4096;

/// The device.
#[derive(Default)]
pub struct Rng {
    running: Option<OnLoop<Worker>>,
}

impl Rng {
    /// An entropy device.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Device for Rng {
    fn id(&self) -> DeviceId {
        DeviceId::RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        let Activation {
            memory,
            queues,
            interrupt,
            reactor,
            ..
        } = activation;
        let mut rings = queues
            .into_iter()
            .enumerate()
            .map(|(i, queue)| Ring::new(i, queue, Shape::Writable, &interrupt));
        let ring = rings
            .next()
            .expect("the transport gives one queue for each that is named");
        self.running = Some(OnLoop::add(
            Worker {
                ring: Some(ring),
                memory,
            },
            reactor,
        )?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let running = self.running.take().expect("stopped only after a start");
        running
            .remove(|worker| worker.ring.take())
            .map(Ring::into_queue)
            .into_iter()
            .collect()
    }
}

struct Worker {
    /// There until the device is stopped.
    ring: Option<Ring>,
    memory: Memory,
}

impl Worker {
    fn work(&mut self) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        on_loop::work(ring, &self.memory, |chain| {
            let mut bytes = [0; MAX_BYTES];
            let wanted = chain.writable.len().min(MAX_BYTES);
            match sys::random::fill(&mut bytes[..wanted]) {
                Ok(()) => chain.writable.put(&bytes[..wanted]),
                Err(_) => 0,
            }
        });
    }
}

impl MutEventSubscriber for Worker {
    fn init(&mut self, ops: &mut EventOps) {
        if let Some(ring) = &self.ring {
            on_loop::watch(ops, &ring.kick);
        }
        // Chains may be there from before a save, for which no kick will come.
        self.work();
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        self.work();
    }
}
