//! From bytes that a guest wrote to values.

use std::net::Ipv4Addr;

use super::virtio::{self, Virtio};
use super::{ETHERNET_LEN, IPV4_LEN, Mac, TCP_LEN, UDP_LEN, checksum, flag, protocol, sum};

/// Values of Ethernet's type field.
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
/// Bytes of an ARP packet for Ethernet and IPv4, and its first six: both types, both lengths (RFC 826).
const ARP_LEN: usize = 28;
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// TCP's options (RFC 9293, 3.1; RFC 7323, 2).
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_SCALE: u8 = 3;
/// The least payload of a segment that a guest may ask a neighbour to make of its packet: Linux's least MSS of 48
/// bytes less a timestamp. With less, 64 KiB would be tens of thousands of packets.
const MIN_GSO_SIZE: u16 = 36;

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Its header is none of those that were offered, or does not fit what follows.
    #[error("its header does not fit its packet")]
    Header,
    /// It ends before it should.
    #[error("it is too short")]
    Short,
    /// It is longer than the MTU and is not to be segmented.
    #[error("it is too long")]
    Long,
    /// Neither ARP nor IPv4.
    #[error("it is neither ARP nor IPv4")]
    Type,
    /// Fields that contradict each other, or a wrong checksum of an IPv4 header.
    #[error("its packet is malformed")]
    Malformed,
}

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header with which it may be passed on: checked, and without what a receiver need not know.
    pub virtio: Virtio,
    /// Whom it is for.
    pub destination: Mac,
    /// Who says to have sent it.
    pub source: Mac,
    /// What is in it.
    pub payload: Payload<'a>,
}

/// What is in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// ARP.
    Arp(Arp),
    /// IPv4.
    Ipv4(Ipv4<'a>),
}

/// A question for an address, or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Whether it is the question.
    pub is_request: bool,
    /// Addresses of the sender.
    pub sender: (Mac, Ipv4Addr),
    /// The address that is asked for.
    pub target: Ipv4Addr,
}

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4<'a> {
    /// Who says to have sent it.
    pub source: Ipv4Addr,
    /// Whom it is for.
    pub destination: Ipv4Addr,
    /// What is in it: one of [`protocol`], perhaps.
    pub protocol: u8,
    /// Where in a packet it belongs, if it is only a part.
    pub fragment: Option<Fragment>,
    /// Its header with options.
    pub header: &'a [u8],
    /// What follows the header, without Ethernet's padding.
    pub payload: &'a [u8],
}

/// A place in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The packet, among those of its sender, receiver and protocol.
    pub id: u16,
    /// The first byte's place.
    pub offset: u16,
    /// Whether it is not the last.
    pub more: bool,
}

/// Parses a message of a wire, on a network of this MTU.
pub fn parse(message: &[u8], mtu: u16) -> Result<Frame<'_>, Invalid> {
    let virtio = Virtio::parse(message).ok_or(Invalid::Header)?;
    let frame = &message[virtio::LEN..];
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_LEN).ok_or(Invalid::Short)?;
    if virtio.gso_size == 0 && packet.len() > usize::from(mtu) {
        return Err(Invalid::Long);
    }
    let payload = match u16_at(ethernet, 12) {
        ETHERTYPE_IPV4 => Payload::Ipv4(ipv4(packet)?),
        ETHERTYPE_ARP => Payload::Arp(arp(packet)?),
        _ => return Err(Invalid::Type),
    };
    Ok(Frame {
        virtio: checked(virtio, &payload, packet.len(), mtu)?,
        destination: mac_at(ethernet, 0),
        source: mac_at(ethernet, 6),
        payload,
    })
}

/// The header for this payload, if it says nothing that is not so: a checksum is that of TCP or UDP, and what is to be
/// segmented is a whole TCP packet without padding.
fn checked(virtio: Virtio, payload: &Payload<'_>, len: usize, mtu: u16) -> Result<Virtio, Invalid> {
    if !virtio.needs_csum && virtio.gso_size == 0 {
        return Ok(Virtio::default());
    }
    let Payload::Ipv4(ip) = payload else {
        return Err(Invalid::Header);
    };
    let start = ETHERNET_LEN + ip.header.len();
    let (offset, least) = match ip.protocol {
        protocol::TCP => (16, TCP_LEN),
        protocol::UDP => (6, UDP_LEN),
        _ => return Err(Invalid::Header),
    };
    let fits = virtio.needs_csum
        && ip.fragment.is_none()
        && usize::from(virtio.csum_start) == start
        && virtio.csum_offset == offset
        && ip.payload.len() >= least;
    if !fits {
        return Err(Invalid::Header);
    }
    if virtio.gso_size == 0 {
        return Ok(Virtio {
            hdr_len: 0,
            ..virtio
        });
    }
    let whole = ip.header.len() + ip.payload.len() == len;
    if ip.protocol != protocol::TCP
        || !whole
        || virtio.gso_size < MIN_GSO_SIZE
        || virtio.gso_size > mtu
    {
        return Err(Invalid::Header);
    }
    let tcp = usize::from(ip.payload[12] >> 4) * 4;
    if tcp < TCP_LEN || tcp > ip.payload.len() {
        return Err(Invalid::Header);
    }
    let hdr_len = (start + tcp) as u16;
    if usize::from(hdr_len) - ETHERNET_LEN + usize::from(virtio.gso_size) > usize::from(mtu) {
        return Err(Invalid::Header);
    }
    Ok(Virtio { hdr_len, ..virtio })
}

fn arp(packet: &[u8]) -> Result<Arp, Invalid> {
    let packet: &[u8; ARP_LEN] = packet.first_chunk().ok_or(Invalid::Short)?;
    if packet[..6] != ARP_ETHERNET_IPV4 {
        return Err(Invalid::Malformed);
    }
    let is_request = match u16_at(packet, 6) {
        1 => true,
        2 => false,
        _ => return Err(Invalid::Malformed),
    };
    Ok(Arp {
        is_request,
        sender: (mac_at(packet, 8), address_at(packet, 14)),
        target: address_at(packet, 24),
    })
}

fn ipv4(packet: &[u8]) -> Result<Ipv4<'_>, Invalid> {
    if packet.len() < IPV4_LEN {
        return Err(Invalid::Short);
    }
    let header_len = usize::from(packet[0] & 0xf) * 4;
    let total = usize::from(u16_at(packet, 2));
    if packet[0] >> 4 != 4 || header_len < IPV4_LEN || total < header_len {
        return Err(Invalid::Malformed);
    }
    if total > packet.len() {
        return Err(Invalid::Short);
    }
    let (header, payload) = packet[..total].split_at(header_len);
    if checksum(header) != 0 {
        return Err(Invalid::Malformed);
    }
    let place = u16_at(header, 6);
    let (offset, more) = ((place & 0x1fff) << 3, place & 0x2000 != 0);
    let fragment = (offset != 0 || more).then(|| Fragment {
        id: u16_at(header, 4),
        offset,
        more,
    });
    // The ping of death: a part that ends beyond the longest packet.
    if usize::from(offset) + total > usize::from(u16::MAX) {
        return Err(Invalid::Malformed);
    }
    Ok(Ipv4 {
        source: address_at(header, 12),
        destination: address_at(header, 16),
        protocol: header[9],
        fragment,
        header,
        payload,
    })
}

/// A TCP segment (RFC 9293, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Ports: the sender's and the receiver's.
    pub ports: (u16, u16),
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// SEG.WND, before it is scaled.
    pub window: u16,
    /// The sender's limit of segments, of a SYN.
    pub mss: Option<u16>,
    /// The shift of the sender's windows, of a SYN.
    pub scale: Option<u8>,
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The one in an IPv4 packet.
    pub fn parse(bytes: &'a [u8]) -> Option<Segment<'a>> {
        let header: &[u8; TCP_LEN] = bytes.first_chunk()?;
        let (options, payload) = bytes.split_at_checked(usize::from(header[12] >> 4) * 4)?;
        let mut options = options.get(TCP_LEN..)?;
        let flags = header[13] & 0x1f;
        let (mut mss, mut scale) = (None, None);
        if flags & flag::SYN == 0 {
            options = &[];
        }
        loop {
            let len = match options {
                [] | [OPTION_END, ..] | [_] => break,
                [OPTION_NOP, rest @ ..] => {
                    options = rest;
                    continue;
                }
                [kind, len, ..] => {
                    match (*kind, &options[2..]) {
                        (OPTION_MSS, [high, low, ..]) if *len == 4 => {
                            mss = Some(u16::from_be_bytes([*high, *low]));
                        }
                        (OPTION_SCALE, [shift, ..]) if *len == 3 => scale = Some(*shift),
                        _ => {}
                    }
                    usize::from(*len)
                }
            };
            match options.get(len..) {
                Some(rest) if len >= 2 => options = rest,
                _ => break,
            }
        }
        Some(Segment {
            ports: (u16_at(header, 0), u16_at(header, 2)),
            seq: u32_at(header, 4),
            ack: u32_at(header, 8),
            flags,
            window: u16_at(header, 14),
            mss,
            scale,
            payload,
        })
    }

    /// Whether it has this flag.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A UDP datagram (RFC 768).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Ports: the sender's and the receiver's.
    pub ports: (u16, u16),
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// The one in an IPv4 packet.
    pub fn parse(bytes: &'a [u8]) -> Option<Udp<'a>> {
        let header: &[u8; UDP_LEN] = bytes.first_chunk()?;
        let len = usize::from(u16_at(header, 4));
        Some(Udp {
            ports: (u16_at(header, 0), u16_at(header, 2)),
            payload: bytes.get(UDP_LEN..len)?,
        })
    }
}

/// The sum over the pseudo header of TCP and UDP (RFC 9293, 3.1).
pub(super) fn pseudo(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: usize) -> u32 {
    let total = sum(sum(0, &source.octets()), &destination.octets());
    sum(total + u32::from(protocol) + len as u32, &[])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn mac_at(bytes: &[u8], at: usize) -> Mac {
    Mac(std::array::from_fn(|i| bytes[at + i]))
}

fn address_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    u32_at(bytes, at).into()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
