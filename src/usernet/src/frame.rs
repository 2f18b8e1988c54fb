//! Frames of a wire: a header of virtio's, an Ethernet header, ARP or IPv4, and what is in it.
//!
//! - `virtio`: the header before each frame, and which of them a neighbour may see.
//! - `parse`: a hostile guest's frame, to values; nothing here panics, and a length is believed only when the bytes are
//!   there.
//! - `build`: headers of what the gateway sends, into space of the caller's, so that a payload is never copied.
//!
//! Deliberately absent: IPv6 and VLAN tags (such frames are dropped), IPv4 options of our own, checksums of what a guest
//! sends over its own wire, which loses nothing: a wrong one harms the sender alone.

mod build;
mod parse;
mod virtio;

pub use build::{
    Echo, Link, MAX_HEADERS, Outgoing, TCP_OPTIONS, arp_reply, datagram, echo, tcp, unreachable,
};
pub use parse::{Arp, Fragment, Frame, Invalid, Ipv4, Payload, Segment, Udp, parse};
pub use virtio::Virtio;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Bytes of a UDP header, and of the header of an ICMP echo.
pub const UDP_LEN: usize = 8;
/// Where an IPv4 packet starts in a message of a wire.
pub const IPV4_AT: usize = virtio::LEN + ETHERNET_LEN;
/// The longest message of a wire: what segmentation offload carries.
pub const MAX_FRAME: usize = IPV4_AT + u16::MAX as usize;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everyone's.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it means several (IEEE 802.3, 3.2.3: the I/G bit).
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

/// Values of the protocol field of IPv4 (RFC 790).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// TCP's flags (RFC 9293, 3.1).
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronize.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field is valid.
    pub const ACK: u8 = 0x10;
}

/// The Internet checksum's sum (RFC 1071) over `bytes`, folded, not complemented, that starts with `sum`.
pub fn sum(sum: u32, bytes: &[u8]) -> u32 {
    let mut total = u64::from(sum);
    let (words, rest) = bytes.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_be_bytes(*word));
    }
    if let [last] = rest {
        total += u64::from(u16::from_be_bytes([*last, 0]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u32
}

/// The checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u16 {
    !(sum(0, bytes) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // Its section 3: the sum is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(0, &bytes), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
        assert_eq!(sum(0, &[0x12]), 0x1200);
        assert_eq!(sum(0xffff, &[0xff, 0xff]), 0xffff);
    }
}
