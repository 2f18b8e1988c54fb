//! What goes to the guest.

use std::io;
use std::time::Instant;

use super::flow::{End, Flow, State};
use super::{Host, Wire, before};
use crate::frame::{IPV4_LEN, Outgoing, TCP_LEN, flag};

/// The longest segment: what an IPv4 packet carries.
const MAX_SEGMENT: usize = u16::MAX as usize - IPV4_LEN - TCP_LEN;
/// Bytes that are read for one flow before others have their turn.
const TURN: usize = 512 << 10;

impl Flow {
    /// Moves what can be moved, both ways. `true` if it has had its turn and there is more to do at once.
    pub fn pump(&mut self, now: Instant, host: &mut impl Host, wire: &mut impl Wire) -> bool {
        self.blocked = false;
        match self.state {
            State::Connecting | State::Ended(_) => return false,
            State::SynSent | State::SynReceived => {
                self.synchronize(now, wire);
                return false;
            }
            State::Open => {}
        }
        self.drain(host);
        let mut moved = 0;
        let mut again = false;
        while !self.host_failed {
            self.emit(now, wire);
            let room = self.to_guest.free();
            // Reading for every few bytes that are acknowledged would make many short segments of few long ones.
            let little = room < self.to_guest.capacity() / 4;
            if !self.host_readable || self.host_ended || little || self.blocked {
                break;
            }
            if moved >= TURN {
                again = true;
                break;
            }
            moved += self.fill(room, host);
        }
        if self.host_failed {
            self.abort(wire, End::ByHost);
            return false;
        }
        self.acknowledge(wire);
        if self.fin_acked && self.host_shut {
            self.state = State::Ended(End::Closed);
        }
        again
    }

    /// Sends our SYN, once and whenever its time is over.
    fn synchronize(&mut self, now: Instant, wire: &mut impl Wire) {
        if self.nxt != self.una {
            return;
        }
        let flags = match self.state {
            State::SynSent => flag::SYN,
            _ => flag::SYN | flag::ACK,
        };
        let syn = Outgoing {
            seq: self.una,
            ack: if flags & flag::ACK == 0 {
                0
            } else {
                self.rcv_nxt
            },
            flags,
            window: self.to_host.free().min(usize::from(u16::MAX)) as u16,
            mss: self.mss,
            scale: self.scale,
        };
        if !wire.send(&syn, [&[], &[]]) {
            self.blocked = true;
            return;
        }
        self.told = self.rcv_nxt.wrapping_add(u32::from(syn.window));
        self.nxt = self.una.wrapping_add(1);
        self.max = self.nxt;
        self.recover = self.nxt;
        self.retransmit_at = Some(now + self.rto());
    }

    /// Reads from the host.
    fn fill(&mut self, room: usize, host: &mut impl Host) -> usize {
        match host.read(self.to_guest.room()) {
            Ok(0) => {
                self.host_ended = true;
                0
            }
            Ok(count) => {
                self.to_guest.filled(count);
                // Less than there was room for: what comes later is said again (see `poller`).
                self.host_readable = count == room || self.hangup;
                count
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                self.host_readable = false;
                self.host_failed = error.kind() != io::ErrorKind::WouldBlock;
                0
            }
        }
    }

    /// Sends what the guest's window lets through.
    fn emit(&mut self, now: Instant, wire: &mut impl Wire) {
        loop {
            let sent = self.nxt.wrapping_sub(self.una) as usize;
            let unsent = self.to_guest.len().saturating_sub(sent);
            let window = match before(self.nxt, self.edge) {
                true => self.edge.wrapping_sub(self.nxt) as usize,
                false => 0,
            };
            let len = unsent.min(window).min(self.longest());
            // Silly windows (RFC 9293, 3.8.6.2.1): a short piece goes only if it is the last, or nothing is in flight.
            let silly = len < unsent && len < usize::from(self.mss) && sent > 0;
            let last = sent <= self.to_guest.len() && len == unsent;
            let fin = self.host_ended && last && !self.fin_acked;
            if (len == 0 || silly) && !fin {
                break;
            }
            let mut flags = flag::ACK;
            if last && len > 0 {
                flags |= flag::PSH;
            }
            if fin {
                flags |= flag::FIN;
            }
            let segment = self.segment_of(self.nxt, flags);
            if !wire.send(
                &segment,
                self.to_guest.slices(sent.min(self.to_guest.len()), len),
            ) {
                self.blocked = true;
                return;
            }
            self.sent_window(&segment);
            self.fin_sent |= fin;
            self.nxt = self.nxt.wrapping_add(len as u32 + u32::from(fin));
            if before(self.max, self.nxt) {
                self.max = self.nxt;
            }
            if self.retransmit_at.is_none() {
                self.retransmit_at = Some(now + self.rto());
            }
        }
        // The window is closed, and its opening may get lost: it is asked for.
        let waits = !self.to_guest.is_empty() || (self.fin_sent && !self.fin_acked);
        match (waits, self.retransmit_at) {
            (true, None) => self.retransmit_at = Some(now + self.rto()),
            (false, Some(_)) if self.unanswered == 0 => {
                self.retransmit_at = None;
                self.backoff = 0;
            }
            _ => {}
        }
    }

    /// The longest piece: whole segments, as many as one packet carries.
    fn longest(&self) -> usize {
        let mss = usize::from(self.mss);
        (MAX_SEGMENT / mss).max(1) * mss
    }

    fn segment_of(&self, seq: u32, flags: u8) -> Outgoing {
        Outgoing {
            seq,
            ack: self.rcv_nxt,
            flags,
            window: self.window(),
            mss: self.mss,
            scale: None,
        }
    }

    /// The window as it is told.
    fn window(&self) -> u16 {
        let free = self.to_host.free() >> self.scale.unwrap_or(0);
        free.min(usize::from(u16::MAX)) as u16
    }

    /// Notes what the guest was told.
    fn sent_window(&mut self, segment: &Outgoing) {
        let window = u32::from(segment.window) << self.scale.unwrap_or(0);
        let told = segment.ack.wrapping_add(window);
        if before(self.told, told) {
            self.told = told;
        }
        self.ack_due = false;
    }

    /// Says what has come, or that there is room again.
    fn acknowledge(&mut self, wire: &mut impl Wire) {
        if self.probe_due {
            // A number that the guest has: it answers with what it expects and takes (RFC 9293, 3.8.4).
            let probe = self.segment_of(self.una.wrapping_sub(1), flag::ACK);
            if !wire.send(&probe, [&[], &[]]) {
                self.blocked = true;
                return;
            }
            self.probe_due = false;
            self.sent_window(&probe);
        }
        if !self.guest_ended && !self.ack_due {
            let open = self.told.wrapping_sub(self.rcv_nxt) as usize;
            let now = usize::from(self.window()) << self.scale.unwrap_or(0);
            let capacity = self
                .to_host
                .capacity()
                .min(usize::from(u16::MAX) << self.scale.unwrap_or(0));
            self.ack_due = open < capacity / 2 && now >= open + capacity / 4;
        }
        if self.ack_due {
            let ack = self.segment_of(self.nxt, flag::ACK);
            match wire.send(&ack, [&[], &[]]) {
                true => self.sent_window(&ack),
                false => self.blocked = true,
            }
        }
    }
}
