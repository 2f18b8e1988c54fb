//! Headers of what the gateway sends to a member.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::parse::pseudo;
use super::virtio::{self, Virtio};
use super::{
    ETHERNET_LEN, IPV4_AT, IPV4_LEN, Ipv4, Mac, TCP_LEN, UDP_LEN, checksum, flag, protocol, sum,
};

/// Bytes of the options of a SYN: MSS, and a window's scale after a NOP.
pub const TCP_OPTIONS: usize = 8;
/// The longest headers that are made here.
pub const MAX_HEADERS: usize = IPV4_AT + IPV4_LEN + TCP_LEN + TCP_OPTIONS;
/// Lifetime of packets: nothing is routed behind the wire.
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// ICMP's types (RFC 792).
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const UNREACHABLE: u8 = 3;
/// Bytes of a packet's payload that an ICMP error quotes.
const QUOTED: usize = 8;

/// Between whom a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Ethernet's addresses: the gateway's and the member's.
    pub macs: (Mac, Mac),
    /// Whom the member shall take for the sender.
    pub source: SocketAddrV4,
    /// The member, and its port.
    pub destination: SocketAddrV4,
}

/// A TCP segment that goes to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// SEG.WND, scaled.
    pub window: u16,
    /// Payload of the longest packet that the receiver takes; what is longer is left to it to segment. Said in a SYN.
    pub mss: u16,
    /// Said in a SYN.
    pub scale: Option<u8>,
}

/// Writes the headers of a segment with `len` bytes of payload into `space`; their length.
pub fn tcp(space: &mut [u8; MAX_HEADERS], link: &Link, segment: &Outgoing, len: usize) -> usize {
    let options = match (segment.flags & flag::SYN != 0, segment.scale) {
        (false, _) => 0,
        (true, None) => 4,
        (true, Some(_)) => TCP_OPTIONS,
    };
    let tcp_len = TCP_LEN + options;
    let headers = IPV4_AT + IPV4_LEN + tcp_len;
    let gso_size = match len > usize::from(segment.mss) {
        true => segment.mss,
        false => 0,
    };
    let virtio = Virtio {
        needs_csum: true,
        gso_size,
        hdr_len: (headers - virtio::LEN) as u16,
        csum_start: (ETHERNET_LEN + IPV4_LEN) as u16,
        csum_offset: 16,
    };
    start(
        space,
        virtio,
        link,
        protocol::TCP,
        tcp_len + len,
        DONT_FRAGMENT,
        0,
    );
    let tcp = &mut space[IPV4_AT + IPV4_LEN..headers];
    tcp[..2].copy_from_slice(&link.source.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&link.destination.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    tcp[12] = (tcp_len as u8 / 4) << 4;
    tcp[13] = segment.flags;
    tcp[14..16].copy_from_slice(&segment.window.to_be_bytes());
    let (source, destination) = (*link.source.ip(), *link.destination.ip());
    let sum = pseudo(source, destination, protocol::TCP, tcp_len + len) as u16;
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    tcp[18..20].fill(0);
    if options > 0 {
        let [high, low] = segment.mss.to_be_bytes();
        tcp[20..24].copy_from_slice(&[2, 4, high, low]);
    }
    if options > 4 {
        tcp[24..28].copy_from_slice(&[1, 3, 3, segment.scale.unwrap_or(0)]);
    }
    headers
}

/// Hands a datagram to `send` as frames, several where it is longer than the MTU: headers, and a part of the payload.
pub fn datagram(
    link: &Link,
    id: u16,
    mtu: u16,
    payload: &[u8],
    mut send: impl FnMut(&[u8], &[u8]),
) {
    let Ok(len) = u16::try_from(UDP_LEN + payload.len()) else {
        return;
    };
    let (source, destination) = (*link.source.ip(), *link.destination.ip());
    let mut udp = [0; UDP_LEN];
    udp[..2].copy_from_slice(&link.source.port().to_be_bytes());
    udp[2..4].copy_from_slice(&link.destination.port().to_be_bytes());
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    let partial = pseudo(source, destination, protocol::UDP, usize::from(len));
    let mut space = [0; MAX_HEADERS];
    let headers = IPV4_AT + IPV4_LEN + UDP_LEN;
    if IPV4_LEN + usize::from(len) <= usize::from(mtu) {
        let virtio = Virtio {
            needs_csum: true,
            csum_start: (ETHERNET_LEN + IPV4_LEN) as u16,
            csum_offset: 6,
            ..Virtio::default()
        };
        udp[6..].copy_from_slice(&(partial as u16).to_be_bytes());
        start(
            &mut space,
            virtio,
            link,
            protocol::UDP,
            usize::from(len),
            0,
            id,
        );
        space[IPV4_AT + IPV4_LEN..headers].copy_from_slice(&udp);
        return send(&space[..headers], payload);
    }
    // A part's checksum cannot be left to the receiver. RFC 768: 0 means that there is none.
    let whole = !(sum(sum(partial, &udp), payload) as u16);
    let whole = if whole == 0 { 0xffff } else { whole };
    udp[6..].copy_from_slice(&whole.to_be_bytes());
    let most = (usize::from(mtu) - IPV4_LEN) & !7;
    let mut at = 0;
    while at < usize::from(len) {
        let part = most.min(usize::from(len) - at);
        let more = at + part < usize::from(len);
        let place = (at / 8) as u16 | if more { MORE_FRAGMENTS } else { 0 };
        start(
            &mut space,
            Virtio::default(),
            link,
            protocol::UDP,
            part,
            place,
            id,
        );
        let (first, rest) = match at {
            0 => (UDP_LEN, &payload[..part - UDP_LEN]),
            _ => (0, &payload[at - UDP_LEN..][..part]),
        };
        space[IPV4_AT + IPV4_LEN..][..first].copy_from_slice(&udp[..first]);
        send(&space[..IPV4_AT + IPV4_LEN + first], rest);
        at += part;
    }
}

/// The headers before an IPv4 packet's payload of `len` bytes.
fn start(
    space: &mut [u8; MAX_HEADERS],
    virtio: Virtio,
    link: &Link,
    protocol: u8,
    len: usize,
    place: u16,
    id: u16,
) {
    if let Some(bytes) = space.first_chunk_mut() {
        virtio.write(bytes);
    }
    ethernet(&mut space[virtio::LEN..], link.macs, 0x0800);
    let header = &mut space[IPV4_AT..][..IPV4_LEN];
    header.fill(0);
    header[0] = 0x45;
    // At most what a caller could take from a packet or send in one.
    header[2..4].copy_from_slice(&((IPV4_LEN + len) as u16).to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&place.to_be_bytes());
    header[8] = TTL;
    header[9] = protocol;
    header[12..16].copy_from_slice(&link.source.ip().octets());
    header[16..20].copy_from_slice(&link.destination.ip().octets());
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn ethernet(frame: &mut [u8], (source, destination): (Mac, Mac), kind: u16) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
}

/// An ICMP echo: a request or its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Identifier.
    pub id: u16,
    /// Sequence number.
    pub seq: u16,
    /// Data.
    pub data: &'a [u8],
}

impl<'a> Echo<'a> {
    /// The request in an IPv4 packet's payload.
    pub fn request(bytes: &'a [u8]) -> Option<Echo<'a>> {
        Echo::parse(bytes, ECHO_REQUEST)
    }

    /// The reply in what a ping socket gives.
    pub fn reply(bytes: &'a [u8]) -> Option<Echo<'a>> {
        Echo::parse(bytes, ECHO_REPLY)
    }

    fn parse(bytes: &'a [u8], kind: u8) -> Option<Echo<'a>> {
        let (header, data) = bytes.split_at_checked(UDP_LEN)?;
        let found = header[..2] == [kind, 0];
        found.then(|| Echo {
            id: u16::from_be_bytes([header[4], header[5]]),
            seq: u16::from_be_bytes([header[6], header[7]]),
            data,
        })
    }

    /// The header of the request, with its checksum.
    pub fn request_header(&self) -> [u8; UDP_LEN] {
        self.header(ECHO_REQUEST)
    }

    fn header(&self, kind: u8) -> [u8; UDP_LEN] {
        let [id, seq] = [self.id, self.seq].map(u16::to_be_bytes);
        let mut header = [kind, 0, 0, 0, id[0], id[1], seq[0], seq[1]];
        let sum = !(sum(sum(0, &header), self.data) as u16);
        header[2..4].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

/// Hands the reply of an echo to `send`, if a packet can carry it without parts.
pub fn echo(link: &Link, mtu: u16, echo: &Echo<'_>, send: impl FnOnce(&[u8], &[u8])) {
    let len = UDP_LEN + echo.data.len();
    if IPV4_LEN + len > usize::from(mtu) {
        return;
    }
    icmp(link, &echo.header(ECHO_REPLY), echo.data, send);
}

/// Hands an ICMP error about `packet` (RFC 792: destination unreachable, with this code) to `send`.
pub fn unreachable(link: &Link, code: u8, packet: &Ipv4<'_>, send: impl FnOnce(&[u8], &[u8])) {
    let quoted = &packet.payload[..packet.payload.len().min(QUOTED)];
    let quote = [packet.header, quoted].concat();
    let mut header = [UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    let sum = !(sum(sum(0, &header), &quote) as u16);
    header[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp(link, &header, &quote, send);
}

/// Hands an ICMP message to `send`: everything before the data, and the data.
fn icmp(link: &Link, header: &[u8; UDP_LEN], data: &[u8], send: impl FnOnce(&[u8], &[u8])) {
    let mut space = [0; MAX_HEADERS];
    let len = UDP_LEN + data.len();
    start(
        &mut space,
        Virtio::default(),
        link,
        protocol::ICMP,
        len,
        0,
        0,
    );
    let headers = IPV4_AT + IPV4_LEN + UDP_LEN;
    space[IPV4_AT + IPV4_LEN..headers].copy_from_slice(header);
    send(&space[..headers], data);
}

/// The answer that `address` is at the sender's.
pub fn arp_reply(
    (mac, address): (Mac, Ipv4Addr),
    (to, to_address): (Mac, Ipv4Addr),
) -> [u8; IPV4_AT + 28] {
    let mut frame = [0; IPV4_AT + 28];
    ethernet(&mut frame[virtio::LEN..], (mac, to), 0x0806);
    let arp = &mut frame[IPV4_AT..];
    arp[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    arp[8..14].copy_from_slice(&mac.0);
    arp[14..18].copy_from_slice(&address.octets());
    arp[18..24].copy_from_slice(&to.0);
    arp[24..].copy_from_slice(&to_address.octets());
    frame
}
