//! The calls to the host that several operations make.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, openat, statx};
use rustix::io::Errno;
use sys::fs_ids::Acting;

use crate::Result;
use crate::abi::InHeader;
use crate::name::Name;

/// Opens the place that `name` leads to in a directory: a link itself, not where it leads to.
pub(crate) fn place(directory: impl AsFd, name: Name<'_>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name.as_c_str(), flags, Mode::empty())
}

/// What there is to know of a place or a file.
pub(crate) fn stat(descriptor: impl AsFd) -> Result<Statx> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(descriptor, c"", AtFlags::EMPTY_PATH, mask)
}

/// A file's type.
pub(crate) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// The permissions of a mode, with set-user-ID, set-group-ID and sticky bits.
pub(crate) fn permissions(mode: u32) -> Mode {
    Mode::from_bits_retain(mode & 0o7777)
}

/// Who owns what a guest makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// The user and the group that made it in the guest.
    Callers {
        /// The server's own user.
        user: u32,
        /// The server's own group.
        group: u32,
    },
    /// The user and the group that the server runs as: it may not act as others.
    Server,
}

impl Owners {
    /// Finds out what this process may do.
    pub(crate) fn probe() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        // Others than its own, which it may always be.
        match Acting::new(user ^ 1, group ^ 1) {
            Ok(_) => Self::Callers { user, group },
            Err(_) => Self::Server,
        }
    }

    /// Makes something as its owner.
    pub(crate) fn acting<T>(
        self,
        header: &InHeader,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let _acting = self.become_other(header.uid, header.gid)?;
        make()
    }

    /// Does something as a member of a group.
    pub(crate) fn in_group<T>(self, group: u32, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let _acting = match self {
            Self::Callers { user, .. } => self.become_other(user, group)?,
            Self::Server => None,
        };
        make()
    }

    fn become_other(self, user: u32, group: u32) -> Result<Option<Acting>> {
        if self == Self::Server || self == (Self::Callers { user, group }) {
            return Ok(None);
        }
        Acting::new(user, group).map(Some).map_err(|_| Errno::PERM)
    }
}
