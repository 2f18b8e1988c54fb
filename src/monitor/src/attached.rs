//! The networks of a sandbox, held by the monitor for as long as it lives.
//!
//! ```text
//! record: endpoints --attach--> Attached, one for each: a slot, an address, the host's end of a wire
//!    '-- rewritten while the sandbox runs --bring--> those that are gone released, those that are new attached
//! ```
//!
//! Invariants: each has another slot, which is the interface's number inside; one at most is the way out, and the sandbox's
//! ports are published on that.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use network::{Adjacent, Claim, Home, Host, Lease, Network};
use protocol::agent::Interface;
use protocol::record::{
    self, Attachment, DEFAULT_NETWORK, Endpoint, JailPolicy, MAX_NETWORKS, Machine, Publish,
    Published, SandboxConfig, SandboxKind,
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
    /// More than there are interfaces for.
    #[error(
        "the container is on {MAX_NETWORKS} networks, which is the most: take it off another one first"
    )]
    TooMany,
    /// Its VM has fewer network cards.
    #[error(
        "the container's VM has as many network cards as it had networks when it began ({cards}), since none of those was the \
         user's own: stop the container, connect it to the network, and start it again"
    )]
    Cards {
        /// How many.
        cards: u8,
    },
    /// The end of a wire cannot be copied.
    #[error("cannot give the VM its network")]
    End(#[source] io::Error),
}

/// A sandbox's places on networks, in the order of their slots.
#[derive(Debug)]
pub(crate) struct Networks {
    all: Vec<Attached>,
    is_native: bool,
    /// How many there can be.
    slots: u8,
    /// How networks' hull-nets are started.
    net: Option<PathBuf>,
    policy: JailPolicy,
}

/// A sandbox's place on a network. Dropped, it is given back.
#[derive(Debug)]
struct Attached {
    endpoint: Endpoint,
    slot: u8,
    is_way_out: bool,
    network: Network,
    end: Option<NetworkEnd>,
    interface: network::Interface,
    /// `None` in the speaker, whose it is not.
    lease: Option<Lease>,
    /// When it joined a hull-net that has ended, if it has not joined another.
    expelled: Option<Instant>,
    joined: Instant,
}

/// What has changed of a sandbox's networks.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Slots whose networks are gone.
    pub(crate) unplugged: Vec<u8>,
    /// The wires of those that came, for a VM.
    pub(crate) plugged: Vec<(u8, NetworkEnd)>,
}

/// The least time between two hull-nets of a network. One that a guest can end is not started without pause.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);

impl Networks {
    /// On none.
    pub(crate) fn none(config: &SandboxConfig) -> Networks {
        let is_native = matches!(config.machine, Machine::Native { .. });
        Networks {
            all: Vec::new(),
            is_native,
            slots: match &config.machine {
                Machine::Vm(vm) => vm.cards,
                Machine::Native { .. } => MAX_NETWORKS as u8,
            },
            net: config.net.clone(),
            policy: policy(config),
        }
    }

    /// Has the sandbox be on the networks that its record names, and on no other. When it fails, nothing new is attached.
    pub(crate) fn bring(&mut self, config: &SandboxConfig) -> Result<Changed, Error> {
        self.net.clone_from(&config.net);
        let stays = |one: &Attached| {
            let mut all = config.networks.iter();
            all.any(|it| it.is_same_place(&one.endpoint))
        };
        let gone = self.all.extract_if(.., |one| !stays(one));
        let unplugged = gone.map(|one| one.slot).collect();
        let known: BTreeSet<u8> = self.all.iter().map(|one| one.slot).collect();
        let attached = self.attach_missing(config);
        if let Err(error) = attached {
            self.all.retain(|one| known.contains(&one.slot));
            return Err(error);
        }
        let new = self.all.iter().filter(|one| !known.contains(&one.slot));
        let end = |one: &Attached| {
            let end = one.end.as_ref()?;
            Some(end.try_clone().map(|end| (one.slot, end)))
        };
        let plugged: io::Result<Vec<_>> = new.filter_map(end).collect();
        Ok(Changed {
            unplugged,
            plugged: plugged.map_err(Error::End)?,
        })
    }

    fn attach_missing(&mut self, config: &SandboxConfig) -> Result<(), Error> {
        let mut missing = Vec::new();
        for endpoint in &config.networks {
            if !self
                .all
                .iter()
                .any(|one| one.endpoint.is_same_place(endpoint))
            {
                missing.push((endpoint, network_of(config, endpoint)?));
            }
        }
        let way_out = self.choose_way_out(&missing).cloned();
        let is_way_out = |it: &Endpoint| {
            way_out
                .as_ref()
                .is_some_and(|out| out.network == it.network)
        };
        for one in &mut self.all {
            one.is_way_out = is_way_out(&one.endpoint);
        }
        let all_ports = config.networks.iter().flat_map(|it| &it.publish);
        let all_ports: Vec<Publish> = all_ports.copied().collect();
        for (endpoint, network) in missing {
            let is_way_out = is_way_out(endpoint);
            let publish: &[Publish] = if is_way_out { &all_ports } else { &[] };
            let slot = self.free_slot()?;
            let mut attached = self.attach(config, endpoint, network, slot, publish)?;
            attached.is_way_out = is_way_out;
            self.all.push(attached);
        }
        self.all.sort_by_key(|one| one.slot);
        self.serve_names()
    }

    /// The place that is the way out once these are attached. While ports are published on one, it stays so: they would be
    /// answered by another.
    fn choose_way_out<'a>(
        &'a self,
        missing: &'a [(&'a Endpoint, Network)],
    ) -> Option<&'a Endpoint> {
        let holds = |one: &&Attached| one.is_way_out && !one.ports().is_empty();
        if let Some(one) = self.all.iter().find(holds) {
            return Some(&one.endpoint);
        }
        let attached = self
            .all
            .iter()
            .map(|one| (&one.endpoint, one.interface.gateway.is_some()));
        let new = missing
            .iter()
            .map(|(endpoint, network)| (*endpoint, !network.is_internal()));
        record::way_out(attached.chain(new))
    }

    fn free_slot(&self) -> Result<u8, Error> {
        let is_free = |slot: &u8| !self.all.iter().any(|one| one.slot == *slot);
        let slot = (0..self.slots).find(is_free);
        let cards = self.slots;
        slot.ok_or(match usize::from(cards) {
            MAX_NETWORKS.. => Error::TooMany,
            _ => Error::Cards { cards },
        })
    }

    fn attach(
        &self,
        config: &SandboxConfig,
        endpoint: &Endpoint,
        network: Network,
        slot: u8,
        publish: &[Publish],
    ) -> Result<Attached, Error> {
        let names = names(config, endpoint)?;
        let claim = Claim {
            slot,
            names: &names,
            address: endpoint.address,
            mac: endpoint.mac,
            publish,
        };
        let id = &config.id;
        let (end, interface, lease) = match (self.is_native, network.host()) {
            (true, _) => {
                let attachment = network.attach_native(id, &claim)?;
                (None, attachment.interface, attachment.lease)
            }
            (false, Host::Bridge) => {
                let attachment = network.attach(id, &claim)?;
                let end = (attachment.tap, Wire::Tap);
                (Some(end), attachment.interface, attachment.lease)
            }
            (false, Host::Switch) => {
                let (net, policy) = (self.net.as_deref(), self.policy);
                let domain = &endpoint.network;
                let attachment = network.join_switch(id, &claim, domain, |launch| {
                    Ok(resolver::start(net, policy, launch)?)
                })?;
                let end = (attachment.wire, Wire::Switch);
                (Some(end), attachment.interface, attachment.lease)
            }
        };
        Ok(Attached {
            endpoint: endpoint.clone(),
            slot,
            is_way_out: false,
            network,
            end: end.map(|(descriptor, wire)| NetworkEnd { descriptor, wire }),
            interface,
            lease: Some(lease),
            expelled: None,
            joined: Instant::now(),
        })
    }

    /// Has the names of the networks that users have made be answered, on each those of the sandbox's others as well.
    fn serve_names(&mut self) -> Result<(), Error> {
        let named = |one: &&mut Attached| one.endpoint.network != DEFAULT_NETWORK;
        let adjacent: Vec<Adjacent> = self
            .all
            .iter_mut()
            .filter(named)
            .map(|one| Adjacent {
                network: one.network.clone(),
                domain: one.endpoint.network.clone(),
            })
            .collect();
        for one in self.all.iter_mut().filter(named) {
            let others: Vec<Adjacent> = adjacent
                .iter()
                .filter(|it| it.domain != one.endpoint.network)
                .cloned()
                .collect();
            match one.network.host() {
                Host::Bridge => {
                    let domain = &one.endpoint.network;
                    resolver::ensure(&one.network, domain, &others, self.net.as_deref())?;
                }
                Host::Switch => {
                    if let Some(lease) = &mut one.lease {
                        lease.tell_adjacent(others)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// To be polled for the ends of networks' hull-nets, where those are networks, each with its slot.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = (u8, BorrowedFd<'_>)> {
        self.all.iter().filter_map(|one| {
            let membership = one.lease.as_ref().and_then(Lease::membership)?;
            Some((one.slot, membership))
        })
    }

    /// The hull-net of the network in this slot has ended: it joins another when that is due (lifecycle H32).
    pub(crate) fn expelled(&mut self, slot: u8) {
        for one in self.all.iter_mut().filter(|one| one.slot == slot) {
            if let Some(lease) = &mut one.lease {
                tracing::warn!("the network's hull-net has ended; connections through it are lost");
                lease.expelled();
                one.expelled = Some(one.joined);
            }
        }
    }

    /// How long until [`Networks::join_again`] has something to do, if it ever has.
    pub(crate) fn next_join(&self) -> Option<Duration> {
        self.all.iter().filter_map(Attached::next_join).min()
    }

    /// Where it is due, joins another hull-net. This process has one thread only.
    pub(crate) fn join_again(&mut self) {
        let (net, policy) = (self.net.as_deref(), self.policy);
        for one in &mut self.all {
            if one.next_join() != Some(Duration::ZERO) {
                continue;
            }
            let Some(lease) = &mut one.lease else {
                continue;
            };
            one.joined = Instant::now();
            match lease.join_again(|launch| Ok(resolver::start(net, policy, launch)?)) {
                Ok(()) => one.expelled = None,
                Err(error) => {
                    tracing::warn!(error = %protocol::chain(&error), "there is no network yet; tried again");
                    one.expelled = Some(one.joined);
                }
            }
        }
    }

    /// Copies of the host's ends, for the VM.
    pub(crate) fn ends(&self) -> io::Result<Vec<(u8, NetworkEnd)>> {
        let ends = self
            .all
            .iter()
            .filter_map(|one| Some((one.slot, one.end.as_ref()?)));
        ends.map(|(slot, end)| Ok((slot, end.try_clone()?)))
            .collect()
    }

    /// The VM has the ends: they go when the VM does.
    pub(crate) fn release_ends(&mut self) {
        for one in &mut self.all {
            one.end = None;
        }
    }

    /// What the container's side is, in the order of the record's endpoints as far as they are there.
    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        self.all.iter().map(Attached::attachment).collect()
    }

    /// The sandbox's ports that are reached by the host's addresses.
    pub(crate) fn ports(&self) -> Vec<Published> {
        self.all.iter().flat_map(Attached::ports).copied().collect()
    }

    /// Leaves them to the parent of this process, of which this value is a copy.
    pub(crate) fn part(&mut self) {
        for one in &mut self.all {
            one.lease = None;
        }
    }
}

impl Attached {
    fn next_join(&self) -> Option<Duration> {
        let due = self.expelled? + REJOIN_PAUSE;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn ports(&self) -> &[Published] {
        self.lease.as_ref().map_or(&[], Lease::ports)
    }

    fn attachment(&self) -> Attachment {
        let network::Interface {
            mac,
            address,
            prefix_len,
            gateway,
            mtu,
        } = self.interface;
        Attachment {
            network: self.endpoint.network.clone(),
            interface: Interface {
                mac,
                address,
                prefix_len,
                gateway,
                mtu,
                slot: self.slot,
                is_way_out: self.is_way_out,
            },
        }
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

/// What the sandbox is called on a network: a container by its name, its identifier's first digits and its host name, a pod
/// by its name, and what else was asked for there.
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
    for link in &endpoint.links {
        names.push(format!("{}={}", link.alias, link.name));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}
