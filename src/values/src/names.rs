//! Host names, addresses and resolvers.

use std::net::{IpAddr, Ipv4Addr};

use engine::options::{ExtraHost, HostAddress};
use engine::protocol::record::Link;

/// Why a value is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a line of /etc/hosts.
    #[error("{0:?} is not a host: NAME=ADDRESS, NAME:ADDRESS or NAME=host-gateway")]
    ExtraHost(String),
    /// Not an address.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// An address of the other family.
    #[error("{0} is an IPv6 address, and hull's networks carry IPv4 alone")]
    Ipv6(IpAddr),
    /// Not an Ethernet address.
    #[error(
        "{0} is not a valid mac address: six bytes, as in 02:42:ac:11:00:02, and not a multicast one"
    )]
    Mac(String),
    /// Not a name.
    #[error(
        "{0:?} is not a name on a network: at most 253 letters, digits, dots, hyphens and underscores"
    )]
    Alias(String),
    /// Not a domain.
    #[error("{0:?} is not a domain to search: labels between dots, or a single dot for none")]
    Search(String),
    /// Not an option.
    #[error("{0:?} is not an option of resolv.conf: one word, as in ndots:2")]
    DnsOption(String),
}

/// `NAME=ADDRESS` or `NAME:ADDRESS`; an IPv6 address may stand in brackets.
pub fn extra_host(text: &str) -> Result<ExtraHost, Error> {
    let error = || Error::ExtraHost(text.to_owned());
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = parts.ok_or_else(error)?;
    let breaks = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '#');
    if name.is_empty() || name.contains(breaks) {
        return Err(error());
    }
    let address = match address {
        "host-gateway" => HostAddress::Gateway,
        address => {
            let bare = address
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            HostAddress::Ip(ip(bare.unwrap_or(address))?)
        }
    };
    Ok(ExtraHost {
        name: name.to_owned(),
        address,
    })
}

/// An IP address.
pub fn ip(text: &str) -> Result<IpAddr, Error> {
    text.trim()
        .parse()
        .map_err(|_| Error::Address(text.to_owned()))
}

/// An address on a network of hull's; an empty word is none.
pub fn ipv4(text: &str) -> Result<Option<Ipv4Addr>, Error> {
    match text {
        "" => Ok(None),
        text => match ip(text)? {
            IpAddr::V4(address) => Ok(Some(address)),
            address => Err(Error::Ipv6(address)),
        },
    }
}

/// `--mac-address`: bytes with colons or hyphens between; an empty word is none.
pub fn mac(text: &str) -> Result<Option<[u8; 6]>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let byte = |part: &str| match part.len() {
        2 => u8::from_str_radix(part, 16).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
    let mac: Option<[u8; 6]> = bytes.and_then(|bytes| bytes.try_into().ok());
    // The lowest bit of the first byte: a group's address (IEEE 802, 8.2.2).
    match mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]) {
        Some(mac) => Ok(Some(mac)),
        None => Err(Error::Mac(text.to_owned())),
    }
}

/// `--network-alias`
pub fn alias(text: &str) -> Result<String, Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match (1..=253).contains(&text.len()) && text.bytes().all(known) {
        true => Ok(text.to_owned()),
        false => Err(Error::Alias(text.to_owned())),
    }
}

/// `--link NAME[:ALIAS]`
pub fn link(text: &str) -> Result<Link, Error> {
    let (name, other) = text.split_once(':').unwrap_or((text, text));
    Ok(Link {
        name: alias(name)?,
        alias: alias(other)?,
    })
}

/// `--dns-search`
pub fn search(text: &str) -> Result<String, Error> {
    /// RFC 1035, 2.3.4.
    const MAX_LEN: usize = 255;
    let domain = text.trim();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_domain = domain
        .strip_suffix('.')
        .unwrap_or(domain)
        .split('.')
        .all(|label| !label.is_empty() && label.bytes().all(known));
    if domain == "." || (is_domain && domain.len() <= MAX_LEN) {
        Ok(domain.to_owned())
    } else {
        Err(Error::Search(text.to_owned()))
    }
}

/// `--dns-option`
pub fn dns_option(text: &str) -> Result<String, Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::DnsOption(text.to_owned()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_and_an_address() {
        let host = |text: &str| extra_host(text).map(|host| (host.name, host.address));
        let of = |name: &str, address: &str| {
            Ok((name.to_owned(), HostAddress::Ip(address.parse().unwrap())))
        };
        assert_eq!(host("db:10.0.0.5"), of("db", "10.0.0.5"));
        assert_eq!(host("db=10.0.0.5"), of("db", "10.0.0.5"));
        assert_eq!(host("v6:2001:db8::1"), of("v6", "2001:db8::1"));
        assert_eq!(host("v6=[::1]"), of("v6", "::1"));
        assert_eq!(
            host("h:host-gateway"),
            Ok(("h".into(), HostAddress::Gateway))
        );
        for bad in [
            "db",
            "=1.2.3.4",
            ":1.2.3.4",
            "a b=1.2.3.4",
            "a:b=1.2.3.4",
            "a\nb=1.2.3.4",
            "#=1.2.3.4",
        ] {
            assert_eq!(host(bad), Err(Error::ExtraHost(bad.into())));
        }
        for bad in ["db=", "db:x", "db=1.2.3", "db=[::1"] {
            assert!(matches!(host(bad), Err(Error::Address(_))), "{bad}");
        }
    }

    #[test]
    fn a_link_has_a_name_and_perhaps_an_alias() {
        let of = |name: &str, alias: &str| {
            let (name, alias) = (name.to_owned(), alias.to_owned());
            Ok(Link { name, alias })
        };
        assert_eq!(link("db"), of("db", "db"));
        assert_eq!(link("db:postgres"), of("db", "postgres"));
        for bad in ["", ":x", "db:", "a b", "db:a:b", "db:a=b"] {
            assert!(link(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn search_domains_and_options_stay_on_one_line() {
        for fine in [".", "lan", "example.com", "example.com.", "a-b.c_d"] {
            assert_eq!(search(fine), Ok(fine.into()));
        }
        for bad in [
            "",
            "a b",
            "a..b",
            "a\nnameserver 1.1.1.1",
            "..",
            &"a.".repeat(200),
        ] {
            assert_eq!(search(bad), Err(Error::Search(bad.into())));
        }
        assert_eq!(dns_option("ndots:2"), Ok("ndots:2".into()));
        assert!(dns_option("a b").is_err());
        assert!(dns_option("").is_err());
    }
}
