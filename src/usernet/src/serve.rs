//! The loop around the DNS server and the network: one thread, one epoll set, sockets that never wait.
//!
//! ```text
//!  datagrams --> inbox.rs --> Dns --actions--> datagrams
//!  connections (clients.rs) --^  '--> exchange.rs: a socket for each query in flight
//! ```
//!
//! On a bridge, the sockets that clients reach were bound by the warden. On a network of its own ([`crate::network`])
//! datagrams are frames, and a connection is a pair of sockets whose other end is a flow's. Sockets to upstreams are made
//! here. At each turn so many
//! datagrams are answered and no more, so that connections and upstreams have their turns as well.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};

use crate::clients::{Clients, Event};
use crate::dns::{Action, Client, Dns, Flight, MAX_QUERY, Outcome};
use crate::exchange::{Exchanges, Progress};
use crate::inbox::Inbox;
use crate::network::{self, Network};
use crate::poller::{Interest, Poller, Ready};

/// Datagrams that are taken from the socket at a turn, and that are answered.
const TAKEN: usize = 1024;
const ANSWERED: usize = 64;

/// Keys of the epoll set: a number, and a kind in the lowest bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// The socket for clients' datagrams.
    Datagrams,
    /// The socket for clients' connections.
    Listener,
    /// A client's connection, by its number.
    Connection(u64),
    /// The socket to an upstream.
    Exchange(Flight),
    /// The socket that a network's sandboxes connect to.
    Members,
    /// A sandbox's connection.
    Member(u64),
    /// The wire of a sandbox that has joined.
    Wire(u64),
    /// The socket of a member's TCP connection.
    Flow(u64),
    /// The socket of a published port.
    Port(u64),
    /// The socket of a member's UDP port.
    Datagram(u64),
    /// The socket of a member's echoes.
    Ping(u64),
}

impl Key {
    pub(crate) fn number(self) -> u64 {
        let (kind, number) = match self {
            Key::Datagrams => (0, 0),
            Key::Listener => (1, 0),
            Key::Connection(number) => (2, number),
            Key::Exchange(Flight(number)) => (3, number),
            Key::Members => (4, 0),
            Key::Member(number) => (5, number),
            Key::Wire(number) => (6, number),
            Key::Flow(number) => (7, number),
            Key::Port(number) => (8, number),
            Key::Datagram(number) => (9, number),
            Key::Ping(number) => (10, number),
        };
        number << 4 | kind
    }

    pub(crate) fn of(key: u64) -> Key {
        let number = key >> 4;
        match key & 15 {
            0 => Key::Datagrams,
            1 => Key::Listener,
            2 => Key::Connection(number),
            3 => Key::Exchange(Flight(number)),
            4 => Key::Members,
            5 => Key::Member(number),
            6 => Key::Wire(number),
            7 => Key::Flow(number),
            8 => Key::Port(number),
            9 => Key::Datagram(number),
            _ => Key::Ping(number),
        }
    }
}

/// Where clients are.
#[derive(Debug)]
pub enum Front {
    /// On a bridge: they reach these two sockets, for datagrams and for connections, which do not block.
    Bridge(OwnedFd, OwnedFd),
    /// On a network of this process's own.
    Switch(network::Config),
}

/// The server with its sockets.
#[derive(Debug)]
pub struct Server {
    dns: Dns,
    poller: Poller,
    datagrams: Option<OwnedFd>,
    network: Option<Network>,
    inbox: Inbox,
    clients: Clients,
    exchanges: Exchanges,
}

impl Server {
    /// Serves these clients.
    pub fn new(dns: Dns, front: Front) -> io::Result<Server> {
        let poller = Poller::new()?;
        let (datagrams, listener, network) = match front {
            Front::Bridge(datagrams, listener) => (Some(datagrams), Some(listener), None),
            Front::Switch(config) => (None, None, Some(Network::new(&poller, config)?)),
        };
        if let Some(datagrams) = &datagrams {
            poller.add(datagrams, Key::Datagrams.number(), Interest::Read)?;
        }
        Ok(Server {
            dns,
            clients: Clients::new(&poller, listener)?,
            poller,
            datagrams,
            network,
            inbox: Inbox::default(),
            exchanges: Exchanges::default(),
        })
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// epoll fails: nothing can be served any more.
    pub fn run(mut self) -> io::Result<std::convert::Infallible> {
        loop {
            let now = Instant::now();
            let at_once = (!self.inbox.is_empty()).then_some(now);
            let network = self.network.as_ref().and_then(|it| it.deadline(now));
            let deadlines = [
                at_once,
                network,
                self.dns.deadline(),
                self.clients.deadline(),
            ];
            let ready = self.poller.wait(deadlines.into_iter().flatten().min())?;
            let now = Instant::now();
            for event in ready {
                self.ready(now, event);
            }
            self.turn(now);
            let actions = self.dns.expire(now);
            self.act(now, actions);
            for number in self.clients.expire(&self.poller, now) {
                let actions = self.dns.forget(number);
                self.act(now, actions);
            }
        }
    }

    fn ready(&mut self, now: Instant, event: Ready) {
        match Key::of(event.key) {
            Key::Datagrams => self.take_datagrams(),
            Key::Listener => self.clients.accept(&self.poller, now, &self.dns),
            Key::Connection(number) => {
                let event = self.clients.ready(&self.poller, now, number, event.gone);
                self.client(now, number, event);
            }
            Key::Exchange(flight) => self.exchange(now, flight),
            key => {
                if let Some(network) = &mut self.network {
                    network.ready(&self.poller, now, key, event);
                }
            }
        }
    }

    /// What the network has for the server, and some of the queries that wait.
    fn turn(&mut self, now: Instant) {
        if let Some(network) = &mut self.network {
            network.expire(&self.poller, now);
            for part in network.adjacent() {
                if !self.dns.add_adjacent(part) {
                    tracing::warn!("too many adjacent networks: the names of one are not known");
                }
            }
            while let Some((from, message)) = network.query() {
                self.inbox.push(from, message);
            }
            while let Some((peer, socket)) = network.connection() {
                self.clients.adopt(&self.poller, now, socket, peer);
            }
        }
        for _ in 0..ANSWERED {
            let Some((from, message)) = self.inbox.pop() else {
                break;
            };
            let actions = self.dns.datagram(now, from, &message);
            self.act(now, actions);
        }
    }

    fn take_datagrams(&mut self) {
        // One byte more than is taken, so that a longer one shows.
        let Some(datagrams) = &self.datagrams else {
            return;
        };
        let mut buffer = [0; MAX_QUERY + 1];
        for _ in 0..TAKEN {
            let received = recvfrom(datagrams, &mut buffer[..], RecvFlags::DONTWAIT);
            let (len, from) = match received {
                Ok((len, _, from)) => (len, from.map(SocketAddr::try_from)),
                Err(Errno::INTR) => continue,
                // Nothing is left, or an answer of ours did not arrive, which is said once.
                Err(_) => return,
            };
            if let Some(Ok(SocketAddr::V4(from))) = from
                && self.dns.serves(*from.ip())
            {
                self.inbox.push(from, buffer[..len].to_vec());
            }
        }
    }

    fn client(&mut self, now: Instant, number: u64, event: Event) {
        match event {
            Event::None => {}
            Event::Closed => {
                let actions = self.dns.forget(number);
                self.act(now, actions);
            }
            Event::Message(peer, message) => {
                match self.dns.message(now, Client::Tcp(number, peer), &message) {
                    Outcome::Silence => self.clients.close(&self.poller, number),
                    Outcome::Actions(actions) => self.act(now, actions),
                }
            }
        }
    }

    fn exchange(&mut self, now: Instant, flight: Flight) {
        let actions = match self.exchanges.ready(&self.poller, flight) {
            Progress::Waiting => return,
            Progress::Failed => self.dns.failed(now, flight),
            Progress::Message(message) => self.dns.answer(now, flight, &message),
        };
        self.act(now, actions);
    }

    /// Does what is to be done, and what follows from it.
    fn act(&mut self, now: Instant, actions: Vec<Action>) {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Close(flight) => self.exchanges.close(flight),
                Action::Reply(Client::Udp(to), message) => {
                    // A client that takes no answer does without, as on any network.
                    if let Some(network) = &mut self.network {
                        network.answer(&self.poller, to, &message);
                    } else if let Some(datagrams) = &self.datagrams {
                        let _ = sendto(datagrams, &message, SendFlags::DONTWAIT, &to);
                    }
                }
                Action::Reply(Client::Tcp(number, _), message) => {
                    if self.clients.reply(&self.poller, now, number, &message) == Event::Closed {
                        actions.extend(self.dns.forget(number));
                    }
                }
                Action::Open {
                    flight,
                    upstream,
                    transport,
                    message,
                } => {
                    let opened =
                        self.exchanges
                            .open(&self.poller, flight, upstream, transport, message);
                    if opened.is_err() {
                        // Each failure leaves one upstream fewer: this ends.
                        actions.extend(self.dns.failed(now, flight));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_number_of_its_own() {
        let keys = [
            Key::Datagrams,
            Key::Listener,
            Key::Connection(0),
            Key::Connection(u64::MAX >> 4),
            Key::Exchange(Flight(0)),
            Key::Exchange(Flight(7)),
            Key::Members,
            Key::Member(3),
            Key::Wire(3),
            Key::Flow(3),
            Key::Port(3),
            Key::Datagram(3),
            Key::Ping(3),
        ];
        let numbers: std::collections::BTreeSet<_> = keys.iter().map(|key| key.number()).collect();
        assert_eq!(numbers.len(), keys.len());
        for key in keys {
            assert_eq!(Key::of(key.number()), key);
        }
    }
}
