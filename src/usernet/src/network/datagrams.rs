//! Members' UDP: a socket of the host's for each port from which a member sends.
//!
//! The mapping is endpoint-independent (RFC 4787): whoever sends to the socket reaches the port, as games and calls need
//! it. A socket lives for [`IDLE`] after its last datagram, and for [`IDLE_ANSWERED`] once two have come back.
//!
//! Datagrams that a guest sends in parts are put together, where the parts come in order and none of another datagram's
//! comes between: a wire does not reorder, and a guest sends the parts of a datagram in a row. Others are dropped.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};

use super::members::{Members, ipv4};
use super::policy::Route;
use super::timers::{Armed, Timers};
use super::{Common, sockets};
use crate::frame::Ipv4;
use crate::poller::{Interest, Poller};
use crate::serve::Key;

/// The most sockets of one member: the one that was used last the longest ago goes for another.
const MAX_PER_MEMBER: usize = 256;
/// How long a socket is kept.
const IDLE: Duration = Duration::from_secs(60);
const IDLE_ANSWERED: Duration = Duration::from_secs(180);
/// Answers after which it counts as a conversation.
const CONVERSATION: u32 = 2;
/// Datagrams that are taken from a socket at a turn.
const TURN: usize = 64;
/// Ports of the host's that a socket has sent to by the gateway's address, and whose answers come from there.
const MAX_HOST_PORTS: usize = 16;
/// How long the parts of a datagram may take.
const PARTS: Duration = Duration::from_secs(1);
/// The most datagrams of which parts have come: each is at most 64 KiB, and one of a member.
const MAX_PARTIAL: usize = 256;

#[derive(Debug)]
struct Mapping {
    socket: OwnedFd,
    member: u64,
    port: u16,
    used: Instant,
    answers: u32,
    /// The host's address, and those of its ports that the member knows by the gateway's.
    own: Option<Ipv4Addr>,
    host_ports: Vec<u16>,
    armed: Armed,
}

/// A datagram of which parts have come.
#[derive(Debug)]
struct Partial {
    id: u16,
    ends: (Ipv4Addr, Ipv4Addr),
    bytes: Vec<u8>,
    since: Instant,
}

/// All mappings.
#[derive(Debug)]
pub(super) struct Datagrams {
    limit: usize,
    all: BTreeMap<u64, Mapping>,
    of: HashMap<(u64, u16), u64>,
    counts: HashMap<u64, usize>,
    /// At most one of each member.
    partial: HashMap<u64, Partial>,
    next: u64,
}

impl Datagrams {
    pub(super) fn new(limit: usize) -> Datagrams {
        Datagrams {
            limit,
            all: BTreeMap::new(),
            of: HashMap::new(),
            counts: HashMap::new(),
            partial: HashMap::new(),
            next: 0,
        }
    }

    /// A packet's payload, once it is whole.
    pub(super) fn whole<'a>(
        &mut self,
        now: Instant,
        member: u64,
        ip: &Ipv4<'a>,
    ) -> Option<Cow<'a, [u8]>> {
        let Some(fragment) = ip.fragment else {
            return Some(Cow::Borrowed(ip.payload));
        };
        let ends = (ip.source, ip.destination);
        if fragment.offset == 0 {
            let partial = Partial {
                id: fragment.id,
                ends,
                bytes: ip.payload.to_vec(),
                since: now,
            };
            if self.partial.len() >= MAX_PARTIAL {
                self.partial
                    .retain(|_, it| now.duration_since(it.since) <= PARTS);
            }
            if self.partial.len() < MAX_PARTIAL {
                self.partial.insert(member, partial);
            }
            return None;
        }
        let mut partial = self.partial.remove(&member)?;
        let follows = partial.id == fragment.id
            && partial.ends == ends
            && partial.bytes.len() == usize::from(fragment.offset)
            && now.duration_since(partial.since) <= PARTS;
        if !follows {
            return None;
        }
        // No longer than a packet: `frame::parse` refuses parts beyond that.
        partial.bytes.extend(ip.payload);
        if fragment.more {
            self.partial.insert(member, partial);
            return None;
        }
        Some(Cow::Owned(partial.bytes))
    }

    /// Sends a member's datagram.
    pub(super) fn send(
        &mut self,
        poller: &Poller,
        now: Instant,
        timers: &mut Timers,
        (member, port): (u64, u16),
        route: Route,
        payload: &[u8],
    ) {
        let (to, host_port) = match route {
            Route::Remote(to) => (to, None),
            Route::Host(port) => match sockets::primary() {
                Some(own) => (SocketAddrV4::new(own, port), Some(port)),
                None => return,
            },
            Route::Dns | Route::Refused => return,
        };
        let Some(mapping) = self.mapping(poller, now, timers, (member, port)) else {
            return;
        };
        mapping.used = now;
        if let Some(port) = host_port
            && !mapping.host_ports.contains(&port)
        {
            mapping.own = Some(*to.ip());
            mapping.host_ports.truncate(MAX_HOST_PORTS - 1);
            mapping.host_ports.insert(0, port);
        }
        // What the host does not take is lost, as on any network.
        let _ = sendto(&mapping.socket, payload, SendFlags::DONTWAIT, &to);
    }

    fn mapping(
        &mut self,
        poller: &Poller,
        now: Instant,
        timers: &mut Timers,
        end: (u64, u16),
    ) -> Option<&mut Mapping> {
        if let Some(number) = self.of.get(&end) {
            return self.all.get_mut(number);
        }
        let (member, port) = end;
        let own = self.counts.get(&member).copied().unwrap_or(0);
        if own >= MAX_PER_MEMBER || self.all.len() >= self.limit {
            // Of the member itself, or of the one that has the most.
            let most = self.counts.iter().max_by_key(|(_, count)| **count);
            let from = match most {
                Some((most, count)) if own < MAX_PER_MEMBER && *count > own + 1 => *most,
                _ => member,
            };
            let theirs = self.all.iter().filter(|(_, it)| it.member == from);
            let (number, _) = theirs.min_by_key(|(_, it)| it.used)?;
            let number = *number;
            self.remove(timers, number);
        }
        let socket = sockets::datagrams().ok()?;
        let number = self.next;
        let key = Key::Datagram(number);
        poller.add(&socket, key.number(), Interest::Read).ok()?;
        self.next += 1;
        let mut armed = None;
        timers.arm(&mut armed, now + IDLE, key);
        let mapping = Mapping {
            socket,
            member,
            port,
            used: now,
            answers: 0,
            own: None,
            host_ports: Vec::new(),
            armed,
        };
        self.of.insert(end, number);
        *self.counts.entry(member).or_default() += 1;
        self.all.insert(number, mapping);
        self.all.get_mut(&number)
    }

    /// Something has come for a member.
    pub(super) fn ready(
        &mut self,
        poller: &Poller,
        now: Instant,
        common: &mut Common,
        members: &mut Members,
        number: u64,
        buffer: &mut [u8],
    ) {
        let Some(mapping) = self.all.get_mut(&number) else {
            return;
        };
        for _ in 0..TURN {
            let (len, from) = match recvfrom(&mapping.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((len, _, from)) => (len, from.map(SocketAddr::try_from)),
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let Some(from) = from.and_then(Result::ok).and_then(ipv4) else {
                continue;
            };
            let of_host =
                mapping.own == Some(*from.ip()) && mapping.host_ports.contains(&from.port());
            let source = match of_host {
                true => SocketAddrV4::new(common.policy.gateway, from.port()),
                // The host's loopback, say: the member has never sent there.
                false if common.policy.visible(*from.ip()) != *from.ip() => continue,
                false => from,
            };
            mapping.used = now;
            mapping.answers = mapping.answers.saturating_add(1);
            members.send_datagram(
                poller,
                common,
                mapping.member,
                source,
                mapping.port,
                &buffer[..len],
            );
        }
    }

    /// A mapping's time may be over.
    pub(super) fn expire(&mut self, now: Instant, timers: &mut Timers, number: u64) {
        let Some(mapping) = self.all.get_mut(&number) else {
            return;
        };
        mapping.armed = None;
        let idle = match mapping.answers >= CONVERSATION {
            true => IDLE_ANSWERED,
            false => IDLE,
        };
        if mapping.used + idle <= now {
            return self.remove(timers, number);
        }
        timers.arm(
            &mut mapping.armed,
            mapping.used + idle,
            Key::Datagram(number),
        );
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, timers: &mut Timers, member: u64) {
        self.partial.remove(&member);
        let theirs = self.all.iter().filter(|(_, it)| it.member == member);
        let numbers: Vec<u64> = theirs.map(|(number, _)| *number).collect();
        for number in numbers {
            self.remove(timers, number);
        }
    }

    fn remove(&mut self, timers: &mut Timers, number: u64) {
        let Some(mapping) = self.all.remove(&number) else {
            return;
        };
        timers.cancel(mapping.armed, Key::Datagram(number));
        self.of.remove(&(mapping.member, mapping.port));
        if let Some(count) = self.counts.get_mut(&mapping.member) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&mapping.member);
            }
        }
    }
}
