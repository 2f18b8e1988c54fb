//! The container's network, held by the monitor for as long as it lives.

use std::net::Ipv4Addr;

use protocol::agent::{EtcFiles, Interface};

use super::config::Config;
use super::vmm::Tap;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It is not there yet.
    #[error("--network bridge is not built yet for {0}; use --network none")]
    NotBuilt(&'static str),
}

/// A container's place on the bridge.
#[derive(Debug)]
pub(super) struct Attached {
    tap: Option<Tap>,
    interface: Interface,
}

impl Attached {
    /// Attaches a VM.
    pub(super) fn new(_config: &Config) -> Result<Attached, Error> {
        Err(Error::NotBuilt("VMs"))
    }

    /// Attaches a container on the host.
    pub(super) fn new_native(_config: &Config) -> Result<Attached, Error> {
        Err(Error::NotBuilt("--isolation native"))
    }

    /// The device for the VM.
    pub(super) fn take_tap(&mut self) -> Option<Tap> {
        self.tap.take()
    }

    /// What the container's side is.
    pub(super) fn interface(&self) -> Interface {
        self.interface.clone()
    }

    /// Gives everything back.
    pub(super) fn detach(self) {}
}

/// /etc/hosts with the container's own address, as Docker writes it.
pub(super) fn hosts(etc: &EtcFiles, address: Option<Ipv4Addr>) -> Option<String> {
    let hosts = etc.hosts.clone()?;
    match (address, &etc.hostname) {
        (Some(address), Some(hostname)) => {
            Some(format!("{hosts}{address}\t{}\n", hostname.trim_end()))
        }
        _ => Some(hosts),
    }
}
