//! To whom files belong, as the host keeps it or as records do ([`crate::recorded`]): what differs is decided here.

use std::sync::OnceLock;

use protocol::fs::Ownership;
use rustix::fs::Statx;
use rustix::io::Errno;
use std::os::fd::AsFd;
use sys::fs_ids::Acting;

use crate::Result;
use crate::abi::{Attr, InHeader};
use crate::links::Links;
use crate::recorded::Recorded;

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
    /// The user and the group that made it in the guest, in records: on the host, the server's user.
    Recorded(Recorded),
}

impl Owners {
    /// As they are to be kept, and as far as this process may.
    pub(crate) fn new(ownership: Ownership) -> Self {
        // Found out once: a process's threads may all do the same.
        static OF_HOST: OnceLock<Owners> = OnceLock::new();
        match ownership {
            Ownership::Host => *OF_HOST.get_or_init(Self::probe),
            Ownership::Recorded => Self::Recorded(Recorded::of_this_process()),
        }
    }

    /// Finds out what this process may do.
    fn probe() -> Self {
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
            Self::Server | Self::Recorded(_) => None,
        };
        make()
    }

    fn become_other(self, user: u32, group: u32) -> Result<Option<Acting>> {
        match self {
            Self::Callers { .. } if self == (Self::Callers { user, group }) => return Ok(None),
            Self::Callers { .. } => {}
            Self::Server | Self::Recorded(_) => return Ok(None),
        }
        Acting::new(user, group).map(Some).map_err(|_| Errno::PERM)
    }

    /// The records, if owners are kept in such.
    pub(crate) fn recorded(self) -> Option<Recorded> {
        match self {
            Self::Recorded(recorded) => Some(recorded),
            Self::Callers { .. } | Self::Server => None,
        }
    }

    /// What the guest is told of a file.
    pub(crate) fn attr(self, links: &Links, place: impl AsFd, stat: &Statx) -> Result<Attr> {
        let mut attr = Attr::from(stat);
        if let Self::Recorded(recorded) = self {
            let owner = recorded.see(links, place, stat)?;
            (attr.uid, attr.gid) = (owner.uid, owner.gid);
            attr.mode = attr.mode & !0o7777 | owner.mode;
        }
        Ok(attr)
    }

    /// To be called when this process has changed a regular file's content: set-ID bits that the host's kernel does not know of
    /// go as it takes its own.
    pub(crate) fn written(self, links: &Links, file: impl AsFd) -> Result<()> {
        match self {
            Self::Recorded(recorded) => recorded.written(links, file),
            Self::Callers { .. } | Self::Server => Ok(()),
        }
    }
}
