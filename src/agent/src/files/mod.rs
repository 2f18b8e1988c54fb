//! Files of containers, as workers read and write them.
//!
//! A worker enters the container's root before it looks at any path of the request, so nothing outside can be named; paths
//! are resolved without /proc's links to other roots; trees are walked by descriptors, following no link.
//!
//! ```text
//! tree.rs     the root to enter, and opening things in it     tar.rs      archives, written
//! look.rs     Stat                                            untar.rs    archives, read: they come from a user
//! walk.rs     Archive, and the walk of Diff                   extract.rs  Extract
//! layer.rs    Diff and Changes
//! ```

mod error;
mod extract;
mod layer;
mod look;
mod tar;
mod tree;
mod untar;
mod walk;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) use error::Error;
pub(crate) use extract::{Options, extract};
pub(crate) use layer::{Overlay, changes, diff};
pub(crate) use look::stat;
pub(crate) use tree::Tree;
pub(crate) use walk::archive;

/// The deepest tree that is walked: a descriptor is open for each level.
const MAX_DEPTH: usize = 512;
/// Bytes of a buffer between a file and a stream.
const BUFFER_LEN: usize = 128 << 10;

/// Removes a directory of the agent's own, with whatever a container has made in it. Follows no link.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Ends a stream that was written to, or read to its end.
fn end(stream: &OwnedFd) {
    // It fails only when the host has gone.
    let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
}

/// A name in a message: as text, whatever it holds.
fn shown(name: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(name).into()
}

#[cfg(fuzzing)]
pub(crate) fn read_archive(bytes: &[u8]) {
    let mut reader = untar::Reader::new(bytes);
    while let Ok(Some(entry)) = reader.next() {
        assert!(entry.name.len() <= untar::MAX_NAME_LEN && entry.link.len() <= untar::MAX_NAME_LEN);
        for part in extract::parts(&entry.name).into_iter().flatten() {
            assert!(!part.is_empty() && part != b".." && part != b"." && !part.contains(&b'/'));
        }
    }
}
