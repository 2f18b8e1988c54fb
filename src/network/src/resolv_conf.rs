//! What a container's /etc/resolv.conf says.

use std::net::IpAddr;
use std::path::Path;

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
