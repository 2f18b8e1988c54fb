//! The container's network, held by the monitor for as long as it lives.

use std::io;
use std::path::Path;

use network::{Lease, Network};
use protocol::agent::Interface;

use crate::devices::Tap;

/// Where the bridge's state is: the bridge belongs to the host, whatever roots of state its users have, and ends with
/// its boot.
pub(crate) const STATE: &str = "/run/hull";

/// A container's place on the bridge. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Attached {
    tap: Option<Tap>,
    interface: Interface,
    /// `None` in the speaker, whose it is not.
    lease: Option<Lease>,
}

impl Attached {
    /// Attaches a VM.
    pub(crate) fn new(id: &str) -> Result<Attached, network::Error> {
        let attachment = Network::new(Path::new(STATE)).attach(id)?;
        let interface = interface(attachment.interface);
        let tap = Tap {
            tap: attachment.tap,
            offload: attachment.offload,
        };
        Ok(Attached {
            tap: Some(tap),
            interface,
            lease: Some(attachment.lease),
        })
    }

    /// Attaches a container on the host.
    pub(crate) fn new_native(id: &str) -> Result<Attached, network::Error> {
        let attachment = Network::new(Path::new(STATE)).attach_native(id)?;
        Ok(Attached {
            tap: None,
            interface: interface(attachment.interface),
            lease: Some(attachment.lease),
        })
    }

    /// A copy of the device, for the VM.
    pub(crate) fn tap(&self) -> io::Result<Option<Tap>> {
        self.tap.as_ref().map(Tap::try_clone).transpose()
    }

    /// The VM has the device: it goes when the VM does.
    pub(crate) fn release_tap(&mut self) {
        self.tap = None;
    }

    /// What the container's side is.
    pub(crate) fn interface(&self) -> Interface {
        self.interface.clone()
    }

    /// Leaves it to the parent of this process, of which this value is a copy.
    pub(crate) fn part(&mut self) {
        self.lease = None;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.tap = None;
        if let Some(lease) = self.lease.take()
            && let Err(error) = lease.release()
        {
            tracing::warn!(%error, "the container's address was not released; the next command tries again");
        }
    }
}

fn interface(interface: network::Interface) -> Interface {
    Interface {
        mac: interface.mac,
        address: interface.address,
        prefix_len: interface.prefix_len,
        gateway: Some(interface.gateway),
        mtu: interface.mtu,
    }
}
