//! The network device (virtio 1.2, section 5.1): a guest's interface on a tap, or on a socket to a hull-net.
//!
//! Packets move between the wire and guest memory without a copy in between; but for a plain wire, checksums and
//! segmentation are left to the side that can do them best, both ways. When the guest has no receive buffers, packets
//! stay in the wire.
//! A packet that is too short or too long to be one is dropped.
//! A device may be without a wire: its link is down then, and what the guest sends is dropped. It can be given another
//! wire, or none, while the guest runs ([`Handle`]).
//! The saved state of a device is its queues: a packet in flight is lost, as on a wire.
//! Deliberately absent: the control queue, several queue pairs, UDP segmentation.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use sys::tap::Offload;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

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
    /// Its packets, one a call, each with a vnet header of 12 bytes, non-blocking; `None` for a device without a wire.
    pub descriptor: Option<OwnedFd>,
    /// What that leads to, or will.
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
    /// No descriptor is left.
    #[error("there is no descriptor for it")]
    Descriptor(#[source] io::Error),
}

/// The network device.
pub struct Net {
    plug: Arc<Plug>,
    wire: Wire,
    mac: [u8; 6],
    mtu: u16,
    /// A failure of the wire was logged: the guest can reset the device as often as it likes.
    failure_logged: Arc<AtomicBool>,
    running: Option<Scheduled<Worker>>,
}

/// Where a device's wire is, for its worker and whoever changes it.
#[derive(Debug)]
struct Plug {
    wire: Mutex<Option<Arc<OwnedFd>>>,
    /// Readable when the wire may be another than the worker knows.
    changed: EventFd,
}

impl Plug {
    fn wire(&self) -> Option<Arc<OwnedFd>> {
        let wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        wire.clone()
    }
}

/// A device's other side: any thread may hold it.
#[derive(Debug, Clone)]
pub struct Handle {
    plug: Arc<Plug>,
    wire: Wire,
}

impl Handle {
    /// Gives the device another wire, of the kind that it was made for, or none; the guest is told. False if the wire is of
    /// another kind: nothing has changed then.
    pub fn plug(&self, wire: Option<(OwnedFd, Wire)>) -> bool {
        let descriptor = match wire {
            Some((_, kind)) if kind != self.wire => return false,
            other => other.map(|(descriptor, _)| Arc::new(descriptor)),
        };
        let mut wire = self
            .plug
            .wire
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *wire = descriptor;
        drop(wire);
        // Fails only when the counter is full, and then the change is pending anyway.
        let _ = self.plug.changed.write(1);
        true
    }
}

impl Net {
    /// A way to change the device's wire later, when a transport owns the device.
    pub fn handle(&self) -> Handle {
        Handle {
            plug: self.plug.clone(),
            wire: self.wire,
        }
    }

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
        let changed = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::Descriptor)?;
        let plug = Plug {
            wire: Mutex::new(descriptor.map(Arc::new)),
            changed,
        };
        Ok(Self {
            plug: Arc::new(plug),
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
        let status = match self.plug.wire() {
            Some(_) => config::S_LINK_UP,
            None => 0,
        };
        space[config::STATUS..config::STATUS + 2].copy_from_slice(&status.to_le_bytes());
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
        let wire = self.plug.wire();
        let offload = match self.wire {
            Wire::Plain => None,
            Wire::Tap => Some(accepted(features)),
            Wire::Switch if features & NEEDED == NEEDED => None,
            Wire::Switch => return Err(StartError::NoOffload),
        };
        if let (Some(offload), Some(tap)) = (offload, &wire) {
            sys::tap::set_offload(&**tap, offload).map_err(StartError::Offload)?;
        }
        let worker = Worker {
            wire,
            plug: self.plug.clone(),
            offload,
            interrupt: interrupt.clone(),
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
