//! Sockets of the host's in containers: the agent listens in their place, and joins each connection to one of the host's.
//!
//! ```text
//! container --connect--> listener --Connected--> monitor, which connects to the host's socket
//!                                 <--Forward---- at this port, or nowhere
//! container <=== two relays ===> stream to that port
//! ```
//!
//! Invariants: a connection waits for its answer in a bounded room, and others in their listener's backlog; each direction
//! ends on its own, so that a half-closed connection stays one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use protocol::agent::{Done, FromAgent, Socket};
use protocol::record::GUEST_SOCKETS;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use sys::nonblocking::set_nonblocking;

use crate::containers::check_name;
use crate::disks::make_dir;
use crate::failure::Refusal;
use crate::poll::{EventFlags, Number, Side};
use crate::pump::{Pump, Turn};
use crate::server::{Server, Source};

/// Connections whose other end is being made.
const MAX_WAITING: usize = 64;
/// Connections that are joined: each has two buffers.
const MAX_JOINED: usize = 512;
/// Connections that the kernel holds for a listener.
const BACKLOG: i32 = 128;

/// The listeners and what came of them.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    /// By the names of their sockets.
    listeners: BTreeMap<String, Number>,
    waiting: BTreeMap<u64, OwnedFd>,
    /// Relays at work: two for each connection.
    relays: usize,
    next_connection: u64,
}

impl Forwarding {
    fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING && self.waiting.len() + self.relays / 2 < MAX_JOINED
    }
}

/// A socket of the host's, at our end.
pub(crate) struct Listener {
    name: String,
    socket: OwnedFd,
}

impl Server {
    /// Listens in the place of a socket of the host's, if that is not done yet.
    pub(crate) fn listen(&mut self, socket: &Socket) -> Result<(), Refusal> {
        check_name("a socket's name", &socket.name)?;
        if self.forwarding.listeners.contains_key(&socket.name) {
            return Ok(());
        }
        let folder = Path::new(GUEST_SOCKETS);
        make_dir(folder)?;
        let path = folder.join(&socket.name);
        let number = self.poll.number();
        let add = || {
            let listener = listener(&path, socket)?;
            self.poll
                .add(&listener, number, Side::From, EventFlags::IN)?;
            Ok(listener)
        };
        let listener = add().map_err(|source| Refusal::Listen {
            path: path.clone(),
            source,
        })?;
        let name = socket.name.clone();
        self.forwarding.listeners.insert(name.clone(), number);
        let listener = Listener {
            name,
            socket: listener,
        };
        self.sources.insert(number, Source::Listener(listener));
        Ok(())
    }

    /// Takes connections, as many as there is room for.
    pub(crate) fn accept(&mut self, number: Number) {
        let Some(Source::Listener(listener)) = self.sources.get(&number) else {
            return;
        };
        while self.forwarding.has_room() {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let accepted = match accept_with(&listener.socket, flags) {
                Ok(accepted) => accepted,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                // Too many open files, or no memory: it waits until a connection has ended.
                Err(_) => {
                    let none = EventFlags::empty();
                    let _ = self.poll.modify(&listener.socket, number, Side::From, none);
                    return;
                }
            };
            let connection = self.forwarding.next_connection;
            self.forwarding.next_connection += 1;
            self.forwarding.waiting.insert(connection, accepted);
            self.connection.send(&FromAgent::Connected {
                socket: listener.name.clone(),
                connection,
            });
        }
        self.watch_listeners();
    }

    /// Listeners have events while there is room for a connection.
    fn watch_listeners(&self) {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.forwarding.has_room());
        for number in self.forwarding.listeners.values() {
            if let Some(Source::Listener(listener)) = self.sources.get(number) {
                // It fails for want of memory alone, which a change of flags does not need.
                let _ = self
                    .poll
                    .modify(&listener.socket, *number, Side::From, flags);
            }
        }
    }

    /// Joins a connection to the host's at `port`, or closes it.
    pub(crate) fn forward(&mut self, connection: u64, port: Option<u32>) -> Result<Done, Refusal> {
        let accepted = self.forwarding.waiting.remove(&connection);
        let accepted = accepted.ok_or(Refusal::UnknownConnection(connection));
        let joined = accepted.and_then(|accepted| match port {
            Some(port) => self.join(accepted, port),
            None => Ok(()),
        });
        self.watch_listeners();
        joined.map(|()| Done::Ok)
    }

    fn join(&mut self, accepted: OwnedFd, port: u32) -> Result<(), Refusal> {
        let join = || {
            let host = (self.place.dial)(port)?;
            set_nonblocking(&host)?;
            let (from_host, to_container) = (host.try_clone()?, accepted.try_clone()?);
            Ok([
                Pump::relaying(accepted, host),
                Pump::relaying(from_host, to_container),
            ])
        };
        let pumps = join().map_err(|source: io::Error| Refusal::Stream { port, source })?;
        for pump in pumps {
            let number = self.poll.number();
            pump.register(&self.poll, number)
                .map_err(|source| Refusal::Stream { port, source })?;
            self.sources.insert(number, Source::Relay(pump));
            self.forwarding.relays += 1;
            self.relay(number);
        }
        Ok(())
    }

    /// Gives one direction of a connection its turn.
    pub(crate) fn relay(&mut self, number: Number) {
        let Some(Source::Relay(pump)) = self.sources.get_mut(&number) else {
            return;
        };
        let is_over = match pump.turn() {
            Turn::Wait(side) => pump.watch(&self.poll, number, side).is_err(),
            Turn::Done => true,
        };
        if is_over && let Some(Source::Relay(pump)) = self.sources.remove(&number) {
            pump.unregister(&self.poll);
            self.forwarding.relays -= 1;
            self.watch_listeners();
        }
    }
}

fn listener(path: &Path, socket: &Socket) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Of an attempt that failed.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    chown(path, Some(socket.node.uid), Some(socket.node.gid))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(socket.node.mode))?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}
