//! Files of containers, as workers read and write them.
//!
//! A worker enters the container's root before it looks at any path of the request, so nothing outside can be named. Paths
//! are resolved without following /proc's links to other roots.

mod error;
mod tree;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub(crate) use error::Error;
pub(crate) use tree::Tree;

/// An image's layers and the changes to them.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// Where each layer is mounted, the lowest first.
    pub(crate) lowers: Vec<PathBuf>,
    /// overlayfs's upper directory.
    pub(crate) upper: PathBuf,
    /// A path that the image alone may be mounted on.
    pub(crate) scratch: PathBuf,
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Keep the archive's owners.
    pub(crate) owners: bool,
    /// Refuse to replace a directory by another kind of file and the reverse.
    pub(crate) no_overwrite_kind: bool,
}

pub(crate) fn stat(_path: &str, _follow: bool) -> Result<protocol::agent::FileStat, Error> {
    Err(Error::NotBuilt)
}
pub(crate) fn archive(_path: &str, _follow: bool, _stream: OwnedFd) -> Result<(), Error> {
    Err(Error::NotBuilt)
}
pub(crate) fn extract(_path: &str, _options: Options, _stream: OwnedFd) -> Result<(), Error> {
    Err(Error::NotBuilt)
}
pub(crate) fn diff(_overlay: &Overlay, _stream: OwnedFd) -> Result<(), Error> {
    Err(Error::NotBuilt)
}
pub(crate) fn changes(_overlay: &Overlay, _stream: OwnedFd) -> Result<(), Error> {
    Err(Error::NotBuilt)
}
/// Removes a directory of the agent's own, with whatever a container has made in it. Follows no link.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
