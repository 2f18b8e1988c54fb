//! The container's network, held by the monitor for as long as it lives.

use std::io;
use std::path::Path;

use network::{Claim, Lease, Network, STATE_DIR};
use protocol::agent::Interface;
use protocol::record::{self, DEFAULT_NETWORK, Endpoint, Published, SandboxConfig, SandboxKind};

use crate::devices::Tap;
use crate::resolver;
use crate::warden::members::{self, Members};

/// Digits of an identifier that are a name.
const SHORT_ID_LEN: usize = 12;
/// Why a sandbox has no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The host's part.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// A record.
    #[error(transparent)]
    Record(#[from] members::Error),
}

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
    pub(crate) fn new(config: &SandboxConfig, endpoint: &Endpoint) -> Result<Attached, Error> {
        let names = names(config, endpoint)?;
        let network = network_of(config, endpoint)?;
        let attachment = network.attach(&config.id, &claim(endpoint, &names))?;
        let lease = served(config, endpoint, &network, attachment.lease)?;
        let interface = interface(attachment.interface);
        let tap = Tap {
            tap: attachment.tap,
            offload: attachment.offload,
        };
        Ok(Attached {
            tap: Some(tap),
            interface,
            lease: Some(lease),
        })
    }

    /// Attaches a container on the host.
    pub(crate) fn new_native(
        config: &SandboxConfig,
        endpoint: &Endpoint,
    ) -> Result<Attached, Error> {
        let names = names(config, endpoint)?;
        let network = network_of(config, endpoint)?;
        let attachment = network.attach_native(&config.id, &claim(endpoint, &names))?;
        let lease = served(config, endpoint, &network, attachment.lease)?;
        Ok(Attached {
            tap: None,
            interface: interface(attachment.interface),
            lease: Some(lease),
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

    /// Its ports that are reached by the host's addresses.
    pub(crate) fn ports(&self) -> &[Published] {
        self.lease.as_ref().map_or(&[], Lease::ports)
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

/// Has the names of a network that the user has made be answered. Without that the sandbox leaves it.
fn served(
    config: &SandboxConfig,
    endpoint: &Endpoint,
    network: &Network,
    lease: Lease,
) -> Result<Lease, Error> {
    if endpoint.network == DEFAULT_NETWORK {
        return Ok(lease);
    }
    match resolver::ensure(network, &endpoint.network, config.net.as_deref()) {
        Ok(()) => Ok(lease),
        Err(error) => {
            // What could not be released here, a sweep removes.
            let _ = lease.release();
            Err(error.into())
        }
    }
}

/// The host's part of the network that a sandbox is to be on.
fn network_of(config: &SandboxConfig, endpoint: &Endpoint) -> Result<Network, Error> {
    let state = Path::new(STATE_DIR);
    if endpoint.network == DEFAULT_NETWORK {
        return Ok(Network::new(state));
    }
    let folder = config.root.join("networks").join(&endpoint.network);
    let path = folder.join(record::CONFIG);
    let definition: Option<record::Network> = members::read(&path)?;
    let definition = definition.ok_or_else(|| network::Error::Removed(endpoint.network.clone()))?;
    members::check_version(&path, definition.version)?;
    Ok(Network::named(state, &definition, &path))
}

fn claim<'a>(endpoint: &'a Endpoint, names: &'a [String]) -> Claim<'a> {
    Claim {
        names,
        address: endpoint.address,
        mac: endpoint.mac,
        publish: &endpoint.publish,
    }
}

/// What the sandbox is called on its network: a container by its name, its identifier's first digits and its host name, a pod
/// by its name, and what else was asked for.
fn names(config: &SandboxConfig, endpoint: &Endpoint) -> Result<Vec<String>, Error> {
    let mut names = match &config.kind {
        SandboxKind::Pod { name, .. } => vec![name.clone()],
        SandboxKind::Single => {
            let mut members = Members::new(&config.root, &config.id);
            let container = &members.load(&config.id)?.config;
            let own = container.run.own_names.iter().rev().cloned();
            std::iter::once(container.name.clone()).chain(own).collect()
        }
    };
    let id: String = config.id.chars().take(SHORT_ID_LEN).collect();
    names.push(id);
    for alias in &endpoint.aliases {
        names.push(alias.clone());
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

fn interface(interface: network::Interface) -> Interface {
    Interface {
        mac: interface.mac,
        address: interface.address,
        prefix_len: interface.prefix_len,
        gateway: interface.gateway,
        mtu: interface.mtu,
    }
}
