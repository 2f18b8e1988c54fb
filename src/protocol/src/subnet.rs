//! An IPv4 network: what the records of networks and the bridges of hosts have in common.

use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// Bits of the address that are the network's.
    pub prefix_len: u8,
}

impl Subnet {
    /// The network's bits.
    pub fn mask(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix_len.min(32)))
            .unwrap_or(0)
    }

    /// The address that a bridge has by default: the first one.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// Addresses that hosts can have: all but the network's own and the broadcast address.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let first = self.network.to_bits();
        let last = first | !self.mask();
        (first + 1..last).map(Ipv4Addr::from_bits)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        let mask = self.mask() & other.mask();
        self.network.to_bits() & mask == other.network.to_bits() & mask
    }

    /// Whether the other one lies in it as a whole.
    pub fn holds(&self, other: &Subnet) -> bool {
        self.prefix_len <= other.prefix_len && self.overlaps(other)
    }

    /// Whether an address belongs to the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.overlaps(&Subnet {
            network: address,
            prefix_len: 32,
        })
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not an address, a slash and a number of bits.
    #[error(
        "{0:?} is not an IPv4 network: an address, a slash and the bits of its prefix, as in 10.1.0.0/24"
    )]
    Malformed(String),
    /// The address has bits behind the prefix.
    #[error("{0} is an address in the network {1}: name the network")]
    HostBits(String, Subnet),
}

impl FromStr for Subnet {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Subnet, ParseError> {
        let malformed = || ParseError::Malformed(text.to_owned());
        let (address, prefix_len) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix_len = prefix_len.parse().ok().filter(|len| *len <= 32);
        let mut subnet = Subnet {
            network: address,
            prefix_len: prefix_len.ok_or_else(malformed)?,
        };
        subnet.network = Ipv4Addr::from_bits(address.to_bits() & subnet.mask());
        match subnet.network == address {
            true => Ok(subnet),
            false => Err(ParseError::HostBits(text.to_owned(), subnet)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_an_address_and_a_prefix_without_further_bits() {
        for text in [
            "10.1.0.0",
            "10.1.0.0/33",
            "10.1/8",
            "fd00::/8",
            "10.1.0.0/x",
            "",
        ] {
            let error = text.parse::<Subnet>().unwrap_err();
            assert_eq!(error, ParseError::Malformed(text.to_owned()));
        }
        let error = "10.1.2.3/16".parse::<Subnet>().unwrap_err().to_string();
        assert_eq!(
            error,
            "10.1.2.3/16 is an address in the network 10.1.0.0/16: name the network"
        );
        assert_eq!(subnet("0.0.0.0/0").to_string(), "0.0.0.0/0");
    }

    #[test]
    fn a_network_has_addresses_between_its_own_and_the_last() {
        let small = subnet("10.213.16.0/29");
        assert_eq!(small.gateway(), Ipv4Addr::new(10, 213, 16, 1));
        let addresses: Vec<_> = small
            .addresses()
            .map(|address| address.octets()[3])
            .collect();
        assert_eq!(addresses, [1, 2, 3, 4, 5, 6]);
        assert!(small.contains(Ipv4Addr::new(10, 213, 16, 7)));
        assert!(!small.contains(Ipv4Addr::new(10, 213, 16, 8)));
        assert_eq!(subnet("10.213.0.0/20").addresses().count(), 4094);
    }

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        let inner = subnet("10.213.16.0/24");
        assert!(inner.overlaps(&subnet("10.0.0.0/8")));
        assert!(subnet("10.0.0.0/8").overlaps(&inner));
        assert!(subnet("0.0.0.0/0").overlaps(&inner));
        assert!(!inner.overlaps(&subnet("10.213.17.0/24")));
        assert!(inner.overlaps(&subnet("10.213.16.9/32")));
        assert!(subnet("10.0.0.0/8").holds(&inner) && !inner.holds(&subnet("10.0.0.0/8")));
    }
}
