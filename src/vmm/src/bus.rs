//! The bus: chips at I/O ports, and virtio-mmio devices in their windows.
//!
//! An access that nothing answers reads as all ones, and is ignored when it writes; every access is counted by kind. Chips
//! and transports each have a lock of their own: two vCPUs wait for each other only at the same device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arch::layout::{VIRTIO_MMIO, VIRTIO_MMIO_STRIDE};
use devices::legacy::Chip;
use devices::virtio::mmio::{self, Mmio, registers};

use crate::snapshot;
use crate::stamps::Stamps;

/// The most ports that are counted by number: a guest can use 65536.
const MAX_COUNTED_PORTS: usize = 64;

/// Everything that vCPUs can reach.
pub struct Bus {
    chips: Vec<OnPorts>,
    devices: Vec<OnMmio>,
    stamps: Arc<Stamps>,
    /// The devices' saved states, in a VM from a snapshot that has not run yet.
    saved: Mutex<Vec<mmio::State>>,
    port_counts: Mutex<BTreeMap<(Access, u16), u64>>,
    other_port_count: AtomicU64,
    other_mmio_count: AtomicU64,
}

/// Direction of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Access {
    Read,
    Write,
}

struct OnPorts {
    first: u16,
    len: u16,
    chip: Mutex<Box<dyn Chip>>,
}

/// A virtio device and its name in reports.
struct OnMmio {
    name: &'static str,
    transport: Mutex<Mmio>,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Bus {
    /// An empty bus.
    pub fn new(stamps: Arc<Stamps>) -> Self {
        Self {
            chips: Vec::new(),
            devices: Vec::new(),
            stamps,
            saved: Mutex::default(),
            port_counts: Mutex::default(),
            other_port_count: AtomicU64::new(0),
            other_mmio_count: AtomicU64::new(0),
        }
    }

    /// Puts a chip at `len` ports from `first`.
    pub fn add_chip(&mut self, first: u16, len: u16, chip: Box<dyn Chip>) {
        self.chips.push(OnPorts {
            first,
            len,
            chip: Mutex::new(chip),
        });
    }

    /// Puts a virtio device into the next window.
    pub fn add_device(&mut self, name: &'static str, transport: Mmio) {
        let (reads, writes) = Default::default();
        self.devices.push(OnMmio {
            name,
            transport: Mutex::new(transport),
            reads,
            writes,
        });
    }

    /// Keeps the devices' saved states for [`Bus::resume`].
    pub fn set_saved(&mut self, saved: Vec<mmio::State>) -> Result<(), snapshot::Error> {
        snapshot::same("devices", saved.len() as u64, self.devices.len() as u64)?;
        self.saved = Mutex::new(saved);
        Ok(())
    }

    /// Starts the devices where they were saved, if they were. Devices of the main loop wait for it: this is a vCPU's to do,
    /// before it runs.
    pub fn resume(&self) -> Result<(), snapshot::Error> {
        let saved = std::mem::take(&mut *lock(&self.saved));
        for (index, (device, state)) in self.devices.iter().zip(&saved).enumerate() {
            lock(&device.transport)
                .restore(state)
                .map_err(|source| snapshot::Error::Device { index, source })?;
        }
        Ok(())
    }

    /// Stops every device for good; their states, to be saved. The main loop must run meanwhile.
    pub fn stop(&self) -> Vec<mmio::State> {
        let stop = |device: &OnMmio| lock(&device.transport).stop();
        self.devices.iter().map(stop).collect()
    }

    /// Number of virtio devices.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// The guest reads a port.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        self.count_port(Access::Read, port);
        match self.chip(port) {
            Some((chip, offset)) => lock(&chip.chip).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes a port.
    pub fn port_write(&self, port: u16, data: &[u8]) {
        self.count_port(Access::Write, port);
        if let Some((chip, offset)) = self.chip(port) {
            lock(&chip.chip).write(offset, data);
        }
    }

    /// The guest reads an address that is not memory.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((device, offset)) => {
                device.reads.fetch_add(1, Ordering::Relaxed);
                lock(&device.transport).read(offset, data);
            }
            None => {
                self.other_mmio_count.fetch_add(1, Ordering::Relaxed);
                data.fill(0xff);
            }
        }
    }

    /// The guest writes an address that is not memory.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        match self.device(address) {
            Some((device, offset)) => {
                device.writes.fetch_add(1, Ordering::Relaxed);
                if offset == registers::STATUS {
                    self.stamps.first_virtio.set();
                }
                lock(&device.transport).write(offset, data);
            }
            None => {
                self.other_mmio_count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Accesses so far, by kind, those that are not zero.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (&(access, port), &count) in lock(&self.port_counts).iter() {
            let kind = match access {
                Access::Read => "io_in",
                Access::Write => "io_out",
            };
            counts.insert(format!("{kind} {port:#x}"), count);
        }
        for (index, device) in self.devices.iter().enumerate() {
            for (kind, count) in [("mmio_read", &device.reads), ("mmio_write", &device.writes)] {
                // Two disks have one name: the window tells them apart.
                let mut key = format!("{kind} {}", device.name);
                if counts.contains_key(&key) {
                    key = format!("{key}@{index}");
                }
                counts.insert(key, count.load(Ordering::Relaxed));
            }
        }
        counts.insert(
            "io other".to_owned(),
            self.other_port_count.load(Ordering::Relaxed),
        );
        counts.insert(
            "mmio other".to_owned(),
            self.other_mmio_count.load(Ordering::Relaxed),
        );
        counts.retain(|_, count| *count != 0);
        counts
    }

    fn chip(&self, port: u16) -> Option<(&OnPorts, u16)> {
        self.chips.iter().find_map(|chip| {
            let offset = port.checked_sub(chip.first)?;
            (offset < chip.len).then_some((chip, offset))
        })
    }

    fn device(&self, address: u64) -> Option<(&OnMmio, u64)> {
        let offset = address.checked_sub(VIRTIO_MMIO)?;
        let device = self.devices.get((offset / VIRTIO_MMIO_STRIDE) as usize)?;
        Some((device, offset % VIRTIO_MMIO_STRIDE))
    }

    fn count_port(&self, access: Access, port: u16) {
        let mut counts = lock(&self.port_counts);
        if counts.len() < MAX_COUNTED_PORTS || counts.contains_key(&(access, port)) {
            *counts.entry((access, port)).or_default() += 1;
        } else {
            self.other_port_count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A panic with the lock held ends the process (`panic = "abort"`); tests do not care about the state.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Writes = Arc<Mutex<Vec<(u16, Vec<u8>)>>>;

    struct Last(Writes);

    impl Chip for Last {
        fn read(&mut self, offset: u16, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&mut self, offset: u16, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    #[test]
    fn a_chip_sees_its_own_ports_as_offsets() {
        let seen = Writes::default();
        let mut bus = Bus::new(Arc::default());
        bus.add_chip(0x60, 5, Box::new(Last(seen.clone())));
        bus.port_write(0x64, &[0xfe]);
        bus.port_write(0x65, &[0xfe]);
        bus.port_write(0x5f, &[0xfe]);
        assert_eq!(*seen.lock().unwrap(), [(4, vec![0xfe])]);
        let mut data = [0; 2];
        bus.port_read(0x62, &mut data);
        assert_eq!(data, [2, 2]);
        assert_eq!(bus.counts()["io_out 0x64"], 1);
    }

    #[test]
    fn nobody_reads_as_all_ones_and_is_counted() {
        let bus = Bus::new(Arc::default());
        let mut data = [0; 4];
        bus.port_read(0xcf8, &mut data);
        assert_eq!(data, [0xff; 4]);
        data.fill(0);
        bus.mmio_read(VIRTIO_MMIO, &mut data);
        assert_eq!(data, [0xff; 4]);
        bus.mmio_write(u64::MAX, &data);
        let counts = bus.counts();
        assert_eq!((counts["io_in 0xcf8"], counts["mmio other"]), (1, 2));
    }

    #[test]
    fn a_guest_that_tries_every_port_costs_a_bounded_table() {
        let bus = Bus::new(Arc::default());
        for port in 0..=u16::MAX {
            bus.port_write(port, &[0]);
        }
        let counts = bus.counts();
        assert_eq!(counts.len(), MAX_COUNTED_PORTS + 1);
        assert_eq!(counts["io other"], 65536 - MAX_COUNTED_PORTS as u64);
    }
}
