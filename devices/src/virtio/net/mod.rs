//! The network device (virtio 1.2, section 5.1): a guest's interface on a tap, or on a socket to a hull-net.
//!
//! Packets move between the wire and guest memory without a copy in between; but for a plain wire, checksums and
//! segmentation are left to the side that can do them best, both ways. When the guest has no receive buffers, packets
//! stay in the wire.
//! A packet that is too short or too long to be one is dropped.
//! The saved state of a device is its queues: a packet in flight is lost, as on a wire.
//! Deliberately absent: the control queue, several queue pairs, UDP segmentation.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sys::tap::Offload;
use virtio_queue::Queue;

use self::rx::Receiver;
use self::spec::{RX, TX, config, feature};
use self::worker::Worker;
use super::ring::{Ring, Shape};
use super::work::Scheduled;
use super::{Activation, Device, DeviceId, StartError};

mod rx;
mod spec;
#[cfg(test)]
mod tests;
mod worker;

/// Length of both queues: Linux's default, which it fills with about 400 KiB of receive buffers.
const QUEUE_SIZES: [u16; 2] = [256; 2];
/// The least MTU of IPv4 (RFC 791), and the least that the specification allows (5.1.4.1).
const MIN_MTU: u16 = 68;

/// Feature bits of every wire that is not plain.
const OFFLOADS: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::HOST_TSO4
    | feature::HOST_TSO6;

/// What a guest has to take for [`Wire::Switch`].
const NEEDED: u64 = feature::GUEST_CSUM | feature::GUEST_TSO4;

/// What is at the other end of a device's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// What takes and gives whole packets with checksums.
    Plain,
    /// A tap, whose offloads are set to what the driver accepts.
    Tap,
    /// What takes all offloads, and gives packets that need them: a driver without them is refused.
    Switch,
}

/// A network device to make.
#[derive(Debug)]
pub struct NetConfig {
    /// Its packets, one a call, each with a vnet header of 12 bytes, non-blocking.
    pub descriptor: OwnedFd,
    /// What that leads to.
    pub wire: Wire,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Largest packet, in bytes.
    pub mtu: u16,
}

/// Why a network device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The MTU is too small.
    #[error("an MTU of {0} bytes is less than {MIN_MTU}")]
    Mtu(u16),
}

/// The network device.
pub struct Net {
    descriptor: Arc<OwnedFd>,
    wire: Wire,
    mac: [u8; 6],
    mtu: u16,
    /// A failure of the wire was logged: the guest can reset the device as often as it likes.
    failure_logged: Arc<AtomicBool>,
    running: Option<Scheduled<Worker>>,
}

impl Net {
    /// A device on this wire.
    pub fn new(config: NetConfig) -> Result<Self, Error> {
        let NetConfig {
            descriptor,
            wire,
            mac,
            mtu,
        } = config;
        if mtu < MIN_MTU {
            return Err(Error::Mtu(mtu));
        }
        Ok(Self {
            descriptor: Arc::new(descriptor),
            wire,
            mac,
            mtu,
            failure_logged: Arc::default(),
            running: None,
        })
    }
}

impl Device for Net {
    fn id(&self) -> DeviceId {
        DeviceId::NET
    }

    fn features(&self) -> u64 {
        let always = feature::MAC | feature::MTU | feature::STATUS | feature::MRG_RXBUF;
        match self.wire {
            Wire::Plain => always,
            Wire::Tap | Wire::Switch => always | OFFLOADS,
        }
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; config::LEN];
        space[config::MAC..config::MAC + 6].copy_from_slice(&self.mac);
        space[config::STATUS..config::STATUS + 2].copy_from_slice(&config::S_LINK_UP.to_le_bytes());
        space[config::MTU..config::MTU + 2].copy_from_slice(&self.mtu.to_le_bytes());
        super::config_space::read(&space, offset, data);
    }

    fn start(&mut self, activation: Activation) -> Result<(), StartError> {
        let Activation {
            memory,
            features,
            queues,
            interrupt,
            reactor,
        } = activation;
        let [rx, tx] = <[_; 2]>::try_from(queues).unwrap_or_else(|queues| {
            panic!(
                "a network device has two queues and was given {}",
                queues.len()
            )
        });
        match self.wire {
            Wire::Plain => {}
            Wire::Tap => sys::tap::set_offload(&*self.descriptor, accepted(features))
                .map_err(StartError::Offload)?,
            Wire::Switch if features & NEEDED == NEEDED => {}
            Wire::Switch => return Err(StartError::NoOffload),
        }
        let worker = Worker {
            wire: self.descriptor.clone(),
            memory,
            rx: Ring::new(RX, rx, Shape::Writable, &interrupt),
            tx: Ring::new(TX, tx, Shape::Readable, &interrupt),
            receiver: Receiver::new(features & feature::MRG_RXBUF != 0, self.mtu),
            readable: true,
            writable: true,
            starved: false,
            failure_logged: self.failure_logged.clone(),
        };
        self.running = Some(Scheduled::start(worker, reactor)?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        let running = self
            .running
            .take()
            .expect("stop follows a start that succeeded");
        let Worker { rx, tx, .. } = running.stop();
        [rx, tx].map(Ring::into_queue).into()
    }
}

/// What the driver can do by itself with packets from the tap.
fn accepted(features: u64) -> Offload {
    let offloads = [
        (feature::GUEST_CSUM, Offload::CSUM),
        (feature::GUEST_CSUM | feature::GUEST_TSO4, Offload::TSO4),
        (feature::GUEST_CSUM | feature::GUEST_TSO6, Offload::TSO6),
    ];
    let taken = offloads
        .into_iter()
        .filter(|(needed, _)| features & needed == *needed);
    taken.fold(Offload::default(), |all, (_, offload)| all.and(offload))
}
