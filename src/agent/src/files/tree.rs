//! The tree of files that a container sees, to be entered by a worker.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, chdir, chroot, getrlimit, setrlimit, umask};
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

/// Proof of being inside, and what is needed from outside.
#[derive(Debug)]
pub(crate) struct Inside {
    /// This process's own /proc/self/fd.
    descriptors: OwnedFd,
}

impl Tree {
    /// The files of a container whose root is mounted at `root` and whose first process is `process`, if it has one.
    pub(crate) fn of(root: PathBuf, process: Option<Pid>) -> Tree {
        // A process that has ended and is not yet reaped has no mounts any more.
        let path = process.map(|pid| format!("/proc/{}/ns/mnt", pid.as_raw_pid()));
        Tree {
            mounts: path.and_then(|path| File::open(path).ok()),
            root,
        }
    }

    /// What a worker needs to enter it.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.mounts.iter().map(AsFd::as_fd).collect()
    }

    /// Makes it the root of this process, which must be a worker.
    pub(crate) fn enter(&self) -> Result<Inside, Error> {
        let enter = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let descriptors = openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
            match &self.mounts {
                // The root of the mounts is the container's own.
                Some(mounts) => {
                    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
                }
                None => chroot(&self.root)?,
            }
            chdir("/")?;
            // Permissions are those that are asked for, and a walk has a descriptor for each level.
            umask(Mode::empty());
            let mut limit = getrlimit(Resource::Nofile);
            limit.current = limit.maximum;
            setrlimit(Resource::Nofile, limit)?;
            Ok(Inside { descriptors })
        };
        enter().map_err(|errno: Errno| Error::Enter(errno.into()))
    }
}

impl Inside {
    /// Opens a path of a request.
    pub(crate) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_from(CWD, Path::new(path), flags)
    }

    /// Opens what an O_PATH descriptor stands for, whose kind is known by then: a path could by now lead to another file.
    pub(crate) fn reopen(&self, descriptor: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = descriptor.as_raw_fd().to_string();
        openat(
            &self.descriptors,
            name.as_str(),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }
}

/// Opens a path from a directory on, through links as far as they are files of a file system: those of /proc lead out of
/// the root.
pub(super) fn open_from(dir: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(
        dir,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )
}

/// Refuses what is not an absolute path.
pub(super) fn check(path: &str) -> Result<(), Error> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(())
    } else {
        Err(Error::NotAbsolute(path.into()))
    }
}

/// A path's last part, if it has one.
pub(super) fn last_part(path: &str) -> Option<&str> {
    let mut parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.next_back()
}
