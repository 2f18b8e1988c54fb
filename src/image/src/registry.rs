//! A registry: manifests and blobs by the OCI distribution protocol (distribution-spec 1.1).
//!
//! A blocking client on ureq: a pull is a few concurrent downloads, for which threads suffice. The
//! client crates that exist do not offer what is needed here: resuming, redirects without
//! credentials, limits on silence and size. Invariants: what [`Client::manifest`] and
//! [`Client::config`] return has the digest that was asked for; bodies are bounded; credentials go
//! to the registry and its authorisation server only. Deliberately absent: mirrors, the v1
//! protocol.

mod auth;
mod download;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod http;
mod proxy;
mod push;
mod resolve;
mod retry;
mod tags;

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, header};

use auth::Credentials;
pub(crate) use auth::{DOCKER_HUB_KEY, docker_config_folder};
pub(crate) use download::Download;
pub use error::Error;
use http::{Http, Request};
pub(crate) use push::{Blob, Mounted, Session};
pub(crate) use retry::Retry;

use crate::digest::Digest;
use crate::manifest::{self, Descriptor};
use crate::pull::PullOptions;
use crate::reference::Reference;

/// One repository of a registry.
pub(crate) struct Client {
    http: Http,
    /// `https://host` or `http://host`.
    base: String,
    host: String,
    domain: String,
    repository: String,
    credentials: OnceLock<Credentials>,
    /// The Authorization header that the registry last accepted, shared by all threads.
    authorization: Mutex<Option<String>>,
    /// Whether the registry has ever answered.
    reached: AtomicBool,
    config_folder: Option<std::path::PathBuf>,
}

/// A manifest or an index, and its digest.
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

impl Client {
    /// Chooses the scheme. Only a registry that may use plain HTTP is probed, HTTPS first, as
    /// Docker does; for all others it is HTTPS.
    pub(crate) fn connect(reference: &Reference, options: &PullOptions) -> Result<Client, Error> {
        let host = reference.host().to_owned();
        let idle = Duration::from_millis(options.idle_timeout_ms);
        let http = Http::new(&host, &options.insecure_registries, idle)?;
        let mut client = Client {
            http,
            base: format!("https://{host}"),
            host,
            domain: reference.domain().to_owned(),
            repository: reference.repository().to_owned(),
            credentials: OnceLock::new(),
            authorization: Mutex::new(None),
            reached: AtomicBool::new(false),
            config_folder: options
                .docker_config
                .clone()
                .or_else(auth::docker_config_folder),
        };
        if client.http.registry_may_be_plain() {
            client.choose_scheme()?;
        }
        Ok(client)
    }

    /// Whether the registry takes this user and password, or asks for none. `registry` is any name at it.
    pub(crate) fn check_login(
        registry: &Reference,
        user: &str,
        password: &str,
        options: &PullOptions,
    ) -> Result<bool, Error> {
        let mut client = Client::connect(registry, options)?;
        client.repository.clear();
        client.credentials = OnceLock::from(Credentials::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        });
        let path = "/v2/";
        match client.get(path, &Request::default()) {
            Ok(response) => client.check_status(&response, path).map(|()| true),
            Err(Error::Unauthorised { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn choose_scheme(&mut self) -> Result<(), Error> {
        let ping = |scheme: &str| {
            let url = http::address(&format!("{scheme}://{}/v2/", self.host))?;
            self.http.send(&url, &Request::default())
        };
        let Err(secure) = ping("https") else {
            return Ok(());
        };
        match ping("http") {
            // The answer of an HTTPS server to plain HTTP.
            Ok(answer) if answer.status().as_u16() == 400 => Err(secure),
            Ok(_) => {
                self.base = format!("http://{}", self.host);
                self.reached.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The manifest or index of a tag or digest. When `expected` is given, it has that digest.
    pub(crate) fn manifest(
        &self,
        which: &str,
        expected: Option<&Digest>,
    ) -> Result<Fetched, Error> {
        let path = format!("/v2/{}/manifests/{which}", self.repository);
        let request = Request {
            accept: Some(manifest::ACCEPT),
            ..Request::default()
        };
        let response = self.get(&path, &request)?;
        if response.status().as_u16() == 404 {
            let joint = if which.contains(':') { '@' } else { ':' };
            let name = format!("{}{joint}{which}", self.repository);
            return Err(Error::NotFound {
                host: self.host.clone(),
                name,
            });
        }
        self.check_status(&response, &path)?;
        let claimed = response
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        let bytes = self.bounded(response, "manifest", manifest::MAX_MANIFEST_LEN)?;
        let digest = Digest::of(&bytes);
        for expected in [expected, claimed.as_ref()].into_iter().flatten() {
            self.check_digest("manifest", expected, digest)?;
        }
        Ok(Fetched { bytes, digest })
    }

    /// An image's configuration.
    pub(crate) fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let what = "image configuration";
        let response = self.blob(&descriptor.digest, 0)?;
        let bytes = self.bounded(response, what, manifest::MAX_CONFIG_LEN)?;
        self.check_digest(what, &descriptor.digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// The answer to a request for a blob from this byte on: 200, 206 or 416.
    fn blob(&self, digest: &Digest, from_byte: u64) -> Result<Response<Body>, Error> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        let response = self.get(
            &path,
            &Request {
                from_byte,
                ..Request::default()
            },
        )?;
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(response),
            404 => Err(Error::BlobMissing {
                host: self.host.clone(),
                digest: *digest,
            }),
            _ => self.check_status(&response, &path).map(|()| response),
        }
    }

    /// Sends a request, and answers the registry's challenge if there is one.
    fn get(&self, path: &str, request: &Request<'_>) -> Result<Response<Body>, Error> {
        let url = http::address(&format!("{}{path}", self.base))?;
        self.authorised(|authorization| {
            let attempt = Request {
                authorization,
                ..*request
            };
            self.http.send(&url, &attempt)
        })
    }

    /// Sends a request with the Authorization header that it is given, and answers the registry's
    /// challenge if there is one.
    fn authorised(
        &self,
        mut send: impl FnMut(Option<&str>) -> Result<Response<Body>, Error>,
    ) -> Result<Response<Body>, Error> {
        // Another thread may have replaced the header, and a token may have expired: hence several
        // attempts.
        for _ in 0..3 {
            let used = self.authorization();
            let response = send(used.as_deref())?;
            self.reached.store(true, Ordering::Relaxed);
            match response.status().as_u16() {
                401 => self.authorise(&response, used)?,
                403 => return Err(self.unauthorised()),
                _ => return Ok(response),
            }
        }
        Err(self.unauthorised())
    }

    /// Obtains a new Authorization header, unless another thread has since `used` was sent.
    fn authorise(&self, response: &Response<Body>, used: Option<String>) -> Result<(), Error> {
        let mut current = self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *current != used {
            return Ok(());
        }
        let challenges: Vec<_> = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .flat_map(|value| auth::challenges(&String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let credentials = self
            .credentials
            .get_or_init(|| Credentials::look_up(&self.domain, self.config_folder.clone()));
        let header = auth::authorise(
            &self.http,
            &self.host,
            &self.repository,
            &challenges,
            credentials,
        )?;
        match header {
            // Repeating the same header would be refused again.
            Some(header) if used.as_ref() != Some(&header) => {
                *current = Some(header);
                Ok(())
            }
            _ => Err(self.unauthorised()),
        }
    }

    fn unauthorised(&self) -> Error {
        let found = self.credentials.get();
        Error::Unauthorised {
            host: self.host.clone(),
            repository: self.repository.clone(),
            as_user: found.and_then(Credentials::user),
            credentials: match found {
                Some(Credentials::Failed(error)) => Some(error.clone()),
                _ => None,
            },
        }
    }

    fn authorization(&self) -> Option<String> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn check_status(&self, response: &Response<Body>, path: &str) -> Result<(), Error> {
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(());
        }
        Err(Error::Status {
            host: self.host.clone(),
            path: path.chars().take(200).collect(),
            status,
            retry_after_s: auth::retry_after_s(response),
        })
    }

    fn check_digest(
        &self,
        what: &'static str,
        expected: &Digest,
        actual: Digest,
    ) -> Result<(), Error> {
        match *expected == actual {
            true => Ok(()),
            false => Err(Error::Digest {
                host: self.host.clone(),
                what,
                expected: *expected,
                actual,
            }),
        }
    }

    fn bounded(
        &self,
        response: Response<Body>,
        what: &'static str,
        max: u64,
    ) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(max + 1);
        body.read_to_end(&mut bytes)
            .map_err(|source| self.interrupted(what, source))?;
        match bytes.len() as u64 > max {
            true => Err(Error::TooLarge {
                host: self.host.clone(),
                what,
                max,
            }),
            false => Ok(bytes),
        }
    }

    fn interrupted(&self, what: &'static str, source: io::Error) -> Error {
        Error::Interrupted {
            host: self.host.clone(),
            what,
            source,
        }
    }

    /// Whether the registry has ever answered this client.
    pub(crate) fn reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }
}
