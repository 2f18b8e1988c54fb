//! Streams that wait for the guest to connect, and reports of those that failed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The host's ports and what the guest reaches at them. Cheap to clone; any thread may hold it.
#[derive(Clone, Default)]
pub struct Offers {
    streams: Arc<Mutex<HashMap<u32, OwnedFd>>>,
    on_failure: Arc<OnceLock<OnFailure>>,
}

/// Called for a stream that failed, with its port.
type OnFailure = Box<dyn Fn(u32, StreamError) + Send + Sync>;

/// Why a stream ended before everything that was sent on it had arrived. The guest's connection has been reset and the
/// host's end reads an end of file: only this error tells that bytes are missing.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The host's kernel did not take bytes of the guest.
    #[error("bytes of the guest could not be passed on")]
    Write(#[source] io::Error),
    /// The host's kernel did not give bytes for the guest.
    #[error("bytes for the guest could not be read")]
    Read(#[source] io::Error),
    /// The main loop did not take the descriptor.
    #[error("the stream could not be waited for")]
    Watch(#[source] event_manager::Error),
    /// The device was stopped while the host had bytes of the guest to read.
    #[error("the guest reset its socket device before the host had read {0} bytes")]
    Stopped(usize),
}

/// Why a stream cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// A stream that the guest has not taken yet waits there.
    #[error("port {0} is offered already")]
    Taken(u32),
    /// It could not be made non-blocking.
    #[error("the stream for port {port} could not be made non-blocking")]
    NonBlocking {
        /// Where it was to be offered.
        port: u32,
        /// Why.
        source: io::Error,
    },
}

impl Offers {
    /// Joins the guest's next connection to `port` to `stream`: one end of a socketpair (SOCK_STREAM), which this makes
    /// non-blocking. It may hold bytes already. When the connection ends, it is closed.
    pub fn offer(&self, port: u32, stream: OwnedFd) -> Result<(), OfferError> {
        rustix::io::ioctl_fionbio(&stream, true).map_err(|errno| OfferError::NonBlocking {
            port,
            source: errno.into(),
        })?;
        match self.lock().entry(port) {
            Entry::Occupied(_) => Err(OfferError::Taken(port)),
            Entry::Vacant(vacant) => {
                vacant.insert(stream);
                Ok(())
            }
        }
    }

    /// Has `tell` called once for each stream that fails, with its port, on the main loop or a vCPU's thread. Only the
    /// first call counts; without one, failures are logged.
    pub fn on_failure(&self, tell: impl Fn(u32, StreamError) + Send + Sync + 'static) {
        // A second one is ignored, as documented.
        let _ = self.on_failure.set(Box::new(tell));
    }

    /// A stream has failed.
    pub(super) fn failed(&self, port: u32, error: StreamError) {
        match self.on_failure.get() {
            Some(tell) => tell(port, error),
            None => tracing::warn!(port, %error, "a stream failed"),
        }
    }

    /// What is offered at `port`, once.
    pub(super) fn take(&self, port: u32) -> Option<OwnedFd> {
        self.lock().remove(&port)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, OwnedFd>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
