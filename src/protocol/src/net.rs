//! Warden to hull-net, the process of a network, over the SOCK_SEQPACKET socket that hull-net inherits as descriptor
//! [`CONTROL_FD`].
//!
//! One packet is one JSON document, with the descriptors that it speaks of as SCM_RIGHTS. The first is
//! [`ToNet::Start`], which is answered with [`FromNet::Ready`] or [`FromNet::Refused`]. hull-net belongs to the network
//! and not to the warden that starts it: it goes on when the socket closes, and ends when it is killed, by whichever
//! process takes the network down.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use crate::vmm::{CONTROL_FD, Descriptor, WORDS_FD};

/// The largest packet, in bytes.
pub const MAX_PACKET_LEN: usize = 16 << 10;
/// The most resolvers that are asked: as many as the C library takes from resolv.conf (resolv.conf(5), MAXNS).
pub const MAX_RESOLVERS: usize = 3;

/// What the warden sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToNet {
    /// Serve. Only as the first packet.
    Start {
        /// [`crate::BUILD`] of the warden.
        build: String,
        /// The network's DNS server.
        dns: DnsServer,
        /// To be kept open and not used: locks that say that this hull-net lives.
        locks: Vec<Descriptor>,
    },
}

/// A network's DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsServer {
    /// A UDP socket, bound to the address that containers ask.
    pub datagrams: Descriptor,
    /// A TCP socket that listens there.
    pub listener: Descriptor,
    /// The folder of the network's leases: a mount of its own without a parent. In it a file for each address, named
    /// like it in decimal and locked (flock) while its sandbox lives; from its second line on, each line is a DNS name.
    pub leases: Descriptor,
    /// The network's first address.
    pub network: Ipv4Addr,
    /// Bits of the address that are the network's.
    pub prefix_len: u8,
    /// The host's address on the network.
    pub gateway: Ipv4Addr,
    /// The network's name, which is a domain of its containers' names if the DNS can have it.
    pub domain: String,
    /// The resolvers for everything else, in this order; at most [`MAX_RESOLVERS`]. With none, there is nothing else.
    pub resolvers: Vec<SocketAddr>,
}

/// What hull-net sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromNet {
    /// It serves, confined.
    Ready,
    /// It ends.
    Refused {
        /// What was attempted, on what, and why it failed.
        message: String,
    },
}
