//! Templates: VMs that were saved when their agent was ready, from which others of the same shape begin.
//!
//! ```text
//! ROOT/templates/.lock                  held while folders come, go and get their names; never while a VM is saved
//! ROOT/templates/.<key>.<random>/       a template in the making: locked (flock) for as long as its maker lives
//!      | rename
//!      v
//! ROOT/templates/<key>/{state,memory}   a template, never changed again
//! ROOT/templates/<key>/useless          says that no VM of the shape begins from a template on this host, for a day
//!      | rename
//!      v
//! ROOT/templates/.gone.<random>/        one that is being removed
//! ```
//!
//! Invariants: what has a key for its name is whole; a folder whose name begins with a dot and that is not locked is
//! stale, and [`sweep`] removes it; a template may be removed while VMs from it run, which have its files mapped.
//! What a key stands for is the engine's affair; here, what precedes its `-` tells one build on one boot of the host from
//! others, whose templates cannot be used any more.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, flock, futimens};
use rustix::io::{Errno, retry_on_intr};

use crate::devices::SavedVm;

mod begin;

pub(crate) use begin::{Beginning, NoVm};

/// The folder of all templates, in the root of all state.
pub(crate) const FOLDER: &str = "templates";
/// So many are kept, the last used: each takes some 35 MiB of disk.
const KEPT: usize = 8;
const STATE: &str = "state";
const MEMORY: &str = "memory";
const USELESS: &str = "useless";
/// After so long another attempt is made: it may have been for want of memory, not of a KVM that takes back what it gave.
const USELESS_FOR: Duration = Duration::from_secs(24 * 60 * 60);
const LOCK: &str = ".lock";

/// Why a folder of templates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub(crate) struct Error {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What stands in the way of making a template.
#[derive(Debug)]
enum Claim {
    /// Nothing: it is this process's to make.
    Ours(Unfinished),
    /// It is there.
    There,
    /// Another process makes it.
    Others,
}

/// A template in the making. Dropped, it is gone.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    becomes: PathBuf,
    /// Opened for writing.
    saved: SavedVm,
    _lock: File,
}

/// Opens a template, if it is there and of use, and marks it as used.
fn open(path: &Path) -> Result<Option<SavedVm>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let folder = match sys::trusted::open(path, flags, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => attempt("open", path, other)?,
    };
    let file = |name: &str| {
        attempt(
            "open",
            &path.join(name),
            sys::trusted::read_in(&folder, name),
        )
    };
    match (file(STATE), file(MEMORY)) {
        (Ok(state), Ok(memory)) => {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            };
            let times = Timestamps {
                last_access: now,
                last_modification: now,
            };
            if let Err(error) = futimens(&folder, &times) {
                tracing::debug!(%error, "the template is not marked as used");
            }
            Ok(Some(SavedVm { state, memory }))
        }
        // It is being removed.
        (Err(_), _) | (_, Err(_)) if !names(path, &folder) => Ok(None),
        (Err(error), _) | (_, Err(error)) => match file(USELESS) {
            Ok(word) if is_old(&word) => remove(path).map(|()| None),
            Ok(_) => Ok(None),
            Err(_) => Err(error),
        },
    }
}

/// Whether what made a template useless may have passed.
fn is_old(word: &File) -> bool {
    let said = word.metadata().and_then(|metadata| metadata.modified());
    said.is_ok_and(|said| said.elapsed().is_ok_and(|age| age > USELESS_FOR))
}

/// Whether the path is still this folder's.
fn names(path: &Path, folder: &File) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::symlink_metadata(path), folder.metadata()) {
        (Ok(named), Ok(opened)) => identity(named) == identity(opened),
        _ => false,
    }
}

/// Begins to make the template, unless another process has.
fn claim(path: &Path) -> Result<Claim, Error> {
    let (folder, key) = parts(path)?;
    let _all = lock(folder, FlockOperation::LockExclusive)?;
    if attempt("look for", path, path.try_exists())? {
        return Ok(Claim::There);
    }
    let ours = format!(".{key}.");
    for left in sweep_in(folder)? {
        if left.starts_with(&ours) {
            return Ok(Claim::Others);
        }
    }
    let temporary = folder.join(format!("{ours}{}", attempt("name", path, random())?));
    attempt("make", &temporary, private_folder().create(&temporary))?;
    let made = fill(&temporary).map(|(lock, saved)| Unfinished {
        path: temporary.clone(),
        becomes: path.to_owned(),
        saved,
        _lock: lock,
    });
    if made.is_err() {
        delete(&temporary);
    }
    made.map(Claim::Ours)
}

/// Locks the folder and makes its files.
fn fill(folder: &Path) -> Result<(File, SavedVm), Error> {
    let lock = attempt("open", folder, File::open(folder))?;
    let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    attempt("lock", folder, locked)?;
    let file = |name: &str| {
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        attempt("make", &path, options.open(&path))
    };
    let saved = SavedVm {
        state: file(STATE)?,
        memory: file(MEMORY)?,
    };
    Ok((lock, saved))
}

impl Unfinished {
    /// The files that a VM is to be saved to.
    fn files(&self) -> Result<SavedVm, Error> {
        Ok(SavedVm {
            state: attempt("open", &self.path, self.saved.state.try_clone())?,
            memory: attempt("open", &self.path, self.saved.memory.try_clone())?,
        })
    }

    /// Gives it its name, and removes the templates that will not be used. One of that name that is there already stays.
    fn finish(self) -> Result<(), Error> {
        // What the disk had no room for may be known only now.
        for file in [&self.saved.state, &self.saved.memory] {
            attempt("write", &self.path, file.sync_all())?;
        }
        let (folder, key) = parts(&self.becomes)?;
        let _all = lock(folder, FlockOperation::LockExclusive)?;
        match fs::rename(&self.path, &self.becomes) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => attempt("make", &self.becomes, other)?,
        }
        prune(folder, key)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        delete(&self.path);
    }
}

/// Removes a template.
fn remove(path: &Path) -> Result<(), Error> {
    let (folder, _) = parts(path)?;
    let _all = lock(folder, FlockOperation::LockExclusive)?;
    remove_in(folder, path)
}

/// Puts a word in a template's place that keeps others from making it again.
fn make_useless(path: &Path) -> Result<(), Error> {
    let (folder, _) = parts(path)?;
    let _all = lock(folder, FlockOperation::LockExclusive)?;
    remove_in(folder, path)?;
    let temporary = folder.join(format!(".useless.{}", attempt("name", path, random())?));
    attempt("make", &temporary, private_folder().create(&temporary))?;
    attempt("make", path, File::create(temporary.join(USELESS)))?;
    attempt("make", path, fs::rename(&temporary, path))
}

/// Under the lock: first its name goes, so that half of it is never opened.
fn remove_in(folder: &Path, path: &Path) -> Result<(), Error> {
    let gone = folder.join(format!(".gone.{}", attempt("remove", path, random())?));
    match fs::rename(path, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => {
            attempt("remove", path, other)?;
            delete(&gone);
            Ok(())
        }
    }
}

/// Removes what dead makers have left in the state `root`; does nothing while another process is at it.
pub(crate) fn sweep(root: &Path) -> Result<(), Error> {
    let folder = root.join(FOLDER);
    if !attempt("look for", &folder, folder.try_exists())? {
        return Ok(());
    }
    match lock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(_all) => sweep_in(&folder).map(drop),
        Err(error) if error.source.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// Under the lock; returns the names of those that are in the making.
fn sweep_in(folder: &Path) -> Result<Vec<String>, Error> {
    let mut alive = Vec::new();
    for name in names_in(folder)? {
        if !name.starts_with('.') || name == LOCK {
            continue;
        }
        let path = folder.join(&name);
        if File::open(&path).is_ok_and(|folder| is_locked(&folder)) {
            alive.push(name);
        } else {
            delete(&path);
        }
    }
    Ok(alive)
}

/// Under the lock: removes the templates of other builds and boots, and those beyond the number that is kept.
fn prune(folder: &Path, key: &str) -> Result<(), Error> {
    let mut usable = Vec::new();
    for name in names_in(folder)? {
        if name.starts_with('.') || name == key {
            continue;
        }
        let path = folder.join(&name);
        if origin(&name) == origin(key) {
            let used = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
            usable.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path));
        } else {
            remove_in(folder, &path)?;
        }
    }
    usable.sort_by(|a, b| b.cmp(a));
    for (_, path) in usable.iter().skip(KEPT - 1) {
        remove_in(folder, path)?;
    }
    Ok(())
}

/// What a key says of the build and the boot.
fn origin(key: &str) -> &str {
    key.split('-').next().unwrap_or(key)
}

/// The folder of all templates and the key.
fn parts(path: &Path) -> Result<(&Path, &str), Error> {
    let key = path.file_name().and_then(|name| name.to_str());
    let found = path.parent().zip(key);
    attempt(
        "use",
        path,
        found.ok_or(io::Error::from(io::ErrorKind::InvalidInput)),
    )
}

fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in attempt("list", folder, fs::read_dir(folder))? {
        // Every name of ours is text; what is not is not ours, and stays.
        names.extend(attempt("list", folder, entry)?.file_name().into_string());
    }
    Ok(names)
}

/// Makes the folder of all templates, if need be, and locks it.
fn lock(folder: &Path, operation: FlockOperation) -> Result<File, Error> {
    attempt(
        "make",
        folder,
        private_folder().recursive(true).create(folder),
    )?;
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = attempt("open", &path, options.open(&path))?;
    attempt("lock", &path, retry_on_intr(|| flock(&file, operation)))?;
    Ok(file)
}

fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn is_locked(folder: &File) -> bool {
    flock(folder, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// Deletes a folder that is of no use. If it stays, the next sweep tries again.
fn delete(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %folder.display(), "what is left of a template was not removed");
        }
        _ => {}
    }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 8];
    sys::random::fill(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn attempt<T>(
    action: &'static str,
    path: &Path,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, Error> {
    result.map_err(|source| Error {
        action,
        path: path.to_owned(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests;
