//! Resolves host names within a time limit.
//!
//! ureq's resolver panics if no thread can be started. This one returns an error, and starts no
//! thread for an address.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// As many addresses as [`ResolvedSocketAddrs`] holds.
const MAX_ADDRESSES: usize = 16;

/// Uses the system's resolver.
#[derive(Debug)]
pub(super) struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(ureq::Error::BadUri(uri.to_string()));
        };
        let place = DefaultResolver::host_and_port(scheme, authority)
            .ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let host = authority.host();
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let addresses = match literal.unwrap_or(host).parse::<IpAddr>() {
            Ok(_) => place.to_socket_addrs()?.collect(),
            Err(_) => look_up(place, timeout)?,
        };
        let mut resolved = self.empty();
        for address in config
            .ip_family()
            .keep_wanted(addresses.into_iter())
            .take(MAX_ADDRESSES)
        {
            resolved.push(address);
        }
        match resolved.is_empty() {
            true => Err(ureq::Error::HostNotFound),
            false => Ok(resolved),
        }
    }
}

/// Resolves in a thread, which is abandoned after the time limit: the system's resolver cannot be
/// cancelled.
fn look_up(place: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, ureq::Error> {
    let (answer, answered) = mpsc::sync_channel(1);
    let work = move || {
        let found = place.to_socket_addrs().map(Iterator::collect);
        // The receiver is gone after the time limit.
        let _ = answer.send(found);
    };
    // With the default stack size: the system's resolver loads the modules that the host is
    // configured with.
    std::thread::Builder::new()
        .name("resolve".into())
        .spawn(work)?;
    match answered.recv_timeout(*timeout.after) {
        Ok(found) => Ok(found?),
        Err(RecvTimeoutError::Timeout) => Err(ureq::Error::Timeout(timeout.reason)),
        Err(RecvTimeoutError::Disconnected) => {
            Err(io::Error::other("the resolver ended without an answer").into())
        }
    }
}
