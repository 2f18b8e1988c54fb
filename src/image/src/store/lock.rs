//! Advisory locks on files by flock(2). They are held by an open file description, so they end with
//! the last process that has it, however it ends. No process ids are compared.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A held lock on a file that its path names: a file that was unlinked while its lock was awaited
/// does not count.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits for a shared lock.
    pub(crate) fn shared(path: &Path) -> io::Result<FileLock> {
        loop {
            if let Some(lock) = FileLock::attempt(path, FlockOperation::LockShared)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock exclusively; `None` if it is held.
    pub(crate) fn try_exclusive(path: &Path) -> io::Result<Option<FileLock>> {
        loop {
            match FileLock::attempt(path, FlockOperation::NonBlockingLockExclusive) {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// One try; `None` when the path has come to name another file meanwhile.
    fn attempt(path: &Path, operation: FlockOperation) -> io::Result<Option<FileLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc_nofollow())
            .open(path)?;
        loop {
            match flock(&file, operation) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let held = file.metadata()?;
        match std::fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                Ok(Some(FileLock {
                    file,
                    path: path.to_owned(),
                }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The locked file.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Releases the lock and keeps the file.
    pub(crate) fn unlock(self) -> io::Result<File> {
        flock(&self.file, FlockOperation::Unlock)?;
        Ok(self.file)
    }

    /// Unlinks the file if it is still there, then releases the lock.
    pub(crate) fn remove(self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// O_NOFOLLOW, as the type of open's custom flags.
fn libc_nofollow() -> i32 {
    // The bits of one flag always fit.
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

impl AsFd for FileLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<FileLock> for OwnedFd {
    fn from(lock: FileLock) -> OwnedFd {
        lock.file.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusive_lock_excludes_and_a_shared_one_shares() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = FileLock::shared(&path).unwrap();
        let second = FileLock::shared(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop((first, second));
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn a_removed_lock_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = FileLock::try_exclusive(&path).unwrap().unwrap();
        lock.remove().unwrap();
        assert!(!path.exists());
        let mut lock = FileLock::try_exclusive(&path).unwrap().unwrap();
        assert!(lock.file().metadata().unwrap().len() == 0 && path.exists());
    }
}
