//! Why an operation of the store failed.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// As in "cannot … PATH".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No space left, a quota reached, or a file too large for the file system or the process's
    /// limit.
    #[error("no space left for {}: {available_bytes} bytes are free", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// What the file system has for this user.
        available_bytes: u64,
        /// What the system said.
        source: Option<io::Error>,
    },
    /// The downloads will not fit on the disk.
    #[error("{needed_bytes} bytes are to be downloaded to {}, where {available_bytes} are free", .path.display())]
    TooLittleSpace {
        /// Where to.
        path: PathBuf,
        /// What is to come.
        needed_bytes: u64,
        /// What there is.
        available_bytes: u64,
    },
    /// SQLite.
    #[error("the image database {} failed", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Written by a later hull.
    #[error("the image database {} has version {found}, this hull knows {known}", .path.display())]
    Version {
        /// Its file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The version that is known.
        known: i64,
    },
    /// No such image.
    #[error("No such image: {what}")]
    NotFound {
        /// As it was asked for.
        what: String,
    },
    /// Nobody knows which images are used, so none is removed.
    #[error("cannot tell which images containers use")]
    Users {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// An id's prefix that several images share.
    #[error("{prefix} is the beginning of {count} image ids")]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// It has several names, so its id alone does not say which one to remove.
    #[error(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories: {}",
        .id.short(), .names.join(", ")
    )]
    SeveralNames {
        /// Which image.
        id: Digest,
        /// Its names.
        names: Vec<String>,
    },
    /// A name that is to be given to an image has a digest in it, which only the image's contents can
    /// give it.
    #[error("{name} cannot be given to an image: it has a digest in it")]
    DigestAsTag {
        /// The name.
        name: String,
    },
    /// The store's copy of an image cannot be used.
    #[error("image {image} cannot be used: {} {damage}", .path.display())]
    Damaged {
        /// Name or id.
        image: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The bytes of a layer are not those its digest promises.
    #[error("the contents of layer {diff_id} have another digest: {actual}")]
    DiffId {
        /// What the image's configuration says.
        diff_id: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// A layer that is not a tar, or is truncated or damaged.
    #[error("layer {layer} is damaged")]
    Corrupt {
        /// Its diffID, or the file's name.
        layer: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A layer that is intact, but has contents that are not supported.
    #[error("layer {layer} is not supported")]
    Refused {
        /// Its diffID, or the file's name.
        layer: String,
        /// What is not supported.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The layer's source could not be read.
    #[error("layer {layer} cannot be read")]
    Unreadable {
        /// Its diffID, or the file's name.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// A lower layer of the store that the layer to be stored refers to.
    #[error("a layer of the store, below layer {layer}, cannot be read")]
    Lower {
        /// The diffID of the layer to be stored, or its file's name.
        layer: String,
        /// Why.
        source: crate::erofs::ReadError,
    },
}

/// What is wrong with a file of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file is missing.
    #[error("is missing")]
    Missing,
    /// Its size has changed.
    #[error("has another size than when it was written")]
    Size,
    /// Its digest has changed.
    #[error("has other contents than when it was written")]
    Contents,
    /// It was written by another version of the converter.
    #[error("was written by another version of hull")]
    Outdated,
    /// It was stored by a hull that kept no record of the layer's tar, so the tar cannot be rebuilt.
    #[error("is missing: the layer was stored before hull kept what saving and pushing need")]
    NoRecord,
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| match is_full(&source) {
            true => Error::full(path, Some(source)),
            false => Error::Io {
                action,
                path,
                source,
            },
        }
    }

    pub(crate) fn full(path: PathBuf, source: Option<io::Error>) -> Error {
        let available_bytes = available_bytes(&path);
        Error::DiskFull {
            path,
            available_bytes,
            source,
        }
    }

    pub(crate) fn database(path: &Path) -> impl Fn(rusqlite::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Error::full(path.clone(), None),
            _ => Error::Database {
                path: path.clone(),
                source,
            },
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Error::DiskFull { .. } | Error::TooLittleSpace { .. } => {
                "free some space, or remove images with `hull rmi`; what was downloaded is kept and used by the next try"
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the store belongs to another user: run hull as that user"
            }
            Error::Version { .. } => "use the hull that wrote it, or a newer one",
            Error::NotFound { .. } => "`hull images` lists what there is; `hull pull` fetches more",
            Error::Ambiguous { .. } => "give more digits of the id",
            Error::SeveralNames { .. } => {
                "remove it by one of its names, or force the removal of all"
            }
            Error::Damaged {
                damage: Damage::NoRecord,
                ..
            } => "pull or import the image again: that stores what is needed",
            Error::Damaged { .. } => "pull or import the image again: that mends it",
            Error::DiffId { .. } => {
                "the layer and the image's configuration do not belong together: the image was built or copied wrongly"
            }
            Error::DigestAsTag { .. } => "give it a name with a tag, such as name:tag",
            Error::Corrupt { .. } => {
                "the layer was built wrongly, or damaged before it came here: build or copy the image again"
            }
            Error::Refused { .. } => "the image must be built without this to run in hull",
            Error::Lower { .. } => {
                "remove the image that the layer belongs to, and pull or import it again"
            }
            Error::Database { .. }
            | Error::Io { .. }
            | Error::Unreadable { .. }
            | Error::Users { .. } => return None,
        };
        Some(text.to_owned())
    }
}

/// Whether this error, or one that it wraps, says that no more can be written.
pub(crate) fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ) {
                return true;
            }
            // An io::Error around another error shows that one's source, not itself.
            if error.get_ref().is_some_and(|inner| is_full(inner)) {
                return true;
            }
        }
        cause = error.source();
    }
    false
}

/// Bytes that are available to this user on the file system of `path`, or of its nearest existing
/// parent; 0 if unknown.
pub(crate) fn available_bytes(path: &Path) -> u64 {
    path.ancestors()
        .find_map(|path| rustix::fs::statvfs(path).ok())
        .map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
