//! What members may reach through the gateway, and where it is.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The DNS server's port.
pub const DNS_PORT: u16 = 53;

/// A network's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// The network's first address.
    pub network: Ipv4Addr,
    /// Bits of it that are the network's.
    pub prefix_len: u8,
    /// Whether only members and the DNS server can be reached.
    pub internal: bool,
}

/// Where a packet to the gateway's MAC address goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Nowhere.
    Refused,
    /// To the DNS server.
    Dns,
    /// To this port of the host, at its primary address.
    Host(u16),
    /// To others.
    Remote(SocketAddrV4),
}

impl Policy {
    /// Where this destination is.
    pub fn route(&self, to: SocketAddrV4) -> Route {
        let address = *to.ip();
        if address == self.gateway {
            return match to.port() {
                DNS_PORT => Route::Dns,
                _ if self.internal => Route::Refused,
                port => Route::Host(port),
            };
        }
        if self.internal || self.contains(address) || !is_remote(address) {
            return Route::Refused;
        }
        Route::Remote(to)
    }

    /// Whether an address is the network's.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len.min(32)));
        (address.to_bits() ^ self.network.to_bits()) & mask.unwrap_or(0) == 0
    }

    /// As whom a member sees a client of the host's with this address: the gateway for those whom it could not answer.
    pub fn visible(&self, client: Ipv4Addr) -> Ipv4Addr {
        match is_remote(client) && !self.contains(client) {
            true => client,
            false => self.gateway,
        }
    }
}

/// Whether it is the address of one other host. Not so: the host's loopback, whatever reaches it (127/8, and 0/8, which
/// Linux takes for it); the link's own (169.254/16), where clouds have their metadata; several hosts, and none (224/3).
fn is_remote(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    !(first == 0 || first == 127 || first >= 224 || (first, second) == (169, 254))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        gateway: Ipv4Addr::new(10, 1, 0, 1),
        network: Ipv4Addr::new(10, 1, 0, 0),
        prefix_len: 24,
        internal: false,
    };

    fn route(policy: Policy, to: &str) -> Route {
        policy.route(to.parse().unwrap())
    }

    #[test]
    fn hosts_can_be_reached_and_the_gateway_is_this_one() {
        for to in ["192.0.2.1:80", "10.1.1.2:53", "172.16.0.1:1", "1.1.1.1:53"] {
            let expected = Route::Remote(to.parse().unwrap());
            assert_eq!(route(POLICY, to), expected, "{to}");
        }
        assert_eq!(route(POLICY, "10.1.0.1:53"), Route::Dns);
        assert_eq!(route(POLICY, "10.1.0.1:80"), Route::Host(80));
    }

    #[test]
    fn what_is_nobody_elses_is_refused() {
        let to = [
            "127.0.0.1:80",
            "127.255.255.254:53",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "169.254.169.254:80",
            "224.0.0.251:5353",
            "239.255.255.250:1900",
            "240.0.0.1:1",
            "255.255.255.255:67",
            "10.1.0.77:80",
            "10.1.0.255:80",
        ];
        for to in to {
            assert_eq!(route(POLICY, to), Route::Refused, "{to}");
        }
    }

    #[test]
    fn an_internal_network_reaches_its_names_alone() {
        let policy = Policy {
            internal: true,
            ..POLICY
        };
        assert_eq!(route(policy, "10.1.0.1:53"), Route::Dns);
        for to in ["10.1.0.1:80", "192.0.2.1:53", "127.0.0.1:53"] {
            assert_eq!(route(policy, to), Route::Refused, "{to}");
        }
    }

    #[test]
    fn clients_are_seen_as_themselves_where_they_can_be_answered() {
        let seen = |client: [u8; 4]| POLICY.visible(client.into());
        assert_eq!(seen([192, 0, 2, 7]), Ipv4Addr::new(192, 0, 2, 7));
        for client in [
            [127, 0, 0, 1],
            [10, 1, 0, 9],
            [0, 0, 0, 0],
            [169, 254, 1, 1],
        ] {
            assert_eq!(seen(client), POLICY.gateway, "{client:?}");
        }
    }

    #[test]
    fn prefixes_of_any_length_are_compared() {
        for (prefix_len, contained) in [(0, true), (8, true), (24, false), (32, false), (99, false)]
        {
            let policy = Policy {
                prefix_len,
                ..POLICY
            };
            assert_eq!(policy.contains([10, 2, 0, 0].into()), contained);
        }
    }
}
