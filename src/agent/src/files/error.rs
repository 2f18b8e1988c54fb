//! What can go wrong with a container's files.

use std::io;
use std::path::PathBuf;

use protocol::agent::FailureKind;

/// Why a container's files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it is not built")]
    NotBuilt,
    #[error("cannot enter the container's root file system")]
    Enter(#[source] io::Error),
    #[error("cannot {step} {}", path.display())]
    File {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                FailureKind::NotFound
            }
            _ => FailureKind::Other,
        }
    }
}
