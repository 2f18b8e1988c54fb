//! What the network answers itself, and what it leaves to the resolvers of the host.
//!
//! - Names of the network, alone or in its domain (`web`, `web.backend`): their addresses, in turns; no other record.
//! - `host.docker.internal` and `host.hull.internal`: the gateway.
//! - Addresses of the subnet: the name in the domain.
//!
//! Everything else is the resolvers'. A name of which every holder is dead is no name of the network.

use std::io;
use std::net::Ipv4Addr;

use super::name::Name;
use super::names::Leases;
use super::wire::{self, Query, Rcode, Record};

/// The most addresses of one answer: each is looked after before it is given.
const MAX_ADDRESSES: usize = 256;
/// The names of the host.
const HOST: [&str; 2] = ["host.docker.internal", "host.hull.internal"];

/// What a network is.
#[derive(Debug)]
pub struct Zone {
    leases: Leases,
    domain: Option<Name>,
    subnet: (Ipv4Addr, u8),
    gateway: Ipv4Addr,
    hosts: Vec<Name>,
    /// How many answers with addresses there have been: which address comes first in the next.
    turn: usize,
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

impl Zone {
    /// The zone of a network called `domain`, if that can be a name.
    pub fn new(
        leases: Leases,
        domain: Option<Name>,
        subnet: (Ipv4Addr, u8),
        gateway: Ipv4Addr,
    ) -> Zone {
        Zone {
            leases,
            domain,
            subnet,
            gateway,
            hosts: HOST.into_iter().filter_map(Name::parse).collect(),
            turn: 0,
        }
    }

    /// Whether an address belongs to the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let (network, prefix_len) = self.subnet;
        let differing = network.to_bits() ^ address.to_bits();
        differing
            .checked_shr(32 - u32::from(prefix_len.min(32)))
            .is_none_or(|bits| bits == 0)
    }

    /// What the network says.
    ///
    /// # Errors
    /// The folder of leases cannot be read.
    pub fn answer(&mut self, query: &Query) -> io::Result<Answer> {
        if query.class != wire::IN && query.class != wire::ANY {
            return Ok(Answer::Foreign);
        }
        if let Some(address) = query.name.reversed_address() {
            return self.reverse(address, query.kind);
        }
        let addresses = match self.hosts.contains(&query.name) {
            true => vec![self.gateway],
            false => self.addresses(&query.name)?,
        };
        if addresses.is_empty() {
            return Ok(Answer::Foreign);
        }
        let wanted = [wire::A, wire::ANY].contains(&query.kind);
        let records = addresses.into_iter().filter(|_| wanted);
        Ok(Answer::Records(records.map(Record::Address).collect()))
    }

    /// The living holders of a name, another one first each time.
    fn addresses(&mut self, name: &Name) -> io::Result<Vec<Ipv4Addr>> {
        let names = self.leases.names()?;
        let alone = names.addresses(name);
        let below = self.domain.as_ref().and_then(|domain| name.below(domain));
        let mut addresses = match (alone, below) {
            ([], Some(name)) => names.addresses(&name),
            _ => alone,
        }
        .to_vec();
        if !addresses.is_empty() {
            let first = self.turn % addresses.len();
            addresses.rotate_left(first);
            self.turn = self.turn.wrapping_add(1);
        }
        let alive = addresses
            .into_iter()
            .filter(|&address| self.leases.is_alive(address));
        Ok(alive.take(MAX_ADDRESSES).collect())
    }

    fn reverse(&mut self, address: Ipv4Addr, kind: u16) -> io::Result<Answer> {
        if !self.contains(address) {
            return Ok(Answer::Foreign);
        }
        let name = if address == self.gateway {
            self.hosts.first().cloned()
        } else {
            let name = self.leases.names()?.name(address);
            // Too long with the domain, it is told without.
            let qualified = |name: &Name| self.domain.as_ref().and_then(|it| name.within(it));
            let name = name.map(|name| qualified(name).unwrap_or_else(|| name.clone()));
            name.filter(|_| self.leases.is_alive(address))
        };
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
