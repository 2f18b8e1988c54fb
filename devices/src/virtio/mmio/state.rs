//! A transport's state as plain data, for snapshots. It leaves out the device's own state.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueT};

use super::queue::QueueSetup;
use super::registers::*;
use super::{Mmio, Phase};

/// Raised with every change of [`State`].
const VERSION: u32 = 1;

/// Everything that the driver can see of a transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of this structure.
    pub version: u32,
    /// Type of the device.
    pub device_id: u32,
    /// Device status.
    pub status: u32,
    /// Unacknowledged causes of interrupts.
    pub interrupt_status: u32,
    /// Configuration generation.
    pub config_generation: u32,
    /// Accepted features.
    pub driver_features: u64,
    /// Selectors of the three windows: device features, driver features, queue.
    pub selects: [u32; 3],
    /// The queues.
    pub queues: Vec<QueueState>,
}

/// A queue's registers and how far the device is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Chosen size.
    pub size: u32,
    /// In use.
    pub ready: bool,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
    /// The next entry of the available ring that the device takes.
    pub next_available: u16,
    /// The next entry of the used ring that the device fills.
    pub next_used: u16,
}

/// Why a state cannot be restored. A state is trusted no more than a guest.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another version.
    #[error("the state has version {0}, and this build knows version {VERSION}")]
    Version(u32),
    /// The state is of a device of another type, or with other queues.
    #[error("the state is not of this device")]
    Device,
    /// Features that this device does not offer.
    #[error("the state has features {0:#x} that the device does not offer")]
    Features(u64),
    /// A driver that has skipped a step, or is a legacy one.
    #[error("the state's status {0:#x} is not one that a driver can reach")]
    Status(u32),
    /// A queue is not legal.
    #[error("queue {0} of the state is not valid")]
    Queue(usize),
    /// The device did not start.
    #[error("the device did not start from its state")]
    Start(#[source] super::StartError),
}

impl Mmio {
    /// Stops the device and returns the transport's state, and the device for its own.
    pub fn save(mut self) -> (State, Box<dyn super::Device>) {
        let state = self.stop();
        (state, self.device)
    }

    /// Stops the device for good and returns the transport's state. Not from the main loop.
    pub fn stop(&mut self) -> State {
        let phase = std::mem::replace(&mut self.phase, Phase::Setup);
        let positions: Vec<_> = match phase {
            Phase::Started => self
                .device
                .stop()
                .iter()
                .map(|queue| (queue.next_avail(), queue.next_used()))
                .collect(),
            Phase::Setup | Phase::Broken => vec![(0, 0); self.queues.len()],
        };
        let queue = |(setup, (next_available, next_used)): (&QueueSetup, (u16, u16))| QueueState {
            size: setup.size,
            ready: setup.ready,
            descriptors: setup.descriptors,
            available: setup.available,
            used: setup.used,
            next_available,
            next_used,
        };
        State {
            version: VERSION,
            device_id: self.device.id().0,
            status: self.status(),
            interrupt_status: self.interrupt.status().load(Ordering::SeqCst),
            config_generation: self.interrupt.generation().load(Ordering::SeqCst),
            driver_features: self.driver_features,
            selects: [
                self.device_features_select,
                self.driver_features_select,
                self.queue_select,
            ],
            queues: self.queues.iter().zip(positions).map(queue).collect(),
        }
    }

    /// Restores a state in a transport that is in reset, and starts the device if it was started. Every queue is
    /// kicked and a pending interrupt signalled again: either may have been lost with the machine.
    pub fn restore(&mut self, state: &State) -> Result<(), RestoreError> {
        if state.version != VERSION {
            return Err(RestoreError::Version(state.version));
        }
        if state.device_id != self.device.id().0 || state.queues.len() != self.queues.len() {
            return Err(RestoreError::Device);
        }
        let unknown = state.driver_features & !self.offered();
        if unknown != 0 {
            return Err(RestoreError::Features(unknown));
        }
        if !is_reachable(state) {
            return Err(RestoreError::Status(state.status));
        }
        for (setup, saved) in self.queues.iter_mut().zip(&state.queues) {
            *setup = QueueSetup {
                max_size: setup.max_size,
                size: saved.size,
                ready: saved.ready,
                descriptors: saved.descriptors,
                available: saved.available,
                used: saved.used,
            };
        }
        self.status = state.status & !STATUS_NEEDS_RESET;
        self.driver_features = state.driver_features;
        [
            self.device_features_select,
            self.driver_features_select,
            self.queue_select,
        ] = state.selects;
        self.interrupt
            .status()
            .store(state.interrupt_status, Ordering::SeqCst);
        self.interrupt
            .generation()
            .store(state.config_generation, Ordering::SeqCst);
        if state.status & STATUS_NEEDS_RESET != 0 {
            self.phase = Phase::Broken;
            let _ = self.interrupt.needs_reset();
        } else if state.status & STATUS_DRIVER_OK != 0 {
            self.resume(state)?;
        }
        self.interrupt.repeat();
        Ok(())
    }

    fn resume(&mut self, state: &State) -> Result<(), RestoreError> {
        let event_idx = self.driver_features & EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, (setup, saved)) in self.queues.iter().zip(&state.queues).enumerate() {
            let mut queue = match setup.ready {
                true => setup
                    .build(&self.memory, event_idx)
                    .ok_or(RestoreError::Queue(index))?,
                false => Queue::new(setup.max_size).map_err(|_| RestoreError::Queue(index))?,
            };
            queue.set_next_avail(saved.next_available);
            queue.set_next_used(saved.next_used);
            queues.push(queue);
        }
        self.start_with(queues).map_err(|error| match error {
            super::Error::Queue { index } => RestoreError::Queue(index),
            super::Error::Device(source) => RestoreError::Start(source),
        })?;
        for kick in &self.kicks {
            // Fails only when the counter is full, and then the kick is pending anyway.
            let _ = kick.write(1);
        }
        Ok(())
    }
}

/// Whether a driver can have come to this status: step by step, and past FEATURES_OK only without the drafts (3.1.1).
fn is_reachable(state: &State) -> bool {
    let steps = [
        STATUS_ACKNOWLEDGE,
        STATUS_DRIVER,
        STATUS_FEATURES_OK,
        STATUS_DRIVER_OK,
    ];
    let taken = steps.map(|step| state.status & step != 0);
    let modern = state.driver_features & VERSION_1 != 0;
    taken.is_sorted_by(|before, after| before >= after)
        && (modern || state.status & STATUS_FEATURES_OK == 0)
}
