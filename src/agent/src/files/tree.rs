//! The tree of files that a container sees, to be entered by a worker.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::process::{Pid, chdir, chroot};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;

/// Where a container's files are.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The mounts of its processes; without any, of the agent.
    mounts: Option<File>,
    /// Its root, as the agent sees it.
    root: PathBuf,
}

impl Tree {
    /// The files of a container whose root is mounted at `root` and whose first process is `process`, if it has one.
    pub(crate) fn of(root: PathBuf, process: Option<Pid>) -> Result<Tree, Error> {
        // A process that has ended and is not yet reaped has no mounts any more.
        let path = process.map(|pid| format!("/proc/{}/ns/mnt", pid.as_raw_pid()));
        Ok(Tree {
            mounts: path.and_then(|path| File::open(path).ok()),
            root,
        })
    }

    /// Makes it the root of this process, which must be a worker.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let enter = || {
            match &self.mounts {
                // The root of the mounts is the container's own.
                Some(mounts) => {
                    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
                }
                None => chroot(&self.root)?,
            }
            chdir("/")
        };
        enter().map_err(|errno| Error::Enter(errno.into()))
    }
}
