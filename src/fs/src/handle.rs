//! Handles: what a guest has open, by number.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use protocol::fs::MAX_OPEN_FILES;
use rustix::io::Errno;

use crate::directory::Stream;
use crate::{Result, lock};

/// The most directories that a guest may have open: each is a descriptor and up to 16 KiB of entries that were read.
pub(crate) const MAX_OPEN_DIRECTORIES: usize = 8 << 10;

/// A regular file that is open.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fh: u64,
    /// The number of its node.
    pub(crate) node: u64,
    pub(crate) file: OwnedFd,
}

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    node: u64,
    /// Locked while one request reads from it: what is next is a state of the directory that is open.
    pub(crate) stream: Mutex<Stream>,
}

/// All handles. A number is of one kind, belongs to one node, and is never used again.
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    files: HashMap<u64, Arc<OpenFile>>,
    directories: HashMap<u64, Arc<OpenDirectory>>,
    last: u64,
}

impl Table {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Handles {
    /// Fails with ENFILE if there is no room for a further file: to be asked before one is made.
    pub(crate) fn room(&self) -> Result<()> {
        if lock(&self.0).files.len() < MAX_OPEN_FILES {
            Ok(())
        } else {
            Err(Errno::NFILE)
        }
    }

    /// Keeps a file that was opened.
    pub(crate) fn add_file(&self, node: u64, file: OwnedFd) -> Result<Arc<OpenFile>> {
        let mut table = lock(&self.0);
        if table.files.len() >= MAX_OPEN_FILES {
            return Err(Errno::NFILE);
        }
        let fh = table.next();
        let open = Arc::new(OpenFile { fh, node, file });
        table.files.insert(fh, open.clone());
        Ok(open)
    }

    /// Keeps a directory that was opened.
    pub(crate) fn add_directory(&self, node: u64, stream: Stream) -> Result<u64> {
        let mut table = lock(&self.0);
        if table.directories.len() >= MAX_OPEN_DIRECTORIES {
            return Err(Errno::NFILE);
        }
        let stream = Mutex::new(stream);
        let fh = table.next();
        let open = OpenDirectory { node, stream };
        table.directories.insert(fh, Arc::new(open));
        Ok(fh)
    }

    /// The file that is open as `fh`. EBADF if it is none, or another node's.
    pub(crate) fn file(&self, fh: u64, node: u64) -> Result<Arc<OpenFile>> {
        let table = lock(&self.0);
        let open = table.files.get(&fh).filter(|open| open.node == node);
        open.cloned().ok_or(Errno::BADF)
    }

    /// The directory that is open as `fh`. EBADF if it is none, or another node's.
    pub(crate) fn directory(&self, fh: u64, node: u64) -> Result<Arc<OpenDirectory>> {
        let table = lock(&self.0);
        let open = table.directories.get(&fh).filter(|open| open.node == node);
        open.cloned().ok_or(Errno::BADF)
    }

    /// Closes a file, when the last request that uses it is over. Its node may be forgotten by then.
    pub(crate) fn close_file(&self, fh: u64) -> Result<()> {
        let closed = lock(&self.0).files.remove(&fh);
        closed.map(drop).ok_or(Errno::BADF)
    }

    /// Closes a file whose number the guest has not got.
    pub(crate) fn close_open(&self, open: &Arc<OpenFile>) {
        let mut table = lock(&self.0);
        let closed = table.files.remove(&open.fh);
        drop(table);
        drop(closed);
    }

    /// Closes a directory.
    pub(crate) fn close_directory(&self, fh: u64) -> Result<()> {
        let closed = lock(&self.0).directories.remove(&fh);
        closed.map(drop).ok_or(Errno::BADF)
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        let mut table = lock(&self.0);
        let files: Vec<_> = table.files.drain().collect();
        let directories: Vec<_> = table.directories.drain().collect();
        drop(table);
        drop((files, directories));
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let table = lock(&self.0);
        table.files.len() + table.directories.len()
    }
}
