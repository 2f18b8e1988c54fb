//! A container's or a pod's place on its network.

use std::net::Ipv4Addr;

use protocol::record::Publish;
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
}
