//! A fake driver: lays queues out in a small guest memory, starts a device on them as a transport would, and plays the
//! guest's part. The reactor is a real one, on a thread of its own.

mod main_loop;
mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use memory::{Bytes, GuestAddress, GuestMemoryMmap, Memory};
use virtio_queue::{Queue, QueueState};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Activation, Device, Interrupt, StartedQueue};

pub(crate) use main_loop::MainLoop;
pub(crate) use queue::{Buffer, DriverQueue, INDIRECT, Used, WRITE};

/// VIRTIO_F_EVENT_IDX (virtio 1.2, section 6).
pub(crate) const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
pub(crate) const VERSION_1: u64 = 1 << 32;
/// Queues are no longer than this here: tests wrap around them quickly.
const QUEUE_SIZE: u16 = 16;
/// Where one memory region ends and the next begins: a buffer across it has two pieces on the host.
pub(crate) const REGION_BORDER: u64 = 8 << 20;
/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A device, started, and the guest that drives it.
pub(crate) struct Driver<D: Device> {
    pub(crate) device: D,
    pub(crate) memory: Memory,
    pub(crate) queues: Vec<DriverQueue>,
    pub(crate) main_loop: MainLoop,
    features: u64,
    status: Arc<AtomicU32>,
    irqfd: Arc<EventFd>,
    interrupt: Interrupt,
    next_free: u64,
    started: bool,
}

impl<D: Device> Driver<D> {
    /// Starts `device` with all features that it offers, without EVENT_IDX: every batch interrupts.
    pub(crate) fn new(device: D) -> Self {
        let features = device.features() | VERSION_1;
        Self::with_features(device, features)
    }

    /// Starts `device` with these negotiated features.
    pub(crate) fn with_features(device: D, features: u64) -> Self {
        let half = REGION_BORDER as usize;
        let ranges = [(GuestAddress(0), half), (GuestAddress(REGION_BORDER), half)];
        let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let mut next_free = 0x1000;
        let mut queues = Vec::new();
        for &max_size in device.queue_max_sizes() {
            queues.push(DriverQueue::new(
                memory.clone(),
                next_free,
                max_size.min(QUEUE_SIZE),
            ));
            next_free += 0x1000;
        }
        let states: Vec<_> = device
            .queue_max_sizes()
            .iter()
            .zip(&queues)
            .map(|(&max, queue)| queue.state(max, features & EVENT_IDX != 0))
            .collect();
        let (status, irqfd) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
        );
        let mut driver = Self {
            device,
            memory,
            queues,
            main_loop: MainLoop::new(),
            features,
            interrupt: Interrupt::new(status.clone(), irqfd.clone()),
            status,
            irqfd,
            next_free,
            started: false,
        };
        driver.start(&states);
        driver
    }

    /// Starts the device on queues in these states, as after a restore.
    pub(crate) fn start(&mut self, states: &[QueueState]) {
        let queues = states.iter().zip(&self.queues);
        let queues = queues.map(|(&state, queue)| StartedQueue {
            queue: Queue::try_from(state).unwrap(),
            kick: queue.kick.clone(),
        });
        let activation = Activation {
            memory: self.memory.clone(),
            features: self.features,
            queues: queues.collect(),
            interrupt: self.interrupt.clone(),
            reactor: self.main_loop.reactor(),
        };
        self.device.start(activation).unwrap();
        self.started = true;
    }

    /// Stops the device and returns the state of its queues.
    pub(crate) fn stop(&mut self) -> Vec<QueueState> {
        self.started = false;
        self.device.stop().iter().map(Queue::state).collect()
    }

    /// The test stops the device itself.
    pub(crate) fn stopped_by_hand(&mut self) {
        self.started = false;
    }

    /// Adds a chain that no driver may add, kicks, and waits until the device is in NEEDS_RESET; nothing came
    /// back. Then resets it, so that it is as new.
    pub(crate) fn expect_fault(&mut self, queue: usize, buffers: &[Buffer]) {
        self.queues[queue].add(buffers);
        self.queues[queue].kick();
        self.wait_until("a reset is needed", |driver| {
            driver.interrupt.is_reset_needed()
        });
        assert_eq!(self.queues[queue].next_used(), None, "{buffers:?}");
        self.reset();
    }

    /// Resets the device and starts it on empty queues.
    pub(crate) fn reset(&mut self) {
        let mut states = self.stop();
        self.interrupt.clear_fault();
        for (state, queue) in states.iter_mut().zip(&mut self.queues) {
            (state.next_avail, state.next_used) = (0, 0);
            queue.clear();
        }
        self.start(&states);
    }

    /// Guest memory of `len` bytes that nothing else uses.
    pub(crate) fn alloc(&mut self, len: usize) -> u64 {
        let address = self.next_free;
        self.next_free = (address + len as u64).next_multiple_of(16);
        assert!(
            self.next_free <= 2 * REGION_BORDER,
            "the fake guest's memory is full"
        );
        address
    }

    /// A readable buffer with these bytes.
    pub(crate) fn readable(&mut self, bytes: &[u8]) -> Buffer {
        let address = self.alloc(bytes.len());
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
        Buffer::readable(address, bytes.len() as u32)
    }

    /// A writable buffer, filled with 0xee.
    pub(crate) fn writable(&mut self, len: usize) -> Buffer {
        let address = self.alloc(len);
        self.memory
            .write_slice(&vec![0xee; len], GuestAddress(address))
            .unwrap();
        Buffer::writable(address, len as u32)
    }

    /// Overwrites the start of a buffer.
    pub(crate) fn fill(&self, buffer: Buffer, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(buffer.address))
            .unwrap();
    }

    /// What a buffer holds now.
    pub(crate) fn bytes(&self, buffer: Buffer) -> Vec<u8> {
        let mut bytes = vec![0; buffer.len as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(buffer.address))
            .unwrap();
        bytes
    }

    /// Waits for the next chain that the device gives back on a queue.
    pub(crate) fn wait_used(&mut self, queue: usize) -> Used {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.queues[queue].next_used() {
                return used;
            }
            assert!(
                Instant::now() < deadline,
                "the device gives nothing back on queue {queue}"
            );
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Adds a chain, kicks, and waits until it comes back.
    pub(crate) fn submit(&mut self, queue: usize, buffers: &[Buffer]) -> Used {
        let head = self.queues[queue].add(buffers);
        self.queues[queue].kick();
        let used = self.wait_used(queue);
        assert_eq!(used.head, head, "another chain came back");
        used
    }

    /// Waits until `done` holds.
    pub(crate) fn wait_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Interrupts since the last call.
    pub(crate) fn interrupts(&self) -> u64 {
        self.irqfd.read().unwrap_or(0)
    }

    /// The interrupt status, which is cleared.
    pub(crate) fn take_status(&self) -> u32 {
        self.status.swap(0, Ordering::SeqCst)
    }

    /// The whole configuration space.
    pub(crate) fn config<const N: usize>(&self) -> [u8; N] {
        let mut space = [0; N];
        self.device.read_config(0, &mut space);
        space
    }
}

impl<D: Device> Drop for Driver<D> {
    fn drop(&mut self) {
        if self.started && !std::thread::panicking() {
            self.device.stop();
        }
    }
}
