//! Who is on the network.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::net::MAX_MEMBERS;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::Common;
use super::switch::Table;
use super::timers::{Armed, Timers};
use super::wire::{Sent, WireEnd};
use crate::frame::{self, Echo, Ipv4, Mac, Virtio};
use crate::poller::{Interest, Poller};
use crate::serve::Key;

/// When to accept again after that has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Frames for everyone that a member may send in a second: each is one for each other member.
const MAX_FLOODS: u32 = 128;

/// How long a member's frames wait at most for a neighbour to take its own: some turns of a virtual CPU.
const PATIENCE: Duration = Duration::from_millis(10);
/// Bytes of frames that wait for room on all wires together.
const MAX_WAITING: usize = 32 << 20;

/// A member, or a sandbox that is about to become one.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) connection: OwnedFd,
    joined: Option<Joined>,
}

#[derive(Debug)]
struct Joined {
    mac: Mac,
    address: Ipv4Addr,
    wire: WireEnd,
    /// Frames that were dropped, as they were malformed or in another's name.
    dropped: u64,
    /// The second that runs, and frames for everyone in it.
    floods: (Instant, u32),
}

/// What of a member others need to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present<'a>(&'a Joined);

impl<'a> Present<'a> {
    pub(crate) fn identity(self) -> (Mac, Ipv4Addr) {
        (self.0.mac, self.0.address)
    }

    pub(crate) fn wire(self) -> BorrowedFd<'a> {
        self.0.wire.socket.as_fd()
    }
}

/// All of them, by number.
#[derive(Debug)]
pub(crate) struct Members {
    listener: OwnedFd,
    /// Accepting waits until then.
    paused: Armed,
    all: BTreeMap<u64, Member>,
    table: Table,
    next: u64,
    /// Bytes that wait on all wires.
    waiting: usize,
}

impl Members {
    pub(crate) fn new(poller: &Poller, listener: OwnedFd) -> std::io::Result<Members> {
        poller.add(&listener, Key::Members.number(), Interest::Read)?;
        Ok(Members {
            listener,
            paused: None,
            all: BTreeMap::new(),
            table: Table::default(),
            next: 0,
            waiting: 0,
        })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn get(&self, number: u64) -> Option<Present<'_>> {
        self.all.get(&number)?.joined.as_ref().map(Present)
    }

    pub(crate) fn at(&self, address: Ipv4Addr) -> Option<u64> {
        self.table.at(address)
    }

    pub(crate) fn connection(&self, number: u64) -> Option<BorrowedFd<'_>> {
        Some(self.all.get(&number)?.connection.as_fd())
    }

    /// Takes connections of sandboxes. With as many members as there may be, others wait.
    pub(crate) fn accept(&mut self, poller: &Poller, now: Instant, timers: &mut Timers) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let connection = match self.all.len() < MAX_MEMBERS {
            true => accept_with(&self.listener, flags),
            false => Err(Errno::MFILE),
        };
        match connection {
            Ok(connection) => {
                let number = self.next;
                self.next += 1;
                let key = Key::Member(number).number();
                if poller.add(&connection, key, Interest::Read).is_ok() {
                    let joined = None;
                    self.all.insert(number, Member { connection, joined });
                }
            }
            Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => {}
            Err(errno) => {
                tracing::warn!(%errno, "no sandbox can join for a while");
                let key = Key::Members.number();
                if poller.change(&self.listener, key, Interest::End).is_ok() {
                    timers.arm(&mut self.paused, now + PAUSE, Key::Members);
                }
            }
        }
    }

    pub(crate) fn resume(&mut self, poller: &Poller) {
        let key = Key::Members.number();
        if self.paused.take().is_some()
            && let Err(error) = poller.change(&self.listener, key, Interest::Read)
        {
            tracing::warn!(%error, "no sandbox can join any more");
        }
    }

    /// Whether the sandbox has become a member: its addresses may be another's.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        number: u64,
        mac: Mac,
        address: Ipv4Addr,
        wire: OwnedFd,
    ) -> bool {
        let Some(member) = self.all.get_mut(&number) else {
            return false;
        };
        if !self.table.insert(number, (mac, address)) {
            return false;
        }
        member.joined = Some(Joined {
            mac,
            address,
            wire: WireEnd::new(wire),
            dropped: 0,
            floods: (now, 0),
        });
        true
    }

    /// Forgets a member. `false` if it is gone already.
    pub(crate) fn remove(&mut self, poller: &Poller, timers: &mut Timers, number: u64) -> bool {
        let Some(member) = self.all.remove(&number) else {
            return false;
        };
        if let Some(Joined {
            mac,
            address,
            dropped,
            wire,
            ..
        }) = member.joined
        {
            self.waiting -= wire.waiting();
            timers.cancel(wire.patience, Key::Wire(number));
            self.hear(poller, wire.senders);
            self.table.remove((mac, address));
            if dropped > 0 {
                tracing::warn!(%address, dropped, "a member has sent frames that were not its own, or malformed");
            }
        }
        true
    }

    pub(crate) fn dropped(&mut self, number: u64) {
        if let Some(joined) = self.joined(number) {
            joined.dropped += 1;
        }
    }

    fn joined(&mut self, number: u64) -> Option<&mut Joined> {
        self.all.get_mut(&number)?.joined.as_mut()
    }

    /// Runs `act` on a member's wire, and has it said when there is room if there is none now.
    fn with_wire<T>(
        &mut self,
        poller: &Poller,
        number: u64,
        act: impl FnOnce(&mut WireEnd) -> T,
    ) -> Option<T> {
        let wire = &mut self.all.get_mut(&number)?.joined.as_mut()?.wire;
        let (before, waited) = (wire.interest(), wire.waiting());
        let result = act(wire);
        self.waiting = self.waiting + wire.waiting() - waited;
        let interest = wire.interest();
        let key = Key::Wire(number).number();
        if interest != before
            && let Err(error) = poller.change(&wire.socket, key, interest)
        {
            tracing::warn!(%error, "a wire cannot be waited for");
        }
        Some(result)
    }

    /// Sends a frame that waits elsewhere if there is no room.
    pub(crate) fn send(&mut self, poller: &Poller, number: u64, parts: &[IoSlice<'_>]) -> Sent {
        let sent = self.with_wire(poller, number, |wire| wire.send(parts));
        sent.unwrap_or(Sent::Done)
    }

    /// Sends a frame of one or two parts, now or later; or it is dropped.
    pub(crate) fn post(&mut self, poller: &Poller, number: u64, parts: &[&[u8]]) {
        let may_wait = self.waiting < MAX_WAITING;
        self.with_wire(poller, number, |wire| wire.post(parts, may_wait));
    }

    /// Passes a member's frame to another one. Where more waits for that one than it should, the sender is not heard until
    /// the other has taken some, or [`PATIENCE`] is over: a connection between them loses nothing that way, and one that
    /// does not take its frames holds nobody up for longer.
    pub(crate) fn pass(
        &mut self,
        poller: &Poller,
        now: Instant,
        timers: &mut Timers,
        (from, to): (u64, u64),
        frame: &[u8],
    ) {
        self.post(poller, to, &[frame]);
        let congested = self.with_wire(poller, to, |wire| {
            if wire.is_congested() {
                wire.senders.push(from);
                timers.arm(&mut wire.patience, now + PATIENCE, Key::Wire(to));
            }
            wire.is_congested()
        });
        if congested == Some(true) {
            self.with_wire(poller, from, |wire| wire.paused = true);
        }
    }

    /// Whether a member is not heard for now.
    pub(crate) fn is_paused(&self, number: u64) -> bool {
        self.get(number).is_some_and(|member| member.0.wire.paused)
    }

    /// A member has not taken its frames in time: neighbours go on, and lose what it does not take.
    pub(crate) fn lose_patience(&mut self, poller: &Poller, number: u64) {
        let senders = self.with_wire(poller, number, |wire| {
            wire.patience = None;
            wire.stuck = true;
            std::mem::take(&mut wire.senders)
        });
        self.hear(poller, senders.unwrap_or_default());
    }

    fn hear(&mut self, poller: &Poller, senders: Vec<u64>) {
        for sender in senders {
            self.with_wire(poller, sender, |wire| wire.paused = false);
        }
    }

    /// Sends a member's frame to all others, unless it has sent too many.
    pub(crate) fn flood(&mut self, poller: &Poller, now: Instant, from: u64, frame: &[u8]) {
        let Some(joined) = self.joined(from) else {
            return;
        };
        if now.duration_since(joined.floods.0) >= Duration::from_secs(1) {
            joined.floods = (now, 0);
        }
        if joined.floods.1 >= MAX_FLOODS {
            return;
        }
        joined.floods.1 += 1;
        let others: Vec<u64> = self.all.keys().copied().filter(|to| *to != from).collect();
        for to in others {
            self.post(poller, to, &[frame]);
        }
    }

    /// There is room on a wire: sends what waits. Returns the flows that have waited for it.
    pub(crate) fn flush(&mut self, poller: &Poller, timers: &mut Timers, number: u64) -> Vec<u64> {
        let flushed = self.with_wire(poller, number, |wire| {
            wire.flush();
            let mut senders = Vec::new();
            if wire.is_relieved() {
                wire.stuck = false;
                timers.cancel(wire.patience.take(), Key::Wire(number));
                senders = std::mem::take(&mut wire.senders);
            }
            let flows = match wire.is_full() {
                true => Vec::new(),
                false => std::mem::take(&mut wire.flows).into(),
            };
            (senders, flows)
        });
        let (senders, flows) = flushed.unwrap_or_default();
        self.hear(poller, senders);
        flows
    }

    /// A flow waits for room.
    pub(crate) fn wait(&mut self, number: u64, flow: u64) {
        if let Some(joined) = self.joined(number) {
            joined.wire.flows.push_back(flow);
        }
    }

    /// Sends a datagram to a port of a member, as from `source`.
    pub(crate) fn send_datagram(
        &mut self,
        poller: &Poller,
        common: &mut Common,
        number: u64,
        source: SocketAddrV4,
        port: u16,
        payload: &[u8],
    ) {
        let Some(identity) = self.get(number).map(Present::identity) else {
            return;
        };
        common.id = common.id.wrapping_add(1);
        let link = common.link(source, identity, port);
        frame::datagram(&link, common.id, common.mtu, payload, |headers, part| {
            self.post(poller, number, &[headers, part]);
        });
    }

    /// Answers a member's echo as from `source`.
    pub(crate) fn send_echo(
        &mut self,
        poller: &Poller,
        common: &Common,
        number: u64,
        source: Ipv4Addr,
        echo: &Echo<'_>,
    ) {
        let Some(identity) = self.get(number).map(Present::identity) else {
            return;
        };
        let link = common.link(SocketAddrV4::new(source, 0), identity, 0);
        frame::echo(&link, common.mtu, echo, |headers, data| {
            self.post(poller, number, &[headers, data]);
        });
    }

    /// Tells a member that a packet of its does not arrive.
    pub(crate) fn send_unreachable(
        &mut self,
        poller: &Poller,
        common: &Common,
        number: u64,
        code: u8,
        packet: &Ipv4<'_>,
    ) {
        let Some(identity) = self.get(number).map(Present::identity) else {
            return;
        };
        let gateway = SocketAddrV4::new(common.policy.gateway, 0);
        let link = common.link(gateway, identity, 0);
        frame::unreachable(&link, code, packet, |headers, quote| {
            self.post(poller, number, &[headers, quote]);
        });
    }
}

/// Puts the header as it was checked before a frame that a neighbour gets.
pub(super) fn pass_on(virtio: Virtio, message: &mut [u8]) {
    if let Some(header) = message.first_chunk_mut() {
        virtio.write(header);
    }
}

/// The address of a client, where it is one of IPv4's.
pub(super) fn ipv4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(address) => {
            let ip = address.ip().to_ipv4_mapped()?;
            Some(SocketAddrV4::new(ip, address.port()))
        }
    }
}
