//! Which private network the bridge gets.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// Bits of the address that are the network's.
    pub prefix_len: u8,
}

/// Length of the prefix of every network that is considered: 4093 sandboxes.
const PREFIX_LEN: u8 = 20;

impl Subnet {
    /// The network's bits.
    pub fn mask(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix_len.min(32)))
            .unwrap_or(0)
    }

    /// The bridge's own address: the first one.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// Addresses for sandboxes: all but the network's, the gateway's and the broadcast address.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let first = self.network.to_bits();
        let last = first | !self.mask();
        (first + 2..last).map(Ipv4Addr::from_bits)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        let mask = self.mask() & other.mask();
        self.network.to_bits() & mask == other.network.to_bits() & mask
    }

    /// Whether an address belongs to the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.overlaps(&Subnet {
            network: address,
            prefix_len: 32,
        })
    }

    /// The first network of our list that has nothing in common with `taken`.
    ///
    /// The list keeps away from what others use by default: Docker 172.17 to 172.31 and 192.168.0 to 192.168.240,
    /// Podman 10.88 to 10.89, Kubernetes 10.96 and 10.244, libvirt 192.168.122.
    pub fn choose(taken: &[Subnet]) -> Option<Subnet> {
        let high =
            (0..8).flat_map(|second| (0..16).map(move |third| [10, 213 + second, third * 16, 0]));
        let shared = (64..128).map(|second| [100, second, 0, 0]);
        let candidates = high.chain(shared).map(|octets| Subnet {
            network: Ipv4Addr::from(octets),
            prefix_len: PREFIX_LEN,
        });
        candidates
            .into_iter()
            .find(|candidate| !taken.iter().any(|other| other.overlaps(candidate)))
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (network, prefix_len) = text.split_once('/').unwrap();
        Subnet {
            network: network.parse().unwrap(),
            prefix_len: prefix_len.parse().unwrap(),
        }
    }

    #[test]
    fn a_network_has_a_gateway_and_the_rest_for_sandboxes() {
        let small = subnet("10.213.16.0/29");
        assert_eq!(small.gateway(), Ipv4Addr::new(10, 213, 16, 1));
        let addresses: Vec<_> = small
            .addresses()
            .map(|address| address.octets()[3])
            .collect();
        assert_eq!(addresses, [2, 3, 4, 5, 6]);
        assert!(small.contains(Ipv4Addr::new(10, 213, 16, 7)));
        assert!(!small.contains(Ipv4Addr::new(10, 213, 16, 8)));
        assert_eq!(subnet("10.213.0.0/20").addresses().count(), 4093);
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        let inner = subnet("10.213.16.0/24");
        assert!(inner.overlaps(&subnet("10.0.0.0/8")));
        assert!(subnet("10.0.0.0/8").overlaps(&inner));
        assert!(subnet("0.0.0.0/0").overlaps(&inner));
        assert!(!inner.overlaps(&subnet("10.213.17.0/24")));
        assert!(inner.overlaps(&subnet("10.213.16.9/32")));
    }

    #[test]
    fn the_choice_keeps_away_from_the_hosts_routes() {
        assert_eq!(Subnet::choose(&[]), Some(subnet("10.213.0.0/20")));
        assert_eq!(
            Subnet::choose(&[subnet("10.213.5.0/24")]),
            Some(subnet("10.213.16.0/20"))
        );
        assert_eq!(
            Subnet::choose(&[subnet("10.0.0.0/8")]),
            Some(subnet("100.64.0.0/20"))
        );
        assert_eq!(Subnet::choose(&[subnet("0.0.0.0/1")]), None);
    }
}
