//! A reserve of disk space: on a full disk, the database needs room for its journal to delete an
//! image.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FallocateFlags, fallocate};

use super::{Error, Result, Store};

/// Several times what a removal's journal takes: a header and a copy of each page that changes.
const RESERVE_BYTES: u64 = 256 << 10;

impl Store {
    /// Holds the reserve back, if it is not yet and the disk has room: without it, all works but
    /// removal from a full disk.
    pub(super) fn hold_reserve(&self) -> Result<()> {
        let path = self.root.join("reserve");
        let failed = |error: io::Error| Error::io("write", &path)(error);
        let file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == RESERVE_BYTES {
            return Ok(());
        }
        match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            Ok(()) => Ok(()),
            // Not every file system can, and a full one cannot.
            Err(error) => {
                tracing::debug!(%error, "no room is held back for removals");
                self.release_reserve().map(drop)
            }
        }
    }

    /// Gives the reserve back; false if there was none.
    pub(super) fn release_reserve(&self) -> Result<bool> {
        let path = self.root.join("reserve");
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove", path)(error)),
        }
    }
}
