//! Which bridges have forwarding on an uplink switched on. It was off before the first of them, and is switched off after the
//! last.
//!
//! One file for the host, under a lock of its own that is held only while the file is read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Interfaces, and the bridges that need each.
type Users = BTreeMap<String, BTreeSet<String>>;

/// The file, locked.
pub(crate) struct Uplinks {
    path: PathBuf,
    users: Users,
    _lock: File,
}

impl Uplinks {
    /// Waits for the lock.
    pub(crate) fn lock(state_dir: &Path) -> Result<Uplinks, Error> {
        let dir = state_dir.join("uplinks");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(Error::file(&dir))?;
        let path = dir.join("lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::file(&path))?;
        lock.lock().map_err(Error::file(&path))?;
        let path = dir.join("users.json");
        let users = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Damaged {
                path: path.clone(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Users::new(),
            Err(error) => return Err(Error::file(&path)(error)),
        };
        Ok(Uplinks {
            path,
            users,
            _lock: lock,
        })
    }

    /// Of the host's uplinks, those that were off before any bridge needed them; `is_off` says how one is now. The bridge is
    /// noted for each.
    pub(crate) fn claim(
        &mut self,
        bridge: &str,
        uplinks: &[String],
        is_off: impl Fn(&str) -> Result<bool, Error>,
    ) -> Result<Vec<String>, Error> {
        let mut closed = Vec::new();
        for uplink in uplinks {
            if self.users.contains_key(uplink) || is_off(uplink)? {
                let users = self.users.entry(uplink.clone()).or_default();
                users.insert(bridge.to_owned());
                closed.push(uplink.clone());
            }
        }
        self.store()?;
        Ok(closed)
    }

    /// Notes that the bridge does not need them any more; `close` switches off those that no other needs.
    pub(crate) fn release(
        &mut self,
        bridge: &str,
        uplinks: &[String],
        close: impl Fn(&str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for uplink in uplinks {
            if let Some(users) = self.users.get_mut(uplink) {
                users.remove(bridge);
                if !users.is_empty() {
                    continue;
                }
            }
            close(uplink)?;
            self.users.remove(uplink);
        }
        self.store()
    }

    fn store(&self) -> Result<(), Error> {
        let new = self.path.with_extension("new");
        let write = || {
            std::fs::write(&new, serde_json::to_vec(&self.users)?)?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(Error::file(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn an_uplink_is_closed_after_the_last_of_those_that_opened_it() {
        let dir = tempfile::tempdir().unwrap();
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let claim = |bridge: &str, off: &[&str]| {
            let mut uplinks = Uplinks::lock(dir.path()).unwrap();
            let all = names(&["eth0", "eth1"]);
            uplinks
                .claim(bridge, &all, |name| Ok(off.contains(&name)))
                .unwrap()
        };
        let release = |bridge: &str, of: &[String]| {
            let closed = RefCell::new(Vec::new());
            let mut uplinks = Uplinks::lock(dir.path()).unwrap();
            let close = |name: &str| {
                closed.borrow_mut().push(name.to_owned());
                Ok(())
            };
            uplinks.release(bridge, of, close).unwrap();
            closed.into_inner()
        };
        // The router's own eth1 is none of ours.
        let first = claim("hull0", &["eth0"]);
        assert_eq!(first, ["eth0"]);
        // By now it is on.
        let second = claim("hull-a", &[]);
        assert_eq!(second, ["eth0"]);
        assert_eq!(release("hull0", &first), names(&[]));
        assert_eq!(release("hull-a", &second), ["eth0"]);
        assert_eq!(claim("hull-b", &[]), names(&[]));
        // A bridge of an earlier version is in no list.
        assert_eq!(release("hull0", &first), ["eth0"]);
    }
}
