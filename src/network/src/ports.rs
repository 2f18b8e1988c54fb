//! Ports of the host that lead to a sandbox, held by its monitor.
//!
//! A published port is a bound socket: the host gives the port to no other. It ends with the monitor, however that ends.
//! Where networks are bridges, nothing is read from it: what is sent to the port goes to the sandbox before it would come
//! here (see [`firewall`](crate::firewall)). A TCP socket does not listen there: where the rules are not, connections
//! are refused. Where they are hull-nets, that of the network accepts connections, or takes datagrams, for the sandbox.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use protocol::record::{Publish, Published, Transport};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

use crate::Host;
use crate::error::Error;

/// Connections that may wait to be accepted: as many as the kernel allows by default (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Ports that this process holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    published: Vec<Published>,
    sockets: Vec<OwnedFd>,
}

impl Held {
    /// Takes the ports, all of them or none.
    pub(crate) fn take(wanted: &[Publish], host: Host) -> Result<Held, Error> {
        let mut held = Vec::new();
        for publish in wanted {
            let (socket, host_port) = hold(publish, host)?;
            let published = Published {
                port: publish.port,
                host_address: address(publish),
                host_port,
            };
            held.push((published, socket));
        }
        held.sort_by_key(|(published, _)| *published);
        let (published, sockets) = held.into_iter().unzip();
        Ok(Held { published, sockets })
    }

    /// What they lead to, in order.
    pub(crate) fn published(&self) -> &[Published] {
        &self.published
    }

    /// The socket of each, in the same order.
    pub(crate) fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }
}

fn address(publish: &Publish) -> Ipv4Addr {
    publish.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// The first port of those wanted that is free, or any.
fn hold(publish: &Publish, host: Host) -> Result<(OwnedFd, u16), Error> {
    let (first, last) = publish.host_ports.unwrap_or((0, 0));
    let address = address(publish);
    let failed = |port, source| Error::Port {
        address: SocketAddrV4::new(address, port),
        transport: publish.port.transport.name(),
        source,
    };
    for port in first..=last {
        match try_hold(
            SocketAddrV4::new(address, port),
            publish.port.transport,
            host,
        ) {
            Ok(held) => return Ok(held),
            Err(Errno::ADDRINUSE) => {}
            Err(Errno::ACCESS) => {
                return Err(Error::PortOfRoot(SocketAddrV4::new(address, port)));
            }
            Err(errno) => return Err(failed(port, errno)),
        }
    }
    match first == last {
        true => Err(Error::PortTaken(SocketAddrV4::new(address, first))),
        false => Err(Error::PortsTaken {
            address,
            first,
            last,
        }),
    }
}

fn try_hold(
    address: SocketAddrV4,
    transport: Transport,
    host: Host,
) -> Result<(OwnedFd, u16), Errno> {
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    let listens = host == Host::Switch && transport == Transport::Tcp;
    if listens {
        // Connections that have ended do not keep the port from the next.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if listens {
        listen(&socket, BACKLOG)?;
    }
    let bound: SocketAddrV4 = getsockname(&socket)?
        .try_into()
        .map_err(|_| Errno::AFNOSUPPORT)?;
    Ok((socket, bound.port()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use protocol::record::Port;

    use super::*;

    fn publish(number: u16, transport: Transport, host_ports: Option<(u16, u16)>) -> Publish {
        Publish {
            port: Port { number, transport },
            host_address: Some(Ipv4Addr::LOCALHOST),
            host_ports,
        }
    }

    fn take(wanted: &[Publish]) -> Result<Held, Error> {
        Held::take(wanted, Host::Bridge)
    }

    #[test]
    fn a_port_is_had_once_and_is_free_when_its_holder_is_gone() {
        let held = take(&[publish(80, Transport::Tcp, None)]).unwrap();
        let port = held.published()[0].host_port;
        assert_ne!(port, 0);
        let again = publish(81, Transport::Tcp, Some((port, port)));
        let error = take(&[again]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
        );
        assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err());
        // UDP has ports of its own.
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(held);
        take(&[again]).unwrap();
    }

    #[test]
    fn of_a_range_the_first_free_port_is_taken() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let first = taken.local_addr().unwrap().port();
        let last = first.saturating_add(20);
        let held = take(&[publish(53, Transport::Udp, Some((first, last)))]).unwrap();
        let port = held.published()[0].host_port;
        assert!(first < port && port <= last, "{port}");
        let twice = [publish(53, Transport::Udp, Some((first, first))); 1];
        assert!(matches!(take(&twice), Err(Error::PortTaken(_))));
    }

    #[test]
    fn an_address_that_the_host_does_not_have_is_said() {
        let mut elsewhere = publish(80, Transport::Tcp, Some((8080, 8080)));
        elsewhere.host_address = Some(Ipv4Addr::new(192, 0, 2, 1));
        let error = take(&[elsewhere]).unwrap_err();
        assert!(matches!(error, Error::Port { .. }), "{error}");
        assert!(error.to_string().contains("192.0.2.1:8080"), "{error}");
    }
}
