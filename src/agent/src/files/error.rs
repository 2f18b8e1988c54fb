//! What can go wrong with a container's files.

use std::io;
use std::path::PathBuf;

use protocol::agent::FailureKind;

/// Why a container's files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot enter the container's root file system")]
    Enter(#[source] io::Error),
    #[error("{} is not an absolute path inside the container", .0.display())]
    NotAbsolute(PathBuf),
    #[error("cannot {step} {}", path.display())]
    File {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("the tree at {} is more than {} levels deep", .0.display(), super::MAX_DEPTH)]
    TooDeep(PathBuf),
    #[error("the archive cannot be sent")]
    Send(#[source] io::Error),
    #[error("the archive cannot be received")]
    Receive(#[source] io::Error),
    #[error("the archive is not a tar archive: {0}")]
    Archive(&'static str),
    #[error("the archive's entry {} has a part \"..\" or is no name", .0.display())]
    BadName(PathBuf),
    #[error("the archive's entry {} is of the kind {kind:?}, which cannot be unpacked", name.display())]
    UnknownKind { name: PathBuf, kind: char },
    #[error("the archive's entry {} would replace a directory by something else, or the reverse", .0.display())]
    OtherKind(PathBuf),
    #[error("{} cannot be in a layer: names that begin with .wh. say there what was deleted", .0.display())]
    Whiteout(PathBuf),
    #[error("{} was renamed in a way that a layer cannot say", .0.display())]
    Redirected(PathBuf),
    #[error("cannot compare with the image")]
    Image(#[source] Box<crate::failure::Refusal>),
}

impl Error {
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Error::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => FailureKind::NotFound,
                io::ErrorKind::NotADirectory => FailureKind::Invalid,
                _ => FailureKind::Other,
            },
            Error::NotAbsolute(_)
            | Error::NotADirectory(_)
            | Error::Archive(_)
            | Error::BadName(_)
            | Error::UnknownKind { .. }
            | Error::OtherKind(_) => FailureKind::Invalid,
            _ => FailureKind::Other,
        }
    }
}

/// Says what was attempted on what, when something failed.
pub(crate) trait Attempt<T> {
    /// Names the step and the path.
    fn on(self, step: &'static str, path: &[u8]) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn on(self, step: &'static str, path: &[u8]) -> Result<T, Error> {
        self.map_err(|error| Error::File {
            step,
            path: super::shown(path),
            source: error.into(),
        })
    }
}
