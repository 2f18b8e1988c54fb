//! Queries that are passed on: a step function from what has come to what is to be done, without sockets.
//!
//! ```text
//!  query --> in flight: Open (upstream, transport, message) --answer--> Reply, Close
//!                ^                                   |
//!                '-- Open (the next upstream) <------+-- failed, timed out, SERVFAIL or REFUSED
//!                                                    '-- no upstream is left: Reply SERVFAIL, Close
//! ```
//!
//! Each attempt has a socket of its own, connected to the upstream, with a source port of the kernel's choice and an
//! identifier at random: an answer counts if it comes from that address to that port with that identifier and the
//! question.
//!
//! Bounds: [`MAX_IN_FLIGHT`] queries, [`MAX_PER_CLIENT`] of one client. When all places are taken, a client that has
//! fewer than the one with the most takes the place of that one's oldest query: no client starves the others.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::upstream::Upstreams;
use super::wire::{self, Query, Rcode};

/// The most queries in flight: a socket each.
pub const MAX_IN_FLIGHT: usize = 1024;
/// The most of one client.
pub(super) const MAX_PER_CLIENT: usize = 256;
/// How long an upstream has to answer before the next one is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last one has: a resolver that looks a name up for the first time may take longer.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);

/// The sender of a query, to which its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A datagram's sender.
    Udp(SocketAddrV4),
    /// A connection, by its number, and its peer.
    Tcp(u64, Ipv4Addr),
}

impl Client {
    /// The address by which clients are told apart.
    pub fn address(&self) -> Ipv4Addr {
        match self {
            Client::Udp(peer) => *peer.ip(),
            Client::Tcp(_, address) => *address,
        }
    }
}

/// How an upstream is asked: as the client has asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram there, one back.
    Udp,
    /// A connection, with lengths before the messages.
    Tcp,
}

/// The number of a query in flight. None comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flight(pub u64);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message from a new socket, which takes the place of the one that the flight may have.
    Open {
        /// The query in flight that the socket is for.
        flight: Flight,
        /// The resolver.
        upstream: SocketAddr,
        /// How.
        transport: Transport,
        /// The message.
        message: Vec<u8>,
    },
    /// Close the flight's socket.
    Close(Flight),
    /// Answer.
    Reply(Client, Vec<u8>),
}

/// A source of identifiers.
pub type Random = fn() -> io::Result<u16>;

#[derive(Debug)]
struct Pending {
    client: Client,
    query: Query,
    message: Vec<u8>,
    /// Upstreams that have not been asked, the next one last.
    left: Vec<usize>,
    attempt: Attempt,
    /// A refusal that is the answer if no upstream has a better one.
    refusal: Option<Vec<u8>>,
}

/// The upstream that is being asked.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    upstream: usize,
    id: u16,
    asked: Instant,
    deadline: Instant,
}

/// The queries in flight.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Upstreams,
    flights: BTreeMap<Flight, Pending>,
    /// Those of each client that has some, the oldest first.
    clients: BTreeMap<Ipv4Addr, VecDeque<Flight>>,
    next: u64,
    random: Random,
}

impl Forwarder {
    /// Passes on to these upstreams, in this order.
    pub fn new(upstreams: Vec<SocketAddr>, random: Random) -> Forwarder {
        Forwarder {
            upstreams: Upstreams::new(upstreams),
            flights: BTreeMap::new(),
            clients: BTreeMap::new(),
            next: 0,
            random,
        }
    }

    /// A query of which `message` is the text.
    pub fn query(
        &mut self,
        now: Instant,
        client: Client,
        query: Query,
        message: &[u8],
    ) -> Vec<Action> {
        if self.upstreams.is_empty() {
            // A refusal would make a client's resolver try again, and look elsewhere.
            let reply = query.answer(Rcode::NXDOMAIN, false, &[], query.udp_limit());
            return vec![Action::Reply(client, reply)];
        }
        if self.is_repeated(client, &query) {
            return Vec::new();
        }
        let mut actions = match self.make_room(client.address()) {
            Ok(actions) => actions,
            Err(Full) => return vec![failure(client, &query)],
        };
        let flight = Flight(self.next);
        self.next += 1;
        let mut pending = Pending {
            client,
            query,
            message: message.to_vec(),
            left: self.upstreams.reversed_order(now),
            attempt: Attempt {
                upstream: 0,
                id: 0,
                asked: now,
                deadline: now,
            },
            refusal: None,
        };
        match self.next_attempt(now, flight, &mut pending) {
            Some(open) => {
                self.insert(flight, pending);
                actions.push(open);
            }
            None => actions.push(failure(client, &pending.query)),
        }
        actions
    }

    /// What came on a flight's socket. What does not answer its query is passed over.
    pub fn answer(&mut self, now: Instant, flight: Flight, message: &[u8]) -> Vec<Action> {
        let Some(pending) = self.flights.get_mut(&flight) else {
            return Vec::new();
        };
        let attempt = pending.attempt;
        let Some(rcode) = pending.query.is_answered_by(attempt.id, message) else {
            return Vec::new();
        };
        let mut reply = message.to_vec();
        wire::set_id(&mut reply, pending.query.id);
        self.upstreams.has_answered(attempt.upstream, now);
        if rcode == Rcode::SERVFAIL || rcode == Rcode::REFUSED {
            pending.refusal = Some(reply);
            return self.go_on(now, flight);
        }
        self.end(flight, reply)
    }

    /// A flight's socket has failed, or ended without an answer.
    pub fn failed(&mut self, now: Instant, flight: Flight) -> Vec<Action> {
        let Some(pending) = self.flights.get(&flight) else {
            return Vec::new();
        };
        let Attempt {
            upstream, asked, ..
        } = pending.attempt;
        self.upstreams.has_failed(upstream, asked, now);
        self.go_on(now, flight)
    }

    /// What has had its time.
    pub fn expire(&mut self, now: Instant) -> Vec<Action> {
        let late = |(flight, pending): (&Flight, &Pending)| {
            (pending.attempt.deadline <= now).then_some(*flight)
        };
        let late: Vec<Flight> = self.flights.iter().filter_map(late).collect();
        late.into_iter()
            .flat_map(|flight| self.failed(now, flight))
            .collect()
    }

    /// When [`Forwarder::expire`] has something to do at the earliest.
    pub fn deadline(&self) -> Option<Instant> {
        let deadlines = self.flights.values().map(|it| it.attempt.deadline);
        deadlines.min()
    }

    /// A connection is gone: its queries need no answer.
    pub fn forget(&mut self, connection: u64) -> Vec<Action> {
        let of =
            |pending: &Pending| matches!(pending.client, Client::Tcp(it, _) if it == connection);
        let flights = self.flights.iter();
        let gone: Vec<Flight> = flights
            .filter_map(|(flight, pending)| of(pending).then_some(*flight))
            .collect();
        for flight in &gone {
            self.remove(*flight);
        }
        gone.into_iter().map(Action::Close).collect()
    }

    /// Whether the same query is in flight: a client that asks again before it has been answered.
    fn is_repeated(&self, client: Client, query: &Query) -> bool {
        let own = self.clients.get(&client.address()).into_iter().flatten();
        own.filter_map(|flight| self.flights.get(flight))
            .any(|pending| pending.client == client && pending.query == *query)
    }

    /// Room for one more of this client's; what has to go for it.
    fn make_room(&mut self, client: Ipv4Addr) -> Result<Vec<Action>, Full> {
        let own = self.clients.get(&client).map_or(0, VecDeque::len);
        if own >= MAX_PER_CLIENT {
            return Err(Full);
        }
        if self.flights.len() < MAX_IN_FLIGHT {
            return Ok(Vec::new());
        }
        let most = self.clients.values().max_by_key(|flights| flights.len());
        match most {
            Some(flights) if flights.len() > own + 1 => {
                let oldest = flights[0];
                let pending = self.remove(oldest);
                let reply = pending.map(|it| failure(it.client, &it.query));
                Ok([Action::Close(oldest)].into_iter().chain(reply).collect())
            }
            _ => Err(Full),
        }
    }

    /// Asks the next upstream, or gives up.
    fn go_on(&mut self, now: Instant, flight: Flight) -> Vec<Action> {
        let Some(mut pending) = self.flights.remove(&flight) else {
            return Vec::new();
        };
        let open = self.next_attempt(now, flight, &mut pending);
        let reply = match pending.refusal.take_if(|_| open.is_none()) {
            Some(refusal) => refusal,
            None => pending
                .query
                .answer(Rcode::SERVFAIL, false, &[], wire::PLAIN_UDP),
        };
        self.flights.insert(flight, pending);
        match open {
            Some(open) => vec![open],
            None => self.end(flight, reply),
        }
    }

    /// The next attempt, if there is one.
    fn next_attempt(&self, now: Instant, flight: Flight, pending: &mut Pending) -> Option<Action> {
        let upstream = pending.left.pop()?;
        let id = (self.random)().ok()?;
        let timeout = match pending.left.is_empty() {
            true => LAST_TIMEOUT,
            false => TIMEOUT,
        };
        pending.attempt = Attempt {
            upstream,
            id,
            asked: now,
            deadline: now + timeout,
        };
        let mut message = pending.message.clone();
        wire::set_id(&mut message, id);
        let transport = match pending.client {
            Client::Udp(_) => Transport::Udp,
            Client::Tcp(..) => Transport::Tcp,
        };
        Some(Action::Open {
            flight,
            upstream: self.upstreams.address(upstream),
            transport,
            message,
        })
    }

    fn end(&mut self, flight: Flight, reply: Vec<u8>) -> Vec<Action> {
        let reply = self
            .remove(flight)
            .map(|pending| Action::Reply(pending.client, reply));
        [Action::Close(flight)].into_iter().chain(reply).collect()
    }

    fn insert(&mut self, flight: Flight, pending: Pending) {
        let own = self.clients.entry(pending.client.address()).or_default();
        own.push_back(flight);
        self.flights.insert(flight, pending);
    }

    fn remove(&mut self, flight: Flight) -> Option<Pending> {
        let pending = self.flights.remove(&flight)?;
        let address = pending.client.address();
        if let Some(own) = self.clients.get_mut(&address) {
            own.retain(|other| *other != flight);
            if own.is_empty() {
                self.clients.remove(&address);
            }
        }
        Some(pending)
    }
}

/// There is no room for a query.
#[derive(Debug)]
struct Full;

fn failure(client: Client, query: &Query) -> Action {
    let reply = query.answer(Rcode::SERVFAIL, false, &[], wire::PLAIN_UDP);
    Action::Reply(client, reply)
}
