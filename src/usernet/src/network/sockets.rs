//! Sockets of the host's that stand for members.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, connect, getsockname, ipproto,
    send, shutdown, socket_with, sockopt,
};

use crate::tcp::Host;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
/// An address to which the default route leads: of TEST-NET-2 (RFC 5737). Nothing is sent there.
const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 9);

/// A connection that is being made.
pub(crate) fn stream(to: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, None)?;
    prepare(&socket)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// A connection's options: the guest decides what goes together, and its host's peer may have died.
pub(crate) fn prepare(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)
}

/// A socket for datagrams. The first one that is sent gives it a port of its own.
pub(crate) fn datagrams() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, FLAGS, None)
}

/// A socket for ICMP echo, where the host lets this user have one (net.ipv4.ping_group_range).
pub(crate) fn ping() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        FLAGS,
        Some(ipproto::ICMP),
    )
}

/// The host's own address, from which its default route goes out; `None` without such a route.
pub(crate) fn primary() -> Option<Ipv4Addr> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, FLAGS, None).ok()?;
    connect(&socket, &ELSEWHERE).ok()?;
    let SocketAddr::V4(own) = SocketAddr::try_from(getsockname(&socket).ok()?).ok()? else {
        return None;
    };
    let own = *own.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

/// Has the other side see a reset when the socket is closed, instead of an end.
pub(crate) fn reset(socket: OwnedFd) {
    // Where it fails (a Unix socket), the other side sees an end.
    let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
}

/// Whether the connection was made, and why not.
pub(crate) fn outcome(socket: &OwnedFd) -> Result<(), Errno> {
    match sockopt::socket_error(socket) {
        Ok(outcome) => outcome,
        Err(errno) => Err(errno),
    }
}

/// The host's side of a flow.
pub(crate) struct Stream<'a>(pub(crate) &'a OwnedFd);

impl Host for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn read(&mut self, room: [&mut [u8]; 2]) -> io::Result<usize> {
        let mut room = room.map(IoSliceMut::new);
        Ok(rustix::io::readv(self.0, &mut room)?)
    }

    fn shutdown(&mut self) -> io::Result<()> {
        match shutdown(self.0, Shutdown::Write) {
            // It has been reset: the next read says so.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
