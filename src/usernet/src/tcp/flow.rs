//! A flow's state, its ends and its clock.

use std::time::{Duration, Instant};

use super::Wire;
use super::ring::Ring;
use crate::frame::{Outgoing, Segment, flag};

/// The first wait for an acknowledgment, and the longest (RFC 6298 has 1 s and at least 60 s; the wire is the
/// machine's own, its delay that of a virtual CPU that is not running).
const RTO: Duration = Duration::from_millis(400);
const MAX_RTO: Duration = Duration::from_secs(60);
/// Waits in a row without anything from the guest before the flow is given up: some eight minutes, which a suspended
/// machine's clock outlasts.
const MAX_UNANSWERED: u32 = 14;
/// The same for a guest that is to accept a connection: some 50 s.
const MAX_UNANSWERED_SYN: u32 = 6;
/// How long a guest may be silent before it is asked whether it still knows the flow.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// How long a flow is idle before its memory is given back.
const RELEASE: Duration = Duration::from_secs(2);
/// The segment that every host takes (RFC 9293, 3.7.1), for a guest that names none.
const DEFAULT_MSS: u16 = 536;
/// The least MSS that a guest can ask for: Linux's (tcp_min_snd_mss). With less, each byte would be a packet.
const MIN_MSS: u16 = 48;
/// The largest shift of a window (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;

/// What a new flow is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that wait in each direction, at most.
    pub capacity: usize,
    /// Our limit of segments: the MTU without headers.
    pub mss: u16,
}

/// How a flow has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides have closed.
    Closed,
    /// The guest has reset it, or does not want it: the host's side is to be reset.
    ByGuest,
    /// The host's socket has failed: the guest has been reset.
    ByHost,
    /// The guest does not answer any more.
    Silence,
}

/// Where it is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The host's socket is not connected yet; the guest waits.
    Connecting,
    /// The guest has sent a SYN, and is to acknowledge ours.
    SynReceived,
    /// We have sent a SYN, and the guest is to answer.
    SynSent,
    /// Both have said where they start.
    Open,
    /// It is over.
    Ended(End),
}

/// A flow. Names of numbers are RFC 9293's (3.3.1).
#[derive(Debug)]
pub struct Flow {
    pub(super) state: State,
    /// The oldest that is not acknowledged, the next to be sent, and the next that was never sent.
    pub(super) una: u32,
    pub(super) nxt: u32,
    pub(super) max: u32,
    /// Up to where the guest takes data.
    pub(super) edge: u32,
    /// The shift of the guest's windows, and ours if it knows of shifts.
    pub(super) peer_scale: u8,
    pub(super) scale: Option<u8>,
    pub(super) mss: u16,
    pub(super) rcv_nxt: u32,
    /// Up to where the guest was told that we take data.
    pub(super) told: u32,
    /// Data from `una` on (behind our SYN).
    pub(super) to_guest: Ring,
    /// What the socket has not taken yet.
    pub(super) to_host: Ring,
    pub(super) host_readable: bool,
    pub(super) host_writable: bool,
    /// The other side will send no more: reading has to go on to the end.
    pub(super) hangup: bool,
    /// The socket is of no use any more.
    pub(super) host_failed: bool,
    /// The socket has been read to its end: a FIN follows what is in `to_guest`.
    pub(super) host_ended: bool,
    /// The FIN has been sent at least once.
    pub(super) fin_sent: bool,
    pub(super) fin_acked: bool,
    /// The guest has sent its FIN; the socket has been told.
    pub(super) guest_ended: bool,
    pub(super) host_shut: bool,
    /// Something is to be acknowledged.
    pub(super) ack_due: bool,
    /// A question is due whether the guest lives or has room.
    pub(super) probe_due: bool,
    /// The wire had no room for a segment.
    pub(super) blocked: bool,
    pub(super) duplicates: u8,
    /// Fast retransmission is done again only beyond this.
    pub(super) recover: u32,
    /// Waits in a row: without progress, and without any sign of life.
    pub(super) backoff: u32,
    pub(super) unanswered: u32,
    /// When to send again, or to probe a window that is closed.
    pub(super) retransmit_at: Option<Instant>,
    pub(super) heard: Instant,
}

impl Flow {
    /// A guest's SYN, for which a socket is being connected. `iss` is not to be guessed.
    pub fn from_guest(now: Instant, syn: &Segment<'_>, iss: u32, limits: Limits) -> Flow {
        let mut flow = Flow::new(now, State::Connecting, iss, limits);
        flow.take_syn(syn);
        flow
    }

    /// A client of the host's, whom the guest is asked to accept.
    pub fn to_guest(now: Instant, iss: u32, limits: Limits) -> Flow {
        let mut flow = Flow::new(now, State::SynSent, iss, limits);
        flow.host_readable = true;
        flow.host_writable = true;
        flow
    }

    fn new(now: Instant, state: State, iss: u32, limits: Limits) -> Flow {
        // The least shift with which a window's 16 bits say the whole capacity.
        let scale = (0..MAX_SCALE).find(|shift| limits.capacity >> shift <= usize::from(u16::MAX));
        Flow {
            state,
            una: iss,
            nxt: iss,
            max: iss,
            edge: iss,
            peer_scale: 0,
            scale: Some(scale.unwrap_or(MAX_SCALE)),
            mss: limits.mss,
            rcv_nxt: 0,
            told: 0,
            to_guest: Ring::new(limits.capacity),
            to_host: Ring::new(limits.capacity),
            host_readable: false,
            host_writable: false,
            hangup: false,
            host_failed: false,
            host_ended: false,
            fin_sent: false,
            fin_acked: false,
            guest_ended: false,
            host_shut: false,
            ack_due: false,
            probe_due: false,
            blocked: false,
            duplicates: 0,
            recover: iss,
            backoff: 0,
            unanswered: 0,
            retransmit_at: None,
            heard: now,
        }
    }

    /// What the guest's SYN says.
    pub(super) fn take_syn(&mut self, syn: &Segment<'_>) {
        self.rcv_nxt = syn.seq.wrapping_add(1);
        self.told = self.rcv_nxt;
        self.mss = self.mss.min(syn.mss.unwrap_or(DEFAULT_MSS)).max(MIN_MSS);
        match syn.scale {
            Some(scale) => self.peer_scale = scale.min(MAX_SCALE),
            // What was offered counts only if both do so.
            None => self.scale = None,
        }
    }

    /// The host's socket is connected.
    pub fn connected(&mut self) {
        if self.state == State::Connecting {
            self.state = State::SynReceived;
            self.host_readable = true;
            self.host_writable = true;
        }
    }

    /// Whether the host's socket is not connected yet.
    pub fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// What an ICMP error quotes of the guest's SYN: its first eight bytes.
    pub fn syn(&self, from: u16, to: u16) -> [u8; 8] {
        let seq = self.rcv_nxt.wrapping_sub(1).to_be_bytes();
        let ([a, b], [c, d], [e, f, g, h]) = (from.to_be_bytes(), to.to_be_bytes(), seq);
        [a, b, c, d, e, f, g, h]
    }

    /// Whether both sides have said where they start.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The host's socket has something to be read, or room, or the other side has ended.
    pub fn host_ready(&mut self, readable: bool, writable: bool, hangup: bool) {
        self.host_readable |= readable || hangup;
        self.host_writable |= writable;
        self.hangup |= hangup;
    }

    /// Whether the wire had no room at the last [`Flow::pump`].
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// When the guest was heard last.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// How it has ended, if it has.
    pub fn end(&self) -> Option<End> {
        match self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Bytes that wait.
    pub fn held(&self) -> usize {
        self.to_guest.len() + self.to_host.len()
    }

    /// Bytes that can wait at most.
    pub fn most(&self) -> usize {
        self.to_guest.capacity() + self.to_host.capacity()
    }

    /// When [`Flow::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let idle = match self.state {
            State::Connecting | State::Ended(_) => return None,
            State::Open if self.unanswered == 0 => Some(self.heard + KEEP_ALIVE),
            _ => None,
        };
        let release = self.holds_idle_memory().then(|| self.heard + RELEASE);
        [self.retransmit_at, idle, release]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is due by now.
    pub fn expire(&mut self, now: Instant) {
        if self.holds_idle_memory() && self.heard + RELEASE <= now {
            self.to_guest.release();
            self.to_host.release();
        }
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.blocked {
            // Nothing of ours is on its way: the guest is paused, or slow.
            self.retransmit_at = Some(now + self.rto());
            self.heard = self.heard.max(now - KEEP_ALIVE / 2);
            return;
        }
        self.unanswered += 1;
        self.backoff += 1;
        let limit = match self.state {
            State::SynSent | State::SynReceived => MAX_UNANSWERED_SYN,
            _ => MAX_UNANSWERED,
        };
        if self.unanswered > limit {
            self.state = State::Ended(End::Silence);
            return;
        }
        if self.nxt == self.una {
            self.probe_due = true;
        }
        self.nxt = self.una;
        self.retransmit_at = Some(now + self.rto());
    }

    fn holds_idle_memory(&self) -> bool {
        let rings = [&self.to_guest, &self.to_host];
        rings.iter().all(|ring| ring.is_empty()) && rings.iter().any(|ring| ring.holds_memory())
    }

    pub(super) fn rto(&self) -> Duration {
        let factor = 1 << self.backoff.min(16);
        (RTO * factor).min(MAX_RTO)
    }

    /// Resets the guest's side, as the host's has failed or nobody is to have it any more.
    pub fn abort(&mut self, wire: &mut impl Wire, end: End) {
        let (seq, flags) = match self.state {
            State::Ended(_) => return,
            // It knows no number of ours yet.
            State::Connecting => (0, flag::RST | flag::ACK),
            State::SynSent => (self.max, flag::RST),
            _ => (self.max, flag::RST | flag::ACK),
        };
        let reset = Outgoing {
            seq,
            ack: self.rcv_nxt,
            flags,
            window: 0,
            mss: self.mss,
            scale: None,
        };
        // Where there is no room for it, the guest learns it when it sends the next segment.
        wire.send(&reset, [&[], &[]]);
        self.state = State::Ended(end);
    }
}
