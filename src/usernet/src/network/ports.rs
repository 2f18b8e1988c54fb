//! Ports of members that the host's clients reach. A member sees a client's own address and port; one that it could not
//! answer (the host's loopback, an address of the network) appears as the gateway.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use protocol::record::Transport;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, recvfrom, sendto};

use super::around::Around;
use super::flows::Tuple;
use super::members::ipv4;
use super::policy::{DNS_PORT, Policy};
use super::timers::{Armed, Timers};
use super::{Network, sockets};
use crate::poller::{Interest, Poller};
use crate::serve::Key;

/// Connections, and datagrams, that are taken from one port at a turn.
const ACCEPTED: usize = 32;
const TURN: usize = 64;
/// When to accept again after that has failed: there were no descriptors, say.
const PAUSE: Duration = Duration::from_secs(1);
/// The most clients of a UDP port whose datagrams are answered: the one that was heard last the longest ago goes.
const MAX_CLIENTS: usize = 256;
/// How long after its last datagram a client can be answered.
const IDLE: Duration = Duration::from_secs(180);
/// Ports that stand for a client at the gateway when its own is taken: those for temporary use (RFC 6335, 6).
const TEMPORARY: std::ops::RangeInclusive<u16> = 49152..=65535;
/// Attempts to find one that is free.
const ATTEMPTS: usize = 16;

#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    member: u64,
    transport: Transport,
    container_port: u16,
    /// Of UDP: clients by how the member sees them.
    clients: HashMap<SocketAddrV4, Client>,
    armed: Armed,
}

#[derive(Debug)]
struct Client {
    address: SocketAddr,
    heard: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ports {
    all: BTreeMap<u64, Port>,
    /// UDP's, by member and port.
    datagrams: HashMap<(u64, u16), Vec<u64>>,
    counts: HashMap<u64, usize>,
    next: u64,
}

impl Ports {
    /// How many a member has.
    pub(super) fn of(&self, member: u64) -> usize {
        self.counts.get(&member).copied().unwrap_or(0)
    }

    pub(super) fn add(
        &mut self,
        poller: &Poller,
        member: u64,
        socket: OwnedFd,
        transport: Transport,
        container_port: u16,
    ) -> std::io::Result<()> {
        let number = self.next;
        poller.add(&socket, Key::Port(number).number(), Interest::Read)?;
        self.next += 1;
        *self.counts.entry(member).or_default() += 1;
        if transport == Transport::Udp {
            let of = self.datagrams.entry((member, container_port));
            of.or_default().push(number);
        }
        let port = Port {
            socket,
            member,
            transport,
            container_port,
            clients: HashMap::new(),
            armed: None,
        };
        self.all.insert(number, port);
        Ok(())
    }

    /// Accepts again.
    pub(super) fn resume(&mut self, poller: &Poller, number: u64) {
        if let Some(port) = self.all.get_mut(&number) {
            port.armed = None;
            let key = Key::Port(number).number();
            if let Err(error) = poller.change(&port.socket, key, Interest::Read) {
                tracing::warn!(%error, "a published port is not served any more");
            }
        }
    }

    /// Sends a member's datagram by the port to which its client has come. `false` if there is no such client.
    pub(super) fn reply(
        &mut self,
        now: Instant,
        member: u64,
        port: u16,
        to: SocketAddrV4,
        payload: &[u8],
    ) -> bool {
        for number in self.datagrams.get(&(member, port)).into_iter().flatten() {
            if let Some(port) = self.all.get(number)
                && let Some(client) = port.clients.get(&to)
                && client.heard + IDLE > now
            {
                // What the host does not take is lost, as on any network.
                let _ = sendto(&port.socket, payload, SendFlags::DONTWAIT, &client.address);
                return true;
            }
        }
        false
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, timers: &mut Timers, member: u64) {
        self.all.retain(|number, port| {
            let stays = port.member != member;
            if !stays {
                timers.cancel(port.armed, Key::Port(*number));
            }
            stays
        });
        self.datagrams.retain(|(of, _), _| *of != member);
        self.counts.remove(&member);
    }
}

impl Port {
    /// As whom the member sees a client of this port.
    fn see(&mut self, now: Instant, policy: &Policy, address: SocketAddr) -> Option<SocketAddrV4> {
        let seen = seen(policy, address, |seen| {
            let taken = self.clients.get(&seen);
            taken.is_some_and(|client| client.address != address && client.heard + IDLE > now)
        })?;
        if self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&seen) {
            let oldest = self.clients.iter().min_by_key(|(_, client)| client.heard);
            let oldest = oldest.map(|(seen, _)| *seen)?;
            self.clients.remove(&oldest);
        }
        self.clients.insert(
            seen,
            Client {
                address,
                heard: now,
            },
        );
        Some(seen)
    }
}

/// As whom a member sees a client: with the client's own port unless that is taken at the gateway.
fn seen(
    policy: &Policy,
    client: SocketAddr,
    taken: impl Fn(SocketAddrV4) -> bool,
) -> Option<SocketAddrV4> {
    let own = ipv4(client).map_or(Ipv4Addr::UNSPECIFIED, |it| *it.ip());
    let address = policy.visible(own);
    let same = SocketAddrV4::new(address, client.port());
    if address != policy.gateway {
        return (!taken(same)).then_some(same);
    }
    // The gateway's port of the DNS server is its own.
    if same.port() != DNS_PORT && !taken(same) {
        return Some(same);
    }
    (0..ATTEMPTS).find_map(|_| {
        let mut bytes = [0; 2];
        sys::random::fill(&mut bytes).ok()?;
        let port = TEMPORARY.start() | u16::from_ne_bytes(bytes);
        let other = SocketAddrV4::new(address, port);
        (!taken(other)).then_some(other)
    })
}

impl Network {
    /// Clients have come to a published port.
    pub(super) fn port_ready(&mut self, poller: &Poller, now: Instant, number: u64) {
        match self.ports.all.get(&number).map(|port| port.transport) {
            Some(Transport::Tcp) => self.accept(poller, now, number),
            Some(Transport::Udp) => self.take_datagrams(poller, now, number),
            None => {}
        }
    }

    fn accept(&mut self, poller: &Poller, now: Instant, number: u64) {
        for _ in 0..ACCEPTED {
            let Network {
                common,
                members,
                flows,
                ports,
                ..
            } = self;
            let Some(port) = ports.all.get_mut(&number) else {
                return;
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (socket, client) = match acceptfrom_with(&port.socket, flags) {
                Ok((socket, client)) => {
                    (socket, client.and_then(|it| SocketAddr::try_from(it).ok()))
                }
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(errno) => {
                    tracing::warn!(%errno, "no client of a published port can be accepted for a while");
                    let key = Key::Port(number);
                    if poller
                        .change(&port.socket, key.number(), Interest::End)
                        .is_ok()
                    {
                        common.timers.arm(&mut port.armed, now + PAUSE, key);
                    }
                    return;
                }
            };
            let (member, port) = (port.member, port.container_port);
            let tuple = |remote| Tuple {
                member,
                port,
                remote,
            };
            let remote =
                client.and_then(|client| seen(&common.policy, client, |it| flows.has(&tuple(it))));
            match remote {
                Some(remote) => {
                    let mut around = Around {
                        poller,
                        now,
                        common,
                        members,
                    };
                    flows.accepted(&mut around, tuple(remote), socket);
                }
                None => sockets::reset(socket),
            }
        }
    }

    fn take_datagrams(&mut self, poller: &Poller, now: Instant, number: u64) {
        let Network {
            common,
            members,
            ports,
            buffer,
            ..
        } = self;
        let Some(port) = ports.all.get_mut(&number) else {
            return;
        };
        for _ in 0..TURN {
            let (len, client) = match recvfrom(&port.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _, client)) => (len, client.and_then(|it| SocketAddr::try_from(it).ok())),
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            if let Some(client) = client
                && let Some(seen) = port.see(now, &common.policy, client)
            {
                let (member, to) = (port.member, port.container_port);
                members.send_datagram(poller, common, member, seen, to, &buffer[..len]);
            }
        }
    }
}
