//! Two flows face each other, each the other's guest, over wires that lose, double and reorder; hosts that take and give
//! a little at a time.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::frame::{Segment, flag};

const LIMITS: Limits = Limits {
    capacity: 16 << 10,
    mss: 1460,
};

/// A host's socket that is played.
#[derive(Debug, Default)]
struct Socket {
    /// What is to be read, and whether its end follows.
    input: VecDeque<u8>,
    ended: bool,
    /// What was written, how much more is taken, and whether the writing has ended.
    output: Vec<u8>,
    room: usize,
    shut: bool,
    failed: bool,
}

impl Host for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        assert!(!self.shut && !bytes.is_empty());
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.output.extend(&bytes[..count]);
        Ok(count)
    }

    fn read(&mut self, room: [&mut [u8]; 2]) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.input.is_empty() {
            return match self.ended {
                true => Ok(0),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let mut count = 0;
        for byte in room.into_iter().flatten() {
            let Some(next) = self.input.pop_front() else {
                break;
            };
            *byte = next;
            count += 1;
        }
        Ok(count)
    }

    fn shutdown(&mut self) -> io::Result<()> {
        assert!(!self.shut, "ended twice");
        self.shut = true;
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Sent {
    segment: Outgoing,
    payload: Vec<u8>,
}

impl Sent {
    fn segment(&self) -> Segment<'_> {
        let is_syn = self.segment.flags & flag::SYN != 0;
        Segment {
            ports: (1, 2),
            seq: self.segment.seq,
            ack: self.segment.ack,
            flags: self.segment.flags,
            window: self.segment.window,
            mss: is_syn.then_some(self.segment.mss),
            scale: self.segment.scale.filter(|_| is_syn),
            payload: &self.payload,
        }
    }
}

/// What is on its way, at most `room`.
#[derive(Debug)]
struct Queue {
    sent: VecDeque<Sent>,
    room: usize,
}

impl Wire for Queue {
    fn send(&mut self, segment: &Outgoing, payload: [&[u8]; 2]) -> bool {
        if self.sent.len() >= self.room {
            return false;
        }
        let (segment, payload) = (*segment, payload.concat());
        self.sent.push_back(Sent { segment, payload });
        true
    }
}

#[derive(Debug)]
struct Side {
    flow: Flow,
    socket: Socket,
    wire: Queue,
}

impl Side {
    fn new(flow: Flow) -> Side {
        Side {
            flow,
            socket: Socket::default(),
            wire: Queue {
                sent: VecDeque::new(),
                room: 8,
            },
        }
    }

    fn pump(&mut self, now: Instant) {
        while self.flow.pump(now, &mut self.socket, &mut self.wire) {}
        assert!(self.flow.held() <= 2 * LIMITS.capacity);
    }

    fn take(&mut self, now: Instant, sent: &Sent) {
        self.flow.segment(now, &sent.segment(), &mut self.socket);
        self.pump(now);
    }
}

/// Both, just open; `a` was asked by `b`.
fn open(now: Instant) -> (Side, Side) {
    let mut b = Side::new(Flow::to_guest(now, 0xffff_fff0, LIMITS));
    b.pump(now);
    let syn = b.wire.sent.pop_front().expect("a SYN");
    let mut a = Side::new(Flow::from_guest(now, &syn.segment(), 7, LIMITS));
    a.pump(now);
    assert!(a.wire.sent.is_empty(), "the host is not connected yet");
    a.flow.connected();
    a.pump(now);
    exchange(now, &mut a, &mut b);
    assert!(a.flow.is_open() && b.flow.is_open());
    (a, b)
}

/// Delivers everything, in order, until nothing comes any more.
fn exchange(now: Instant, a: &mut Side, b: &mut Side) {
    loop {
        let (Some(sent), from_a) = (match a.wire.sent.pop_front() {
            Some(sent) => (Some(sent), true),
            None => (b.wire.sent.pop_front(), false),
        }) else {
            return;
        };
        let (from, to) = if from_a {
            (&mut *a, &mut *b)
        } else {
            (&mut *b, &mut *a)
        };
        to.take(now, &sent);
        from.pump(now);
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn both_ways_end_on_their_own() {
    let now = Instant::now();
    let (mut a, mut b) = open(now);
    a.socket.input.extend(bytes(5000));
    a.socket.ended = true;
    b.socket.room = 5000;
    a.flow.host_ready(true, false, true);
    a.pump(now);
    exchange(now, &mut a, &mut b);
    assert_eq!(b.socket.output, bytes(5000));
    assert!(b.socket.shut && !a.socket.shut);
    assert_eq!((a.flow.end(), b.flow.end()), (None, None));
    b.socket.input.extend(bytes(300));
    b.socket.ended = true;
    a.socket.room = 300;
    b.flow.host_ready(true, false, true);
    b.pump(now);
    exchange(now, &mut a, &mut b);
    assert_eq!(a.socket.output, bytes(300));
    assert!(a.socket.shut);
    assert_eq!(
        (a.flow.end(), b.flow.end()),
        (Some(End::Closed), Some(End::Closed))
    );
}

#[test]
fn a_socket_that_takes_nothing_closes_the_window_and_opens_it_again() {
    let now = Instant::now();
    let (mut a, mut b) = open(now);
    a.socket.input.extend(bytes(100_000));
    a.flow.host_ready(true, false, false);
    a.pump(now);
    exchange(now, &mut a, &mut b);
    // What both rings hold, and no more, has left the socket.
    let held = a.flow.held() + b.flow.held();
    assert_eq!(a.socket.input.len(), 100_000 - held);
    assert_eq!(held, 2 * LIMITS.capacity);
    // The wire is quiet but for probes, which are answered.
    let mut later = now;
    for _ in 0..40 {
        later = a.flow.deadline().expect("a probe").max(later);
        a.flow.expire(later);
        a.pump(later);
        exchange(later, &mut a, &mut b);
    }
    assert_eq!((a.flow.end(), b.flow.end()), (None, None));
    b.socket.room = 100_000;
    b.flow.host_ready(false, true, false);
    b.pump(later);
    exchange(later, &mut a, &mut b);
    assert_eq!(b.socket.output, bytes(100_000));
}

#[test]
fn resets_go_through() {
    let now = Instant::now();
    let (mut a, mut b) = open(now);
    a.socket.failed = true;
    a.flow.host_ready(true, false, true);
    a.pump(now);
    assert_eq!(a.flow.end(), Some(End::ByHost));
    exchange(now, &mut a, &mut b);
    assert_eq!(b.flow.end(), Some(End::ByGuest));
}

#[test]
fn a_reset_with_a_number_that_was_guessed_does_nothing() {
    let now = Instant::now();
    let (mut a, _) = open(now);
    for guess in [0, 1, 0xffff_fff0, 0xffff_ffff, 5000, 0x8000_0000] {
        let reset = Sent {
            segment: Outgoing {
                seq: guess,
                ack: 0,
                flags: flag::RST,
                window: 0,
                mss: 0,
                scale: None,
            },
            payload: Vec::new(),
        };
        if guess != 0xffff_fff1 {
            a.take(now, &reset);
        }
        assert_eq!(a.flow.end(), None, "{guess:x}");
    }
}

#[test]
fn a_guest_that_falls_silent_is_given_up_in_the_end() {
    let now = Instant::now();
    let (mut a, b) = open(now);
    drop(b);
    let mut later = now;
    let mut waits = 0;
    while a.flow.end().is_none() {
        later = a.flow.deadline().expect("it waits for something");
        a.flow.expire(later);
        a.pump(later);
        a.wire.sent.clear();
        waits += 1;
        assert!(waits < 100);
    }
    assert_eq!(a.flow.end(), Some(End::Silence));
    let waited = later - now;
    assert!((Duration::from_secs(300)..Duration::from_secs(1200)).contains(&waited));
}

#[test]
fn a_guest_that_does_not_want_the_connection_ends_it() {
    let now = Instant::now();
    let mut b = Side::new(Flow::to_guest(now, 100, LIMITS));
    b.pump(now);
    let reset = |ack| Sent {
        segment: Outgoing {
            seq: 0,
            ack,
            flags: flag::RST | flag::ACK,
            window: 0,
            mss: 0,
            scale: None,
        },
        payload: Vec::new(),
    };
    b.take(now, &reset(100));
    assert_eq!(b.flow.end(), None);
    b.take(now, &reset(101));
    assert_eq!(b.flow.end(), Some(End::ByGuest));
}

/// What happens to the next segment of a side, by a number that the input gives.
fn deliver(now: Instant, fate: u8, from: &mut Side, to: &mut Side) {
    let len = from.wire.sent.len();
    if len == 0 {
        return;
    }
    match fate % 8 {
        0 => drop(from.wire.sent.pop_front()),
        1 => from.wire.sent.rotate_left(1),
        2 => {
            let sent = from.wire.sent[len - 1].clone();
            to.take(now, &sent);
        }
        _ => {
            if let Some(sent) = from.wire.sent.pop_front() {
                to.take(now, &sent);
            }
        }
    }
    from.pump(now);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the wire does for a while, everything arrives once it does better.
    #[test]
    fn what_is_sent_arrives_whatever_the_wire_does(
        lens in (0usize..60_000, 0usize..60_000),
        fates in proptest::collection::vec((any::<u8>(), any::<u8>(), 0usize..9000), 0..300),
    ) {
        let mut now = Instant::now();
        let (mut a, mut b) = open(now);
        for (side, len) in [(&mut a, lens.0), (&mut b, lens.1)] {
            side.socket.input.extend(bytes(len));
            side.socket.ended = true;
            side.flow.host_ready(true, false, true);
            side.pump(now);
        }
        for (what, fate, room) in fates {
            match what % 8 {
                0..=2 => deliver(now, fate, &mut a, &mut b),
                3..=5 => deliver(now, fate, &mut b, &mut a),
                6 => {
                    for side in [&mut a, &mut b] {
                        side.socket.room = room;
                        side.flow.host_ready(false, true, false);
                        side.pump(now);
                    }
                }
                _ => {
                    now += Duration::from_millis(u64::from(fate) * 10);
                    for side in [&mut a, &mut b] {
                        side.flow.expire(now);
                        side.pump(now);
                    }
                }
            }
        }
        // From now on nothing is lost.
        for _ in 0..2000 {
            for side in [&mut a, &mut b] {
                side.socket.room = 10_000;
                side.flow.host_ready(false, true, false);
                side.pump(now);
            }
            exchange(now, &mut a, &mut b);
            if a.socket.shut && b.socket.shut {
                break;
            }
            let deadlines = [a.flow.deadline(), b.flow.deadline()];
            now = deadlines.into_iter().flatten().min().unwrap_or(now).max(now);
            for side in [&mut a, &mut b] {
                side.flow.expire(now);
                side.pump(now);
            }
        }
        prop_assert_eq!(&b.socket.output, &bytes(lens.0));
        prop_assert_eq!(&a.socket.output, &bytes(lens.1));
        prop_assert!(a.socket.shut && b.socket.shut);
    }
}
