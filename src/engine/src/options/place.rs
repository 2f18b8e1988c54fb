//! A container's or a pod's place on its network.

use std::net::Ipv4Addr;

use protocol::record::{Link, Publish};
use serde::{Deserialize, Serialize};

/// Which network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Only loopback.
    None,
    /// The default one: hull's bridge with NAT.
    Bridge,
    /// The user's own, by its name or identifier.
    Named(String),
}

/// What is asked for on the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Ports that are reached by the host's addresses, one for each port inside.
    pub publish: Vec<Publish>,
    /// The address: `--ip`.
    pub address: Option<Ipv4Addr>,
    /// The Ethernet address: `--mac-address`.
    pub mac: Option<[u8; 6]>,
    /// Further names on the network.
    pub aliases: Vec<String>,
    /// What others on the network are called: `--link`.
    pub links: Vec<Link>,
    /// Of several networks, the way out is that with the highest.
    pub gw_priority: i32,
}

/// A network besides the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Further {
    /// The user's own, by its name or identifier.
    pub network: String,
    /// What is asked for there; it publishes nothing.
    pub place: Place,
}
