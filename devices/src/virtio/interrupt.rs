//! How a device tells its driver that something has happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

/// Bit of the interrupt status: buffers were used (virtio 1.2, 4.2.2, InterruptStatus).
pub(super) const USED_BUFFER: u32 = 1 << 0;
/// Bit of the interrupt status: the configuration changed.
pub(super) const CONFIG_CHANGE: u32 = 1 << 1;

/// The interrupt of one device, as its transport made it. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Interrupt {
    status: Arc<AtomicU32>,
    generation: Arc<AtomicU32>,
    irqfd: Arc<EventFd>,
}

impl Interrupt {
    /// An interrupt that sets bits in `status`, which the transport shows to the driver, and then writes `irqfd`.
    pub fn new(status: Arc<AtomicU32>, irqfd: Arc<EventFd>) -> Self {
        Self {
            status,
            generation: Arc::default(),
            irqfd,
        }
    }

    /// Tells the driver that buffers of queue number `queue` were used. The caller has asked the queue whether the
    /// driver wants to know (`needs_notification`).
    pub fn used(&self, queue: usize) {
        // One line for all queues in virtio-mmio; virtio-pci will have a vector each.
        let _ = queue;
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that the configuration space has changed: call it after the change.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.raise(CONFIG_CHANGE);
    }

    /// How often the configuration has changed (virtio 1.2, 2.5.1): a driver that reads the same before and after has
    /// read one configuration.
    pub(super) fn generation(&self) -> &AtomicU32 {
        &self.generation
    }

    /// The bits that the driver has not acknowledged.
    pub(super) fn status(&self) -> &AtomicU32 {
        &self.status
    }

    /// Signals again what is pending: for a driver whose interrupt was lost with the machine that it ran on.
    pub(super) fn repeat(&self) {
        if self.status.load(Ordering::SeqCst) != 0 {
            self.raise(0);
        }
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // An eventfd's write fails only when its counter is full, and then the interrupt is pending anyway.
        let _ = self.irqfd.write(1);
    }
}
