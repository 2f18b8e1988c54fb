//! A cgroup's events, and the end of a cgroup: killed at once, removed when its last process has left it.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// cgroup.events of a cgroup, open: polled for POLLPRI, it tells of changes since it was read last (cgroup v2,
/// "[Un]populated Notification").
#[derive(Debug)]
pub(crate) struct Events(File);

/// What cgroup.events says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// A process is in the cgroup or below it.
    pub(crate) is_populated: bool,
    /// Every process of it is frozen.
    pub(crate) is_frozen: bool,
}

impl Events {
    pub(crate) fn open(cgroup: &Path) -> io::Result<Events> {
        Ok(Events(File::open(cgroup.join("cgroup.events"))?))
    }

    /// What is true now.
    pub(crate) fn read(&mut self) -> io::Result<State> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text)?;
        Ok(State {
            is_populated: text.lines().any(|line| line == "populated 1"),
            is_frozen: text.lines().any(|line| line == "frozen 1"),
        })
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A cgroup that is being removed.
#[derive(Debug)]
pub(crate) struct Remains {
    path: PathBuf,
    events: Events,
}

impl Remains {
    /// Kills every process of a cgroup. `None` if it is gone already.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Remains>> {
        match fs::write(path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result?,
        }
        Ok(Some(Remains {
            path: path.to_owned(),
            events: Events::open(path)?,
        }))
    }

    /// Removes the cgroup and those below it, if they are empty. False while a process is left: then polling
    /// tells when to try again.
    pub(crate) fn try_remove(&mut self) -> io::Result<bool> {
        if self.events.read()?.is_populated {
            return Ok(false);
        }
        match remove_tree(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(false),
            result => result.map(|()| true),
        }
    }
}

impl AsFd for Remains {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Removes a cgroup and those below it. Their files go with the directories.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
