//! The block device (virtio 1.2, section 5.2): extents of raw files as one disk, with zeros between them.
//!
//! Each device has a thread of its own, so that a slow disk delays no other device. Data moves between files and guest
//! memory without a copy in between. The thread is made with the device and waits for a start, so that a guest that
//! starts and resets its devices makes the host create nothing.
//!
//! A read-only device can get further extents while it runs ([`Handle::add`]): the layers of another container enter a
//! running sandbox that way. Its length never changes. Requests take the table of extents when they begin, so the new
//! table is swapped in under them and no request waits. The saved state of a device is its queue; extents come from the
//! configuration of the VM that starts from it.
//!
//! A request that is out of range or refused gets its status. A read-only device refuses writes here, whatever was
//! negotiated. Deliberately absent: image formats (a guest writes the bytes from which they would be guessed), several
//! queues (one thread serves one), the write-cache toggle, lifetime, secure erase and zones.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::Queue;

use self::disk::Disk;
use self::spec::{Header, ID_BYTES, SECTOR_BYTES, config, feature};
use self::worker::{Job, Worker};
use super::on_thread::Stop;
use super::ring::{Ring, Shape};
use super::{Activation, Device, DeviceId, StartError};

mod disk;
mod spec;
#[cfg(test)]
mod tests;
mod worker;

pub use disk::{Extent, MAX_EXTENTS, PlacedExtent};

/// Length of the queue. Linux keeps at most this many requests in flight.
const QUEUE_SIZE: u16 = 256;
/// The most data buffers of a request: a queue's worth of descriptors without those of header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// The largest data buffer, in bytes.
const SIZE_MAX: u32 = 1 << 20;
/// The most data of one request, which follows: it bounds how long a stop waits for the request under way.
const MAX_REQUEST_BYTES: usize = SEG_MAX as usize * SIZE_MAX as usize;
/// The largest range of a discard: 2 GiB. A hole is punched in one call; this only bounds how long it may take.
const MAX_DISCARD_SECTORS: u32 = 4 << 20;
/// The largest range of write-zeroes: 64 MiB, because some file systems know no better way than to write them.
const MAX_WRITE_ZEROES_SECTORS: u32 = 128 << 10;
/// The most ranges of one discard or write-zeroes request.
const MAX_RANGES: u32 = 16;
/// log2 of the sectors in what a host file system allocates at once: 4 KiB.
const PHYSICAL_BLOCK_EXP: u8 = 3;

/// A block device to make.
#[derive(Debug)]
pub struct BlockConfig {
    /// What the guest reads as the device's serial: at most 20 bytes of ASCII.
    pub serial: String,
    /// Refuse every change.
    pub read_only: bool,
    /// The extents, in order; each begins at the next multiple of `align_bytes`, gaps read as zeros.
    pub extents: Vec<Extent>,
    /// A power of two, at least 512.
    pub align_bytes: u64,
    /// The device is at least so long: what no extent fills reads as zeros. A multiple of 512.
    pub min_len_bytes: u64,
}

/// Why a block device cannot be made or extended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The serial is too long or not ASCII.
    #[error("a disk's serial is not ASCII of at most {ID_BYTES} bytes")]
    Serial,
    /// The extents.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// Extents for a disk that the guest may write.
    #[error("extents can be added to read-only disks only")]
    Writable,
    /// A descriptor for its thread could not be made, or the thread not started.
    #[error("the disk's thread could not be started")]
    Thread(#[source] io::Error),
}

/// What the device, its thread and its handles share. No lock is held during I/O.
struct Shared {
    serial: String,
    read_only: bool,
    disk: Mutex<Arc<Disk>>,
    /// Asks the thread to give the queue back.
    stop: Stop,
    /// An I/O error of the host was logged: the guest can cause as many as it likes.
    failure_logged: AtomicBool,
}

impl Shared {
    /// The disk as it is now. A request uses the one that it began with to its end.
    fn disk(&self) -> Arc<Disk> {
        self.lock_disk().clone()
    }

    fn lock_disk(&self) -> MutexGuard<'_, Arc<Disk>> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The block device.
pub struct Block {
    shared: Arc<Shared>,
    /// Work for the thread, which ends when the device is gone.
    jobs: Sender<Job>,
    /// What the thread gives back after each.
    done: Receiver<Ring>,
}

/// A device's disk, from outside of it: any thread may hold it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Block {
    /// A device with these files, which must be as long as their extents.
    pub fn new(config: BlockConfig) -> Result<Self, Error> {
        let BlockConfig {
            serial,
            read_only,
            extents,
            align_bytes,
            min_len_bytes,
        } = config;
        if serial.len() > ID_BYTES || !serial.is_ascii() {
            return Err(Error::Serial);
        }
        let disk = Disk::new(extents, align_bytes, min_len_bytes)?;
        let shared = Shared {
            serial,
            read_only,
            disk: Mutex::new(Arc::new(disk)),
            stop: Stop::new().map_err(Error::Thread)?,
            failure_logged: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let (jobs, work) = channel();
        let (finished, done) = channel();
        let worker = Worker::new(shared.clone()).map_err(Error::Thread)?;
        let name = format!("blk-{}", shared.serial);
        sys::thread::spawn(&name, move || worker.run(work, finished)).map_err(Error::Thread)?;
        Ok(Self { shared, jobs, done })
    }

    /// A way to the device's disk for later, when a transport owns the device.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: self.shared.clone(),
        }
    }
}

impl Handle {
    /// The serial of the device.
    pub fn serial(&self) -> &str {
        &self.shared.serial
    }

    /// Adds extents in gaps of a read-only device: all of them, or an error. A request that the guest makes after this
    /// has returned reads them; one under way may still read zeros.
    pub fn add(&self, extents: Vec<PlacedExtent>) -> Result<(), Error> {
        if !self.shared.read_only {
            return Err(Error::Writable);
        }
        // The files first: no request waits for them.
        for added in &extents {
            added.extent.check()?;
        }
        let mut disk = self.shared.lock_disk();
        *disk = Arc::new(disk.with(extents)?);
        Ok(())
    }
}

impl Device for Block {
    fn id(&self) -> DeviceId {
        DeviceId::BLOCK
    }

    fn features(&self) -> u64 {
        let always = feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE | feature::TOPOLOGY;
        always
            | match self.shared.read_only {
                true => feature::RO,
                false => feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES,
            }
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; config::LEN];
        let mut field =
            |at: usize, value: &[u8]| space[at..at + value.len()].copy_from_slice(value);
        field(
            config::CAPACITY,
            &self.shared.disk().sectors().to_le_bytes(),
        );
        field(config::SIZE_MAX, &SIZE_MAX.to_le_bytes());
        field(config::SEG_MAX, &SEG_MAX.to_le_bytes());
        field(config::BLK_SIZE, &(SECTOR_BYTES as u32).to_le_bytes());
        field(config::PHYSICAL_BLOCK_EXP, &[PHYSICAL_BLOCK_EXP]);
        field(
            config::MIN_IO_SIZE,
            &(1u16 << PHYSICAL_BLOCK_EXP).to_le_bytes(),
        );
        if !self.shared.read_only {
            field(
                config::MAX_DISCARD_SECTORS,
                &MAX_DISCARD_SECTORS.to_le_bytes(),
            );
            field(config::MAX_DISCARD_SEG, &MAX_RANGES.to_le_bytes());
            field(
                config::DISCARD_SECTOR_ALIGNMENT,
                &(1u32 << PHYSICAL_BLOCK_EXP).to_le_bytes(),
            );
            field(
                config::MAX_WRITE_ZEROES_SECTORS,
                &MAX_WRITE_ZEROES_SECTORS.to_le_bytes(),
            );
            field(config::MAX_WRITE_ZEROES_SEG, &MAX_RANGES.to_le_bytes());
            field(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
        }
        super::config_space::read(&space, offset, data);
    }

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        let Activation {
            memory,
            features,
            queues,
            interrupt,
            reactor: _,
        } = activation;
        let [queue] = <[_; 1]>::try_from(queues).unwrap_or_else(|queues| {
            panic!(
                "a block device has one queue and was given {}",
                queues.len()
            )
        });
        let shape = Shape::Request {
            readable: Header::LEN,
            writable: 1,
        };
        let ring = Ring::new(0, queue, shape, &interrupt);
        let job = Job {
            memory,
            ring,
            write_through: features & feature::FLUSH == 0,
        };
        self.jobs
            .send(job)
            .expect("the thread lives as long as the device");
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        self.shared.stop.ask();
        let ring = self.done.recv().expect("the worker does not panic");
        vec![ring.into_queue()]
    }
}

/// A thread that is at work finds out; it looks for the next job, and there is none.
impl Drop for Block {
    fn drop(&mut self) {
        self.shared.stop.ask();
    }
}
