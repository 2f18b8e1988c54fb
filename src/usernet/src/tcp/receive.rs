//! What the guest sends.

use std::io;
use std::time::Instant;

use super::flow::{End, Flow, State};
use super::{Host, before};
use crate::frame::{Segment, flag};

/// Acknowledgments of the same byte after which what follows it counts as lost (RFC 5681, 3.2).
const DUPLICATES: u8 = 3;

impl Flow {
    /// A segment of the guest's (RFC 9293, 3.10.7). What it carries goes to `host` at once as far as that takes it.
    pub fn segment(&mut self, now: Instant, segment: &Segment<'_>, host: &mut impl Host) {
        match self.state {
            State::Ended(_) => {}
            State::Connecting => {
                if segment.has(flag::RST) && segment.seq == self.rcv_nxt {
                    self.state = State::Ended(End::ByGuest);
                }
            }
            State::SynSent => self.answered(now, segment),
            State::SynReceived | State::Open => self.synchronized(now, segment, host),
        }
    }

    /// The answer to our SYN.
    fn answered(&mut self, now: Instant, segment: &Segment<'_>) {
        let acks = segment.has(flag::ACK) && segment.ack == self.una.wrapping_add(1);
        if segment.has(flag::RST) {
            if acks {
                self.state = State::Ended(End::ByGuest);
            }
        } else if segment.has(flag::SYN) && acks {
            self.take_syn(segment);
            self.una = segment.ack;
            self.nxt = segment.ack;
            // A SYN's window is not scaled (RFC 7323, 2.2).
            self.edge = self.una.wrapping_add(u32::from(segment.window));
            self.state = State::Open;
            self.recover = self.una;
            self.progress(now);
            self.ack_due = true;
        }
    }

    fn synchronized(&mut self, now: Instant, segment: &Segment<'_>, host: &mut impl Host) {
        let ahead = segment.seq.wrapping_sub(self.rcv_nxt);
        let room = self.told.wrapping_sub(self.rcv_nxt);
        if segment.has(flag::RST) {
            // RFC 5961, 3.2: only the exact number resets.
            if ahead == 0 {
                self.state = State::Ended(End::ByGuest);
            } else if ahead < room {
                self.ack_due = true;
            }
            return;
        }
        if segment.has(flag::SYN) {
            // RFC 5961, 4.2; in SYN-RECEIVED it is the first one again, which has our SYN sent again.
            match self.state {
                State::SynReceived if ahead == u32::MAX => self.nxt = self.una,
                _ => self.ack_due = true,
            }
            return;
        }
        if !segment.has(flag::ACK) {
            return;
        }
        if self.state == State::SynReceived {
            if segment.ack != self.una.wrapping_add(1) {
                return;
            }
            self.una = segment.ack;
            self.nxt = segment.ack;
            self.recover = self.una;
            self.state = State::Open;
        }
        self.heard = now;
        self.unanswered = 0;
        if before(self.max, segment.ack) {
            // It acknowledges what was never sent.
            self.ack_due = true;
            return;
        }
        self.acknowledged(now, segment);
        self.data(segment, ahead, host);
    }

    fn acknowledged(&mut self, now: Instant, segment: &Segment<'_>) {
        if before(segment.ack, self.una) {
            return;
        }
        let edge = segment
            .ack
            .wrapping_add(u32::from(segment.window) << self.peer_scale);
        let count = segment.ack.wrapping_sub(self.una) as usize;
        if count > 0 {
            let data = count.min(self.to_guest.len());
            self.to_guest.consume(data);
            self.fin_acked |= count > data;
            self.una = segment.ack;
            if before(self.nxt, self.una) {
                self.nxt = self.una;
            }
            self.progress(now);
        } else if segment.payload.is_empty()
            && !segment.has(flag::FIN)
            && edge == self.edge
            && self.nxt != self.una
        {
            self.duplicates = self.duplicates.saturating_add(1);
            if self.duplicates == DUPLICATES && !before(self.una, self.recover) {
                self.recover = self.max;
                self.nxt = self.una;
            }
        }
        self.edge = edge;
    }

    /// The guest has acknowledged something new.
    fn progress(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = 0;
        self.backoff = 0;
        self.duplicates = 0;
        self.retransmit_at = (self.max != self.una).then(|| now + self.rto());
    }

    /// Takes what is new of a segment's data that starts `ahead` of what is expected.
    fn data(&mut self, segment: &Segment<'_>, ahead: u32, host: &mut impl Host) {
        let fin = segment.has(flag::FIN);
        if segment.payload.is_empty() && !fin {
            // A probe: it is before what is expected, and wants an answer.
            self.ack_due |= ahead != 0;
            return;
        }
        self.ack_due = true;
        let seen = ahead.wrapping_neg() as usize;
        if ahead != 0 && seen > segment.payload.len() {
            // All of it is known, or something before it is missing.
            return;
        }
        if self.guest_ended {
            return;
        }
        let fresh = &segment.payload[seen..];
        let taken = self.take(fresh, host);
        self.rcv_nxt = self.rcv_nxt.wrapping_add(taken as u32);
        if fin && taken == fresh.len() && self.end().is_none() {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
            self.guest_ended = true;
        }
    }

    /// Gives data to the host, or keeps it; what there is no room for is not taken.
    fn take(&mut self, bytes: &[u8], host: &mut impl Host) -> usize {
        let bytes = &bytes[..bytes.len().min(self.to_host.free())];
        let mut written = 0;
        if self.to_host.is_empty() {
            while self.host_writable && written < bytes.len() {
                written += self.write(&bytes[written..], host);
            }
        }
        written + self.to_host.push(&bytes[written..])
    }

    /// Writes some of the bytes, or learns that there is no room, or that the socket has failed.
    fn write(&mut self, bytes: &[u8], host: &mut impl Host) -> usize {
        match host.write(bytes) {
            Ok(count) => {
                self.host_writable = count > 0;
                count.min(bytes.len())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                self.host_writable = false;
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.host_failed = true;
                }
                0
            }
        }
    }

    /// Gives to the host what waits for it.
    pub(super) fn drain(&mut self, host: &mut impl Host) {
        while self.host_writable && !self.to_host.is_empty() {
            let to_host = std::mem::replace(&mut self.to_host, super::Ring::new(0));
            let [first, _] = to_host.slices(0, to_host.len());
            let written = self.write(first, host);
            self.to_host = to_host;
            self.to_host.consume(written);
        }
        let last = self.guest_ended && self.to_host.is_empty();
        if last && !self.host_shut && !self.host_failed {
            self.host_shut = true;
            self.host_failed = host.shutdown().is_err();
        }
    }
}
