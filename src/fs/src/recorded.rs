//! Owners and modes that are kept beside files which all belong to one user of the host's.
//!
//! What the guest sees of a file:
//!
//! | file | owner | mode |
//! |---|---|---|
//! | regular file or directory of the user's, with a record | the record's | the record's, unless the host has changed it |
//! | of the user's, without one | 0; group 0 for the user's own, else 65534 | the host's |
//! | of another user's, whatever is recorded | 65534; group as above | the host's |
//! | link, FIFO, socket, whiteout: they hold no record | as without a record | the host's |
//!
//! Invariants: the host's mode lets the user read and write whatever the guest has made or changed, and search directories, so
//! that it can be served, and removed on the host, whatever its mode in the guest; the host's mode never has a set-ID bit that
//! the guest asked for. One call (setxattr) changes a file's owner, so that after a kill it is the old or the new one. A record
//! is believed only on a file that the user owns: others could grant their files to the guest's root. One that cannot be read as
//! a record is EIO, never a guess. There is none where the file says the same by itself, so that what the host changes counts,
//! and file systems without attributes serve a guest's root.
//!
//! A mode is the record's for as long as the host's is the one that goes with it: chmod(1) on the host counts. Set-ID bits hold
//! for as long as the file is not changed, since the host's kernel does not know of them and cannot clear them when it is
//! written (hull-vmm writes); its time of change has the host's ticks, of some milliseconds.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Statx, XattrFlags, chmodat, getxattr, removexattr, setxattr,
};
use rustix::io::Errno;

use crate::links::Links;
use crate::record::{self, Owner, Record};
use crate::{Result, host};

mod make;

/// Who is not mapped, as Linux has it (overflowuid, overflowgid).
const NOBODY: u32 = 65534;
/// S_ISUID and S_ISGID.
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const SET_IDS: u32 = SET_USER_ID | SET_GROUP_ID;
/// S_IRUSR.
const USER_READ: u32 = 0o400;
/// S_IXGRP.
const GROUP_EXECUTE: u32 = 0o010;
/// The bits of a mode that say who may do what; and with those that are left to records alone.
const ACCESS: u32 = 0o777;
const ALL: u32 = 0o7777;

/// Keeps owners in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// The server's user and group, to whom on the host belongs what a guest makes.
    user: u32,
    group: u32,
}

impl Recorded {
    /// For files of the user and the group as whom this process runs.
    pub(crate) fn of_this_process() -> Self {
        Self {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
        }
    }

    /// A file's owner and mode as the guest sees them.
    pub(crate) fn see(self, links: &Links, place: impl AsFd, stat: &Statx) -> Result<Owner> {
        if !self.may_hold(stat) {
            return Ok(self.without_record(stat));
        }
        // One byte more than the longest: what is longer is no record.
        let mut value = [0; record::MAX_LEN + 1];
        let len = match getxattr(links.path(place), record::NAME, &mut value) {
            Ok(len) => len,
            Err(Errno::RANGE) => return Err(Errno::IO),
            // None, a file system without attributes, or a file that the host does not let its owner read: what is kept there
            // comes back with the right to read it.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS) => {
                return Ok(self.without_record(stat));
            }
            Err(errno) => return Err(errno),
        };
        let Record {
            mut owner,
            unchanged_since,
        } = Record::parse(&value[..len])?;
        let mode = u32::from(stat.stx_mode) & ALL;
        if (owner.mode | needed(stat)) & ACCESS != mode & ACCESS {
            owner.mode = mode;
        } else if is_regular(stat) && unchanged_since != Some(changed(stat)) {
            owner.mode = without_set_ids(owner.mode);
        }
        Ok(owner)
    }

    /// Changes the owner (as `Some`) of a file. Of one that holds no record nothing changes and nothing fails, so that a guest's
    /// root can unpack an archive; of one that is another user's only what is so already (EPERM).
    pub(crate) fn change_owner(
        self,
        links: &Links,
        place: &OwnedFd,
        (uid, gid): (Option<u32>, Option<u32>),
    ) -> Result<()> {
        let stat = host::stat(place)?;
        if !holds_records(&stat) {
            return Ok(());
        }
        let old = self.see_to_change(links, place, &stat)?;
        let mut new = Owner {
            uid: uid.unwrap_or(old.uid),
            gid: gid.unwrap_or(old.gid),
            mode: old.mode,
        };
        if is_regular(&stat) {
            // As chown(2) does, for root too.
            new.mode = without_set_ids(new.mode);
        }
        if stat.stx_uid != self.user {
            return if new == old { Ok(()) } else { Err(Errno::PERM) };
        }
        self.keep(links, place, &stat, new)
    }

    /// Changes the mode of a file.
    pub(crate) fn change_mode(self, links: &Links, place: &OwnedFd, mode: u32) -> Result<()> {
        let stat = host::stat(place)?;
        if !self.may_hold(&stat) {
            // The host says whether the user may, and of a link that it has none.
            return chmod(links, place, mode & ACCESS);
        }
        let old = self.see_to_change(links, place, &stat)?;
        let new = Owner {
            mode: mode & ALL,
            ..old
        };
        self.keep(links, place, &stat, new)
    }

    /// Takes set-ID bits from a regular file whose content was changed: its time of change may be the same as before.
    pub(crate) fn written(self, links: &Links, place: impl AsFd) -> Result<()> {
        let stat = host::stat(&place)?;
        let old = self.see(links, &place, &stat)?;
        let new = Owner {
            mode: without_set_ids(old.mode),
            ..old
        };
        if new == old || !self.may_hold(&stat) {
            return Ok(());
        }
        self.keep(links, place, &stat, new)
    }

    /// Does what sets a file's time of change, and keeps its set-ID bits.
    pub(crate) fn keeping_set_ids(
        self,
        links: &Links,
        place: &OwnedFd,
        set_times: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let stat = host::stat(place)?;
        if !is_regular(&stat) || !self.may_hold(&stat) {
            return set_times();
        }
        let before = self.see(links, place, &stat)?;
        set_times()?;
        if before.mode & SET_IDS != 0 {
            self.keep(links, place, &host::stat(place)?, before)?;
        }
        Ok(())
    }

    /// As [`Recorded::see`], of a file that is about to be changed: what the host does not let its owner read is made readable.
    fn see_to_change(self, links: &Links, place: &OwnedFd, stat: &Statx) -> Result<Owner> {
        let mode = u32::from(stat.stx_mode) & ALL;
        if self.may_hold(stat) && mode & USER_READ == 0 {
            chmod(links, place, mode | needed(stat))?;
        }
        self.see(links, place, stat)
    }

    /// Makes the guest see this owner and this mode of a file that holds records.
    fn keep(self, links: &Links, place: impl AsFd, stat: &Statx, owner: Owner) -> Result<()> {
        let path = links.path(&place);
        let old = u32::from(stat.stx_mode) & ALL;
        let mut mode = owner.mode & ACCESS | needed(stat);
        if !is_regular(stat) {
            // What the host has set on a directory stays for as long as the guest has it set.
            mode |= old & owner.mode & !ACCESS;
        }
        // First, as it is what lets the user change attributes. The guest sees it, should this be all that is done.
        if mode != old {
            chmod(links, &place, mode)?;
        }
        let by_itself = self.shown(stat.stx_uid, stat.stx_gid, mode);
        if owner == by_itself {
            return match removexattr(&*path, record::NAME) {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                removed => removed,
            };
        }
        match write(&path, owner, stat) {
            // As good as it can be said by the file alone.
            Err(Errno::OPNOTSUPP)
                if (owner.uid, owner.gid) == (by_itself.uid, by_itself.gid)
                    && owner.mode & !ACCESS == 0 =>
            {
                chmod(links, place, owner.mode)
            }
            Err(Errno::OPNOTSUPP) => Err(Errno::PERM),
            written => written,
        }
    }

    /// What the guest sees of a file that has no record.
    fn without_record(self, stat: &Statx) -> Owner {
        let mode = u32::from(stat.stx_mode) & ALL;
        self.shown(stat.stx_uid, stat.stx_gid, mode)
    }

    /// As in a user namespace in which root alone is mapped, to the user.
    fn shown(self, user: u32, group: u32, mode: u32) -> Owner {
        let of = |number, own| if number == own { 0 } else { NOBODY };
        Owner {
            uid: of(user, self.user),
            gid: of(group, self.group),
            mode,
        }
    }

    /// Whether the file may have a record that is believed.
    fn may_hold(self, stat: &Statx) -> bool {
        holds_records(stat) && stat.stx_uid == self.user
    }
}

fn write(path: &str, owner: Owner, stat: &Statx) -> Result<()> {
    let has_set_ids = is_regular(stat) && owner.mode & SET_IDS != 0;
    let record = Record {
        owner,
        unchanged_since: has_set_ids.then(|| changed(stat)),
    };
    let value = record.to_string();
    setxattr(path, record::NAME, value.as_bytes(), XattrFlags::empty())
}

fn chmod(links: &Links, place: impl AsFd, mode: u32) -> Result<()> {
    let path = links.path(place);
    chmodat(CWD, path, host::permissions(mode), AtFlags::empty())
}

/// Attributes of users are those of regular files and directories (xattr(7)).
fn holds_records(stat: &Statx) -> bool {
    matches!(
        host::kind(stat),
        FileType::RegularFile | FileType::Directory
    )
}

fn is_regular(stat: &Statx) -> bool {
    host::kind(stat) == FileType::RegularFile
}

/// What the host's user must be allowed so that a file can be served.
fn needed(stat: &Statx) -> u32 {
    needed_of(host::kind(stat))
}

fn needed_of(kind: FileType) -> u32 {
    match kind {
        FileType::Directory => 0o700,
        FileType::RegularFile => 0o600,
        _ => 0,
    }
}

/// What a change of a file leaves of its mode (notify_change, setattr_should_drop_suidgid).
fn without_set_ids(mode: u32) -> u32 {
    let group = if mode & GROUP_EXECUTE != 0 {
        SET_GROUP_ID
    } else {
        0
    };
    mode & !(SET_USER_ID | group)
}

fn changed(stat: &Statx) -> record::Time {
    (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec)
}
