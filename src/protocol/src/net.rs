//! Warden to hull-net, the process of a network, over the SOCK_SEQPACKET socket that hull-net inherits as descriptor
//! [`CONTROL_FD`], and, where hull-net is the whole network, over a connection of each sandbox's.
//!
//! One packet is one JSON document, with the descriptors that it speaks of as SCM_RIGHTS. The first is
//! [`ToNet::Start`] or [`ToNet::Switch`], which is answered with [`FromNet::Ready`] or [`FromNet::Refused`]. hull-net
//! belongs to the network and not to the warden that starts it: it goes on when the socket closes, and ends when it is
//! killed, by whichever process takes the network down.
//!
//! ```text
//! warden --ToNet::Start--> hull-net    names of a bridge's containers
//! warden --ToNet::Switch-> hull-net    names, a switch and a gateway
//! each sandbox's warden --connect, ToSwitch::Join, Ports*--> Switch::members --FromSwitch::Joined | Refused-->
//! ```
//!
//! A sandbox is a member of the switch for as long as both its connection and its wire are open. When either closes,
//! its flows are reset, and its address and MAC can be had again.
//!
//! # The wire
//! One end of a pair of AF_UNIX sockets, SOCK_SEQPACKET or SOCK_DGRAM, which does not block. A message is what a read
//! of a tap gives: a `struct virtio_net_hdr_v1` of 12 bytes, then an Ethernet frame. Either side may send TCP over IPv4
//! in pieces of up to 64 KiB (VIRTIO_NET_HDR_GSO_TCPV4) and leave checksums to the receiver (NEEDS_CSUM). Of the two
//! kinds of socket SOCK_SEQPACKET is to be taken: its reader sees the end, its queue is bounded by bytes alone, and a
//! hull-net that is taken over cannot connect it to another of the host's Unix sockets.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::record::Transport;
pub use crate::vmm::{CONTROL_FD, Descriptor, WORDS_FD};

/// The largest packet, in bytes.
pub const MAX_PACKET_LEN: usize = 16 << 10;
/// The most resolvers that are asked: as many as the C library takes from resolv.conf (resolv.conf(5), MAXNS).
pub const MAX_RESOLVERS: usize = 3;
/// The most members of a switch: an epoll set and a table of theirs stay small, and no network of hull's has more.
pub const MAX_MEMBERS: usize = 1024;
/// The most networks whose names a network's DNS server knows besides its own: each is a folder that is looked at for a query.
pub const MAX_ADJACENT: usize = 64;
/// The most ports of one packet: with the wire, their descriptors stay below the kernel's limit for a packet
/// (SCM_MAX_FD, 253), and the packet below [`MAX_PACKET_LEN`].
pub const MAX_PORTS_PER_PACKET: usize = 128;
/// The most ports of one member, over all of its packets.
pub const MAX_PORTS: usize = 1024;

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
    /// Be a whole network. Only as the first packet.
    Switch {
        /// [`crate::BUILD`] of the warden.
        build: String,
        /// What its DNS server says, at port 53 of the gateway.
        names: Names,
        /// Who may join, and what they find.
        switch: Switch,
        /// As with [`ToNet::Start`].
        locks: Vec<Descriptor>,
    },
}

/// A bridge's DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsServer {
    /// A UDP socket, bound to the address that containers ask.
    pub datagrams: Descriptor,
    /// A TCP socket that listens there.
    pub listener: Descriptor,
    /// What it says.
    #[serde(flatten)]
    pub names: Names,
    /// Networks that some of its clients are on as well, at most [`MAX_ADJACENT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adjacent: Vec<Adjacent>,
}

/// A network that members of another one are on as well, and whose names those are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjacent {
    /// Its identifier.
    pub id: String,
    /// The folder of its leases: see [`Names::leases`].
    pub leases: Descriptor,
    /// Its first address.
    pub network: Ipv4Addr,
    /// Bits of the address that are the network's.
    pub prefix_len: u8,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// Its name.
    pub domain: String,
}

/// The names of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The folder of the network's leases: a mount of its own without a parent. In it a file for each address, named
    /// like it in decimal and locked (flock) while its sandbox lives. Its first line is the name of the sandbox's interface on
    /// the host; from the second on, each is a DNS name, or a name that this sandbox alone has for another: `alias=name`.
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

/// A network without a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// An AF_UNIX socket, SOCK_SEQPACKET, that listens: a connection for each sandbox, at most [`MAX_MEMBERS`].
    pub members: Descriptor,
    /// The gateway's MAC address: unicast, not a member's.
    pub mac: [u8; 6],
    /// The longest IP packet, in bytes, that is not to be segmented.
    pub mtu: u16,
    /// Whether members reach each other and the DNS server and nothing else.
    pub internal: bool,
}

/// What a sandbox's warden sends on its connection to [`Switch::members`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSwitch {
    /// Become a member: once for each connection, and first. Answered.
    Join {
        /// [`crate::BUILD`] of the warden.
        build: String,
        /// Its wire: see the module's documentation.
        wire: Descriptor,
        /// Its MAC address: unicast, no living member's.
        mac: [u8; 6],
        /// Its address in the network: no living member's.
        address: Ipv4Addr,
        /// Ports of its that the host's clients reach, at most [`MAX_PORTS_PER_PACKET`].
        ports: Vec<ListeningPort>,
    },
    /// Another network that this member is on, whose folder of leases is open to be read. Answered as a join is.
    Adjacent {
        /// It.
        adjacent: Adjacent,
    },
    /// More ports, at most [`MAX_PORTS_PER_PACKET`] a packet and [`MAX_PORTS`] of a member. Answered as a join is; what
    /// is refused ends the membership.
    Ports {
        /// Those.
        ports: Vec<ListeningPort>,
    },
}

/// A socket of the host's by which a port of a member is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningPort {
    /// TCP: it listens. UDP: it is bound.
    pub socket: Descriptor,
    /// Which of the two.
    pub transport: Transport,
    /// The member's port.
    pub container_port: u16,
}

/// What hull-net answers on a member's connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromSwitch {
    /// What was asked for is so.
    Joined,
    /// It is not; hull-net closes the connection.
    Refused {
        /// What was attempted, on what, and why it failed.
        message: String,
    },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridges_record_from_before_there_were_switches_is_read() {
        let record = r#"{"datagrams":0,"listener":1,"leases":2,"network":"10.1.0.0","prefix_len":24,
            "gateway":"10.1.0.1","domain":"backend","resolvers":["192.0.2.1:53"]}"#;
        let dns: DnsServer = serde_json::from_str(record).unwrap();
        assert_eq!(dns.listener, Descriptor(1));
        assert_eq!(dns.names.leases, Descriptor(2));
        assert_eq!(dns.names.gateway, Ipv4Addr::new(10, 1, 0, 1));
        let again = serde_json::to_string(&dns).unwrap();
        let same: String = record.split_whitespace().collect();
        assert_eq!(again, same);
    }

    #[test]
    fn the_longest_list_of_ports_fits_a_packet() {
        let ports = (0..MAX_PORTS_PER_PACKET as u32).map(|i| ListeningPort {
            socket: Descriptor(1 + i),
            transport: Transport::Udp,
            container_port: u16::MAX,
        });
        let join = ToSwitch::Join {
            build: "x".repeat(64),
            wire: Descriptor(0),
            mac: [0xff; 6],
            address: Ipv4Addr::BROADCAST,
            ports: ports.collect(),
        };
        assert!(serde_json::to_vec(&join).unwrap().len() <= MAX_PACKET_LEN);
    }
}
