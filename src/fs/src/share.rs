//! Shares: what the warden has given, and the names under which a guest finds them in its root directory.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::fs::MAX_NAME_LEN;
use protocol::lease::{VALIDITY, Word};
use rustix::fs::FileType;
use rustix::io::{Errno, pread};

use crate::{Result, host, lock};

/// The most shares of one server: each is a mount of a container, and keeps a descriptor.
const MAX_SHARES: usize = 4096;

/// Why a share is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its name.
    #[error("the name {name:?} is not 1 to 64 digits, lower-case letters and hyphens")]
    Name {
        /// As it was given.
        name: String,
    },
    /// There is another of that name.
    #[error("there is a share {name} already")]
    Exists {
        /// The name.
        name: String,
    },
    /// There are as many as there may be.
    #[error("there are {MAX_SHARES} shares already")]
    TooMany,
    /// Its root could not be looked at.
    #[error("the root of the share {name} cannot be looked at")]
    Root {
        /// The share's name.
        name: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Its root is something else.
    #[error("the root of the share {name} is neither a directory nor a regular file")]
    Kind {
        /// The share's name.
        name: String,
    },
}

/// A directory, with all below it, or a single file.
#[derive(Debug)]
pub(crate) struct Share {
    /// Tells it from every other share that there ever was.
    pub(crate) number: u64,
    /// O_PATH of its root.
    pub(crate) root: OwnedFd,
    read_only: bool,
    /// The mount of its root, if that lies on a file system on which nothing is left to do when a file is closed.
    quiet_mount: Option<u64>,
    /// Of its volume; the descriptor keeps this share's byte of it locked.
    lease: Option<OwnedFd>,
    removed: AtomicBool,
}

impl Share {
    /// Refuses with EROFS what would change it.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.read_only {
            Err(Errno::ROFS)
        } else {
            Ok(())
        }
    }

    /// Refuses with ESTALE what would reach it after its end.
    pub(crate) fn alive(&self) -> Result<()> {
        if self.removed.load(Ordering::Acquire) {
            Err(Errno::STALE)
        } else {
            Ok(())
        }
    }

    /// Whether closing a file of this mount does nothing on the host and cannot fail.
    pub(crate) fn closes_quietly(&self, mount: u64) -> bool {
        self.quiet_mount == Some(mount)
    }

    /// How long the guest may believe what it is told of names and attributes from now on: to be asked for each reply, as a
    /// lease may end at any time.
    pub(crate) fn validity(&self) -> Duration {
        let Some(lease) = &self.lease else {
            return Duration::ZERO;
        };
        let mut word = [0; Word::LEN];
        match pread(lease, &mut word, 0) {
            Ok(len) if Word::from_bytes(&word[..len]) == Word::Alone => VALIDITY,
            _ => Duration::ZERO,
        }
    }
}

/// All shares by name.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<Named>);

#[derive(Debug, Default)]
struct Named {
    by_name: BTreeMap<String, Arc<Share>>,
    made: u64,
}

impl Shares {
    /// Enters a share.
    pub(crate) fn add(
        &self,
        name: &str,
        root: OwnedFd,
        read_only: bool,
        lease: Option<OwnedFd>,
    ) -> std::result::Result<(), Error> {
        let name = name.to_owned();
        if !is_name(&name) {
            return Err(Error::Name { name });
        }
        let stat = match host::stat(&root) {
            Ok(stat) => stat,
            Err(source) => return Err(Error::Root { name, source }),
        };
        let kind = host::kind(&stat);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Err(Error::Kind { name });
        }
        let mut shares = lock(&self.0);
        if shares.by_name.contains_key(&name) {
            return Err(Error::Exists { name });
        }
        if shares.by_name.len() >= MAX_SHARES {
            return Err(Error::TooMany);
        }
        shares.made += 1;
        let share = Share {
            number: shares.made,
            quiet_mount: has_no_flush(&root).then_some(stat.stx_mnt_id),
            root,
            read_only,
            lease,
            removed: AtomicBool::new(false),
        };
        shares.by_name.insert(name, Arc::new(share));
        Ok(())
    }

    /// Takes a share out; what reaches it from then on is refused.
    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Share>> {
        let share = lock(&self.0).by_name.remove(name)?;
        share.removed.store(true, Ordering::Release);
        Some(share)
    }

    /// The share of that name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<Arc<Share>> {
        let name = std::str::from_utf8(name).ok()?;
        lock(&self.0).by_name.get(name).cloned()
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<(String, Arc<Share>)> {
        let shares = lock(&self.0);
        let all = shares.by_name.iter();
        all.map(|(name, share)| (name.clone(), share.clone()))
            .collect()
    }
}

/// Whether this file system is one of those of Linux that do nothing when a descriptor is closed (no `flush` in their
/// `file_operations`): writing back, and errors of it, are for fsync. Of overlayfs the upper one counts, which cannot be one
/// over a network.
fn has_no_flush(root: &OwnedFd) -> bool {
    /// Of linux/magic.h: ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs.
    const LOCAL: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630];
    rustix::fs::fstatfs(root).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u32)))
}

fn is_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_digit() || c.is_ascii_lowercase() || c == b'-';
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_of_shares_are_digits_letters_and_hyphens() {
        for good in ["a", "0", "vol-1", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "..", "a/b", "A", "a.b", "ä", "a\0", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
