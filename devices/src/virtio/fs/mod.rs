//! The file system device (virtio 1.2, section 5.11): shared directories, served by a process called hull-fs.
//!
//! ```text
//!  guest's driver == hiprio, requests == this device --SOCK_SEQPACKET, one FUSE message a packet--> hull-fs
//!                                          ^   |     <--replies; with them the descriptors of files that it opened--
//!                                          |   +-- READ, WRITE: preadv, pwritev on those
//!                                          +-- Handle::serve: the socket, while the VM runs
//! ```
//!
//! Names and directories are hull-fs's affair: this device knows no path, and holds no descriptor from which one could walk
//! up. Data moves between files and guest memory without a copy in between and without hull-fs. The device has a thread of
//! its own, which is made with it and waits for a start: a VM without shares pays for no more than that.
//!
//! A chain is read once. What it says is checked against its own length here and otherwise by hull-fs, which takes the guest
//! for hostile; its replies are checked here, where it is taken for broken. Invariants: what goes to hull-fs is what the
//! guest wrote, `unique` included, so a reply belongs to one request in flight or to none; between a reset and the next
//! request lies a DESTROY of the device's own, and replies that come before its reply are dropped, so that none from before
//! the reset is taken for one after it. A socket begins with the guest's INIT: before, and without a socket, the guest reads
//! ENOTCONN, and ENODEV for the INIT itself.
//!
//! The saved state of a device is its queues: a VM that begins from it has no socket yet. Deliberately absent: the
//! notification queue, several request queues (one thread serves one), DAX.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use virtio_queue::Queue;

use self::spec::{HIPRIO, InHeader, REQUESTS, TAG_BYTES, config};
use self::worker::{Job, Worker};
use super::on_thread::Stop;
use super::ring::{Ring, Shape};
use super::{Activation, Device, DeviceId, StartError};

mod files;
mod link;
mod replies;
mod requests;
mod session;
mod spec;
#[cfg(test)]
mod tests;
mod worker;

/// The largest message to hull-fs or from it, in bytes.
pub const MAX_MESSAGE_LEN: usize = 68 << 10;
/// The most data of one READ or WRITE.
pub const MAX_DATA_BYTES: u32 = 1 << 20;

/// Lengths of the queues. A request of [`MAX_DATA_BYTES`] has a descriptor for each page of it and a few for headers.
const QUEUE_SIZES: [u16; 2] = [128, 512];
/// How long what is in flight may take to come back when the device is stopped; it fails then.
const STOP_TIMEOUT: Duration = Duration::from_millis(100);

/// A file system device to make.
#[derive(Debug)]
pub struct FsConfig {
    /// What the driver finds the file system by: 1 to 36 bytes.
    pub tag: String,
    /// The most files that the guest may have open: each is a descriptor of this process.
    pub max_open_files: usize,
}

/// Why a file system device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tag is empty or too long.
    #[error("a file system's tag has 1 to {TAG_BYTES} bytes")]
    Tag,
    /// A descriptor for its thread could not be made, or the thread not started.
    #[error("the file system's thread could not be started")]
    Thread(#[source] io::Error),
}

/// What the device, its thread and its handles share.
struct Shared {
    max_open_files: usize,
    /// A socket that the thread has not taken yet.
    given: Mutex<Option<OwnedFd>>,
    /// Asks the thread to give the queues back.
    stop: Stop,
}

/// The file system device.
pub struct Fs {
    tag: String,
    shared: Arc<Shared>,
    /// Work for the thread, which ends when the device is gone.
    jobs: Sender<Job>,
    /// What the thread gives back after each.
    done: Receiver<[Ring; 2]>,
}

/// A device's other side: any thread may hold it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Fs {
    /// A device that has no hull-fs yet.
    pub fn new(config: FsConfig) -> Result<Self, Error> {
        let FsConfig {
            tag,
            max_open_files,
        } = config;
        if tag.is_empty() || tag.len() > TAG_BYTES {
            return Err(Error::Tag);
        }
        let shared = Shared {
            max_open_files,
            given: Mutex::default(),
            stop: Stop::new().map_err(Error::Thread)?,
        };
        let shared = Arc::new(shared);
        let (jobs, work) = channel();
        let (finished, done) = channel();
        let worker = Worker::new(shared.clone()).map_err(Error::Thread)?;
        sys::thread::spawn("fs", move || worker.run(work, finished)).map_err(Error::Thread)?;
        Ok(Self {
            tag,
            shared,
            jobs,
            done,
        })
    }

    /// A way to give the device its socket later, when a transport owns the device.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: self.shared.clone(),
        }
    }
}

impl Handle {
    /// Gives the device the socket (SOCK_SEQPACKET) of a hull-fs that has just begun. It takes the place of the one before,
    /// whatever its state: what is in flight there fails with ENOTCONN, every open file is closed, and so does every request
    /// fail until the guest mounts anew.
    pub fn serve(&self, socket: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let before = self.shared.lock_given().replace(socket);
        drop(before);
        self.shared.stop.wake_up();
        Ok(())
    }
}

impl Shared {
    fn lock_given(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Fs {
    fn id(&self) -> DeviceId {
        DeviceId::FS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; config::LEN];
        let mut field =
            |at: usize, value: &[u8]| space[at..at + value.len()].copy_from_slice(value);
        field(config::TAG, self.tag.as_bytes());
        field(config::NUM_REQUEST_QUEUES, &1u32.to_le_bytes());
        super::config_space::read(&space, offset, data);
    }

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        let Activation {
            memory,
            features: _,
            queues,
            interrupt,
            reactor: _,
        } = activation;
        let [forgets, requests] = <[_; 2]>::try_from(queues).unwrap_or_else(|queues| {
            panic!(
                "a file system device has two queues and was given {}",
                queues.len()
            )
        });
        // Whether there is to be a reply, and so room for it, is for the header to say.
        let shape = Shape::Request {
            readable: InHeader::LEN,
            writable: 0,
        };
        let job = Job {
            memory,
            forgets: Ring::new(HIPRIO, forgets, shape, &interrupt),
            requests: Ring::new(REQUESTS, requests, shape, &interrupt),
        };
        self.jobs
            .send(job)
            .expect("the thread lives as long as the device");
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        self.shared.stop.ask();
        let rings = self.done.recv().expect("the worker does not panic");
        rings.map(Ring::into_queue).into()
    }
}

/// A thread that is at work finds out; it looks for the next job, and there is none.
impl Drop for Fs {
    fn drop(&mut self) {
        self.shared.stop.ask();
    }
}
