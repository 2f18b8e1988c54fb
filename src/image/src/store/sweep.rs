//! Removal of unused files: leftovers of killed processes, layers without an image, old partial
//! downloads.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Error, FileLock, Result, Store, sync_folder};
use crate::digest::Digest;

/// The age at which a partial download, or a layer without an image, is removed. A repeated pull
/// resumes from them, but rarely after a day.
pub(super) const UNUSED_MAX_AGE_S: i64 = 24 * 3600;

/// The result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// False when pulls or imports are under way: then nothing was done.
    pub done: bool,
    /// Files removed.
    pub files: u64,
    /// The space they took.
    pub bytes: u64,
}

impl Store {
    /// Removes leftovers of killed processes and unused files. Does nothing while a pull or an
    /// import is in progress, in this process or another.
    pub fn repair(&self) -> Result<Swept> {
        self.sweep(UNUSED_MAX_AGE_S)
    }

    /// Whether there are temporary files or locks: of a killed process, or of one that is running.
    pub(super) fn has_leftovers(&self) -> Result<bool> {
        for name in ["tmp", "locks"] {
            let folder = self.root.join(name);
            let mut entries =
                fs::read_dir(&folder).map_err(Error::io("read the folder", folder))?;
            if entries.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`Store::repair`], with unused layers removed from this age on.
    pub(super) fn sweep(&self, layer_max_age_s: i64) -> Result<Swept> {
        let mut swept = Swept {
            done: false,
            files: 0,
            bytes: 0,
        };
        let path = self.root.join("lock");
        let lock = FileLock::try_exclusive(&path).map_err(Error::io("lock", path))?;
        // Held to the end: no pull or import is in progress, so everything in tmp/ and locks/ is a
        // leftover.
        let Some(_alone) = lock else { return Ok(swept) };
        swept.done = true;
        self.sweep_leases(&mut swept)?;
        swept.folder(&self.root.join("tmp"), |_, _| true)?;
        swept.folder(&self.root.join("locks"), |_, _| true)?;
        swept.folder(&self.root.join("partial"), |_, metadata| is_old(metadata))?;
        // First the rows, then the files: an interruption leaves files without rows, which the next
        // sweep removes.
        self.database().delete_unused_layers(layer_max_age_s)?;
        let known: std::collections::HashSet<String> =
            self.database().layer_files()?.into_iter().collect();
        let layers = self.layers_folder();
        let before = swept.files;
        swept.folder(&self.records_folder(), |name, _| !known.contains(name))?;
        swept.folder(&layers, |name, _| !known.contains(name))?;
        if swept.files > before {
            sync_folder(&layers).map_err(Error::io("sync the folder", layers))?;
        }
        if swept.files > 0 {
            tracing::debug!(files = swept.files, bytes = swept.bytes, "swept the store");
        }
        Ok(swept)
    }

    /// Removes the lock files of images that are gone.
    fn sweep_leases(&self, swept: &mut Swept) -> Result<()> {
        let folder = self.root.join("leases");
        let known: std::collections::HashSet<String> = self
            .database()
            .image_ids()?
            .iter()
            .map(Digest::hex)
            .collect();
        let entries = fs::read_dir(&folder).map_err(Error::io("sweep the folder", &folder))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("sweep the folder", &folder))?;
            if entry
                .file_name()
                .to_str()
                .is_none_or(|name| known.contains(name))
            {
                continue;
            }
            let path = entry.path();
            let lock = FileLock::try_exclusive(&path).map_err(Error::io("lock", &path))?;
            if let Some(lock) = lock {
                lock.remove().map_err(Error::io("remove", path))?;
                swept.files += 1;
            }
        }
        Ok(())
    }
}

impl Swept {
    /// Removes the files of this folder for which `is_unused` is true.
    fn folder(
        &mut self,
        folder: &Path,
        is_unused: impl Fn(&str, &fs::Metadata) -> bool,
    ) -> Result<()> {
        let failed = || Error::io("sweep the folder", folder);
        for entry in fs::read_dir(folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let metadata = entry.metadata().map_err(failed())?;
            // The store's own names are text; other files are left alone.
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|_| metadata.is_file()) else {
                continue;
            };
            if !is_unused(name, &metadata) {
                continue;
            }
            match fs::remove_file(entry.path()) {
                Ok(()) => {
                    self.files += 1;
                    self.bytes += metadata.len();
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", entry.path())(error)),
            }
        }
        Ok(())
    }
}

fn is_old(metadata: &fs::Metadata) -> bool {
    let max_age = Duration::from_secs(UNUSED_MAX_AGE_S.unsigned_abs());
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    // A time in the future counts as age 0.
    SystemTime::now()
        .duration_since(modified)
        .is_ok_and(|age| age > max_age)
}
