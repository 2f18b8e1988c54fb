//! A hostile guest on a wire of hull-net's: its frames as they are parsed and switched, and the TCP connections that it has
//! with the gateway, whose host is as strange.
//!
//! Whatever comes: nothing panics; a flow holds no more than its rings; what the host gets is what the guest has sent in
//! the order of its numbers; a frame that is passed on is valid again with the header that it is given, and a frame that is
//! built is valid; a guest that falls silent is forgotten.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use usernet::frame::{
    self, Echo, Link, MAX_HEADERS, Mac, Outgoing, Payload, Segment, Udp, flag, parse,
};
use usernet::network::switch::{Table, Verdict, verdict};
use usernet::tcp::{Flow, Host, Limits, Wire};

use crate::input::Input;

/// Most steps of an input.
const MAX_STEPS: usize = 400;
/// The most waits after which a flow whose guest is silent has to be gone.
const MAX_WAITS: usize = 64;
const MTU: u16 = 1500;
const GUEST: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 1, 0, 2));
const OTHER: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 3]), Ipv4Addr::new(10, 1, 0, 3));
const GATEWAY: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 1, 0, 1));
const LIMITS: Limits = Limits {
    capacity: 4096,
    mss: MTU - 40,
};

/// The target. The first byte chooses: frames as they are, or steps of a connection.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 3 {
        0 => frames(&mut input),
        kind => connection(&mut input, kind == 1),
    }
}

fn frames(input: &mut Input<'_>) {
    let mut table = Table::default();
    assert!(table.insert(1, GUEST) && table.insert(2, OTHER));
    for _ in 0..MAX_STEPS {
        let Some(len) = input.op() else {
            return;
        };
        let mut message = input.bytes(len.into()).to_vec();
        // What follows the bytes of the input: packets of any length are as cheap as short ones.
        message.resize(message.len() + usize::from(input.u8()) * 256, 0x5a);
        if input.u8() & 1 == 0 {
            mend(&mut message);
        }
        let Ok(frame) = parse(&message, MTU) else {
            continue;
        };
        let to = verdict(&frame, GUEST, GATEWAY, &table);
        assert!(!matches!(to, Verdict::Member(1)), "to itself");
        if let Payload::Ipv4(ip) = &frame.payload {
            assert!(to == Verdict::Dishonest || (frame.source, ip.source) == GUEST);
            let _ = Segment::parse(ip.payload);
            let _ = Udp::parse(ip.payload);
            let _ = Echo::request(ip.payload);
            frame::unreachable(&link(), 1, ip, |headers, quote| {
                valid(&[headers, quote].concat());
            });
        }
        let virtio = frame.virtio;
        if let Some(header) = message.first_chunk_mut() {
            virtio.write(header);
        }
        let again = parse(&message, MTU).expect("it was valid").virtio;
        assert_eq!(again, virtio, "what a neighbour reads is what was checked");
    }
}

/// Makes the checksum of an IPv4 header right.
fn mend(message: &mut [u8]) {
    let Some(ip) = message.get_mut(frame::IPV4_AT..) else {
        return;
    };
    let len = ip.first().map_or(0, |first| usize::from(first & 15) * 4);
    if let Some(header) = ip.get_mut(..len)
        && len >= frame::IPV4_LEN
    {
        header[10..12].fill(0);
        let sum = frame::checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn link() -> Link {
    Link {
        macs: (GATEWAY.0, GUEST.0),
        source: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80),
        destination: SocketAddrV4::new(GUEST.1, 4000),
    }
}

fn valid(message: &[u8]) {
    let frame = parse(message, MTU).expect("what is built is valid");
    assert_eq!((frame.source, frame.destination), (GATEWAY.0, GUEST.0));
}

/// The host's side: it takes and gives as the input says.
#[derive(Default)]
struct Socket {
    given: usize,
    room: usize,
    taken: Vec<u8>,
    ended: bool,
    failed: bool,
    shut: bool,
}

impl Host for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.shut, "written after the end");
        if self.failed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.taken.extend(&bytes[..count]);
        match count {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn read(&mut self, room: [&mut [u8]; 2]) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let [first, second] = room;
        let count = self.given.min(first.len() + second.len());
        self.given -= count;
        match count {
            0 if self.ended => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn shutdown(&mut self) -> io::Result<()> {
        assert!(!self.shut, "ended twice");
        self.shut = true;
        Ok(())
    }
}

/// The guest's side: what it was told last.
struct Guest {
    room: usize,
    seq: u32,
    ack: u32,
    segments: usize,
}

impl Wire for Guest {
    fn send(&mut self, segment: &Outgoing, payload: [&[u8]; 2]) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.segments += 1;
        let len = payload[0].len() + payload[1].len();
        let mut space = [0; MAX_HEADERS];
        let headers = frame::tcp(&mut space, &link(), segment, len);
        valid(&[&space[..headers], payload[0], payload[1]].concat());
        self.seq = segment.seq.wrapping_add(len as u32);
        if segment.flags & flag::RST == 0 {
            self.ack = segment.ack;
        }
        true
    }
}

/// The byte with this number, so that what the host gets can be compared.
fn byte(seq: u32) -> u8 {
    (seq ^ (seq >> 8)) as u8
}

fn connection(input: &mut Input<'_>, from_guest: bool) {
    let mut now = Instant::now();
    let (mut socket, mut guest) = (
        Socket::default(),
        Guest {
            room: 4,
            seq: 0,
            ack: 0,
            segments: 0,
        },
    );
    let iss = input.u32();
    let mut start = None;
    let mut flow = match from_guest {
        true => {
            let syn = segment(input.u32(), 0, flag::SYN, input.u16(), &[]);
            start = Some(syn.seq.wrapping_add(1));
            guest.ack = syn.seq.wrapping_add(1);
            Flow::from_guest(now, &syn, iss, LIMITS)
        }
        false => Flow::to_guest(now, iss, LIMITS),
    };
    for _ in 0..MAX_STEPS {
        let Some(op) = input.op() else {
            break;
        };
        match op % 8 {
            0 => flow.connected(),
            1 => {
                socket.given += usize::from(input.u16());
                flow.host_ready(true, false, false);
            }
            2 => {
                socket.room += usize::from(input.u16());
                flow.host_ready(false, true, false);
            }
            3 => {
                socket.ended |= op & 8 != 0;
                socket.failed |= op & 0xf0 == 0xf0;
                flow.host_ready(true, false, true);
            }
            4 => guest.room = usize::from(input.u8()),
            5 => {
                now += Duration::from_millis(u64::from(input.u16()) * 10);
                flow.expire(now);
            }
            _ => {
                // Near to what the guest was told, or anywhere.
                let flags = input.u8();
                let near = |number: u32, by: u16| number.wrapping_add_signed(i32::from(by as i16));
                let (mut seq, mut ack) =
                    (near(guest.ack, input.u16()), near(guest.seq, input.u16()));
                if op & 0x40 != 0 {
                    (seq, ack) = (guest.ack, guest.seq.wrapping_add(u32::from(op >> 7)));
                }
                let window = input.u16();
                let len = u32::from(input.u16() % 3000);
                let payload: Vec<u8> = (0..len).map(|i| byte(seq.wrapping_add(i))).collect();
                let was_open = flow.is_open();
                let sent = segment(seq, ack, flags, window, &payload);
                flow.segment(now, &sent, &mut socket);
                if !was_open && flow.is_open() && start.is_none() {
                    start = Some(seq.wrapping_add(1));
                }
            }
        }
        for _ in 0..3 {
            if !flow.pump(now, &mut socket, &mut guest) {
                break;
            }
        }
        assert!(
            flow.held() <= 2 * LIMITS.capacity,
            "more than there is room for"
        );
    }
    if let Some(start) = start {
        let right = socket.taken.iter().enumerate();
        for (i, taken) in right {
            assert_eq!(*taken, byte(start.wrapping_add(i as u32)), "byte {i}");
        }
    }
    finish(flow, now, socket, guest);
}

fn finish(mut flow: Flow, mut now: Instant, mut socket: Socket, mut guest: Guest) {
    for _ in 0..MAX_WAITS {
        if flow.end().is_some() || flow.is_connecting() {
            return;
        }
        guest.room = 16;
        flow.pump(now, &mut socket, &mut guest);
        let Some(deadline) = flow.deadline() else {
            continue;
        };
        now = now.max(deadline);
        flow.expire(now);
    }
    panic!("a flow that nobody answers lives on");
}

fn segment(seq: u32, ack: u32, flags: u8, window: u16, payload: &[u8]) -> Segment<'_> {
    Segment {
        ports: (4000, 80),
        seq,
        ack,
        flags,
        window,
        mss: Some(window),
        scale: (window & 1 == 0).then_some(window as u8),
        payload,
    }
}
