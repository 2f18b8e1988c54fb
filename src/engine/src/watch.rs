//! Changes of files, by inotify(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// Room for events that are read at once. What they say is not looked at: a watcher looks at the files again.
const EVENTS_LEN: usize = 4096;

/// Files and folders that are watched. Readable when something has changed.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// Nothing is watched yet.
    pub(crate) fn new() -> io::Result<Watch> {
        Ok(Watch(inotify::init(
            CreateFlags::CLOEXEC | CreateFlags::NONBLOCK,
        )?))
    }

    /// Watches a folder: files that appear, grow, are renamed or vanish in it, and its own end.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        inotify::add_watch(&self.0, path, flags)?;
        Ok(())
    }

    /// Watches a sandbox's lock: a holder closes it.
    pub(crate) fn lock(&self, path: &Path) -> io::Result<()> {
        inotify::add_watch(&self.0, path, WatchFlags::CLOSE_WRITE)?;
        Ok(())
    }

    /// Waits for a change, or for `limit`. Whether there was one.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.clear()?;
        Ok(true)
    }

    /// Forgets the changes until now.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_LEN];
        loop {
            match rustix::io::read(&self.0, &mut buffer) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.folder(folder.path()).unwrap();
        assert!(!watch.wait(Some(Duration::ZERO)).unwrap());
        std::fs::write(folder.path().join("a"), "x").unwrap();
        assert!(watch.wait(None).unwrap());
        assert!(!watch.wait(Some(Duration::ZERO)).unwrap());
    }
}
