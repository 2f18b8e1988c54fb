//! Streams that wait for the guest to connect.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// The host's ports and what the guest reaches at them. Cheap to clone; any thread may hold it.
#[derive(Clone, Default)]
pub struct Offers {
    streams: Arc<Mutex<HashMap<u32, OwnedFd>>>,
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

    /// What is offered at `port`, once.
    pub(super) fn take(&self, port: u32) -> Option<OwnedFd> {
        self.lock().remove(&port)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, OwnedFd>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
