//! Frames as guests write them, right and wrong.

use std::net::SocketAddrV4;

use proptest::prelude::*;

use super::super::{Echo, MAX_FRAME};
use super::super::{
    IPV4_AT, Link, MAX_HEADERS, Outgoing, arp_reply, datagram, echo, tcp, unreachable,
};
use super::*;

const A: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 80);
const B: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 2), 4000);
const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
const LINK: Link = Link {
    macs: MACS,
    source: A,
    destination: B,
};

fn segment(len: usize) -> Vec<u8> {
    let outgoing = Outgoing {
        seq: 1,
        ack: 2,
        flags: flag::ACK,
        window: 3,
        mss: 1460,
        scale: None,
    };
    let mut space = [0; MAX_HEADERS];
    let headers = tcp(&mut space, &LINK, &outgoing, len);
    [&space[..headers], &vec![7; len]].concat()
}

fn ip(message: &[u8]) -> Ipv4<'_> {
    let frame = parse(message, 1500).unwrap();
    assert_eq!((frame.source, frame.destination), MACS);
    match frame.payload {
        Payload::Ipv4(ip) => {
            assert_eq!((ip.source, ip.destination), (*A.ip(), *B.ip()));
            ip
        }
        Payload::Arp(_) => panic!("not IPv4"),
    }
}

/// The checksum over the pseudo header and the payload: 0 if it is right.
fn transport_sum(ip: &Ipv4<'_>) -> u16 {
    let pseudo = pseudo(ip.source, ip.destination, ip.protocol, ip.payload.len());
    !(sum(pseudo, ip.payload) as u16)
}

#[test]
fn segments_read_back_as_they_were_built() {
    let message = segment(1000);
    let parsed = Segment::parse(ip(&message).payload).unwrap();
    assert_eq!((parsed.ports, parsed.seq, parsed.ack), ((80, 4000), 1, 2));
    assert_eq!((parsed.flags, parsed.window), (flag::ACK, 3));
    assert_eq!(parsed.payload, [7; 1000]);
    let long = segment(60_000);
    let frame = parse(&long, 1500).unwrap();
    assert_eq!((frame.virtio.gso_size, frame.virtio.hdr_len), (1460, 54));
    // A receiver completes the checksum from the sum that is there.
    let mut completed = message.clone();
    let sum = checksum(&completed[IPV4_AT + IPV4_LEN..]);
    completed[IPV4_AT + IPV4_LEN + 16..][..2].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(transport_sum(&ip(&completed)), 0);
}

#[test]
fn a_syn_carries_its_options() {
    for scale in [None, Some(9)] {
        let syn = Outgoing {
            seq: 1,
            ack: 0,
            flags: flag::SYN,
            window: 3,
            mss: 1460,
            scale,
        };
        let mut space = [0; MAX_HEADERS];
        let len = tcp(&mut space, &LINK, &syn, 0);
        let parsed = Segment::parse(ip(&space[..len]).payload).unwrap();
        assert_eq!((parsed.mss, parsed.scale), (Some(1460), scale));
        assert!(parsed.payload.is_empty());
    }
}

#[test]
fn options_that_make_no_sense_are_passed_over() {
    let mut syn = vec![0; 28];
    syn[12] = 7 << 4;
    syn[13] = flag::SYN;
    let with = |options: [u8; 8]| {
        let mut syn = syn.clone();
        syn[20..].copy_from_slice(&options);
        let parsed = Segment::parse(&syn).unwrap();
        (parsed.mss, parsed.scale)
    };
    assert_eq!(with([1, 1, 1, 3, 3, 7, 0, 0]), (None, Some(7)));
    assert_eq!(with([8, 3, 0, 2, 4, 5, 180, 0]), (Some(1460), None));
    assert_eq!(with([8, 1, 2, 4, 5, 180, 0, 0]), (None, None));
    assert_eq!(with([2, 0, 5, 180, 3, 3, 7, 0]), (None, None));
    assert_eq!(with([2, 4, 5, 180, 3, 255, 7, 0]), (Some(1460), None));
    assert_eq!(with([0, 2, 4, 5, 180, 0, 0, 0]), (None, None));
    assert_eq!(with([2, 4, 5, 180, 1, 1, 1, 3]), (Some(1460), None));
}

#[test]
fn datagrams_read_back_whole_or_in_parts() {
    for len in [0, 1, 1472, 1473, 4000, 65_507] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
        let mut frames = Vec::new();
        datagram(&LINK, 9, 1500, &payload, |headers, part| {
            frames.push([headers, part].concat());
        });
        assert_eq!(frames.len() > 1, len > 1472);
        let mut whole = Vec::new();
        for (i, frame) in frames.iter().enumerate() {
            let ip = ip(frame);
            if let Some(fragment) = ip.fragment {
                assert_eq!(
                    (fragment.id, usize::from(fragment.offset)),
                    (9, whole.len())
                );
                assert_eq!(fragment.more, i + 1 < frames.len());
            }
            whole.extend(ip.payload);
        }
        let udp = Udp::parse(&whole).unwrap();
        assert_eq!(udp.ports, (80, 4000));
        assert_eq!(udp.payload, payload);
        if frames.len() > 1 {
            let ip = Ipv4 {
                payload: &whole,
                fragment: None,
                ..ip(&frames[0])
            };
            assert_eq!(transport_sum(&ip), 0);
        }
    }
}

#[test]
fn echoes_and_errors_have_right_checksums() {
    let request = Echo {
        id: 1,
        seq: 2,
        data: b"data",
    };
    let mut message = Vec::new();
    echo(&LINK, 1500, &request, |headers, data| {
        message = [headers, data].concat()
    });
    let reply = ip(&message);
    assert_eq!(checksum(reply.payload), 0);
    assert_eq!(Echo::reply(reply.payload), Some(request));
    assert_eq!(Echo::request(reply.payload), None);
    let sent = segment(10);
    unreachable(&LINK, 1, &ip(&sent), |headers, quote| {
        message = [headers, quote].concat()
    });
    let error = ip(&message);
    assert_eq!(checksum(error.payload), 0);
    assert_eq!(error.payload[..2], [3, 1]);
    assert_eq!(error.payload[8..], sent[IPV4_AT..][..28]);
}

#[test]
fn arp_reads_back() {
    let message = arp_reply((MACS.0, *A.ip()), (MACS.1, *B.ip()));
    let frame = parse(&message, 1500).unwrap();
    let expected = Arp {
        is_request: false,
        sender: (MACS.0, *A.ip()),
        target: *B.ip(),
    };
    assert_eq!(frame.payload, Payload::Arp(expected));
}

#[test]
fn headers_that_do_not_fit_their_packets_are_invalid() {
    let good = segment(3000);
    assert!(parse(&good, 1500).is_ok());
    let with = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        parse(&message, 1500).map(|_| ())
    };
    // Flags, kind, size, start and offset of the checksum.
    for (at, value) in [(0, 0), (1, 3), (1, 4), (5, 0xff), (6, 33), (7, 1), (8, 6)] {
        assert_eq!(with(at, value), Err(Invalid::Header), "{at} {value}");
    }
    // Segments too short to be honest.
    let mut tiny = good.clone();
    tiny[4..6].copy_from_slice(&(MIN_GSO_SIZE - 1).to_le_bytes());
    assert_eq!(parse(&tiny, 1500).err(), Some(Invalid::Header));
    // Without segmentation it is too long.
    assert_eq!(with(1, 0), Err(Invalid::Long));
    // A TCP header that is longer than its packet, or none.
    for value in [0x40, 0x00] {
        assert_eq!(with(IPV4_AT + IPV4_LEN + 12, value), Err(Invalid::Header));
    }
    // IPv4: version and length, a length beyond the end, a checksum.
    for (at, value) in [(0, 0x65), (0, 0x44), (0, 0x4f), (10, 0x11)] {
        assert_eq!(with(IPV4_AT + at, value), Err(Invalid::Malformed), "{at}");
    }
    assert_eq!(with(IPV4_AT + 2, 0xff), Err(Invalid::Short));
    assert_eq!(with(IPV4_AT - 2, 0x86), Err(Invalid::Type));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..60) {
        let _ = parse(&bytes, 1500);
        let _ = Segment::parse(&bytes);
        let _ = Udp::parse(&bytes);
        // Beside those that are nearly right.
        let mut message = segment(100);
        for (to, from) in message[at..].iter_mut().zip(&bytes) {
            *to = *from;
        }
        if let Ok(frame) = parse(&message, 1500)
            && let Payload::Ipv4(ip) = frame.payload
        {
            prop_assert!(ip.header.len() + ip.payload.len() <= MAX_FRAME);
            let _ = Segment::parse(ip.payload);
        }
    }
}
