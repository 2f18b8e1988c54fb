//! The calls to the host that several operations make.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, openat, statx};

use crate::Result;
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
