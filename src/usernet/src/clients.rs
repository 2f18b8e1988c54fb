//! Clients' connections: a query, its answer, the next query.
//!
//! ```text
//!  Reading --message--> Waiting --reply--> Writing --all sent--> Reading
//!     '---- idle, ended, too long: closed ----'
//! ```
//!
//! A connection has one query at a time, so that what it can hold is one query or one answer; a client that sends
//! several at once has them answered one after the other. Bounds: [`MAX_CONNECTIONS`], [`MAX_PER_CLIENT`] of one
//! client, and [`IDLE`] for a whole query to come and for an answer to be taken.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recv, send};

use crate::dns::{Dns, Incoming, MAX_QUERY, framed};
use crate::poller::{Interest, Poller};
use crate::serve::Key;

/// The most connections.
const MAX_CONNECTIONS: usize = 256;
/// The most of one client.
const MAX_PER_CLIENT: usize = 16;
/// How long a client may take to send a query, and to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// When to accept again after that has failed: there were no descriptors, say.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections that are taken at a turn.
const ACCEPTED: usize = 16;

/// All connections.
#[derive(Debug)]
pub(crate) struct Clients {
    /// None where connections come from the network of this process.
    listener: Option<OwnedFd>,
    /// Accepting waits until then, or, if there are too many, until a connection is closed.
    paused: Option<Instant>,
    open: BTreeMap<u64, Connection>,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    peer: Ipv4Addr,
    state: State,
    /// `None` while its query is in flight, which has its own.
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Reading(Incoming),
    Waiting,
    Writing(Vec<u8>),
}

/// What has happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing that concerns others.
    None,
    /// A query, and its sender.
    Message(Ipv4Addr, Vec<u8>),
    /// It is closed.
    Closed,
}

impl Clients {
    pub(crate) fn new(poller: &Poller, listener: Option<OwnedFd>) -> std::io::Result<Clients> {
        if let Some(listener) = &listener {
            poller.add(listener, Key::Listener.number(), Interest::Read)?;
        }
        Ok(Clients {
            listener,
            paused: None,
            open: BTreeMap::new(),
            next: 0,
        })
    }

    /// Takes connections of clients that `dns` serves.
    pub(crate) fn accept(&mut self, poller: &Poller, now: Instant, dns: &Dns) {
        for _ in 0..ACCEPTED {
            if self.open.len() >= MAX_CONNECTIONS {
                return self.pause(poller, now + IDLE);
            }
            let Some(listener) = &self.listener else {
                return;
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (socket, peer) = match acceptfrom_with(listener, flags) {
                Ok((socket, peer)) => (socket, peer.map(SocketAddr::try_from)),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(errno) => {
                    tracing::warn!(%errno, "no connection can be accepted for a while");
                    return self.pause(poller, now + PAUSE);
                }
            };
            let Some(Ok(SocketAddr::V4(peer))) = peer else {
                continue;
            };
            let peer = *peer.ip();
            if self.of(peer) >= MAX_PER_CLIENT || !dns.serves(peer) {
                continue;
            }
            self.insert(poller, now, socket, peer);
        }
    }

    /// Takes a connection of a client that is served. One too many is closed.
    pub(crate) fn adopt(&mut self, poller: &Poller, now: Instant, socket: OwnedFd, peer: Ipv4Addr) {
        if self.open.len() < MAX_CONNECTIONS && self.of(peer) < MAX_PER_CLIENT {
            self.insert(poller, now, socket, peer);
        }
    }

    /// How many a client has.
    fn of(&self, peer: Ipv4Addr) -> usize {
        self.open.values().filter(|it| it.peer == peer).count()
    }

    fn insert(&mut self, poller: &Poller, now: Instant, socket: OwnedFd, peer: Ipv4Addr) {
        let number = self.next;
        let key = Key::Connection(number).number();
        if poller.add(&socket, key, Interest::Read).is_ok() {
            self.next += 1;
            let connection = Connection {
                socket,
                peer,
                state: State::Reading(Incoming::new(MAX_QUERY)),
                deadline: Some(now + IDLE),
            };
            self.open.insert(number, connection);
        }
    }

    /// Something has happened on a connection.
    pub(crate) fn ready(
        &mut self,
        poller: &Poller,
        now: Instant,
        number: u64,
        gone: bool,
    ) -> Event {
        let Some(connection) = self.open.get_mut(&number) else {
            return Event::None;
        };
        let event = match connection.state {
            State::Reading(_) => connection.read(poller, number),
            State::Waiting if gone => Event::Closed,
            State::Waiting => Event::None,
            State::Writing(_) => connection.write(poller, now, number),
        };
        if event == Event::Closed {
            self.close(poller, number);
        }
        event
    }

    /// Answers the query of a connection.
    pub(crate) fn reply(
        &mut self,
        poller: &Poller,
        now: Instant,
        number: u64,
        message: &[u8],
    ) -> Event {
        let Some(connection) = self.open.get_mut(&number) else {
            return Event::None;
        };
        let event = match framed(message) {
            Some(framed) => {
                connection.state = State::Writing(framed);
                connection.deadline = Some(now + IDLE);
                connection.write(poller, now, number)
            }
            None => Event::Closed,
        };
        if event == Event::Closed {
            self.close(poller, number);
        }
        event
    }

    pub(crate) fn close(&mut self, poller: &Poller, number: u64) {
        self.open.remove(&number);
        self.resume(poller);
    }

    /// Closes what has had its time.
    pub(crate) fn expire(&mut self, poller: &Poller, now: Instant) -> Vec<u64> {
        let late = |it: &Connection| it.deadline.is_some_and(|deadline| deadline <= now);
        let connections = self.open.iter();
        let late: Vec<u64> = connections
            .filter_map(|(number, connection)| late(connection).then_some(*number))
            .collect();
        for &number in &late {
            self.close(poller, number);
        }
        if self.paused.is_some_and(|until| until <= now) {
            self.resume(poller);
        }
        late
    }

    /// When [`Clients::expire`] has something to do at the earliest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadlines = self.open.values().filter_map(|it| it.deadline);
        deadlines.chain(self.paused).min()
    }

    fn pause(&mut self, poller: &Poller, until: Instant) {
        let key = Key::Listener.number();
        if let Some(listener) = &self.listener
            && poller.change(listener, key, Interest::End).is_ok()
        {
            self.paused = Some(until);
        }
    }

    fn resume(&mut self, poller: &Poller) {
        let key = Key::Listener.number();
        if self.paused.take().is_some()
            && let Some(listener) = &self.listener
            && let Err(error) = poller.change(listener, key, Interest::Read)
        {
            tracing::warn!(%error, "no connection can be accepted any more");
        }
    }
}

impl Connection {
    fn read(&mut self, poller: &Poller, number: u64) -> Event {
        let State::Reading(incoming) = &mut self.state else {
            return Event::None;
        };
        let Ok(wanted) = incoming.wanted() else {
            return Event::Closed;
        };
        let mut buffer = vec![0; wanted];
        let len = match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => return Event::Closed,
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Event::None,
            Err(_) => return Event::Closed,
        };
        match incoming.take(&buffer[..len]) {
            Ok(None) => Event::None,
            Err(_) => Event::Closed,
            Ok(Some(message)) => {
                self.state = State::Waiting;
                self.deadline = None;
                match self.wait_for(poller, number, Interest::End) {
                    Event::None => Event::Message(self.peer, message),
                    other => other,
                }
            }
        }
    }

    fn write(&mut self, poller: &Poller, now: Instant, number: u64) -> Event {
        let State::Writing(left) = &mut self.state else {
            return Event::None;
        };
        match send(&self.socket, left, SendFlags::NOSIGNAL) {
            Ok(sent) => drop(left.drain(..sent)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Event::Closed,
        }
        if !left.is_empty() {
            return self.wait_for(poller, number, Interest::Write);
        }
        self.state = State::Reading(Incoming::new(MAX_QUERY));
        self.deadline = Some(now + IDLE);
        self.wait_for(poller, number, Interest::Read)
    }

    fn wait_for(&self, poller: &Poller, number: u64, interest: Interest) -> Event {
        let key = Key::Connection(number).number();
        match poller.change(&self.socket, key, interest) {
            Ok(()) => Event::None,
            Err(_) => Event::Closed,
        }
    }
}
