//! Virtio devices, without the transport through which the guest sees them.
//!
//! A [`Device`] knows its queues, features and configuration space. The transport negotiates features, sets the queues
//! up, and hands them over:
//!
//! ```text
//!            DRIVER_OK: start(Activation)                       the work runs on the main loop (through the
//!  stopped ------------------------------------> started        [`Reactor`]) or on a thread of the device's own
//!     ^                                             |
//!     +---------------- stop() -> queues -----------+           reset, save
//! ```
//!
//! Starting a device consumes its queues and stopping it returns them, so that a queue in use is out of reach and no
//! flag says whether a device is active. A start makes no thread and no descriptor: a guest may start its devices as
//! often as it likes. `stop` returns only when no I/O is in flight: the caller may save, rebuild or drop the queues.
//!
//! Locks: the transport's lock is held while `start`, `stop` and the config accessors run (on a vCPU's thread). A
//! worker (on the main loop or its own thread) must therefore never wait for its transport: what it shares with its
//! `Device` is an atomic or a lock that `Device` never holds while it waits for the worker.

use std::sync::{Arc, Mutex};

use event_manager::{MutEventSubscriber, RemoteEndpoint};
use memory::Memory;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

pub mod block;
mod config_space;
pub mod console;
pub mod fs;
#[cfg(test)]
mod hostile;
mod interrupt;
pub mod mmio;
pub mod net;
mod on_loop;
mod on_thread;
mod ring;
pub mod rng;
#[cfg(test)]
mod testing;
pub mod vsock;
mod work;

pub use interrupt::Interrupt;

/// A device's type (virtio 1.2, section 5): an open set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceId(pub u32);

impl DeviceId {
    /// Section 5.1.
    pub const NET: Self = Self(1);
    /// Section 5.2.
    pub const BLOCK: Self = Self(2);
    /// Section 5.3.
    pub const CONSOLE: Self = Self(3);
    /// Section 5.4.
    pub const RNG: Self = Self(4);
    /// Section 5.10.
    pub const VSOCK: Self = Self(19);
    /// Section 5.11.
    pub const FS: Self = Self(26);
}

/// A virtio device. Methods are called by one transport at a time.
pub trait Device: Send {
    /// Its type.
    fn id(&self) -> DeviceId;

    /// Feature bits of the device's own (virtio 1.2, 2.2: 0 to 23 and 50 to 127) that it offers. The transport adds
    /// VERSION_1, EVENT_IDX and INDIRECT_DESC.
    fn features(&self) -> u64;

    /// The largest size of each queue; its length is the number of queues.
    fn queue_max_sizes(&self) -> &[u16];

    /// Fills `data` from the configuration space at `offset` in bytes; what lies outside reads as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the configuration space; ignored where nothing is writable.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Begins work on the queues. Called once after construction and once after each [`Device::stop`].
    fn start(&mut self, activation: Activation) -> Result<(), StartError>;

    /// Ends work and gives the queues back in their order, with no I/O in flight. Called only after a `start` that succeeded.
    fn stop(&mut self) -> Vec<Queue>;
}

/// Everything a device needs to work.
pub struct Activation {
    /// Guest RAM, in which the transport has found the queues to lie.
    pub memory: Memory,
    /// The negotiated features, the transport's own included.
    pub features: u64,
    /// The queues, one for each of [`Device::queue_max_sizes`]; one that the driver left alone is not `ready()`.
    pub queues: Vec<StartedQueue>,
    /// The device's interrupt.
    pub interrupt: Interrupt,
    /// The main loop, for devices without a thread of their own.
    pub reactor: Reactor,
}

/// A queue that was handed over.
pub struct StartedQueue {
    /// The queue, validated: its rings lie in guest memory, EVENT_IDX is set as negotiated.
    pub queue: Queue,
    /// Readable when the driver has notified this queue (an ioeventfd, or written by the transport). Read it to clear.
    pub kick: Arc<EventFd>,
}

/// Something that the main loop calls when one of its descriptors is ready.
pub type Subscriber = Arc<Mutex<dyn MutEventSubscriber + Send>>;

/// The main loop, seen from another thread: `call_blocking` adds and removes subscribers. Never call it from the loop itself.
pub type Reactor = Arc<RemoteEndpoint<Subscriber>>;

/// Why a device could not begin work.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tap's offloads could not be set to the driver's.
    #[error("the tap's offloads could not be set")]
    Offload(#[source] std::io::Error),
    /// The driver cannot take what the network sends.
    #[error(
        "the guest's driver takes no packets in pieces (GUEST_CSUM, GUEST_TSO4), which the network of an ordinary user \
         sends"
    )]
    NoOffload,
    /// The main loop did not take the device.
    #[error("the main loop did not take the device")]
    Reactor(#[source] event_manager::Error),
}
