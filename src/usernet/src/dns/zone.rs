//! What the network answers itself, and what it leaves to the resolvers of the host.
//!
//! - What the client's own lease links: the name that it stands for.
//! - Names of the network, alone or in its domain (`web`, `web.backend`): their addresses, in turns; no other record.
//! - `host.docker.internal` and `host.hull.internal`: the gateway.
//! - Addresses of the subnet: the name in the domain.
//! - The same of every adjacent network that the client's sandbox is on.
//!
//! Everything else is the resolvers'. A name of which every holder is dead is no name of the network.

use std::io;
use std::net::Ipv4Addr;

use super::name::Name;
use super::names::{Leases, Sandbox};
use super::wire::{self, Query, Rcode, Record};

/// The most addresses of one answer: each is looked after before it is given.
const MAX_ADDRESSES: usize = 256;
/// The names of the host.
const HOST: [&str; 2] = ["host.docker.internal", "host.hull.internal"];

/// What a network's DNS server knows.
#[derive(Debug)]
pub struct Zone {
    own: Part,
    /// Networks that some of the clients are on as well.
    adjacent: Vec<Part>,
    hosts: Vec<Name>,
    /// How many answers with addresses there have been: which address comes first in the next.
    turn: usize,
}

/// A network.
#[derive(Debug)]
pub struct Part {
    /// Tells it from others.
    id: String,
    leases: Leases,
    domain: Option<Name>,
    subnet: (Ipv4Addr, u8),
    gateway: Ipv4Addr,
}

/// What the network says of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These records: of a name that is known, perhaps none of the kind that is asked for.
    Records(Vec<Record>),
    /// There is no such name, and no resolver can know better.
    NoSuchName,
    /// It is not the network's.
    Foreign,
}

impl Part {
    /// A network called `domain`, if that can be a name.
    pub fn new(
        id: String,
        leases: Leases,
        domain: Option<Name>,
        subnet: (Ipv4Addr, u8),
        gateway: Ipv4Addr,
    ) -> Part {
        Part {
            id,
            leases,
            domain,
            subnet,
            gateway,
        }
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let (network, prefix_len) = self.subnet;
        let differing = network.to_bits() ^ address.to_bits();
        differing
            .checked_shr(32 - u32::from(prefix_len.min(32)))
            .is_none_or(|bits| bits == 0)
    }

    /// Whether a living sandbox is on it.
    fn has(&mut self, sandbox: &Sandbox) -> io::Result<bool> {
        let names = self.leases.names()?;
        let addresses: Vec<Ipv4Addr> = names.addresses_of(sandbox).collect();
        Ok(addresses.into_iter().any(|it| self.leases.is_alive(it)))
    }

    /// The living holders of a name, the one first that has its turn.
    fn addresses(&mut self, name: &Name, turn: &mut usize) -> io::Result<Vec<Ipv4Addr>> {
        let names = self.leases.names()?;
        let alone = names.addresses(name);
        let below = self.domain.as_ref().and_then(|domain| name.below(domain));
        let mut addresses = match (alone, below) {
            ([], Some(name)) => names.addresses(&name),
            _ => alone,
        }
        .to_vec();
        if !addresses.is_empty() {
            let first = *turn % addresses.len();
            addresses.rotate_left(first);
            *turn = turn.wrapping_add(1);
        }
        let alive = addresses
            .into_iter()
            .filter(|&address| self.leases.is_alive(address));
        Ok(alive.take(MAX_ADDRESSES).collect())
    }

    /// The name of an address of its own, in its domain.
    fn name(&mut self, address: Ipv4Addr, host: Option<&Name>) -> io::Result<Option<Name>> {
        if address == self.gateway {
            return Ok(host.cloned());
        }
        let name = self.leases.names()?.name(address);
        // Too long with the domain, it is told without.
        let qualified = |name: &Name| self.domain.as_ref().and_then(|it| name.within(it));
        let name = name.map(|name| qualified(name).unwrap_or_else(|| name.clone()));
        Ok(name.filter(|_| self.leases.is_alive(address)))
    }
}

impl Zone {
    /// The zone of a network.
    pub fn new(own: Part) -> Zone {
        Zone {
            own,
            adjacent: Vec::new(),
            hosts: HOST.into_iter().filter_map(Name::parse).collect(),
            turn: 0,
        }
    }

    /// Has the names of an adjacent network be told to those that are on it too. False if there are too many.
    pub fn add_adjacent(&mut self, part: Part) -> bool {
        self.adjacent.retain(|known| known.id != part.id);
        let has_room = self.adjacent.len() < protocol::net::MAX_ADJACENT;
        if has_room {
            self.adjacent.push(part);
        }
        has_room
    }

    /// Whether an address belongs to the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.own.contains(address)
    }

    /// What the network says to the client with this address.
    ///
    /// # Errors
    /// A folder of leases cannot be read.
    pub fn answer(&mut self, client: Ipv4Addr, query: &Query) -> io::Result<Answer> {
        if query.class != wire::IN && query.class != wire::ANY {
            return Ok(Answer::Foreign);
        }
        if let Some(address) = query.name.reversed_address() {
            return self.reverse(client, address, query.kind);
        }
        let addresses = match self.hosts.contains(&query.name) {
            true => vec![self.own.gateway],
            false => self.addresses(client, &query.name)?,
        };
        if addresses.is_empty() {
            return Ok(Answer::Foreign);
        }
        let wanted = [wire::A, wire::ANY].contains(&query.kind);
        let records = addresses.into_iter().filter(|_| wanted);
        Ok(Answer::Records(records.map(Record::Address).collect()))
    }

    /// The addresses of a name, of the first network of the client's that knows it.
    fn addresses(&mut self, client: Ipv4Addr, name: &Name) -> io::Result<Vec<Ipv4Addr>> {
        let adjacent = self.adjacent_to(client)?;
        let name = self.linked(client, &adjacent, name)?;
        let own = self.own.addresses(&name, &mut self.turn)?;
        if !own.is_empty() {
            return Ok(own);
        }
        for at in adjacent {
            let found = self.adjacent[at].addresses(&name, &mut self.turn)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// What the client means by a name: on whichever of its networks it has the link.
    fn linked(&mut self, client: Ipv4Addr, adjacent: &[usize], name: &Name) -> io::Result<Name> {
        let names = self.own.leases.names()?;
        if let Some(linked) = names.linked(client, name) {
            return Ok(linked.clone());
        }
        let Some(sandbox) = names.sandbox(client).cloned() else {
            return Ok(name.clone());
        };
        for &at in adjacent {
            let names = self.adjacent[at].leases.names()?;
            let mut there = names.addresses_of(&sandbox);
            if let Some(linked) = there.find_map(|address| names.linked(address, name)) {
                return Ok(linked.clone());
            }
        }
        Ok(name.clone())
    }

    /// The places of the adjacent networks that the client's sandbox is on.
    fn adjacent_to(&mut self, client: Ipv4Addr) -> io::Result<Vec<usize>> {
        if self.adjacent.is_empty() {
            return Ok(Vec::new());
        }
        let Some(sandbox) = self.own.leases.names()?.sandbox(client).cloned() else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for (at, part) in self.adjacent.iter_mut().enumerate() {
            match part.has(&sandbox) {
                Ok(true) => found.push(at),
                Ok(false) => {}
                // It has been removed.
                Err(error) => tracing::debug!(%error, "an adjacent network is not known any more"),
            }
        }
        Ok(found)
    }

    fn reverse(&mut self, client: Ipv4Addr, address: Ipv4Addr, kind: u16) -> io::Result<Answer> {
        let host = self.hosts.first().cloned();
        let mut name = None;
        let is_ours = if self.own.contains(address) {
            name = self.own.name(address, host.as_ref())?;
            true
        } else {
            let mut is_adjacent = false;
            for at in self.adjacent_to(client)? {
                let part = &mut self.adjacent[at];
                if part.contains(address) {
                    name = part.name(address, host.as_ref())?;
                    is_adjacent = true;
                }
            }
            is_adjacent
        };
        if !is_ours {
            return Ok(Answer::Foreign);
        }
        // No resolver knows more of the network's own addresses.
        let Some(name) = name else {
            return Ok(Answer::NoSuchName);
        };
        let wanted = [wire::PTR, wire::ANY].contains(&kind);
        let records = Some(name).filter(|_| wanted);
        Ok(Answer::Records(
            records.map(Record::Pointer).into_iter().collect(),
        ))
    }
}

impl Answer {
    /// The message that says so; `None` if a resolver has to be asked.
    pub fn message(&self, query: &Query, limit: usize) -> Option<Vec<u8>> {
        match self {
            Answer::Records(records) => Some(query.answer(Rcode::NOERROR, true, records, limit)),
            Answer::NoSuchName => Some(query.answer(Rcode::NXDOMAIN, true, &[], limit)),
            Answer::Foreign => None,
        }
    }
}
