//! The console device (virtio 1.2, section 5.3): one port, output only.
//!
//! What the guest sends goes to an [`Output`], which never blocks. The receive queue is there because a driver
//! expects it, and is never used: nothing is typed into a guest's console. Deliberately absent: further ports, sizes.

use event_manager::{EventOps, Events, MutEventSubscriber};
use memory::Memory;
use virtio_queue::Queue;

use super::on_loop::{self, OnLoop};
use super::ring::{Ring, Shape};
use super::{Activation, Device, DeviceId, StartError};
use crate::output::Output;

#[cfg(test)]
mod tests;

/// Queue numbers of port 0 (5.3.2).
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZE: u16 = 64;
/// The most bytes of one buffer that are looked at, so that long ones do not hold up the main loop: a turn of it writes at
/// most 2 MiB. The rest is dropped as if the output were full. Linux sends at most a page.
const MAX_BYTES: usize = 16 << 10;

/// The device.
pub struct Console {
    output: Output,
    running: Option<OnLoop<Worker>>,
}

impl Console {
    /// A console that sends to `output`.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            running: None,
        }
    }
}

impl Device for Console {
    fn id(&self) -> DeviceId {
        DeviceId::CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 2]
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
        let rings = queues
            .into_iter()
            .zip([(RECEIVE, Shape::Writable), (TRANSMIT, Shape::Readable)])
            .map(|(queue, (index, shape))| Ring::new(index, queue, shape, &interrupt))
            .collect();
        let worker = Worker {
            rings,
            memory,
            output: self.output.clone(),
        };
        self.running = Some(OnLoop::add(worker, reactor)?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let running = self.running.take().expect("stopped only after a start");
        let rings = running.remove(|worker| std::mem::take(&mut worker.rings));
        rings.into_iter().map(Ring::into_queue).collect()
    }
}

struct Worker {
    /// [`RECEIVE`] and [`TRANSMIT`], there until the device is stopped.
    rings: Vec<Ring>,
    memory: Memory,
    output: Output,
}

impl Worker {
    fn work(&mut self) {
        if let Some(ring) = self.rings.get(RECEIVE) {
            ring.clear_kick();
        }
        let Some(ring) = self.rings.get_mut(TRANSMIT) else {
            return;
        };
        let output = &self.output;
        on_loop::work(ring, &self.memory, |chain| {
            chain.readable.truncate(MAX_BYTES);
            let mut bytes = [0; 4096];
            loop {
                match chain.readable.take(&mut bytes) {
                    0 => return 0,
                    count => output.write(&bytes[..count]),
                }
            }
        });
    }
}

impl MutEventSubscriber for Worker {
    fn init(&mut self, ops: &mut EventOps) {
        for ring in &self.rings {
            on_loop::watch(ops, &ring.kick);
        }
        // Chains may be there from before a save, for which no kick will come.
        self.work();
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        self.work();
    }
}
