//! virtio over memory-mapped registers, version 2 (virtio 1.2, 4.2).
//!
//! ```text
//!           ACKNOWLEDGE       DRIVER      FEATURES_OK                  DRIVER_OK
//!  reset ---------------> . --------> . -------------> queues set up -----------> started
//!    ^                                  refused if a       |  a queue is invalid, or the    |  the driver broke
//!    |                                  bit was not        v  device cannot start           v  a queue (ring.rs)
//!    |                                  offered       NEEDS_RESET <--------------- queues left alone
//!    +---------------------------- status written as 0 ------------------------------------+
//! ```
//!
//! The transport owns negotiation, so that no device can get it wrong: features are taken only before FEATURES_OK,
//! queues only between FEATURES_OK and DRIVER_OK, and a queue is checked as a whole before the device sees it. A write
//! that is not legal now is ignored. Deliberately absent: shared memory regions (each reads as having no length), and
//! queue reset (RING_RESET is not offered).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memory::Memory;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Activation, Device, Interrupt, Reactor, StartError, StartedQueue};
use registers::*;

mod queue;
pub mod registers;
mod state;
#[cfg(test)]
mod tests;

use queue::QueueSetup;
pub use state::{QueueState, RestoreError, State};

/// The state of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The driver has not finished its set-up.
    Setup,
    /// The device has the queues; it touches them only while [`Interrupt`] has no fault to show.
    Started,
    /// It could not start; only a reset helps.
    Broken,
}

/// A device on the bus.
pub struct Mmio {
    device: Box<dyn Device>,
    memory: Memory,
    reactor: Reactor,
    interrupt: Interrupt,
    irqfd: Arc<EventFd>,
    kicks: Vec<Arc<EventFd>>,
    phase: Phase,
    status: u32,
    device_features_select: u32,
    driver_features: u64,
    driver_features_select: u32,
    queue_select: u32,
    queues: Vec<QueueSetup>,
}

impl Mmio {
    /// Puts a device on the bus, in reset.
    pub fn new(device: Box<dyn Device>, memory: Memory, reactor: Reactor) -> io::Result<Self> {
        let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        let irqfd = Arc::new(eventfd()?);
        let max_sizes = device.queue_max_sizes();
        let queues = max_sizes.iter().map(|&max| QueueSetup::new(max)).collect();
        let kicks = max_sizes
            .iter()
            .map(|_| eventfd().map(Arc::new))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            device,
            memory,
            reactor,
            interrupt: Interrupt::new(Arc::default(), irqfd.clone()),
            irqfd,
            kicks,
            phase: Phase::Setup,
            status: 0,
            device_features_select: 0,
            driver_features: 0,
            driver_features_select: 0,
            queue_select: 0,
            queues,
        })
    }

    /// Which device it is.
    pub fn id(&self) -> super::DeviceId {
        self.device.id()
    }

    /// Written when the guest is to be interrupted.
    pub fn irqfd(&self) -> &EventFd {
        &self.irqfd
    }

    /// One for each queue: written when the guest has written the queue's number to [`QUEUE_NOTIFY`], by KVM
    /// (ioeventfd) or by [`Mmio::write`].
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// The guest reads `data.len()` bytes at `offset` in the device's window.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            self.device.read_config(offset - CONFIG, data);
            return;
        }
        // Every register is 32 bits wide (4.2.2.2).
        if data.len() == 4 && offset.is_multiple_of(4) {
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        } else {
            data.fill(0xff);
        }
    }

    /// The guest writes `data` at `offset` in the device's window.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            self.device.write_config(offset - CONFIG, data);
            return;
        }
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        if offset.is_multiple_of(4) {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let selected = self.queues.get(self.queue_select as usize);
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => 2,
            DEVICE_ID => self.device.id().0,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.offered(), self.device_features_select),
            QUEUE_NUM_MAX => selected.map_or(0, |queue| queue.max_size.into()),
            QUEUE_READY => selected.map_or(0, |queue| queue.ready.into()),
            INTERRUPT_STATUS => self.interrupt.status().load(Ordering::SeqCst),
            STATUS => self.status(),
            SHM_LEN_LOW | SHM_LEN_HIGH | SHM_BASE_LOW | SHM_BASE_HIGH => u32::MAX,
            CONFIG_GENERATION => self.interrupt.generation().load(Ordering::SeqCst),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_select = value,
            DRIVER_FEATURES_SEL => self.driver_features_select = value,
            DRIVER_FEATURES => self.accept_features(value),
            QUEUE_SEL => self.queue_select = value,
            QUEUE_NOTIFY => self.kick(value),
            INTERRUPT_ACK => {
                self.interrupt.status().fetch_and(!value, Ordering::SeqCst);
            }
            STATUS => self.set_status(value),
            _ => self.set_up_queue(offset, value),
        }
    }

    /// Everything that the driver may accept.
    fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & (STATUS_DRIVER | STATUS_FEATURES_OK) != STATUS_DRIVER {
            return;
        }
        let shift = match self.driver_features_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features &= !(u64::from(u32::MAX) << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    fn set_up_queue(&mut self, offset: u64, value: u32) {
        if self.status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK) != STATUS_FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else {
            return;
        };
        if offset == QUEUE_READY {
            queue.ready = value & 1 == 1 && queue.build(&self.memory, false).is_some();
        } else if !queue.ready {
            queue.set(offset, value);
        }
    }

    /// A notification that no ioeventfd has caught.
    fn kick(&self, queue: u32) {
        if self.phase == Phase::Started
            && let Some(kick) = self.kicks.get(queue as usize)
        {
            // Fails only when the counter is full, and then the kick is pending anyway.
            let _ = kick.write(1);
        }
    }

    fn status(&self) -> u32 {
        match self.interrupt.is_reset_needed() {
            true => self.status | STATUS_NEEDS_RESET,
            false => self.status,
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        // Bits are only ever added, one after the other; each needs the one before it (3.1.1).
        let added = value & !self.status;
        self.status |= added & (STATUS_ACKNOWLEDGE | STATUS_FAILED);
        self.advance(added, STATUS_ACKNOWLEDGE, STATUS_DRIVER);
        if self.driver_features & !self.offered() == 0 && self.driver_features & VERSION_1 != 0 {
            self.advance(added, STATUS_DRIVER, STATUS_FEATURES_OK);
        }
        if self.advance(added, STATUS_FEATURES_OK, STATUS_DRIVER_OK)
            && let Err(error) = self.start()
        {
            self.refuse(&error);
        }
    }

    /// Sets `bit` if it is among `added` and `before` is set. Returns whether it did.
    fn advance(&mut self, added: u32, before: u32, bit: u32) -> bool {
        let may = added & bit != 0 && self.status & before != 0 && self.phase == Phase::Setup;
        if may {
            self.status |= bit;
        }
        may
    }

    fn start(&mut self) -> Result<(), Error> {
        let event_idx = self.driver_features & EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, setup) in self.queues.iter().enumerate() {
            let queue = match setup.ready {
                true => setup
                    .build(&self.memory, event_idx)
                    .ok_or(Error::Queue { index })?,
                false => Queue::new(setup.max_size).map_err(|_| Error::Queue { index })?,
            };
            queues.push(queue);
        }
        self.start_with(queues)
    }

    fn start_with(&mut self, queues: Vec<Queue>) -> Result<(), Error> {
        let mut started = Vec::with_capacity(queues.len());
        for (queue, kick) in queues.into_iter().zip(&self.kicks) {
            // Registers written before this start are void.
            let _ = kick.read();
            let kick = kick.clone();
            started.push(StartedQueue { queue, kick });
        }
        self.device.start(Activation {
            memory: self.memory.clone(),
            features: self.driver_features,
            queues: started,
            interrupt: self.interrupt.clone(),
            reactor: self.reactor.clone(),
        })?;
        self.phase = Phase::Started;
        Ok(())
    }

    /// The device cannot work with what the driver set up (2.1.2).
    fn refuse(&mut self, error: &Error) {
        // At most once for each reset by the guest, which costs it an exit each.
        tracing::debug!(device = self.device.id().0, error = %error, "a virtio device did not start");
        self.phase = Phase::Broken;
        let _ = self.interrupt.needs_reset();
    }

    fn reset(&mut self) {
        if self.phase == Phase::Started {
            drop(self.device.stop());
        }
        self.phase = Phase::Setup;
        self.status = 0;
        self.driver_features = 0;
        self.interrupt.clear_fault();
        self.interrupt.status().store(0, Ordering::SeqCst);
        for queue in &mut self.queues {
            *queue = QueueSetup::new(queue.max_size);
        }
    }
}

/// One half of a 64-bit register that is seen through a window; there are only two.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Why a device did not start.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The driver's queue does not lie in memory, or has no legal size or alignment.
    #[error("queue {index} is not valid")]
    Queue { index: usize },
    /// The device refused to start.
    #[error(transparent)]
    Device(#[from] StartError),
}
