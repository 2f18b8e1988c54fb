//! A device's interrupt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
    fault: Arc<Fault>,
}

/// Whether the driver has broken the device.
#[derive(Default)]
struct Fault {
    /// The driver broke a queue, and has not reset the device since.
    needs_reset: AtomicBool,
    /// It was logged, once in the device's life: a guest can break queues and reset as often as it likes.
    logged: AtomicBool,
}

impl Interrupt {
    /// An interrupt that sets bits in `status`, which the transport shows to the driver, and then writes `irqfd`.
    pub fn new(status: Arc<AtomicU32>, irqfd: Arc<EventFd>) -> Self {
        Self {
            status,
            generation: Arc::default(),
            irqfd,
            fault: Arc::default(),
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

    /// Puts the device in NEEDS_RESET: until the driver resets it, none of its queues is touched again (virtio 1.2, 2.1.1).
    /// `true` the first time in the device's life, which is the one to be logged.
    pub(super) fn needs_reset(&self) -> bool {
        if !self.fault.needs_reset.swap(true, Ordering::SeqCst) {
            self.config_changed();
        }
        !self.fault.logged.swap(true, Ordering::Relaxed)
    }

    /// Whether the device waits for its reset. Any thread may set this at any moment.
    pub(super) fn is_reset_needed(&self) -> bool {
        self.fault.needs_reset.load(Ordering::SeqCst)
    }

    /// Clears the fault, when the device is reset and no worker runs that could set it again.
    pub(super) fn clear_fault(&self) {
        self.fault.needs_reset.store(false, Ordering::SeqCst);
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

    /// Signals again what is pending: for a driver that lost an interrupt with the machine it ran on.
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

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    #[test]
    fn a_fault_is_told_the_driver_after_each_reset_and_logged_once() {
        let irqfd = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let interrupt = Interrupt::new(Arc::default(), irqfd.clone());
        let mut logged = 0;
        for _ in 0..100 {
            for _ in 0..3 {
                logged += u32::from(interrupt.needs_reset());
            }
            assert!(interrupt.is_reset_needed());
            assert_eq!(irqfd.read().unwrap(), 1, "one interrupt for each reset");
            interrupt.clear_fault();
        }
        assert_eq!(logged, 1);
    }
}
