//! The loop around the DNS server: one thread, one epoll set, sockets that never wait.
//!
//! ```text
//!  datagrams --> inbox.rs --> Dns --actions--> datagrams
//!  connections (clients.rs) --^  '--> exchange.rs: a socket for each query in flight
//! ```
//!
//! The sockets that clients reach were bound by the warden; those to upstreams are made here. At each turn so many
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
use crate::poller::{Interest, Poller};

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
}

impl Key {
    pub(crate) fn number(self) -> u64 {
        match self {
            Key::Datagrams => 0,
            Key::Listener => 1,
            Key::Connection(number) => number << 2 | 2,
            Key::Exchange(Flight(number)) => number << 2 | 3,
        }
    }

    fn of(number: u64) -> Key {
        match number & 3 {
            2 => Key::Connection(number >> 2),
            3 => Key::Exchange(Flight(number >> 2)),
            1 => Key::Listener,
            _ => Key::Datagrams,
        }
    }
}

/// The server with its sockets.
#[derive(Debug)]
pub struct Server {
    dns: Dns,
    poller: Poller,
    datagrams: OwnedFd,
    inbox: Inbox,
    clients: Clients,
    exchanges: Exchanges,
}

impl Server {
    /// Serves clients on these two sockets, which do not block.
    pub fn new(dns: Dns, datagrams: OwnedFd, listener: OwnedFd) -> io::Result<Server> {
        let poller = Poller::new()?;
        poller.add(&datagrams, Key::Datagrams.number(), Interest::Read)?;
        let clients = Clients::new(&poller, listener)?;
        Ok(Server {
            dns,
            poller,
            datagrams,
            inbox: Inbox::default(),
            clients,
            exchanges: Exchanges::default(),
        })
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// epoll fails: nothing can be served any more.
    pub fn run(mut self) -> io::Result<std::convert::Infallible> {
        loop {
            let at_once = (!self.inbox.is_empty()).then(Instant::now);
            let deadlines = [at_once, self.dns.deadline(), self.clients.deadline()];
            let ready = self.poller.wait(deadlines.into_iter().flatten().min())?;
            let now = Instant::now();
            for event in ready {
                match Key::of(event.key) {
                    Key::Datagrams => self.take_datagrams(),
                    Key::Listener => self.clients.accept(&self.poller, now, &self.dns),
                    Key::Connection(number) => {
                        let event = self.clients.ready(&self.poller, now, number, event.gone);
                        self.client(now, number, event);
                    }
                    Key::Exchange(flight) => self.exchange(now, flight),
                }
            }
            for _ in 0..ANSWERED {
                let Some((from, message)) = self.inbox.pop() else {
                    break;
                };
                let actions = self.dns.datagram(now, from, &message);
                self.act(now, actions);
            }
            let actions = self.dns.expire(now);
            self.act(now, actions);
            for number in self.clients.expire(&self.poller, now) {
                let actions = self.dns.forget(number);
                self.act(now, actions);
            }
        }
    }

    fn take_datagrams(&mut self) {
        // One byte more than is taken, so that a longer one shows.
        let mut buffer = [0; MAX_QUERY + 1];
        for _ in 0..TAKEN {
            let received = recvfrom(&self.datagrams, &mut buffer[..], RecvFlags::DONTWAIT);
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
                    let _ = sendto(&self.datagrams, &message, SendFlags::DONTWAIT, &to);
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
            Key::Connection(u64::MAX >> 2),
            Key::Exchange(Flight(0)),
            Key::Exchange(Flight(7)),
        ];
        for key in keys {
            assert_eq!(Key::of(key.number()), key);
        }
    }
}
