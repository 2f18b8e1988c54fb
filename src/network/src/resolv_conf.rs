//! What a container's /etc/resolv.conf says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use protocol::net::MAX_RESOLVERS;

/// Google's public resolvers, which stand in when the host names none that a container can reach; Docker's choice.
pub const PUBLIC_RESOLVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The address of systemd-resolved's own resolver, and where it writes those that it asks itself.
const STUB: &str = "127.0.0.53";
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The host's /etc/resolv.conf; behind systemd-resolved's own resolver, those that it asks. Empty if there is none.
pub fn host_resolv_conf() -> String {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut resolvers = text.lines().filter_map(resolver);
    if resolvers.next() == Some(STUB) && resolvers.next().is_none() {
        return std::fs::read_to_string(Path::new(BEHIND_STUB)).unwrap_or(text);
    }
    text
}

/// A container's resolv.conf from the host's: resolvers on the host's loopback mean nothing in a container, and those
/// of IPv6 cannot be reached from one. If none is left, [`PUBLIC_RESOLVERS`] stand in. Everything else stays.
pub fn resolv_conf(host: &str) -> String {
    let mut text = String::new();
    let mut left = 0;
    for line in host.lines() {
        if let Some(address) = resolver(line) {
            if !reachable(address) {
                continue;
            }
            left += 1;
        }
        text += line;
        text.push('\n');
    }
    if left == 0 {
        for address in PUBLIC_RESOLVERS {
            text += &format!("nameserver {address}\n");
        }
    }
    text
}

/// The resolv.conf of a container on a network with a name, whose DNS server is at the gateway: the host's but for the
/// resolvers. A name without a dot is looked up as it is first, as Docker has it: the names of containers are such.
pub fn named_resolv_conf(host: &str, gateway: Ipv4Addr) -> String {
    let mut text = format!("nameserver {gateway}\n");
    let mut counts_dots = false;
    for line in host.lines().filter(|line| resolver(line).is_none()) {
        let mut words = line.split_whitespace();
        let are_options = words.next() == Some("options");
        counts_dots |= are_options && words.any(|word| word.starts_with("ndots:"));
        text += line;
        text.push('\n');
    }
    if !counts_dots {
        text += "options ndots:0\n";
    }
    text
}

/// The resolvers that a network's DNS server asks: those of the host, to which it has the host's own way, loopback and IPv6
/// included. [`PUBLIC_RESOLVERS`] if there are none.
pub(crate) fn resolvers() -> Vec<SocketAddr> {
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let index = |zone: &str| {
        let path = Path::new("/sys/class/net").join(zone).join("ifindex");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    resolvers_of(&host, index)
}

/// The resolvers that a resolv.conf names; `index` knows the number of an interface.
fn resolvers_of(host: &str, index: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    const PORT: u16 = 53;
    let address = |text: &str| -> Option<SocketAddr> {
        let (text, zone) = match text.split_once('%') {
            Some((text, zone)) => (text, index(zone)?),
            None => (text, 0),
        };
        Some(match text.parse().ok()? {
            // "This host", to the C library.
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, PORT).into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, PORT).into(),
            IpAddr::V4(address) => (address, PORT).into(),
            IpAddr::V6(address) => SocketAddrV6::new(address, PORT, 0, zone).into(),
        })
    };
    let named: Vec<_> = host
        .lines()
        .filter_map(resolver)
        .filter_map(address)
        .take(MAX_RESOLVERS)
        .collect();
    match named.is_empty() {
        true => PUBLIC_RESOLVERS.into_iter().filter_map(address).collect(),
        false => named,
    }
}

/// The resolver that a line names.
fn resolver(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver"))
        .then(|| words.next())
        .flatten()
}

/// Whether a container can reach a resolver by IPv4, through the bridge.
fn reachable(address: &str) -> bool {
    match address.parse() {
        Ok(IpAddr::V4(address)) => !address.is_loopback() && !address.is_unspecified(),
        // An IPv6 address (perhaps with a zone), or nonsense.
        Ok(IpAddr::V6(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reachable_resolvers_and_options_stay() {
        let host = "# by hand\nsearch example.org\nnameserver 10.0.0.53\noptions ndots:2\n";
        assert_eq!(resolv_conf(host), host);
    }

    #[test]
    fn loopback_and_ipv6_resolvers_go() {
        let host = "nameserver 127.0.0.1\nnameserver\t127.0.0.53\nnameserver ::1\n\
                    nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver 0.0.0.0\n\
                    nameserver 192.0.2.1\n";
        assert_eq!(resolv_conf(host), "nameserver 192.0.2.1\n");
    }

    #[test]
    fn on_a_network_with_a_name_its_gateway_is_the_one_resolver() {
        let gateway = Ipv4Addr::new(10, 213, 16, 1);
        let host = "search lan\nnameserver 127.0.0.53\noptions edns0\nnameserver ::1\n";
        assert_eq!(
            named_resolv_conf(host, gateway),
            "nameserver 10.213.16.1\nsearch lan\noptions edns0\noptions ndots:0\n"
        );
        assert_eq!(
            named_resolv_conf("options rotate ndots:2\n", gateway),
            "nameserver 10.213.16.1\noptions rotate ndots:2\n"
        );
    }

    #[test]
    fn a_networks_server_asks_the_hosts_resolvers_wherever_they_are() {
        let host = "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\nnameserver fe80::1%eth9\n\
                    nameserver ::\nnameserver 192.0.2.1\n";
        let resolvers = |host| -> Vec<String> {
            let index = |zone: &str| (zone == "eth0").then_some(7);
            let found = resolvers_of(host, index);
            found.iter().map(SocketAddr::to_string).collect()
        };
        let expected = ["127.0.0.53:53", "[fe80::1%7]:53", "[::1]:53"];
        assert_eq!(resolvers(host), expected);
        assert_eq!(resolvers("nameserver 0.0.0.0"), ["127.0.0.1:53"]);
        assert_eq!(resolvers("search lan"), ["8.8.8.8:53", "8.8.4.4:53"]);
    }

    #[test]
    fn public_resolvers_stand_in_when_none_is_left() {
        let public = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        assert_eq!(resolv_conf(""), public);
        assert_eq!(
            resolv_conf("search lan\nnameserver 127.0.0.53\n"),
            format!("search lan\n{public}")
        );
        assert_eq!(
            resolv_conf("nameserver\nnameserver localhost\n"),
            format!("nameserver\n{public}")
        );
    }
}
