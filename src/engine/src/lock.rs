//! The lock of a sandbox: held (flock) by its monitor for as long as that lives, and by nothing else for longer than a few
//! system calls.
//!
//! Invariant: whether a sandbox runs is answered by this lock alone, never by a process number. Waiting for it has a limit,
//! and no sleep: a thread blocks in flock(2), and is left behind when the limit is reached; what it is then given, it
//! drops at once.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A held lock. A process that inherits the descriptor holds it too.
pub(crate) type Held = File;

/// Opens the lock's file, making it when missing (its folder must be there).
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
}

/// Takes the lock if it is free.
pub(crate) fn try_take(path: &Path) -> io::Result<Option<Held>> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock, waiting so long for it at most. `None` when the time is over.
pub(crate) fn take_within(path: &Path, limit: Duration) -> io::Result<Option<Held>> {
    let file = open(path)?;
    wait(file, FlockOperation::LockExclusive, limit)
}

/// Whether a monitor holds the lock. A lock that is not there is free.
pub(crate) fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Whether the lock becomes free in this time.
pub(crate) fn is_free_within(path: &Path, limit: Duration) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => Ok(wait(file, FlockOperation::LockShared, limit)?.is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn wait(file: File, operation: FlockOperation, limit: Duration) -> io::Result<Option<File>> {
    let (sender, receiver) = mpsc::channel();
    sys::thread::spawn("lock", move || {
        let taken = loop {
            match flock(&file, operation) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        // Fails when nothing waits any more: then the lock goes with the message.
        let _ = sender.send(taken.map(|()| file));
    })?;
    match receiver.recv_timeout(limit) {
        Ok(taken) => Ok(Some(taken?)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_its_last_descriptor_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!is_held(&path).unwrap());
        let held = try_take(&path).unwrap().unwrap();
        let inherited = held.try_clone().unwrap();
        assert!(try_take(&path).unwrap().is_none());
        drop(held);
        assert!(is_held(&path).unwrap());
        drop(inherited);
        assert!(!is_held(&path).unwrap());
    }

    #[test]
    fn waiting_ends_with_the_holder_or_with_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = try_take(&path).unwrap().unwrap();
        let short = Duration::from_millis(20);
        assert!(take_within(&path, short).unwrap().is_none());
        assert!(!is_free_within(&path, short).unwrap());
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || take_within(&path, Duration::from_secs(60)).unwrap())
        };
        drop(held);
        assert!(waiting.join().unwrap().is_some());
        assert!(is_free_within(&path, Duration::from_secs(60)).unwrap());
    }
}
