//! Networks that users make, places of sandboxes on them, and ports that are reached by the host's addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize};

use super::several;
use crate::agent::Interface;
use crate::subnet::Subnet;

/// The network that every user of the host has, without having made it.
pub const DEFAULT_NETWORK: &str = "bridge";
/// The most networks that a sandbox is on at once: a VM has as many network cards from its start.
pub const MAX_NETWORKS: usize = 4;

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
    /// Ports of the sandbox's that are reached by the host's addresses. They are reached through the network that is its way
    /// out, whichever endpoint names them.
    pub publish: Vec<Publish>,
    /// Of several networks, the sandbox's way out is that with the highest priority: see [`way_out`].
    #[serde(default)]
    pub gw_priority: i32,
    /// What it calls others on the network.
    #[serde(default)]
    pub links: Vec<Link>,
}

/// A name for another container, for this one alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// A name of the other's on a network that both are on.
    pub name: String,
    /// What this one calls it.
    pub alias: String,
}

/// A sandbox's interface, and the network that it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name; empty where an earlier version wrote it, whose sandboxes were on one.
    #[serde(default)]
    pub network: String,
    /// The interface.
    #[serde(flatten)]
    pub interface: Interface,
}

/// How many network cards the VM of a sandbox on these networks has from its start. One on the default network alone is
/// hardly ever given another network while it runs, and spared what cards cost.
pub fn cards(networks: &[Endpoint]) -> u8 {
    match networks {
        [] => 0,
        [one] if one.network == DEFAULT_NETWORK => 1,
        _ => MAX_NETWORKS as u8,
    }
}

/// Which of these places is a sandbox's way out: of those with a gateway that with the highest priority, and of several such
/// the first by the network's name. (Docker 28 chooses so.)
pub fn way_out<'a>(places: impl IntoIterator<Item = (&'a Endpoint, bool)>) -> Option<&'a Endpoint> {
    places
        .into_iter()
        .filter_map(|(endpoint, has_gateway)| has_gateway.then_some(endpoint))
        .min_by_key(|endpoint| (std::cmp::Reverse(endpoint.gw_priority), &endpoint.network))
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
            gw_priority: 0,
            links: Vec::new(),
        }
    }

    /// Whether it is the same place, whichever ports are published there.
    pub fn is_same_place(&self, other: &Endpoint) -> bool {
        let publish = self.publish.clone();
        *self
            == Endpoint {
                publish,
                ..other.clone()
            }
    }

    /// Reads places. Earlier versions had one at most, and the first ones the default network alone and a boolean for it.
    pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Endpoint>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bridge(bool),
            Endpoints(#[serde(deserialize_with = "several::read")] Vec<Endpoint>),
        }
        Ok(match Either::deserialize(from)? {
            Either::Bridge(false) => Vec::new(),
            Either::Bridge(true) => vec![Endpoint::on(DEFAULT_NETWORK)],
            Either::Endpoints(endpoints) => endpoints,
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
