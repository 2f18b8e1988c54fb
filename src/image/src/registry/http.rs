//! HTTP for registries: redirects by rules of our own, the proxies that the environment names, and
//! time limits on silence instead of on the whole transfer.
//!
//! Redirects: at most [`MAX_REDIRECTS`]. Credentials, in a header or in a form, never leave the
//! origin that they are for, and no redirect leads to plain HTTP unless it is allowed there.

mod upload;

use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Response, StatusCode, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy};
use url::{Host, Url};

pub(super) use upload::Upload;

use super::Error;
use super::proxy::Proxies;
use super::resolve::Names;

/// The most redirects of one request; Go's HTTP client, and so Docker, follows as many.
pub(crate) const MAX_REDIRECTS: usize = 10;
/// The most characters of an address that a message repeats.
const MAX_SHOWN: usize = 200;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The HTTP side of one registry.
pub(super) struct Http {
    agent: Agent,
    proxies: Proxies,
    /// The registry as `host[:port]`, for messages.
    host: String,
    /// Hosts, or hosts with ports, that may be spoken to in plain HTTP besides this machine.
    insecure: Vec<String>,
    /// The registry itself may be spoken to in plain HTTP.
    registry_may_be_plain: bool,
}

/// One GET or HEAD, or a POST of a form.
#[derive(Clone, Copy, Default)]
pub(super) struct Request<'a> {
    pub(super) authorization: Option<&'a str>,
    pub(super) accept: Option<&'a str>,
    /// A HEAD.
    pub(super) head: bool,
    /// The first byte wanted.
    pub(super) from_byte: u64,
    /// Sent by POST, as application/x-www-form-urlencoded. Holds credentials.
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
        let registry = address(&format!("http://{host}/"))?;
        Ok(Http {
            agent: Agent::with_parts(config, DefaultConnector::default(), Names),
            proxies: Proxies::from_environment(|name| std::env::var(name).ok())?,
            host: host.to_owned(),
            registry_may_be_plain: is_insecure(&registry, insecure),
            insecure: insecure.to_vec(),
        })
    }

    /// The answer to a request, after redirects, whatever its status.
    pub(super) fn send(&self, url: &Url, request: &Request<'_>) -> Result<Response<Body>, Error> {
        let mut target = url.clone();
        let mut request = *request;
        for _ in 0..=MAX_REDIRECTS {
            self.check_scheme(&target)?;
            let response = self.send_once(&target, &request)?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            if response.status() == StatusCode::SEE_OTHER {
                request.form = None;
            }
            target = self.redirect_target(&target, &response)?;
            if target.origin() != url.origin() {
                // For good: another origin must not choose which address here gets the credentials.
                request.authorization = None;
                if request.form.is_some() {
                    return Err(Error::LoginRedirect {
                        host: authority(url),
                        target: authority(&target),
                    });
                }
            }
        }
        Err(Error::TooManyRedirects {
            host: self.host.clone(),
        })
    }

    fn redirect_target(&self, from: &Url, response: &Response<Body>) -> Result<Url, Error> {
        let location = response.headers().get(header::LOCATION);
        let location = String::from_utf8_lossy(location.map_or(b"", |value| value.as_bytes()));
        join(from, &location).ok_or_else(|| self.bad_redirect(&location))
    }

    fn bad_redirect(&self, location: &str) -> Error {
        Error::Redirect {
            host: self.host.clone(),
            location: location.chars().take(MAX_SHOWN).collect(),
        }
    }

    fn send_once(&self, url: &Url, request: &Request<'_>) -> Result<Response<Body>, Error> {
        let proxy = self.proxies.for_url(url);
        let uri: Uri = url
            .as_str()
            .parse()
            .map_err(|_| self.bad_redirect(url.as_str()))?;
        let sent = match request.form {
            Some(form) => {
                let post = self.agent.post(uri).config().proxy(proxy.cloned()).build();
                post.send_form(form.iter().copied())
            }
            None => {
                let get = match request.head {
                    true => self.agent.head(uri),
                    false => self.agent.get(uri),
                };
                let mut get = get.config().proxy(proxy.cloned()).build();
                if let Some(accept) = request.accept {
                    get = get.header(header::ACCEPT, accept);
                }
                if let Some(authorization) = request.authorization {
                    get = get.header(header::AUTHORIZATION, authorization);
                }
                if request.from_byte > 0 {
                    get = get.header(header::RANGE, format!("bytes={}-", request.from_byte));
                }
                get.call()
            }
        };
        sent.map_err(|source| Error::Unreachable {
            host: authority(url),
            proxy: proxy.map(|proxy: &Proxy| format!("{}:{}", proxy.host(), proxy.port())),
            source: Box::new(source),
        })
    }

    fn check_scheme(&self, url: &Url) -> Result<(), Error> {
        match url.scheme() {
            "https" => Ok(()),
            // A registry elsewhere must not lead to ports of this machine.
            "http" if self.registry_may_be_plain && is_insecure(url, &self.insecure) => Ok(()),
            "http" => Err(Error::PlainHttp {
                host: self.host.clone(),
                target: authority(url),
            }),
            _ => Err(self.bad_redirect(url.as_str())),
        }
    }

    /// Whether the registry itself may be spoken to in plain HTTP.
    pub(super) fn registry_may_be_plain(&self) -> bool {
        self.registry_may_be_plain
    }
}

/// An address that is not from a Location.
pub(super) fn address(text: &str) -> Result<Url, Error> {
    Url::parse(text).map_err(|_| Error::Address {
        address: text.chars().take(MAX_SHOWN).collect(),
    })
}

/// `host[:port]`, without a default port.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The host of an address, an IPv6 address without its brackets.
pub(super) fn host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    address.unwrap_or(host)
}

/// Whether a host is this machine, by its spelling: no name is looked up.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether an address is of this machine, or of a host (on any port) or a host with a port that is
/// in `names`.
fn is_insecure(url: &Url, names: &[String]) -> bool {
    let with_port = format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default()
    );
    let listed = |name: &String| {
        name.eq_ignore_ascii_case(host(url)) || name.eq_ignore_ascii_case(&with_port)
    };
    is_loopback(url) || names.iter().any(listed)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a Location leads from here; `None` if it is empty, no address, or one with a user name,
/// which could only be meant to mislead.
pub(super) fn join(base: &Url, location: &str) -> Option<Url> {
    if location.is_empty() {
        return None;
    }
    let mut target = base.join(location).ok()?;
    // A fragment is for the reader, not for the server.
    target.set_fragment(None);
    let anonymous = target.username().is_empty() && target.password().is_none();
    (anonymous && target.has_host()).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn locations_lead_where_browsers_would_go() {
        let base = url("https://r.example:5000/v2/a/blobs/x?y=1");
        for (location, target) in [
            ("https://cdn.example/z?sig=1", "https://cdn.example/z?sig=1"),
            ("/z", "https://r.example:5000/z"),
            ("//cdn.example/z#f", "https://cdn.example/z"),
            ("z", "https://r.example:5000/v2/a/blobs/z"),
            ("../z", "https://r.example:5000/v2/a/z"),
            ("?y=2", "https://r.example:5000/v2/a/blobs/x?y=2"),
            // A scheme is only at the beginning.
            (
                "/z?from=https://e.example/",
                "https://r.example:5000/z?from=https://e.example/",
            ),
            (
                "z?from=https://e.example/",
                "https://r.example:5000/v2/a/blobs/z?from=https://e.example/",
            ),
            ("/z y", "https://r.example:5000/z%20y"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), target);
        }
        for location in ["", "https://user:pw@h/x", "http://", "https://a b/"] {
            assert_eq!(join(&base, location), None, "{location}");
        }
    }

    #[test]
    fn hosts_of_every_ascii_form_are_addresses() {
        for host in [
            "xn--mnchen-3ya.example",
            "a_b.example",
            "A.example:5000",
            "[::1]:5000",
        ] {
            let url = address(&format!("https://{host}/v2/")).unwrap();
            assert_eq!(authority(&url), host.to_lowercase());
        }
        assert!(address("https://münchen.example/").is_err());
    }

    #[test]
    fn this_machine_is_known_by_its_spelling() {
        let of = |host: &str| url(&format!("https://{host}:5000/"));
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(&of(host)), "{host}");
        }
        for host in [
            "localhost.example",
            "128.0.0.1",
            "10.0.0.1",
            "0.0.0.0",
            "[::2]",
        ] {
            assert!(!is_loopback(&of(host)), "{host}");
        }
        assert_eq!(host(&of("[::1]")), "::1");
        assert_eq!(authority(&of("a.b")), "a.b:5000");
    }

    #[test]
    fn plain_http_is_for_this_machine_and_for_those_told() {
        let http =
            |host: &str| Http::new(host, &["lan:5000".to_owned()], Duration::from_secs(1)).unwrap();
        assert!(
            http("localhost:1")
                .check_scheme(&url("http://127.0.0.1:2/"))
                .is_ok()
        );
        assert!(
            http("lan:5000")
                .check_scheme(&url("http://lan:5000/"))
                .is_ok()
        );
        assert!(
            http("lan:5001")
                .check_scheme(&url("http://lan:5001/"))
                .is_err()
        );
        assert!(
            http("lan:5000")
                .check_scheme(&url("http://LAN:5000/"))
                .is_ok()
        );
        // A registry elsewhere does not lead to ports of this machine.
        assert!(
            http("r.example")
                .check_scheme(&url("http://127.0.0.1:2/"))
                .is_err()
        );
        assert!(
            http("localhost:1")
                .check_scheme(&url("http://r.example/"))
                .is_err()
        );
        assert!(
            http("localhost:1")
                .check_scheme(&url("ftp://localhost/"))
                .is_err()
        );
    }
}
