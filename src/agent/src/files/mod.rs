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
use std::os::fd::BorrowedFd;
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

/// A stream to the host. Closing it is up to the process that opened it.
#[derive(Debug, Clone, Copy)]
struct Stream<'a>(BorrowedFd<'a>);

impl Stream<'_> {
    /// Tells the host that nothing more will be sent.
    fn end(self) {
        // It fails only when the host has gone.
        let _ = rustix::net::shutdown(self.0, rustix::net::Shutdown::Write);
    }
}

impl io::Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, buffer)?)
    }
}

impl io::Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
