//! TCP connections of members, each with its socket.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::opening::{Refused, code, fail, open, quoted_header, reset};
use super::sockets::{self, Stream};
use super::timers::{Armed, Timers};
use super::{Around, Common};
use crate::frame::{self, IPV4_LEN, Ipv4, Link, Segment, TCP_LEN, flag};
use crate::poller::{Interest, Ready};
use crate::serve::Key;
use crate::tcp::{End, Flow, Limits};

/// The most flows of one member. With [`CAPACITIES`], all that they can hold is 92 MiB.
const MAX_PER_MEMBER: usize = 1024;
/// Bytes that a flow can hold in each direction, for the first so many of a member: with few flows each is fast, and with
/// many they share.
const CAPACITIES: [(usize, usize); 2] = [(16, 512 << 10), (64, 128 << 10)];
/// The same for all others, and where half of the memory is promised already. The other half is enough for these: the
/// number of flows is bounded by it.
const LEAST_CAPACITY: usize = 32 << 10;
/// How long a flow must have been silent to make room for another one of its member.
const STALE: Duration = Duration::from_secs(60);
/// A connection's name: whose it is, and the ports and the address that the member sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub(super) member: u64,
    pub(super) port: u16,
    pub(super) remote: SocketAddrV4,
}

#[derive(Debug)]
struct Entry {
    flow: Flow,
    socket: OwnedFd,
    tuple: Tuple,
    link: Link,
    /// When its timer comes.
    armed: Armed,
    /// It is to be pumped at the end of a batch of frames.
    touched: bool,
    /// It waits for room on its wire.
    waiting: bool,
}

/// All flows.
#[derive(Debug)]
pub(super) struct Flows {
    /// The most.
    limit: usize,
    /// Bytes that flows may hold, and that they could hold.
    memory: usize,
    promised: usize,
    all: HashMap<u64, Entry>,
    names: HashMap<Tuple, u64>,
    of: BTreeMap<u64, BTreeSet<u64>>,
    next: u64,
    /// Flows that have got segments, and flows that have had their turn and have more.
    touched: Vec<u64>,
    again: Vec<u64>,
    /// Secrets for initial sequence numbers (RFC 6528).
    secret: RandomState,
    started: Instant,
}

impl Flows {
    /// Flows for which there are this many descriptors and bytes.
    pub(super) fn new(descriptors: usize, memory: usize) -> Flows {
        Flows {
            limit: descriptors.min(memory / 2 / (2 * LEAST_CAPACITY)),
            memory,
            promised: 0,
            all: HashMap::new(),
            names: HashMap::new(),
            of: BTreeMap::new(),
            next: 0,
            touched: Vec::new(),
            again: Vec::new(),
            secret: RandomState::new(),
            started: Instant::now(),
        }
    }

    /// Whether there is something to do without an event.
    pub(super) fn is_busy(&self) -> bool {
        !self.again.is_empty()
    }

    pub(super) fn has(&self, tuple: &Tuple) -> bool {
        self.names.contains_key(tuple)
    }

    /// RFC 6528: cannot be guessed, and grows with time, so that a guest's TIME-WAIT takes it for new.
    fn iss(&self, now: Instant, tuple: &Tuple) -> u32 {
        let quarter_micros = now.duration_since(self.started).as_micros() / 4;
        (self.secret.hash_one(tuple) as u32).wrapping_add(quarter_micros as u32)
    }

    /// A segment of a member's. Returns the DNS server's end if a connection to it begins.
    pub(super) fn segment(
        &mut self,
        around: &mut Around<'_>,
        member: u64,
        ip: &Ipv4<'_>,
        segment: &Segment<'_>,
    ) -> Option<OwnedFd> {
        let (port, remote_port) = segment.ports;
        let remote = SocketAddrV4::new(ip.destination, remote_port);
        let tuple = Tuple {
            member,
            port,
            remote,
        };
        if let Some(number) = self.names.get(&tuple) {
            let entry = self.all.get_mut(number)?;
            entry
                .flow
                .segment(around.now, segment, &mut Stream(&entry.socket));
            if !std::mem::replace(&mut entry.touched, true) {
                self.touched.push(*number);
            }
            return None;
        }
        if segment.has(flag::RST) {
            return None;
        }
        let is_syn = segment.has(flag::SYN) && !segment.has(flag::ACK);
        if !is_syn {
            reset(around, tuple, segment);
            return None;
        }
        if !self.make_room(around, member) {
            reset(around, tuple, segment);
            return None;
        }
        let (opened, theirs) = open(around.common, tuple);
        let socket = match opened {
            Ok(socket) => socket,
            Err(errno) => {
                fail(around, tuple, errno, Refused { ip, segment });
                return None;
            }
        };
        let limits = self.limits(around.common, member);
        let mut flow = Flow::from_guest(around.now, segment, self.iss(around.now, &tuple), limits);
        if theirs.is_some() {
            flow.connected();
        }
        self.insert(around, tuple, flow, socket)?;
        theirs
    }

    fn limits(&self, common: &Common, member: u64) -> Limits {
        let own = self.of.get(&member).map_or(0, BTreeSet::len);
        let capacity = CAPACITIES.iter().find(|(count, _)| own < *count);
        let capacity = capacity.map(|(_, capacity)| *capacity);
        let has_room = |it: &usize| self.promised + 2 * it <= self.memory / 2;
        Limits {
            capacity: capacity.filter(has_room).unwrap_or(LEAST_CAPACITY),
            mss: common.mtu.saturating_sub((IPV4_LEN + TCP_LEN) as u16),
        }
    }

    /// A client of the host's that has come to a member's published port.
    pub(super) fn accepted(&mut self, around: &mut Around<'_>, tuple: Tuple, socket: OwnedFd) {
        let refused = self.has(&tuple)
            || !self.make_room(around, tuple.member)
            || sockets::prepare(&socket).is_err();
        if refused {
            return sockets::reset(socket);
        }
        let flow = Flow::to_guest(
            around.now,
            self.iss(around.now, &tuple),
            self.limits(around.common, tuple.member),
        );
        if let Some(number) = self.insert(around, tuple, flow, socket) {
            self.pump(around, number);
        }
    }

    fn insert(
        &mut self,
        around: &mut Around<'_>,
        tuple: Tuple,
        mut flow: Flow,
        socket: OwnedFd,
    ) -> Option<u64> {
        let identity = around.members.get(tuple.member)?.identity();
        let link = around.common.link(tuple.remote, identity, tuple.port);
        let number = self.next;
        let added = around
            .poller
            .add(&socket, Key::Flow(number).number(), Interest::Edges);
        if added.is_err() {
            let mut way = around.way(tuple.member, &link);
            flow.abort(&mut way, End::ByHost);
            sockets::reset(socket);
            return None;
        }
        self.next += 1;
        self.promised += flow.most();
        self.names.insert(tuple, number);
        self.of.entry(tuple.member).or_default().insert(number);
        let entry = Entry {
            flow,
            socket,
            tuple,
            link,
            armed: None,
            touched: true,
            waiting: false,
        };
        self.all.insert(number, entry);
        self.touched.push(number);
        Some(number)
    }

    /// Whether a member may have another flow. Where all places of its own are taken, its flow that has been silent for
    /// longest goes if that is stale; where all places are taken, one of the member with the most goes for one with fewer.
    fn make_room(&mut self, around: &mut Around<'_>, member: u64) -> bool {
        let own = self.of.get(&member).map_or(0, BTreeSet::len);
        let (from, stale) = if own >= MAX_PER_MEMBER {
            (member, true)
        } else if self.all.len() >= self.limit {
            let most = self.of.iter().max_by_key(|(_, flows)| flows.len());
            match most {
                Some((most, flows)) if flows.len() > own + 1 => (*most, false),
                _ => (member, true),
            }
        } else {
            return true;
        };
        let flows = self.of.get(&from).into_iter().flatten();
        let heard = flows.filter_map(|number| Some((self.all.get(number)?.flow.heard(), *number)));
        match heard.min() {
            Some((heard, number)) if !stale || around.now.duration_since(heard) >= STALE => {
                if let Some(entry) = self.all.get_mut(&number) {
                    let member = entry.tuple.member;
                    let mut way = around.way(member, &entry.link);
                    entry.flow.abort(&mut way, End::Silence);
                }
                self.settled(&mut around.common.timers, number);
                true
            }
            _ => false,
        }
    }

    /// Something has happened on a flow's socket.
    pub(super) fn ready(&mut self, around: &mut Around<'_>, number: u64, event: Ready) {
        let Some(entry) = self.all.get_mut(&number) else {
            return;
        };
        if entry.flow.is_connecting() {
            if !event.writable && !event.gone {
                return;
            }
            match sockets::outcome(&entry.socket) {
                Ok(()) => entry.flow.connected(),
                Err(errno) => return self.refused(around, number, errno),
            }
        }
        entry
            .flow
            .host_ready(event.readable, event.writable, event.ended);
        self.pump(around, number);
    }

    /// The host's connection cannot be made.
    fn refused(&mut self, around: &mut Around<'_>, number: u64, errno: Errno) {
        let Some(entry) = self.all.get_mut(&number) else {
            return;
        };
        let member = entry.tuple.member;
        if let Some(code) = code(errno) {
            let (packet, tuple) = (
                entry.flow.syn(entry.tuple.port, entry.tuple.remote.port()),
                entry.tuple,
            );
            let address = *entry.link.destination.ip();
            let header = quoted_header(address, *tuple.remote.ip());
            let ip = Ipv4 {
                source: address,
                destination: *tuple.remote.ip(),
                protocol: frame::protocol::TCP,
                fragment: None,
                header: &header,
                payload: &packet,
            };
            let Around {
                poller,
                common,
                members,
                ..
            } = around;
            members.send_unreachable(poller, common, member, code, &ip);
        } else {
            let mut way = around.way(member, &entry.link);
            entry.flow.abort(&mut way, End::ByHost);
        }
        self.remove(&mut around.common.timers, number);
    }

    /// Pumps what a batch of frames has touched.
    pub(super) fn settle(&mut self, around: &mut Around<'_>) {
        let mut touched = std::mem::take(&mut self.touched);
        for number in touched.drain(..) {
            if let Some(entry) = self.all.get_mut(&number) {
                entry.touched = false;
                self.pump(around, number);
            }
        }
        self.touched = touched;
    }

    /// Goes on with what has had its turn.
    pub(super) fn resume(&mut self, around: &mut Around<'_>) {
        self.settle(around);
        for number in std::mem::take(&mut self.again) {
            self.pump(around, number);
        }
    }

    /// A flow's wire has room.
    pub(super) fn unblocked(&mut self, around: &mut Around<'_>, number: u64) {
        if let Some(entry) = self.all.get_mut(&number) {
            entry.waiting = false;
            self.pump(around, number);
        }
    }

    /// A flow's timer has come.
    pub(super) fn expire(&mut self, around: &mut Around<'_>, number: u64) {
        if let Some(entry) = self.all.get_mut(&number) {
            entry.armed = None;
            entry.flow.expire(around.now);
            if entry.flow.end() == Some(End::Silence) {
                return self.settled(&mut around.common.timers, number);
            }
            self.pump(around, number);
        }
    }

    fn pump(&mut self, around: &mut Around<'_>, number: u64) {
        let Some(entry) = self.all.get_mut(&number) else {
            return;
        };
        let member = entry.tuple.member;
        let now = around.now;
        let mut way = around.way(member, &entry.link);
        if entry.flow.pump(now, &mut Stream(&entry.socket), &mut way) {
            self.again.push(number);
        }
        if entry.flow.is_blocked() && !std::mem::replace(&mut entry.waiting, true) {
            around.members.wait(member, number);
        }
        self.settled(&mut around.common.timers, number);
    }

    /// Removes a flow that has ended, and sees to the timer of one that has not.
    fn settled(&mut self, timers: &mut Timers, number: u64) {
        let Some(entry) = self.all.get_mut(&number) else {
            return;
        };
        if entry.flow.end().is_some() {
            return self.remove(timers, number);
        }
        if let Some(deadline) = entry.flow.deadline() {
            timers.arm(&mut entry.armed, deadline, Key::Flow(number));
        }
    }

    fn remove(&mut self, timers: &mut Timers, number: u64) {
        let Some(entry) = self.all.remove(&number) else {
            return;
        };
        timers.cancel(entry.armed, Key::Flow(number));
        self.promised -= entry.flow.most();
        self.names.remove(&entry.tuple);
        if let Some(own) = self.of.get_mut(&entry.tuple.member) {
            own.remove(&number);
            if own.is_empty() {
                self.of.remove(&entry.tuple.member);
            }
        }
        if entry.flow.end() != Some(End::Closed) {
            sockets::reset(entry.socket);
        }
    }

    /// A member is gone: its flows are reset.
    pub(super) fn forget(&mut self, timers: &mut Timers, member: u64) {
        for number in self.of.remove(&member).into_iter().flatten() {
            self.remove(timers, number);
        }
    }
}
