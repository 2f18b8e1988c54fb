//! What the host's routing table says, as /proc/net/route shows it.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::error::Error;
use crate::subnet::Subnet;

const ROUTES: &str = "/proc/net/route";
/// Flag RTF_REJECT of linux/route.h: the route leads nowhere.
const REJECT: u32 = 0x0200;

/// The host's IPv4 routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Networks with a route of their own.
    pub(crate) networks: Vec<Subnet>,
    /// Interfaces with a default route, the best first.
    pub(crate) uplinks: Vec<String>,
}

impl Routes {
    pub(crate) fn read() -> Result<Self, Error> {
        let path = Path::new(ROUTES);
        std::fs::read_to_string(path)
            .map(|text| Self::parse(&text))
            .map_err(Error::file(path))
    }

    /// Reads the table; a line that is not understood is no route.
    pub(crate) fn parse(text: &str) -> Self {
        let mut routes = Self::default();
        let mut uplinks = Vec::new();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [interface, destination, _, flags, _, _, metric, mask, ..] = fields[..] else {
                continue;
            };
            let number = |text| u32::from_str_radix(text, 16).ok();
            let (Some(destination), Some(flags), Some(mask)) =
                (number(destination), number(flags), number(mask))
            else {
                continue;
            };
            // Addresses are printed as numbers in the host's byte order: their bytes lie in network order.
            let network = Ipv4Addr::from(destination.to_ne_bytes());
            let prefix_len = u32::from_be_bytes(mask.to_ne_bytes()).leading_ones() as u8;
            match prefix_len {
                0 if flags & REJECT == 0 => {
                    uplinks.push((metric.parse().unwrap_or(u32::MAX), interface.to_owned()));
                }
                0 => {}
                _ => routes.networks.push(Subnet {
                    network,
                    prefix_len,
                }),
            }
        }
        uplinks.sort();
        uplinks.dedup_by(|a, b| a.1 == b.1);
        routes.uplinks = uplinks
            .into_iter()
            .map(|(_, interface)| interface)
            .collect();
        routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0
nonsense
";

    #[test]
    fn networks_and_uplinks_are_told_apart() {
        let routes = Routes::parse(TABLE);
        assert_eq!(routes.uplinks, ["eth0", "wlan0"]);
        let networks: Vec<_> = routes.networks.iter().map(Subnet::to_string).collect();
        assert_eq!(networks, ["192.0.2.0/24", "172.17.0.0/16"]);
    }

    #[test]
    fn an_empty_table_has_no_routes() {
        assert_eq!(Routes::parse(""), Routes::default());
    }
}
