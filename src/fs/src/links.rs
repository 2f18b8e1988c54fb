//! From a descriptor of a place (O_PATH) to the file that is there.
//!
//! A node's descriptor reads nothing and writes nothing, and Linux 6.1 has no call that makes a better one of it, or that
//! takes it for extended attributes, a change of mode or a further name. Names cannot be used instead: a node outlives its
//! name, and another process that may write to the share could have put a link there. The links of /proc/self/fd lead to exactly what a
//! descriptor refers to (Linux, Documentation/filesystems/proc.rst, 3.8): they are followed by the kernel without a look-up,
//! whatever its type and wherever its names are by now. Deliberately absent: file handles (open_by_handle_at), whose
//! capability reaches every file of a file system.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::fchdir;

use crate::Result;

/// The links of this process's descriptors.
#[derive(Debug)]
pub struct Links {
    prefix: &'static str,
}

impl Links {
    /// Those of a process in a jail: `directory` becomes its working directory, for there are calls that take a path alone.
    pub fn enter(directory: impl AsFd) -> io::Result<Self> {
        fchdir(directory)?;
        Ok(Self { prefix: "" })
    }

    /// Those of a process that has a /proc.
    pub fn of_proc() -> Self {
        Self {
            prefix: "/proc/self/fd/",
        }
    }

    /// The path that leads to what `descriptor` refers to, when its last component is followed.
    pub(crate) fn path(&self, descriptor: impl AsFd) -> String {
        format!("{}{}", self.prefix, descriptor.as_fd().as_raw_fd())
    }

    /// Opens what `descriptor` refers to. The caller knows that it is a regular file or a directory, or asks for a place
    /// (O_PATH).
    pub(crate) fn open(&self, descriptor: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        let path = self.path(descriptor);
        openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
    }
}
