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
    irqfd: Arc<EventFd>,
}

impl Interrupt {
    /// An interrupt that sets bits in `status`, which the transport shows to the driver, and then writes `irqfd`.
    pub fn new(status: Arc<AtomicU32>, irqfd: Arc<EventFd>) -> Self {
        Self { status, irqfd }
    }

    /// Tells the driver that buffers of queue number `queue` were used. The caller has asked the queue whether the
    /// driver wants to know (`needs_notification`).
    pub fn used(&self, queue: usize) {
        // One line for all queues in virtio-mmio; virtio-pci will have a vector each.
        let _ = queue;
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that the configuration space has changed.
    pub fn config_changed(&self) {
        self.raise(CONFIG_CHANGE);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // An eventfd's write fails only when its counter is full, and then the interrupt is pending anyway.
        let _ = self.irqfd.write(1);
    }
}
