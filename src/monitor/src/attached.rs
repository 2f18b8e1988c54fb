//! The container's network, held by the monitor for as long as it lives.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use network::{Claim, Home, Host, Lease, Network};
use protocol::agent::Interface;
use protocol::record::{
    self, DEFAULT_NETWORK, Endpoint, JailPolicy, Machine, Published, SandboxConfig, SandboxKind,
};
use protocol::vmm::Wire;

use crate::devices::NetworkEnd;
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

/// A container's place on its network. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Attached {
    end: Option<NetworkEnd>,
    interface: Interface,
    /// `None` in the speaker, whose it is not.
    lease: Option<Lease>,
    /// How its network's hull-net is started.
    net: Option<PathBuf>,
    policy: JailPolicy,
    /// When it joined a hull-net that has ended, if it has not joined another.
    expelled: Option<Instant>,
    joined: Instant,
}

/// The least time between two hull-nets of a network. One that a guest can end is not started without pause.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);

impl Attached {
    /// Attaches a VM.
    pub(crate) fn new(config: &SandboxConfig, endpoint: &Endpoint) -> Result<Attached, Error> {
        let names = names(config, endpoint)?;
        let network = network_of(config, endpoint)?;
        let claim = claim(endpoint, &names);
        let (descriptor, wire, interface, lease) = match network.host() {
            Host::Bridge => {
                let attachment = network.attach(&config.id, &claim)?;
                let lease = served(config, endpoint, &network, attachment.lease)?;
                (attachment.tap, Wire::Tap, attachment.interface, lease)
            }
            Host::Switch => {
                let (net, domain) = (config.net.as_deref(), &endpoint.network);
                let attachment = network.join_switch(&config.id, &claim, domain, |launch| {
                    Ok(resolver::start(net, policy(config), launch)?)
                })?;
                let wire = attachment.wire;
                (wire, Wire::Switch, attachment.interface, attachment.lease)
            }
        };
        let end = Some(NetworkEnd { descriptor, wire });
        Ok(Attached::of(config, end, interface, lease))
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
        Ok(Attached::of(config, None, attachment.interface, lease))
    }

    fn of(
        config: &SandboxConfig,
        end: Option<NetworkEnd>,
        interface: network::Interface,
        lease: Lease,
    ) -> Attached {
        Attached {
            end,
            interface: self::interface(interface),
            lease: Some(lease),
            net: config.net.clone(),
            policy: policy(config),
            expelled: None,
            joined: Instant::now(),
        }
    }

    /// To be polled for the end of its network's hull-net, where that is one.
    pub(crate) fn membership(&self) -> Option<BorrowedFd<'_>> {
        self.lease.as_ref().and_then(Lease::membership)
    }

    /// hull-net has ended: it joins another when that is due (lifecycle H32).
    pub(crate) fn expelled(&mut self) {
        if let Some(lease) = &mut self.lease {
            tracing::warn!("the network's hull-net has ended; connections through it are lost");
            lease.expelled();
            self.expelled = Some(self.joined);
        }
    }

    /// How long until [`Attached::join_again`] has something to do, if it ever has.
    pub(crate) fn next_join(&self) -> Option<Duration> {
        let due = self.expelled? + REJOIN_PAUSE;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// When it is due, joins another hull-net. This process has one thread only.
    pub(crate) fn join_again(&mut self) {
        if self.next_join() != Some(Duration::ZERO) {
            return;
        }
        let Some(lease) = &mut self.lease else {
            return;
        };
        self.joined = Instant::now();
        let (net, policy) = (self.net.as_deref(), self.policy);
        match lease.join_again(|launch| Ok(resolver::start(net, policy, launch)?)) {
            Ok(()) => self.expelled = None,
            Err(error) => {
                tracing::warn!(error = %protocol::chain(&error), "there is no network yet; tried again");
                self.expelled = Some(self.joined);
            }
        }
    }

    /// A copy of the host's end, for the VM.
    pub(crate) fn end(&self) -> io::Result<Option<NetworkEnd>> {
        self.end.as_ref().map(NetworkEnd::try_clone).transpose()
    }

    /// The VM has the end: it goes when the VM does.
    pub(crate) fn release_end(&mut self) {
        self.end = None;
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
        self.end = None;
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

/// How much of hull-net's jail may be missing: as of hull-vmm's.
fn policy(config: &SandboxConfig) -> JailPolicy {
    match &config.machine {
        Machine::Vm(vm) => vm.jail,
        Machine::Native { .. } => JailPolicy::Full,
    }
}

/// The host's part of the network that a sandbox is to be on.
fn network_of(config: &SandboxConfig, endpoint: &Endpoint) -> Result<Network, Error> {
    let home = Home::of(&config.root);
    if endpoint.network == DEFAULT_NETWORK {
        return Ok(Network::new(&home));
    }
    let folder = config.root.join("networks").join(&endpoint.network);
    let path = folder.join(record::CONFIG);
    let definition: Option<record::Network> = members::read(&path)?;
    let definition = definition.ok_or_else(|| network::Error::Removed(endpoint.network.clone()))?;
    members::check_version(&path, definition.version)?;
    Ok(Network::named(&home, &definition, &path))
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
