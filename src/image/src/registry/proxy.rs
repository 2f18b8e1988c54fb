//! HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either case, as Go and so Docker read them
//! (golang.org/x/net/http/httpproxy). This machine is never reached through a proxy.

use std::net::IpAddr;

use ureq::Proxy;
use url::Url;

use super::Error;
use super::http::{host, is_loopback};

/// The proxies to use.
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// One entry of NO_PROXY.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    /// A host and its subdomains, or with a leading dot only these, on a port or on any.
    Domain {
        name: String,
        only_below: bool,
        port: Option<u16>,
    },
    Network {
        address: IpAddr,
        prefix_len: u8,
    },
}

impl Proxies {
    /// Reads the variables through `variable`.
    pub(super) fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Proxies, Error> {
        let either = |upper: &'static str| {
            let value = variable(upper).or_else(|| variable(&upper.to_ascii_lowercase()));
            value.filter(|value| !value.trim().is_empty())
        };
        let proxy = |name: &'static str| -> Result<Option<Proxy>, Error> {
            let Some(value) = either(name) else {
                return Ok(None);
            };
            let wrong = || Error::Proxy { variable: name };
            let proxy = Proxy::new(value.trim()).map_err(|_| wrong())?;
            let supported = matches!(
                proxy.protocol(),
                ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https
            );
            if supported {
                Ok(Some(proxy))
            } else {
                Err(wrong())
            }
        };
        let all = proxy("ALL_PROXY")?;
        let exceptions = either("NO_PROXY").unwrap_or_default();
        Ok(Proxies {
            http: proxy("HTTP_PROXY")?.or_else(|| all.clone()),
            https: proxy("HTTPS_PROXY")?.or(all),
            exceptions: exceptions
                .split(',')
                .filter_map(|entry| exception(entry.trim()))
                .collect(),
        })
    }

    /// The proxy by which to reach an address, if any.
    pub(super) fn for_url(&self, url: &Url) -> Option<&Proxy> {
        let (host, port) = (host(url), url.port_or_known_default()?);
        let excepted = |entry: &Exception| entry.covers(host, port);
        if is_loopback(url) || self.exceptions.iter().any(excepted) {
            return None;
        }
        if url.scheme() == "https" {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        }
    }
}

fn exception(entry: &str) -> Option<Exception> {
    if entry.is_empty() {
        return None;
    }
    if entry == "*" {
        return Some(Exception::Everything);
    }
    let entry = entry.to_ascii_lowercase();
    let (address, prefix_len) = match entry.split_once('/') {
        Some((address, len)) => (address, len.parse::<u8>().ok()),
        None => (entry.as_str(), None),
    };
    if let Ok(address) = address.parse::<IpAddr>() {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        return Some(Exception::Network {
            address,
            prefix_len: prefix_len.unwrap_or(whole).min(whole),
        });
    }
    let (name, port) = match entry.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (entry.as_str(), None),
    };
    let name = name.strip_prefix('*').unwrap_or(name);
    let only_below = name.starts_with('.');
    Some(Exception::Domain {
        name: name.trim_start_matches('.').to_owned(),
        only_below,
        port,
    })
}

impl Exception {
    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Exception::Everything => true,
            Exception::Domain {
                name,
                only_below,
                port: only,
            } => {
                let below = host
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                (below || (!only_below && host == name)) && only.is_none_or(|only| only == port)
            }
            Exception::Network {
                address,
                prefix_len,
            } => match (address, host.parse()) {
                (IpAddr::V4(a), Ok(IpAddr::V4(b))) => {
                    let shift = 32 - u32::from(*prefix_len);
                    (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
                }
                (IpAddr::V6(a), Ok(IpAddr::V6(b))) => {
                    let shift = 128 - u32::from(*prefix_len);
                    (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
                }
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, Error> {
        Proxies::from_environment(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn used(proxies: &Proxies, url: &str) -> Option<String> {
        proxies
            .for_url(&url.parse().unwrap())
            .map(|proxy| proxy.host().to_owned())
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let both = proxies(&[("HTTP_PROXY", "http://h:1"), ("https_proxy", "s:2")]).unwrap();
        assert_eq!(used(&both, "http://r.example/").as_deref(), Some("h"));
        assert_eq!(used(&both, "https://r.example/").as_deref(), Some("s"));
        let all = proxies(&[("ALL_PROXY", "http://a:1"), ("HTTP_PROXY", "")]).unwrap();
        assert_eq!(used(&all, "http://r.example/").as_deref(), Some("a"));
        assert_eq!(used(&proxies(&[]).unwrap(), "https://r.example/"), None);
    }

    #[test]
    fn exceptions_and_this_machine_are_reached_directly() {
        let list = "a.example, .b.example,10.0.0.0/8,*.c.example,d.example:5000,::2/64";
        let some = proxies(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", list)]).unwrap();
        for direct in [
            "https://a.example/",
            "https://x.A.example/",
            "https://x.b.example/",
            "https://10.9.8.7/",
            "https://x.c.example/",
            "https://d.example:5000/",
            "https://localhost:5000/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::7]/",
        ] {
            assert_eq!(used(&some, direct), None, "{direct}");
        }
        for proxied in [
            "https://b.example/",
            "https://xa.example/",
            "https://11.0.0.1/",
            "https://d.example/",
        ] {
            assert_eq!(used(&some, proxied).as_deref(), Some("p"), "{proxied}");
        }
        let none = proxies(&[("HTTPS_PROXY", "http://p:1"), ("no_proxy", "*")]).unwrap();
        assert_eq!(used(&none, "https://r.example/"), None);
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error() {
        for value in ["socks5://p:1", "::::", "gopher://p"] {
            let error = proxies(&[("HTTPS_PROXY", value)]).err();
            assert!(
                matches!(
                    error,
                    Some(Error::Proxy {
                        variable: "HTTPS_PROXY"
                    })
                ),
                "{value}"
            );
        }
    }
}
