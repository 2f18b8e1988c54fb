//! What is made in a directory, with its owner.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::{ACCESS, ALL, Recorded, SET_GROUP_ID, needed_of};
use crate::abi::InHeader;
use crate::links::Links;
use crate::name::Name;
use crate::record::Owner;
use crate::{Result, host};

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New {
    pub(crate) owner: Owner,
    /// Its mode on the host.
    pub(crate) host_mode: Mode,
    /// Whether the guest would see something else without one.
    pub(crate) needs_record: bool,
}

impl Recorded {
    /// To whom belongs what is made in a directory, with what mode.
    pub(crate) fn of_new(
        self,
        links: &Links,
        parent: &OwnedFd,
        header: &InHeader,
        kind: FileType,
        mode: u32,
    ) -> Result<New> {
        let stat = host::stat(parent)?;
        let above = self.see(links, parent, &stat)?;
        let mut owner = Owner {
            uid: header.uid,
            gid: header.gid,
            mode: mode & ALL,
        };
        if owner.uid == u32::MAX || owner.gid == u32::MAX {
            // The numbers of no user and no group.
            return Err(Errno::PERM);
        }
        if above.mode & SET_GROUP_ID != 0 {
            owner.gid = above.gid;
            if kind == FileType::Directory {
                owner.mode |= SET_GROUP_ID;
            }
        }
        let inherits = u32::from(stat.stx_mode) & SET_GROUP_ID;
        let group = if inherits != 0 {
            stat.stx_gid
        } else {
            self.group
        };
        let mut by_itself = self.shown(self.user, group, owner.mode & ACCESS | needed_of(kind));
        if kind == FileType::Directory {
            by_itself.mode |= inherits;
        }
        Ok(New {
            owner,
            host_mode: host::permissions(owner.mode & ACCESS | needed_of(kind)),
            needs_record: owner != by_itself,
        })
    }

    /// Makes a regular file, which has its record before it has its name where the file system can. Open for reading and writing.
    pub(crate) fn make_file(
        self,
        links: &Links,
        parent: &OwnedFd,
        name: Name<'_>,
        new: New,
    ) -> Result<OwnedFd> {
        let with_name = |mode| {
            let flags =
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name.as_c_str(), flags, mode)
        };
        if !new.needs_record {
            return with_name(new.host_mode);
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(parent, c".", flags, new.host_mode) {
            Ok(file) => {
                self.record_unnamed(links, &file, new)?;
                let path = links.path(&file);
                linkat(CWD, path, parent, name.as_c_str(), AtFlags::SYMLINK_FOLLOW)?;
                Ok(file)
            }
            // A file system without files that have no name. Until it has its record it belongs to root, in other guests.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let file = with_name(Mode::RUSR | Mode::WUSR)?;
                self.finish(links, (parent, name), &file, new.owner, AtFlags::empty())?;
                Ok(file)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Records the owner of a file that has no name.
    pub(crate) fn record_unnamed(self, links: &Links, file: &OwnedFd, new: New) -> Result<()> {
        match new.needs_record {
            true => self.record_new(links, file, new.owner),
            false => Ok(()),
        }
    }

    /// Makes a directory. There is no way to make one without a name: until it has its record it belongs to root, in other guests.
    pub(crate) fn make_directory(
        self,
        links: &Links,
        parent: &OwnedFd,
        name: Name<'_>,
        new: New,
    ) -> Result<()> {
        if !new.needs_record {
            return mkdirat(parent, name.as_c_str(), new.host_mode);
        }
        mkdirat(parent, name.as_c_str(), Mode::RWXU)?;
        let place = host::place(parent, name)?;
        self.finish(links, (parent, name), &place, new.owner, AtFlags::REMOVEDIR)
    }

    /// Records the owner of what was just made, under a name that goes again if that fails.
    fn finish(
        self,
        links: &Links,
        (parent, name): (&OwnedFd, Name<'_>),
        made: &OwnedFd,
        owner: Owner,
        removal: AtFlags,
    ) -> Result<()> {
        let finished = self.record_new(links, made, owner);
        if finished.is_err() {
            // What matters is why it failed; what another has put there meanwhile, and is not empty, stays.
            let _ = unlinkat(parent, name.as_c_str(), removal);
        }
        finished
    }

    /// Records the owner of what has none yet.
    fn record_new(self, links: &Links, made: &OwnedFd, owner: Owner) -> Result<()> {
        let stat = host::stat(made)?;
        if !self.may_hold(&stat) {
            // Another has put it there.
            return Err(Errno::BUSY);
        }
        self.keep(links, made, &stat, owner)
    }
}
