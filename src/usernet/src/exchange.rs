//! Sockets to upstreams: one for each query in flight, connected, and closed with its answer.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use crate::dns::{Flight, Incoming, MAX_MESSAGE, Transport, framed};
use crate::poller::{Interest, Poller};
use crate::serve::Key;

/// All exchanges.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    open: BTreeMap<Flight, Exchange>,
}

#[derive(Debug)]
struct Exchange {
    socket: OwnedFd,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A datagram is out.
    Datagram,
    /// This is still to be sent on a connection.
    Sending(Vec<u8>),
    /// All is sent.
    Receiving(Incoming),
}

/// What an exchange has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on.
    Waiting,
    /// A message, not yet matched with the query.
    Message(Vec<u8>),
    /// The socket has failed or ended.
    Failed,
}

impl Exchanges {
    /// Sends a message from a new socket, in the place of the flight's last one.
    pub(crate) fn open(
        &mut self,
        poller: &Poller,
        flight: Flight,
        upstream: SocketAddr,
        transport: Transport,
        message: Vec<u8>,
    ) -> io::Result<()> {
        self.close(flight);
        let family = match upstream {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let kind = match transport {
            Transport::Udp => SocketType::DGRAM,
            Transport::Tcp => SocketType::STREAM,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, kind, flags, None)?;
        match connect(&socket, &upstream) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let (state, interest) = match transport {
            Transport::Udp => {
                send(&socket, &message, SendFlags::NOSIGNAL)?;
                (State::Datagram, Interest::Read)
            }
            Transport::Tcp => {
                let message = framed(&message).ok_or(io::ErrorKind::InvalidInput)?;
                (State::Sending(message), Interest::Write)
            }
        };
        poller.add(&socket, Key::Exchange(flight).number(), interest)?;
        self.open.insert(flight, Exchange { socket, state });
        Ok(())
    }

    pub(crate) fn close(&mut self, flight: Flight) {
        self.open.remove(&flight);
    }

    /// Something has happened on a flight's socket.
    pub(crate) fn ready(&mut self, poller: &Poller, flight: Flight) -> Progress {
        // An event of a socket that was closed in the same turn.
        let Some(exchange) = self.open.get_mut(&flight) else {
            return Progress::Waiting;
        };
        match exchange.step(poller, flight) {
            Ok(progress) => progress,
            Err(Errno::AGAIN | Errno::INTR) => Progress::Waiting,
            Err(_) => Progress::Failed,
        }
    }
}

impl Exchange {
    fn step(&mut self, poller: &Poller, flight: Flight) -> rustix::io::Result<Progress> {
        match &mut self.state {
            State::Datagram => {
                let mut buffer = vec![0; MAX_MESSAGE];
                let (len, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
                buffer.truncate(len);
                Ok(Progress::Message(buffer))
            }
            State::Sending(message) => {
                let sent = send(&self.socket, message, SendFlags::NOSIGNAL)?;
                message.drain(..sent);
                if message.is_empty() {
                    let key = Key::Exchange(flight).number();
                    if poller.change(&self.socket, key, Interest::Read).is_err() {
                        return Ok(Progress::Failed);
                    }
                    self.state = State::Receiving(Incoming::new(MAX_MESSAGE));
                }
                Ok(Progress::Waiting)
            }
            State::Receiving(incoming) => {
                let Ok(wanted) = incoming.wanted() else {
                    return Ok(Progress::Failed);
                };
                let mut buffer = vec![0; wanted];
                let (len, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
                if len == 0 {
                    return Ok(Progress::Failed);
                }
                Ok(match incoming.take(&buffer[..len]) {
                    Ok(Some(message)) => Progress::Message(message),
                    Ok(None) => Progress::Waiting,
                    Err(_) => Progress::Failed,
                })
            }
        }
    }
}
