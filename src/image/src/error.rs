//! The crate's one error for callers: what was attempted, on what, and a hint on what to do; the
//! cause is its source.

pub(crate) use protocol::chain;
use std::path::PathBuf;

use crate::reference::Reference;
use crate::{import, manifest, registry, save, store};

/// A result with the crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// What was attempted, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pull failed.
    #[error("cannot pull {reference}")]
    Pull {
        /// What was to be pulled.
        reference: Reference,
        /// Why not.
        source: Box<Cause>,
    },
    /// An import failed.
    #[error("cannot import {}", .origin.display())]
    Import {
        /// What was to be imported; `-` for a stream.
        origin: PathBuf,
        /// Why not.
        source: Box<Cause>,
    },
    /// A push failed.
    #[error("cannot push {name}")]
    Push {
        /// What was to be pushed.
        name: String,
        /// Why not.
        source: Box<Cause>,
    },
    /// An image could not be made.
    #[error("cannot make the image")]
    Create {
        /// Why not.
        source: Box<Cause>,
    },
    /// Saving to an archive failed.
    #[error("cannot save {names}")]
    Save {
        /// What was to be saved.
        names: String,
        /// Why not.
        source: Box<Cause>,
    },
    /// The store itself.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why something failed that involves more than the store.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A request to the registry failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A manifest, an index or a configuration cannot be used.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The archive cannot be imported.
    #[error(transparent)]
    Archive(#[from] import::Error),
    /// The archive that is being written.
    #[error(transparent)]
    Save(#[from] save::Error),
}

impl Error {
    /// Why it failed, where that is not the store alone.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Error::Pull { source, .. }
            | Error::Import { source, .. }
            | Error::Push { source, .. }
            | Error::Create { source }
            | Error::Save { source, .. } => Some(source),
            Error::Store(_) => None,
        }
    }

    /// What the user can do about it, in one sentence, if there is something.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Store(error) => error.help(),
            _ => self.cause()?.help(),
        }
    }
}

impl Cause {
    fn help(&self) -> Option<String> {
        match self {
            Cause::Registry(error) => error.help(),
            Cause::Manifest(manifest::Error::Platform { .. }) => {
                Some(
                    "this machine runs linux/amd64: choose another tag or image, or pull one of these platforms \
                     with --platform"
                        .to_owned(),
                )
            }
            Cause::Manifest(manifest::Error::NotAnImage { .. }) => Some(
                "hull runs container images: other artifacts have tools of their own".to_owned(),
            ),
            Cause::Manifest(manifest::Error::TooManyLayers { .. }) => {
                Some("build the image with fewer steps, or squash its layers".to_owned())
            }
            Cause::Manifest(_) => None,
            Cause::Store(error) => error.help(),
            Cause::Archive(error) => error.help(),
            Cause::Save(save::Error::Output(error)) if store::is_full(error) => {
                Some("free some space where the archive is written".to_owned())
            }
            Cause::Save(save::Error::Output(_)) => None,
            Cause::Save(save::Error::Layer { .. }) => {
                Some("pull or import the image again: that mends it".to_owned())
            }
        }
    }
}
