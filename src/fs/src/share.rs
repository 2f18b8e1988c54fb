//! Shares: what the warden has given, and the names under which a guest finds them in its root directory.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use protocol::fs::{Cache, MAX_NAME_LEN};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::{Result, host, lock};

/// The most shares of one server: each is a mount of a container, and keeps a descriptor.
const MAX_SHARES: usize = 4096;
/// How long a guest may remember what only it changes, in seconds.
const A_DAY_S: u64 = 24 * 60 * 60;

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
    cache: Cache,
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

    /// How long a guest may believe names and attributes, in seconds.
    pub(crate) fn valid_s(&self) -> u64 {
        match self.cache {
            Cache::Exclusive => A_DAY_S,
            Cache::Shared => 0,
        }
    }

    /// Whether only the guest changes it.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.cache == Cache::Exclusive
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
        cache: Cache,
    ) -> std::result::Result<(), Error> {
        let name = name.to_owned();
        if !is_name(&name) {
            return Err(Error::Name { name });
        }
        let kind = match host::stat(&root) {
            Ok(stat) => host::kind(&stat),
            Err(source) => return Err(Error::Root { name, source }),
        };
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
            root,
            read_only,
            cache,
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
