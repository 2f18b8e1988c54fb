//! What a reader that follows waits for: a longer log, another state, the end of the monitor.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::files;
use crate::watch::Watch;

#[derive(Debug)]
pub(super) struct Waiting {
    files: Watch,
    lock: Watch,
}

/// Why a wait has ended, if not for its limit or a change of a file.
#[derive(Debug)]
pub(super) struct Woken {
    /// A holder has closed the lock.
    pub(super) closed: bool,
    /// The reader has gone.
    pub(super) left: bool,
}

impl Waiting {
    /// `folder` is the container's, `logs` that of its logs, `lock` its sandbox's lock.
    pub(super) fn new(folder: &Path, logs: &Path, lock: &Path) -> io::Result<Waiting> {
        let waiting = Waiting {
            files: Watch::new()?,
            lock: Watch::new()?,
        };
        waiting.files.folder(folder)?;
        // A container that was never started may have neither.
        for watched in [waiting.files.folder(logs), waiting.lock.lock(lock)] {
            match watched {
                Err(error) if !files::is_absent(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(waiting)
    }

    /// Waits for a change, for `limit`, or until the reader, if it may go, has gone.
    pub(super) fn wait(
        &self,
        limit: Option<Duration>,
        there: Option<BorrowedFd<'_>>,
    ) -> io::Result<Woken> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let mut fds = vec![
            PollFd::new(&self.files, PollFlags::IN),
            PollFd::new(&self.lock, PollFlags::IN),
        ];
        fds.extend(there.map(|there| PollFd::from_borrowed_fd(there, PollFlags::IN)));
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let woken = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let woken = Woken {
            closed: woken(1),
            left: woken(2),
        };
        self.files.clear()?;
        self.lock.clear()?;
        Ok(woken)
    }
}
