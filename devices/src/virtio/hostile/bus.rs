//! A guest that speaks to a device through its registers and guest memory, as a real one does, and is free to be wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::{Bytes, GuestAddress, GuestMemoryMmap, Memory};

use crate::virtio::Device;
use crate::virtio::mmio::Mmio;
use crate::virtio::mmio::registers::*;
use crate::virtio::testing::{Buffer, DriverQueue, MainLoop, PATIENCE, Used};

/// Guest memory: two regions of half of it each, without a hole between them.
pub(super) const RAM: u64 = 4 << 20;
/// The page of the first queue; the others follow.
pub(super) const QUEUES: u64 = 0x1000;
/// Length of the queues; none that a device works on has a smaller maximum.
pub(super) const SIZE: u16 = 16;
/// What lies behind the queues, for buffers.
const BUFFERS: u64 = 0x10_0000;

/// The status of a device after its driver's set-up.
pub(super) const RUNNING: u32 =
    STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

/// One device and its guest.
pub(super) struct Bus {
    pub(super) mmio: Mmio,
    pub(super) memory: Memory,
    pub(super) queues: Vec<DriverQueue>,
    /// Their lengths.
    pub(super) sizes: Vec<u16>,
    next_buffer: u64,
}

impl Bus {
    /// A device in reset, with memory of its own.
    pub(super) fn new(device: Box<dyn Device>, main_loop: &MainLoop) -> Self {
        let half = RAM as usize / 2;
        let ranges = [(GuestAddress(0), half), (GuestAddress(RAM / 2), half)];
        let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let max_sizes = device.queue_max_sizes().iter();
        let sizes: Vec<_> = max_sizes.map(|&max| max.min(SIZE)).collect();
        let queue = |(index, &size): (usize, &u16)| {
            DriverQueue::new(memory.clone(), Self::rings(index)[0], size)
        };
        Self {
            queues: sizes.iter().enumerate().map(queue).collect(),
            sizes,
            mmio: Mmio::new(device, memory.clone(), main_loop.reactor()).unwrap(),
            memory,
            next_buffer: BUFFERS,
        }
    }

    pub(super) fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.mmio.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        self.mmio.write(offset, &value.to_le_bytes());
    }

    /// All that the device offers but EVENT_IDX: every batch interrupts.
    pub(super) fn offered(&mut self) -> u64 {
        let mut offered = 0;
        for select in 0..2 {
            self.write(DEVICE_FEATURES_SEL, select);
            offered |= u64::from(self.read(DEVICE_FEATURES)) << (32 * select);
        }
        offered & !EVENT_IDX
    }

    /// From the reset to FEATURES_OK, if the device agrees.
    pub(super) fn negotiate(&mut self, features: u64) {
        self.write(STATUS, STATUS_ACKNOWLEDGE);
        self.write(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        for select in 0..2 {
            self.write(DRIVER_FEATURES_SEL, select);
            self.write(DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
        self.write(STATUS, RUNNING & !STATUS_DRIVER_OK);
    }

    /// Writes the registers of a queue; returns whether the device accepted it.
    pub(super) fn set_up_queue(&mut self, index: usize, size: u32, addresses: [u64; 3]) -> bool {
        self.write(QUEUE_SEL, index as u32);
        self.write(QUEUE_NUM, size);
        for (low, address) in [QUEUE_DESC_LOW, QUEUE_DRIVER_LOW, QUEUE_DEVICE_LOW]
            .into_iter()
            .zip(addresses)
        {
            self.write(low, address as u32);
            self.write(low + 4, (address >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
        self.read(QUEUE_READY) == 1
    }

    /// Where the rings of a queue lie.
    pub(super) fn rings(index: usize) -> [u64; 3] {
        let base = QUEUES + 0x1000 * index as u64;
        [base, base + 0x400, base + 0x800]
    }

    /// Resets the device and does all that a driver does until it runs on empty queues.
    pub(super) fn start(&mut self) {
        self.write(STATUS, 0);
        assert_eq!(self.read(STATUS), 0);
        let features = self.offered();
        self.negotiate(features);
        self.next_buffer = BUFFERS;
        for index in 0..self.queues.len() {
            self.queues[index].clear();
            assert!(self.set_up_queue(index, self.sizes[index].into(), Self::rings(index)));
        }
        self.write(STATUS, RUNNING);
        assert_eq!(self.read(STATUS), RUNNING);
    }

    /// Memory of its own for a buffer that the device reads.
    pub(super) fn readable(&mut self, bytes: &[u8]) -> Buffer {
        let address = self.next_buffer;
        self.next_buffer = (address + bytes.len() as u64).next_multiple_of(16);
        assert!(self.next_buffer <= RAM, "the guest's memory is full");
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
        Buffer::readable(address, bytes.len() as u32)
    }

    /// And for one that it writes.
    pub(super) fn writable(&mut self, len: usize) -> Buffer {
        let Buffer { address, len, .. } = self.readable(&vec![0xee; len]);
        Buffer::writable(address, len)
    }

    pub(super) fn bytes(&self, buffer: Buffer) -> Vec<u8> {
        let mut bytes = vec![0; buffer.len as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(buffer.address))
            .unwrap();
        bytes
    }

    pub(super) fn notify(&mut self, queue: usize) {
        self.write(QUEUE_NOTIFY, queue as u32);
    }

    /// Makes a chain available and waits until it comes back.
    pub(super) fn submit(&mut self, queue: usize, buffers: &[Buffer]) -> Used {
        self.queues[queue].add(buffers);
        self.notify(queue);
        self.wait(queue)
    }

    /// The next chain that comes back.
    pub(super) fn wait(&mut self, queue: usize) -> Used {
        let begun = Instant::now();
        loop {
            if let Some(used) = self.queues[queue].next_used() {
                return used;
            }
            assert!(begun.elapsed() < PATIENCE, "nothing came back");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub(super) fn needs_reset(&mut self) -> bool {
        self.read(STATUS) & STATUS_NEEDS_RESET != 0
    }

    /// Waits until the device is in NEEDS_RESET and has interrupted for it.
    pub(super) fn wait_for_fault(&mut self, what: &str) {
        let begun = Instant::now();
        while !self.needs_reset() || self.read(INTERRUPT_STATUS) & 2 == 0 {
            assert!(begun.elapsed() < PATIENCE, "{what}: no fault was found");
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// No worker outlives its memory.
impl Drop for Bus {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.write(STATUS, 0);
        }
    }
}
