//! A network without a bridge: a switch between members, and the gateway that ends what they send to others.
//!
//! ```text
//! wire of a member --frames--> switch.rs --to another member--> its wire
//!                                  '--to the gateway--> flows.rs (TCP), datagrams.rs (UDP), pings.rs (ICMP echo)
//!                                                           ^ policy.rs: what may be reached, and where it is
//! published ports (ports.rs) --connections, datagrams--> flows.rs, frames
//! ```
//!
//! - `members.rs`, `wire.rs`: who is there; `join.rs`: how they come. A member's frames are taken in turns with others'.
//! - Everything that can be decided without a socket is apart: [`crate::frame`], [`crate::tcp`], [`switch`], [`policy`].
//!
//! Invariants: a member's frames carry its own addresses or are dropped and counted. What one member can take of
//! anything has a bound of its own, below the bound of all. No socket is connected or sent to where [`policy`] refuses.
//! Packets to a member have the address of whom it has sent to, or of the client that has come to its published port.
//!
//! Deliberately absent: IPv6; multicast beyond the network; routes between members and other networks; ICMP errors from
//! hosts, except that a connection which cannot be made is answered with one.

mod around;
mod datagrams;
mod flows;
mod join;
mod members;
mod opening;
mod pings;
pub mod policy;
mod ports;
mod sockets;
pub mod switch;
mod timers;
mod wire;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::dns::{MAX_QUERY, Part};
use crate::frame::{self, Echo, Frame, Link, MAX_FRAME, Mac, Payload, Segment, Udp, protocol};
use crate::inbox::Datagram;
use crate::poller::{Poller, Ready};
use crate::serve::Key;
use around::Around;
use datagrams::Datagrams;
use flows::Flows;
use members::Members;
use pings::Pings;
use policy::{Policy, Route};
use ports::Ports;
use switch::Verdict;
use timers::Timers;

/// Frames, and bytes of them, that are taken from one member before others have their turn.
const TURN_FRAMES: usize = 64;
const TURN_BYTES: usize = 512 << 10;

/// What a network is made of.
#[derive(Debug)]
pub struct Config {
    /// The socket that members connect to.
    pub members: OwnedFd,
    /// What may be reached.
    pub policy: Policy,
    /// The gateway's MAC address.
    pub mac: Mac,
    /// The longest packet.
    pub mtu: u16,
    /// Descriptors, and bytes of memory, that this process may have.
    pub descriptors: usize,
    /// See there.
    pub memory: usize,
}

/// What all parts of a network need.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) policy: Policy,
    pub(crate) mac: Mac,
    pub(crate) mtu: u16,
    pub(crate) timers: Timers,
    /// Identification of packets that are sent in parts.
    pub(crate) id: u16,
}

impl Common {
    /// From `source`, as a member sees it, to a port of that member.
    fn link(&self, source: SocketAddrV4, (mac, address): (Mac, Ipv4Addr), port: u16) -> Link {
        Link {
            macs: (self.mac, mac),
            source,
            destination: SocketAddrV4::new(address, port),
        }
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    common: Common,
    members: Members,
    flows: Flows,
    datagrams: Datagrams,
    pings: Pings,
    ports: Ports,
    /// Where a frame is read to.
    buffer: Box<[u8]>,
    /// Queries for the DNS server, and connections to it.
    queries: VecDeque<Datagram>,
    connections: VecDeque<(Ipv4Addr, OwnedFd)>,
    /// What members are on besides, for the DNS server.
    adjacent: Vec<Part>,
}

impl Network {
    pub(crate) fn new(poller: &Poller, config: Config) -> std::io::Result<Network> {
        Ok(Network {
            common: Common {
                policy: config.policy,
                mac: config.mac,
                mtu: config.mtu,
                timers: Timers::default(),
                id: 0,
            },
            members: Members::new(poller, config.members)?,
            flows: Flows::new(config.descriptors / 2, config.memory / 2),
            datagrams: Datagrams::new(config.descriptors / 8),
            pings: Pings::new(config.descriptors / 32),
            ports: Ports::default(),
            buffer: vec![0; MAX_FRAME + 1].into(),
            queries: VecDeque::new(),
            connections: VecDeque::new(),
            adjacent: Vec::new(),
        })
    }

    /// Networks that members have said they are on besides.
    pub(crate) fn adjacent(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.adjacent)
    }

    /// A member's query for the DNS server.
    pub(crate) fn query(&mut self) -> Option<Datagram> {
        self.queries.pop_front()
    }

    /// A member's connection to the DNS server.
    pub(crate) fn connection(&mut self) -> Option<(Ipv4Addr, OwnedFd)> {
        self.connections.pop_front()
    }

    /// The DNS server's answer to a member.
    pub(crate) fn answer(&mut self, poller: &Poller, to: SocketAddrV4, message: &[u8]) {
        let from = SocketAddrV4::new(self.common.policy.gateway, policy::DNS_PORT);
        if let Some(number) = self.members.at(*to.ip()) {
            let Network {
                common, members, ..
            } = self;
            members.send_datagram(poller, common, number, from, to.port(), message);
        }
    }

    /// When something is to be done without an event.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.flows.is_busy() {
            true => Some(now),
            false => self.common.timers.next(),
        }
    }

    /// Something has happened on a descriptor of the network's.
    pub(crate) fn ready(&mut self, poller: &Poller, now: Instant, key: Key, event: Ready) {
        match key {
            Key::Members => self.members.accept(poller, now, &mut self.common.timers),
            Key::Member(number) => self.member_says(poller, now, number),
            Key::Wire(number) => {
                if event.readable || event.gone {
                    self.take_frames(poller, now, number);
                }
                if event.writable {
                    self.wire_has_room(poller, now, number);
                }
                // A datagram socket's reader does not see the end, and what is still to be read has nobody to answer.
                if event.gone {
                    self.leave(poller, number);
                }
            }
            Key::Flow(number) => {
                let (flows, mut around) = self.flows(poller, now);
                flows.ready(&mut around, number, event);
            }
            Key::Port(number) => self.port_ready(poller, now, number),
            Key::Datagram(number) => {
                let Network {
                    common,
                    members,
                    datagrams,
                    buffer,
                    ..
                } = self;
                datagrams.ready(poller, now, common, members, number, buffer);
            }
            Key::Ping(number) => {
                let Network {
                    common,
                    members,
                    pings,
                    buffer,
                    ..
                } = self;
                pings.ready(poller, common, members, number, buffer);
            }
            Key::Datagrams | Key::Listener | Key::Connection(_) | Key::Exchange(_) => {}
        }
    }

    /// What has had its time, and what was to be gone on with.
    pub(crate) fn expire(&mut self, poller: &Poller, now: Instant) {
        let (flows, mut around) = self.flows(poller, now);
        flows.resume(&mut around);
        while let Some(key) = self.common.timers.expired(now) {
            match key {
                Key::Flow(number) => {
                    let (flows, mut around) = self.flows(poller, now);
                    flows.expire(&mut around, number);
                }
                Key::Datagram(number) => {
                    self.datagrams.expire(now, &mut self.common.timers, number);
                }
                Key::Ping(number) => self.pings.expire(now, &mut self.common.timers, number),
                Key::Port(number) => self.ports.resume(poller, number),
                Key::Members => self.members.resume(poller),
                Key::Wire(number) => self.members.lose_patience(poller, number),
                _ => {}
            }
        }
    }

    /// The flows, and what is around them.
    fn flows<'a>(&'a mut self, poller: &'a Poller, now: Instant) -> (&'a mut Flows, Around<'a>) {
        let around = Around {
            poller,
            now,
            common: &mut self.common,
            members: &mut self.members,
        };
        (&mut self.flows, around)
    }

    fn wire_has_room(&mut self, poller: &Poller, now: Instant, number: u64) {
        for flow in self.members.flush(poller, &mut self.common.timers, number) {
            let (flows, mut around) = self.flows(poller, now);
            flows.unblocked(&mut around, flow);
        }
    }

    fn take_frames(&mut self, poller: &Poller, now: Instant, number: u64) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut bytes = 0;
        for _ in 0..TURN_FRAMES {
            let Some(member) = self.members.get(number) else {
                break;
            };
            match recv(member.wire(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.leave(poller, number),
                Ok((len, _)) => {
                    self.frame(poller, now, number, &mut buffer[..len]);
                    bytes += len;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.leave(poller, number),
            }
            if bytes >= TURN_BYTES || self.members.is_paused(number) {
                break;
            }
        }
        self.buffer = buffer;
        let (flows, mut around) = self.flows(poller, now);
        flows.settle(&mut around);
    }

    /// A member goes, and everything of its with it.
    fn leave(&mut self, poller: &Poller, number: u64) {
        let timers = &mut self.common.timers;
        if self.members.remove(poller, timers, number) {
            self.flows.forget(timers, number);
            self.datagrams.forget(timers, number);
            self.pings.forget(timers, number);
            self.ports.forget(timers, number);
        }
    }

    fn frame(&mut self, poller: &Poller, now: Instant, number: u64, message: &mut [u8]) {
        let Some(member) = self.members.get(number) else {
            return;
        };
        let frame = match frame::parse(message, self.common.mtu) {
            Ok(frame) => frame,
            Err(_) => return self.members.dropped(number),
        };
        let me = (self.common.mac, self.common.policy.gateway);
        match switch::verdict(&frame, member.identity(), me, self.members.table()) {
            Verdict::Dishonest => self.members.dropped(number),
            Verdict::Unknown => {}
            Verdict::Arp(sender) => {
                let reply = frame::arp_reply(me, sender);
                self.members.post(poller, number, &[&reply]);
            }
            Verdict::Gateway => self.pass_to_gateway(poller, now, number, &frame),
            Verdict::Member(to) => {
                let virtio = frame.virtio;
                members::pass_on(virtio, message);
                let timers = &mut self.common.timers;
                self.members
                    .pass(poller, now, timers, (number, to), message);
            }
            Verdict::Everyone => {
                let virtio = frame.virtio;
                members::pass_on(virtio, message);
                self.members.flood(poller, now, number, message);
            }
        }
    }

    fn pass_to_gateway(&mut self, poller: &Poller, now: Instant, number: u64, frame: &Frame<'_>) {
        let Payload::Ipv4(ip) = &frame.payload else {
            return;
        };
        match ip.protocol {
            // Parts are dropped: TCP's stacks avoid them, and pings of that size are a curiosity. UDP's: see datagrams.rs.
            protocol::TCP | protocol::ICMP if ip.fragment.is_some() => {}
            protocol::TCP => {
                if let Some(segment) = Segment::parse(ip.payload) {
                    let (flows, mut around) = self.flows(poller, now);
                    let opened = flows.segment(&mut around, number, ip, &segment);
                    let address = ip.source;
                    self.connections
                        .extend(opened.map(|socket| (address, socket)));
                }
            }
            protocol::UDP => {
                let Some(whole) = self.datagrams.whole(now, number, ip) else {
                    return;
                };
                if let Some(udp) = Udp::parse(&whole) {
                    self.datagram(poller, now, number, (ip.source, ip.destination), &udp);
                }
            }
            protocol::ICMP => {
                if let Some(echo) = Echo::request(ip.payload) {
                    self.echo(poller, now, number, ip.destination, &echo);
                }
            }
            _ => {}
        }
    }

    fn datagram(
        &mut self,
        poller: &Poller,
        now: Instant,
        number: u64,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        udp: &Udp<'_>,
    ) {
        let (port, to) = (udp.ports.0, SocketAddrV4::new(destination, udp.ports.1));
        if self.ports.reply(now, number, port, to, udp.payload) {
            return;
        }
        let route = self.common.policy.route(to);
        if route == Route::Dns {
            // The queue of the DNS server is fair and bounded; this one is emptied into it at each turn. A query that is too
            // long shows by one byte, as from a socket.
            let from = SocketAddrV4::new(source, port);
            let query = &udp.payload[..udp.payload.len().min(MAX_QUERY + 1)];
            return self.queries.push_back((from, query.to_vec()));
        }
        let timers = &mut self.common.timers;
        self.datagrams
            .send(poller, now, timers, (number, port), route, udp.payload);
    }

    fn echo(
        &mut self,
        poller: &Poller,
        now: Instant,
        number: u64,
        destination: Ipv4Addr,
        echo: &Echo<'_>,
    ) {
        let Network {
            common,
            members,
            pings,
            ..
        } = self;
        if destination == common.policy.gateway {
            return members.send_echo(poller, common, number, destination, echo);
        }
        if let Route::Remote(to) = common.policy.route(SocketAddrV4::new(destination, 0)) {
            pings.send(poller, now, &mut common.timers, number, *to.ip(), echo);
        }
    }
}
