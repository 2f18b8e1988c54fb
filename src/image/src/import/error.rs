//! Why an archive cannot be imported.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// Why an archive cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The index lists an image whose manifest the archive does not have.
    #[error("the archive does not have manifest {digest}, which its index lists")]
    Absent {
        /// The manifest.
        digest: Digest,
    },
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or folder, `-` for a stream.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither a tar nor an OCI layout.
    #[error("it is neither an OCI layout nor a tar of images or of a root file system")]
    NotAnImage,
    /// It holds images, which say themselves what they are.
    #[error("it holds images, and changes and a message can only be given to a root file system")]
    NotARootFs,
    /// A tar that is truncated or inconsistent.
    #[error("the tar is malformed at byte {offset}")]
    Malformed {
        /// Where.
        offset: u64,
    },
    /// An extended header that is too large.
    #[error(
        "the tar's header at byte {offset} claims {bytes} bytes of names, more than are accepted"
    )]
    HeaderTooLarge {
        /// Where.
        offset: u64,
        /// The claim.
        bytes: u64,
    },
    /// A name that leads out of the archive.
    #[error("the archive holds the name {name:?}, which leads out of it")]
    UnsafeName {
        /// The name, cut short.
        name: String,
    },
    /// A part that the archive refers to but does not contain.
    #[error("the archive refers to {name:?}, but does not contain it as a plain file")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A document that does not parse.
    #[error("{name:?} in the archive is malformed")]
    Syntax {
        /// Its name.
        name: &'static str,
        /// Where.
        source: serde_json::Error,
    },
    /// A layout of a version that is not known.
    #[error("the OCI layout has version {version:?}, only 1.0.0 is supported")]
    LayoutVersion {
        /// Its version.
        version: String,
    },
    /// A document beyond its bound.
    #[error("{name:?} in the archive is {bytes} bytes long, more than {max}")]
    TooLarge {
        /// Its name.
        name: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// A size that is not what was stated.
    #[error("{name:?} in the archive is {actual} bytes long, not {expected}")]
    Size {
        /// Its name.
        name: String,
        /// As stated.
        expected: u64,
        /// As it is.
        actual: u64,
    },
    /// Bytes with another digest than stated.
    #[error("the archive states digest {expected}, but the bytes have {actual}")]
    Digest {
        /// As stated.
        expected: Digest,
        /// As it is.
        actual: Digest,
    },
    /// A name that is no reference.
    #[error("the archive gives an image the name {name:?}, which is not valid")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: crate::reference::Error,
    },
    /// No images.
    #[error("the archive holds no image")]
    Empty,
    /// One name for several images.
    #[error("the archive holds {count} images, and one name was given for all")]
    SeveralImages {
        /// How many.
        count: usize,
    },
}

impl Error {
    pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Error::NotAnImage | Error::Empty => {
                "give an OCI layout, an archive made by `docker save` or `skopeo copy`, or a root file system's tar \
                 (plain, gzip or zstd)"
            }
            Error::NotARootFs => "import it as it is, and change the image by a build or a commit",
            Error::SeveralImages { .. } => {
                "leave the name out: the archive's own names are then used"
            }
            Error::Digest { .. } | Error::Size { .. } | Error::Malformed { .. } => {
                "the archive is damaged: make or copy it again"
            }
            Error::UnsafeName { .. } => {
                "a layout must hold its blobs themselves, not links to them: copy it with `skopeo copy` or `cp -rL`"
            }
            Error::Missing { .. } => "the archive is incomplete: make or copy it again",
            Error::Name { .. } => "give the image a name on the command line",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
