//! The network's DNS server, as step functions without sockets: what has come to what is to be done.
//!
//! ```text
//!  client --query--> wire::Query --> zone: ours? --yes--> Reply
//!                                      '--no--> forward --Open--> upstream
//!  client <--Reply-- forward <--------------------------answer-----'
//! ```
//!
//! - `wire`: messages; `name`: names; `stream`: messages on a connection.
//! - `names`: the folder of leases; `zone`: what is answered from it.
//! - `forward`, `upstream`: everything else.
//!
//! Invariants: a client outside of the subnet is not answered, whatever let its packets through. Everything that
//! clients can make grow has a bound. What is forwarded is forwarded as it came but for its identifier: EDNS, DNSSEC's
//! flags, kinds of records that are not known here pass through, and so do truncated answers, upon which the client
//! asks by TCP. Deliberately absent: a cache (the upstreams have one), recursion, IPv6 addresses of containers.

mod forward;
mod name;
mod names;
mod stream;
#[cfg(test)]
mod tests;
mod upstream;
mod wire;
mod zone;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

pub use forward::{Action, Client, Flight, Forwarder, MAX_IN_FLIGHT, Random, Transport};
pub use name::Name;
pub use names::{Leases, Names, open_folder};
pub use stream::{Incoming, TooLong, framed};
pub use wire::{MAX_QUERY, Query, Rcode, Record, Unserved};
pub use zone::{Answer, Part, Zone};

/// The longest message that there can be, in bytes.
pub const MAX_MESSAGE: usize = u16::MAX as usize;

/// The server.
#[derive(Debug)]
pub struct Dns {
    zone: Zone,
    forwarder: Forwarder,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it has sent what is no query.
    Silence,
    /// What is to be done; perhaps nothing yet.
    Actions(Vec<Action>),
}

impl Dns {
    /// The server of a zone.
    pub fn new(zone: Zone, forwarder: Forwarder) -> Dns {
        Dns { zone, forwarder }
    }

    /// Has the names of an adjacent network be told to the clients that are on it too. False if there are too many.
    pub fn add_adjacent(&mut self, part: Part) -> bool {
        self.zone.add_adjacent(part)
    }

    /// Whether this client is one of the network's.
    pub fn serves(&self, client: Ipv4Addr) -> bool {
        self.zone.contains(client)
    }

    /// A datagram.
    pub fn datagram(&mut self, now: Instant, from: SocketAddrV4, message: &[u8]) -> Vec<Action> {
        if !self.serves(*from.ip()) {
            return Vec::new();
        }
        match self.message(now, Client::Udp(from), message) {
            Outcome::Silence => Vec::new(),
            Outcome::Actions(actions) => actions,
        }
    }

    /// A message from a connection.
    pub fn message(&mut self, now: Instant, client: Client, message: &[u8]) -> Outcome {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Unserved::Ignored) => return Outcome::Silence,
            Err(Unserved::Answered(reply)) => {
                return Outcome::Actions(vec![Action::Reply(client, reply)]);
            }
        };
        let limit = match client {
            Client::Udp(_) => query.udp_limit(),
            Client::Tcp(..) => MAX_MESSAGE,
        };
        let reply = match self.zone.answer(client.address(), &query) {
            Ok(answer) => answer.message(&query, limit),
            Err(error) => {
                tracing::warn!(%error, "the folder of leases cannot be read: names of the network are unknown");
                Some(query.answer(Rcode::SERVFAIL, false, &[], limit))
            }
        };
        Outcome::Actions(match reply {
            Some(reply) => vec![Action::Reply(client, reply)],
            None => self.forwarder.query(now, client, query, message),
        })
    }

    /// What came from an upstream.
    pub fn answer(&mut self, now: Instant, flight: Flight, message: &[u8]) -> Vec<Action> {
        self.forwarder.answer(now, flight, message)
    }

    /// An upstream's socket has failed, or ended without an answer.
    pub fn failed(&mut self, now: Instant, flight: Flight) -> Vec<Action> {
        self.forwarder.failed(now, flight)
    }

    /// What has had its time.
    pub fn expire(&mut self, now: Instant) -> Vec<Action> {
        self.forwarder.expire(now)
    }

    /// When [`Dns::expire`] has something to do at the earliest.
    pub fn deadline(&self) -> Option<Instant> {
        self.forwarder.deadline()
    }

    /// A client's connection is gone.
    pub fn forget(&mut self, connection: u64) -> Vec<Action> {
        self.forwarder.forget(connection)
    }
}
