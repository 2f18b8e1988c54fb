//! HTTP as registries need it: requests that follow redirects by our own rules, through the proxies that the
//! environment names, with time limits on silence rather than on length.
//!
//! Redirects: at most [`MAX_REDIRECTS`], credentials go to no other origin than the one they are for, and none leads
//! to plain HTTP unless that is allowed there.

use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Response, StatusCode, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::Error;
use super::proxy::Proxies;
use super::resolve::Names;

/// As many as Go's HTTP client, and so Docker, follows.
pub(crate) const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The HTTP side of one registry.
pub(super) struct Http {
    agent: Agent,
    proxies: Proxies,
    /// Of the registry, for messages.
    host: String,
    /// Hosts, or hosts with ports, that may be spoken to in plain HTTP besides this machine.
    insecure: Vec<String>,
}

/// One GET, or a POST of a form.
#[derive(Default)]
pub(super) struct Request<'a> {
    pub(super) authorization: Option<&'a str>,
    pub(super) accept: Option<&'a str>,
    /// The first byte wanted.
    pub(super) from_byte: u64,
    /// Sent by POST, as application/x-www-form-urlencoded.
    pub(super) form: Option<&'a [(&'a str, &'a str)]>,
}

impl Http {
    pub(super) fn new(host: &str, insecure: &[String], idle: Duration) -> Result<Http, Error> {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls)
            .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(idle))
            .timeout_per_read(Some(idle))
            .timeout_per_write(Some(idle))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Names);
        let proxies = Proxies::from_environment(|name| std::env::var(name).ok())?;
        Ok(Http {
            agent,
            proxies,
            host: host.to_owned(),
            insecure: insecure.to_vec(),
        })
    }

    /// The answer to a request, after redirects, whatever its status.
    pub(super) fn send(&self, url: &Uri, request: &Request<'_>) -> Result<Response<Body>, Error> {
        let mut target = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.check_scheme(&target)?;
            let authorization = request.authorization.filter(|_| same_origin(url, &target));
            let response = self.send_once(&target, request, authorization)?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let location = location.unwrap_or_default();
            target = join(&target, location).ok_or_else(|| Error::Redirect {
                host: self.host.clone(),
                location: location.chars().take(200).collect(),
            })?;
        }
        Err(Error::TooManyRedirects {
            host: self.host.clone(),
        })
    }

    fn send_once(
        &self,
        url: &Uri,
        request: &Request<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Error> {
        let proxy = self.proxies.for_url(url).cloned();
        let sent = match request.form {
            Some(form) => {
                let form = form.iter().copied();
                self.agent
                    .post(url)
                    .config()
                    .proxy(proxy)
                    .build()
                    .send_form(form)
            }
            None => {
                let mut get = self.agent.get(url).config().proxy(proxy).build();
                if let Some(accept) = request.accept {
                    get = get.header(header::ACCEPT, accept);
                }
                if let Some(authorization) = authorization {
                    get = get.header(header::AUTHORIZATION, authorization);
                }
                if request.from_byte > 0 {
                    get = get.header(header::RANGE, format!("bytes={}-", request.from_byte));
                }
                get.call()
            }
        };
        sent.map_err(|source| {
            let host = url
                .authority()
                .map_or_else(String::new, ToString::to_string);
            Error::Unreachable {
                host,
                source: Box::new(source),
            }
        })
    }

    fn check_scheme(&self, url: &Uri) -> Result<(), Error> {
        let allowed = match url.scheme_str() {
            Some("https") => true,
            Some("http") => self.may_be_plain(url),
            _ => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(Error::PlainHttp {
                host: self.host.clone(),
                target: url
                    .authority()
                    .map_or_else(String::new, ToString::to_string),
            }),
        }
    }

    /// Plain HTTP is for a registry that may use it itself; it may not lead a stranger to this machine's ports.
    fn may_be_plain(&self, url: &Uri) -> bool {
        let plain = |authority: &str| {
            let host = host_of(authority);
            is_loopback(host)
                || self
                    .insecure
                    .iter()
                    .any(|name| name == authority || name == host)
        };
        plain(&self.host)
            && url
                .authority()
                .is_some_and(|authority| plain(authority.as_str()))
    }

    /// Whether the registry itself may be spoken to in plain HTTP.
    pub(super) fn registry_may_be_plain(&self) -> bool {
        let host = host_of(&self.host);
        is_loopback(host)
            || self
                .insecure
                .iter()
                .any(|name| *name == self.host || name == host)
    }
}

/// The host of `host[:port]`, without an IPv6 address's brackets.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

/// Whether a host is this machine, by its spelling: no name is looked up.
pub(super) fn is_loopback(host: &str) -> bool {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// RFC 6454, section 5.
fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |url: &Uri| url.port_u16().or_else(|| default_port(url));
    let host = |url: &Uri| url.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

fn default_port(url: &Uri) -> Option<u16> {
    match url.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    }
}

/// Where a Location leads from here (RFC 3986, section 5.2, without dot segments). An address with a user name in it is
/// none: it could only be meant to mislead.
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let text = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.is_empty() {
        return None;
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    // A fragment is for the reader, not for the server.
    let text = text.split('#').next().unwrap_or(&text);
    let url: Uri = text.parse().ok()?;
    let clean = url
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    clean.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn locations_lead_where_browsers_would_go() {
        let base = uri("https://r.example:5000/v2/a/blobs/x?y=1");
        for (location, target) in [
            ("https://cdn.example/z?sig=1", "https://cdn.example/z?sig=1"),
            ("/z", "https://r.example:5000/z"),
            ("//cdn.example/z#f", "https://cdn.example/z"),
            ("z", "https://r.example:5000/v2/a/blobs/z"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), target);
        }
        for location in ["", "https://user:pw@h/x", "http://", "https://a b/"] {
            assert_eq!(join(&base, location), None, "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert!(same_origin(&uri("https://a/x"), &uri("https://A:443/y")));
        for other in ["http://a/", "https://b/", "https://a:444/"] {
            assert!(!same_origin(&uri("https://a/"), &uri(other)));
        }
    }

    #[test]
    fn this_machine_is_known_by_its_spelling() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "128.0.0.1",
            "10.0.0.1",
            "0.0.0.0",
            "::2",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        assert_eq!(host_of("[::1]:5000"), "::1");
        assert_eq!(host_of("a.b:5000"), "a.b");
    }

    #[test]
    fn plain_http_is_for_this_machine_and_for_those_told() {
        let http =
            |host: &str| Http::new(host, &["lan:5000".to_owned()], Duration::from_secs(1)).unwrap();
        assert!(
            http("localhost:1")
                .check_scheme(&uri("http://127.0.0.1:2/"))
                .is_ok()
        );
        assert!(
            http("lan:5000")
                .check_scheme(&uri("http://lan:5000/"))
                .is_ok()
        );
        assert!(
            http("lan:5001")
                .check_scheme(&uri("http://lan:5001/"))
                .is_err()
        );
        // A registry elsewhere does not get us to knock at local doors.
        assert!(
            http("r.example")
                .check_scheme(&uri("http://127.0.0.1:2/"))
                .is_err()
        );
        assert!(
            http("localhost:1")
                .check_scheme(&uri("http://r.example/"))
                .is_err()
        );
        assert!(
            http("localhost:1")
                .check_scheme(&uri("ftp://localhost/"))
                .is_err()
        );
    }
}
