//! Networks that users make, places of sandboxes on them, and ports that are reached by the host's addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::subnet::Subnet;

/// The network that every user of the host has, without having made it.
pub const DEFAULT_NETWORK: &str = "bridge";

/// A network of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// [`super::VERSION`] of the writer.
    pub version: u32,
    /// 64 hexadecimal digits: another one for each network that is made, whatever its name.
    pub id: String,
    /// Its name, which is its folder's.
    pub name: String,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// Its addresses.
    pub subnet: Subnet,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// The part of the subnet that addresses are given from, unless one is asked for; without it, all of it.
    pub ip_range: Option<Subnet>,
    /// There is no way out of it.
    pub internal: bool,
    /// The largest packet, in bytes; without it, what the host's uplink takes.
    pub mtu: Option<u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as the user gave them.
    pub options: BTreeMap<String, String>,
}

/// A sandbox's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The address that it is to have; any free one otherwise.
    pub address: Option<Ipv4Addr>,
    /// The Ethernet address that it is to have; one that follows from the address otherwise.
    pub mac: Option<[u8; 6]>,
    /// Names for the network's DNS besides the container's own.
    pub aliases: Vec<String>,
    /// Ports that are reached by the host's addresses.
    pub publish: Vec<Publish>,
}

impl Endpoint {
    /// On this network, with nothing asked for.
    pub fn on(network: &str) -> Endpoint {
        Endpoint {
            network: network.to_owned(),
            address: None,
            mac: None,
            aliases: Vec::new(),
            publish: Vec::new(),
        }
    }

    /// Reads a place. Earlier versions had the default network alone, and a boolean for it.
    pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Endpoint>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bridge(bool),
            Endpoint(Option<Endpoint>),
        }
        Ok(match Either::deserialize(from)? {
            Either::Bridge(false) => None,
            Either::Bridge(true) => Some(Endpoint::on(DEFAULT_NETWORK)),
            Either::Endpoint(endpoint) => endpoint,
        })
    }
}

/// What carries ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Transport {
    /// Its name, here and in nftables.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// A port of a container: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Its number, not 0.
    pub number: u16,
    /// What carries it.
    pub transport: Transport,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.transport.name())
    }
}

/// A port of a container that is to be reached by the host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The container's.
    pub port: Port,
    /// The host's address; all of them otherwise.
    pub host_address: Option<Ipv4Addr>,
    /// The host's port, the first and the last that may be taken; the kernel chooses one otherwise.
    pub host_ports: Option<(u16, u16)>,
}

/// A port of a container that is reached by the host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The container's.
    pub port: Port,
    /// The host's address; 0.0.0.0 is all of them.
    pub host_address: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
}
