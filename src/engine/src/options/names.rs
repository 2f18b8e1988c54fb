//! Names and addresses: what of /etc/hosts and /etc/resolv.conf the user decides.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// What it resolves to.
    pub address: HostAddress,
}

/// What a name of [`ExtraHost`] resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostAddress {
    /// This address.
    Ip(IpAddr),
    /// The host's own, as the container's network reaches it.
    Gateway,
}

/// /etc/resolv.conf, as far as the user decides. What is empty is as on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Resolvers.
    pub servers: Vec<IpAddr>,
    /// Domains to search; a single `.` means none, whatever the host has.
    pub search: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
}
