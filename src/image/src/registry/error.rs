//! Why a request to a registry failed.

use std::io;
use std::sync::Arc;

use crate::digest::Digest;

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke before an answer came.
    #[error("{host} cannot be reached{}", through(.proxy))]
    Unreachable {
        /// Host and port: of the registry, or of a server that it leads to.
        host: String,
        /// Host and port of the proxy that was to lead there.
        proxy: Option<String>,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// No such repository, tag or manifest.
    #[error("registry {host} has no image {name}")]
    NotFound {
        /// Host and port.
        host: String,
        /// Repository and tag or digest.
        name: String,
    },
    /// The manifest names a blob that is not there.
    #[error("registry {host} does not have blob {digest}, which the image's manifest names")]
    BlobMissing {
        /// Host and port.
        host: String,
        /// The blob.
        digest: Digest,
    },
    /// Access denied.
    #[error("registry {host} denies access to {repository} {}", user_tried(.as_user))]
    Unauthorised {
        /// Host and port.
        host: String,
        /// Which repository.
        repository: String,
        /// The user whose credentials were tried, if any.
        as_user: Option<String>,
        /// Why Docker's configuration yielded no credentials, if it should have.
        #[source]
        credentials: Option<Arc<docker_credential::CredentialRetrievalError>>,
    },
    /// An unexpected status.
    #[error("{host} answered {status} to a request for {path}")]
    Status {
        /// Host and port: of the registry, or of its authorisation server.
        host: String,
        /// Path and query, cut short.
        path: String,
        /// HTTP status.
        status: u16,
        /// How long the server asks clients to wait.
        retry_after_s: Option<u64>,
    },
    /// A registry that does not take what is pushed.
    #[error("registry {host} answered {status} to {method} {path}{}", told(.message))]
    Refused {
        /// Host and port.
        host: String,
        /// HTTP method.
        method: &'static str,
        /// Path, cut short.
        path: String,
        /// HTTP status.
        status: u16,
        /// What the registry says of it, fit for a terminal.
        message: Option<String>,
        /// How long the registry asks us to wait.
        retry_after_s: Option<u64>,
    },
    /// A list of tags that is none.
    #[error("registry {host} sent a list of tags that is malformed")]
    TagList {
        /// Host and port.
        host: String,
        /// Where.
        source: serde_json::Error,
    },
    /// Other bytes than the digest promises.
    #[error("the {what} that registry {host} sent has digest {actual}, not {expected}")]
    Digest {
        /// Host and port.
        host: String,
        /// "manifest", "image configuration" or "layer".
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More or fewer bytes than were promised.
    #[error("the {what} that registry {host} sent has {actual} bytes or more, not {expected}")]
    Size {
        /// Host and port.
        host: String,
        /// Of what.
        what: &'static str,
        /// What was promised.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// A document beyond its bound.
    #[error("the {what} that registry {host} sent has more than {max} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
        /// Of what.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// The transfer broke off.
    #[error("the transfer of the {what} from registry {host} broke off")]
    Interrupted {
        /// Host and port.
        host: String,
        /// Of what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Plain HTTP to another machine, which is not allowed.
    #[error("registry {host} leads to plain HTTP at {target}, which is refused")]
    PlainHttp {
        /// Host and port of the registry.
        host: String,
        /// Where it leads.
        target: String,
    },
    /// A redirect that cannot be followed.
    #[error("registry {host} redirects to {location:?}, which cannot be followed")]
    Redirect {
        /// Host and port.
        host: String,
        /// Where to, cut short.
        location: String,
    },
    /// A redirect that would take credentials elsewhere.
    #[error(
        "authorisation server {host} redirects the login to {target}, where credentials are not sent"
    )]
    LoginRedirect {
        /// Host and port of the authorisation server.
        host: String,
        /// Where it redirects to.
        target: String,
    },
    /// What is not the address of a server.
    #[error("{address:?} is not a valid address")]
    Address {
        /// The address, cut short.
        address: String,
    },
    /// Too many redirects.
    #[error(
        "registry {host} redirects more than {} times",
        super::http::MAX_REDIRECTS
    )]
    TooManyRedirects {
        /// Host and port.
        host: String,
    },
    /// Authentication by a scheme that is not supported.
    #[error("registry {host} asks for authentication in a way that is not supported")]
    Challenge {
        /// Host and port.
        host: String,
    },
    /// An authorisation server that gave no usable token.
    #[error("the authorisation server {realm} of registry {host} gave no usable token")]
    Token {
        /// Host and port of the registry.
        host: String,
        /// Host of the server.
        realm: String,
    },
    /// An environment variable.
    #[error("the environment variable {variable} is not the address of an HTTP proxy")]
    Proxy {
        /// Its name.
        variable: &'static str,
    },
    /// Another layer failed, so this one was cancelled.
    #[error("cancelled, since another layer failed")]
    Cancelled,
}

fn through(proxy: &Option<String>) -> String {
    proxy
        .as_ref()
        .map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"))
}

fn user_tried(user: &Option<String>) -> String {
    user.as_ref().map_or_else(
        || "without credentials".to_owned(),
        |user| format!("to {user:?}"),
    )
}

fn told(message: &Option<String>) -> String {
    message
        .as_ref()
        .map_or_else(String::new, |message| format!(": {message}"))
}

/// The class of a connection failure.
enum Trouble {
    Refused,
    Lookup,
    Connection,
    Certificate,
    /// The other side does not speak TLS, or no common version.
    Tls,
    Other,
}

fn trouble(error: &ureq::Error) -> Trouble {
    let by_tls = |error: &rustls::Error| match error {
        rustls::Error::InvalidCertificate(_) => Trouble::Certificate,
        _ => Trouble::Tls,
    };
    match error {
        ureq::Error::HostNotFound => Trouble::Lookup,
        ureq::Error::Rustls(error) => by_tls(error),
        ureq::Error::Tls(_) => Trouble::Tls,
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => Trouble::Connection,
        ureq::Error::Io(error) => {
            let inner = error.get_ref();
            match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => by_tls(error),
                None if error.kind() == io::ErrorKind::ConnectionRefused => Trouble::Refused,
                // std gives getaddrinfo's errors neither a kind nor an errno.
                None if error.to_string().starts_with("failed to lookup address") => {
                    Trouble::Lookup
                }
                None => Trouble::Connection,
            }
        }
        _ => Trouble::Other,
    }
}

impl Error {
    /// Whether a retry may succeed.
    pub(crate) fn is_transient(&self, reached_before: bool) -> bool {
        match self {
            Error::Interrupted { .. } => true,
            Error::Status { status, .. } | Error::Refused { status, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
            }
            Error::Unreachable { source, .. } => match trouble(source) {
                // A registry that never answered is down; one that did may be restarting.
                Trouble::Refused | Trouble::Lookup => reached_before,
                Trouble::Connection => true,
                Trouble::Certificate | Trouble::Tls | Trouble::Other => false,
            },
            _ => false,
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Error::Unreachable {
                source,
                host,
                proxy,
            } => match trouble(source) {
                Trouble::Certificate => {
                    "if the registry has a certificate of a private authority, add that to the system's certificates, \
                     or name its file in SSL_CERT_FILE"
                }
                Trouble::Tls => {
                    return Some(format!(
                        "if {host} speaks plain HTTP and the network is trusted, name it as an insecure registry"
                    ));
                }
                Trouble::Lookup => {
                    "check the registry's name, and this machine's DNS and proxy settings"
                }
                Trouble::Refused | Trouble::Connection | Trouble::Other if proxy.is_some() => {
                    "check that the proxy, which HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, is up and leads there"
                }
                Trouble::Refused | Trouble::Connection | Trouble::Other => {
                    "check that the registry is up and that this machine can reach it (or set HTTPS_PROXY)"
                }
            },
            Error::NotFound { .. } => "check the name and the tag",
            Error::BlobMissing { .. } => {
                "the image is incomplete in the registry: it must be pushed again"
            }
            Error::Unauthorised {
                as_user: None,
                credentials: None,
                ..
            } => {
                "the image does not exist, or it needs `docker login` first: hull reads Docker's credentials"
            }
            Error::Unauthorised { as_user: None, .. } => {
                "the credential helper that Docker's config.json names did not work"
            }
            Error::Unauthorised { .. } => {
                "this user has no access, or the password is out of date: log in again"
            }
            Error::Refused { status: 413, .. } => {
                "the registry, or a proxy before it, takes no layers of this size"
            }
            Error::Refused { status: 404, .. } => {
                "check the name: the registry may want the repository made first"
            }
            Error::Status { status: 429, .. } | Error::Refused { status: 429, .. } => {
                "the registry limits its rate: log in, or wait"
            }
            Error::Status { status: 500.., .. } | Error::Refused { status: 500.., .. } => {
                "the registry has a problem: try again later"
            }
            Error::Digest { .. } | Error::Size { .. } => {
                "the registry, or a proxy on the way to it, sends other bytes than it promised; they were not kept"
            }
            Error::Interrupted { what: "layer", .. } => {
                "pull again: what came is kept, and the download goes on from there"
            }
            Error::Interrupted { .. } => "pull again",
            Error::LoginRedirect { .. } => {
                "log in again with a password or an access token instead of an identity token"
            }
            Error::Proxy { .. } => "set it to http://HOST:PORT or https://HOST:PORT, or unset it",
            Error::PlainHttp { .. } => {
                "only registries on this machine may use plain HTTP, and those named as insecure"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
