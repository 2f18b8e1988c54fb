//! The socket device (virtio 1.2, section 5.10): streams from the guest to descriptors of the host.
//!
//! Only the guest connects, and only to ports at which the monitor has offered a stream ([`Offers::offer`]); each is
//! taken once. Everything else is answered with a reset: other ports, other context ids, other socket types, packets that
//! break the protocol. A chain too short for a header, or a packet shorter than it claims, is given back and ignored.
//! Data moves between descriptors and guest memory without a copy in between, but for what the host does not read in
//! time, which waits in a bounded buffer of its connection.
//!
//! ```text
//!  REQUEST, offered -> RESPONSE -> RW both ways -> SHUTDOWN each way -> RST     a connection
//! ```
//!
//! Bytes are lost only with an error. Each direction ends on its own, after everything before its end; what the guest has
//! sent reaches the host after the guest has closed its socket, and the other way round. A descriptor that fails, or a
//! stop before the host has read everything, ends that connection alone and is reported through [`Offers::on_failure`].
//!
//! Connections do not survive a stop: a device that is restored tells the driver so on the event queue. There is no other
//! state than the guest's context id. Deliberately absent: connections from the host, datagrams, SOCK_SEQPACKET.

use std::collections::VecDeque;

use virtio_queue::Queue;

use self::spec::{EVENT, F_STREAM, RX, TX};
use self::table::Table;
use self::worker::Worker;
use super::ring::{Ring, Shape};
use super::work::Scheduled;
use super::{Activation, Device, DeviceId, StartError};

mod connection;
mod offers;
mod spec;
mod table;
#[cfg(test)]
mod tests;
mod worker;

pub use offers::{OfferError, Offers, StreamError};

/// Lengths of the queues. Linux fills the receive queue with 4 KiB buffers: 512 KiB of guest memory.
const QUEUE_SIZES: [u16; 3] = [128, 128, 8];

/// The socket device.
pub struct Vsock {
    guest_cid: u32,
    offers: Offers,
    /// The driver had connections that are gone.
    restored: bool,
    running: Option<Scheduled<Worker>>,
}

/// The saved state of a socket device, besides its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VsockState {
    /// The guest's context id.
    pub guest_cid: u32,
}

impl Vsock {
    /// The device of the guest with this context id (3 or more), and where to offer it streams.
    pub fn new(guest_cid: u32) -> (Self, Offers) {
        let offers = Offers::default();
        let device = Self {
            guest_cid,
            offers: offers.clone(),
            restored: false,
            running: None,
        };
        (device, offers)
    }

    /// The device as it was saved. When it starts, it tells the driver that its connections are gone.
    pub fn restore(state: VsockState) -> (Self, Offers) {
        let (mut device, offers) = Self::new(state.guest_cid);
        device.restored = true;
        (device, offers)
    }

    /// What [`Vsock::restore`] needs. Streams that are offered and not taken are the monitor's to offer again.
    pub fn state(&self) -> VsockState {
        VsockState {
            guest_cid: self.guest_cid,
        }
    }
}

impl Device for Vsock {
    fn id(&self) -> DeviceId {
        DeviceId::VSOCK
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::config_space::read(&u64::from(self.guest_cid).to_le_bytes(), offset, data);
    }

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        let Activation {
            memory,
            features: _,
            queues,
            interrupt,
            reactor,
        } = activation;
        let [rx, tx, event] = <[_; 3]>::try_from(queues).unwrap_or_else(|queues| {
            panic!(
                "a socket device has three queues and was given {}",
                queues.len()
            )
        });
        let worker = Worker {
            guest_cid: u64::from(self.guest_cid),
            offers: self.offers.clone(),
            memory,
            rx: Ring::new(RX, rx, Shape::Writable, &interrupt),
            tx: Ring::new(TX, tx, Shape::Readable, &interrupt),
            event: Ring::new(EVENT, event, Shape::Writable, &interrupt),
            transport_reset_due: self.restored,
            table: Table::default(),
            due: VecDeque::new(),
            resets: VecDeque::new(),
        };
        self.running = Some(Scheduled::start(worker, reactor)?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let running = self
            .running
            .take()
            .expect("stop follows a start that succeeded");
        // The connections go with the worker: their descriptors close, and the host reads an end of file.
        let Worker {
            table,
            rx,
            tx,
            event,
            transport_reset_due,
            ..
        } = running.stop();
        for connection in table.iter() {
            if let Some(loss) = connection.loss() {
                self.offers.failed(connection.ports.host, loss);
            }
        }
        self.restored = transport_reset_due;
        [rx, tx, event].map(Ring::into_queue).into()
    }
}
