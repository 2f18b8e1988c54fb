//! The end of a cgroup: its processes are killed at once, and it is removed when the last of them has left it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use container::Error;
use container::cgroup::{Cgroup, Events, Removal};

/// A cgroup that is being removed. As a descriptor it has an exceptional condition when [`Remains::try_remove`] may succeed.
#[derive(Debug)]
pub(crate) struct Remains {
    cgroup: Cgroup,
    events: Events,
}

impl Remains {
    /// Kills every process of the cgroup at a path. `None` if there is no such cgroup.
    pub(crate) fn of(path: &Path) -> Result<Option<Remains>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let cgroup = Cgroup::at(path);
        cgroup.kill()?;
        Ok(Some(Remains {
            events: cgroup.events()?,
            cgroup,
        }))
    }

    /// Removes the cgroup and those below it, if they are empty. False while a process is left.
    pub(crate) fn try_remove(&mut self) -> Result<bool, Error> {
        if self.events.state()?.populated {
            return Ok(false);
        }
        Ok(self.cgroup.try_remove()? == Removal::Removed)
    }
}

impl AsFd for Remains {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
