//! Records on disk: read with a check of their version, written whole or not at all; folders that appear and disappear by
//! one rename.
//!
//! ```text
//! Draft::begin  ROOT/tmp/<id>        made and locked; locked for as long as its maker lives
//! Draft::place  ROOT/containers/<id> renamed there, still locked until the draft is dropped
//! discard       ROOT/containers/<id> -> ROOT/tmp/gone-<id>-<random>, then removed
//! sweep         ROOT/tmp/*           whatever is not locked is rubbish of a process that was killed
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use protocol::record::LATEST;
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id;
use crate::layout::Layout;

mod tree;

/// A record's version, read before the rest is.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a record; `None` if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    parse(path, &text).map(Some)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|source| {
        // A later version may not parse at all: that is said first.
        match serde_json::from_slice::<Versioned>(text) {
            Ok(Versioned { version }) if version > LATEST => later(path, version),
            _ => Error::Damaged {
                path: path.to_owned(),
                source,
            },
        }
    })
}

/// Refuses a record of a later version.
pub(crate) fn check_version(path: &Path, version: u32) -> Result<(), Error> {
    if version > LATEST {
        Err(later(path, version))
    } else {
        Ok(())
    }
}

fn later(path: &Path, found: u32) -> Error {
    Error::Later {
        path: path.to_owned(),
        found,
        known: LATEST,
    }
}

/// Writes a record in the place of what was there: readers see the old or the new one, whole.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    let text = serde_json::to_vec(record)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(folder)
        .map_err(Error::file("write", path))?;
    io::Write::write_all(&mut file, &text).map_err(Error::file("write", path))?;
    file.persist(path)
        .map_err(|error| Error::file("write", path)(error.error))?;
    Ok(())
}

/// Writes a record into a folder that no other process sees yet.
pub(crate) fn write_new<T: Serialize>(path: &Path, record: &T) -> Result<(), Error> {
    fs::write(path, serde_json::to_vec(record)?).map_err(Error::file("write", path))
}

/// Makes a folder and those above it, for its owner's eyes only.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("make", path))
}

/// Locks a folder for this process alone, waiting for others; they hold it for a few system calls at a time.
/// `None` if it is not there (any more).
pub(crate) fn lock_folder(path: &Path) -> Result<Option<File>, Error> {
    let folder = match File::open(path) {
        Ok(folder) => folder,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(Error::file("open", path)(error)),
    };
    wait_for_lock(&folder).map_err(Error::file("lock", path))?;
    let is_there = is_same(&folder, path).map_err(Error::file("look at", path))?;
    Ok(is_there.then_some(folder))
}

/// Locks a folder together with other processes, waiting for those that lock it alone.
pub(crate) fn share_folder(path: &Path) -> Result<File, Error> {
    let folder = File::open(path).map_err(Error::file("open", path))?;
    wait_for(&folder, FlockOperation::LockShared).map_err(Error::file("lock", path))?;
    Ok(folder)
}

fn wait_for_lock(file: &File) -> io::Result<()> {
    wait_for(file, FlockOperation::LockExclusive)
}

fn wait_for(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the path still names this open file.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A folder that is being made.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    /// Locked until the draft is dropped, wherever the folder is by then.
    _lock: File,
    placed: bool,
}

impl Draft {
    /// Makes the folder of `name` in ROOT/tmp.
    pub(crate) fn begin(layout: &Layout, name: &str) -> Result<Draft, Error> {
        let path = layout.tmp().join(name);
        loop {
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if is_absent(&error) => {
                    make_folder(&layout.tmp())?;
                    continue;
                }
                Err(error) => return Err(Error::file("make", path)(error)),
            }
            // A sweep may take it before it is locked; then it is made again.
            if let Some(lock) = lock_folder(&path)? {
                return Ok(Draft {
                    path,
                    _lock: lock,
                    placed: false,
                });
            }
        }
    }

    /// Where it is now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place, whole.
    pub(crate) fn place(&mut self, to: &Path) -> Result<(), Error> {
        let rename = || fs::rename(&self.path, to);
        match rename() {
            Err(error) if is_absent(&error) => {
                make_folder(to.parent().unwrap_or(Path::new("/")))?;
                rename().map_err(Error::file("make", to))?;
            }
            other => other.map_err(Error::file("make", to))?,
        }
        self.placed = true;
        self.path = to.to_owned();
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a folder that was begun is left for the next sweep");
        }
    }
}

/// Whether the folder of `name` is being made by a living process.
pub(crate) fn is_being_made(layout: &Layout, name: &str) -> bool {
    File::open(layout.tmp().join(name)).is_ok_and(|folder| {
        flock(&folder, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Takes a folder away: at once out of sight, then from the disk. Nothing is there: nothing to do.
pub(crate) fn discard(layout: &Layout, path: &Path) -> Result<(), Error> {
    match hide(layout, path)? {
        Some(gone) => remove_tree(&gone),
        None => Ok(()),
    }
}

/// Takes a folder out of sight; where it is then. `None`: nothing is there.
pub(crate) fn hide(layout: &Layout, path: &Path) -> Result<Option<PathBuf>, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let random = id::short(&id::new_id()).to_owned();
    let gone = layout.tmp().join(format!("gone-{name}-{random}"));
    make_folder(&layout.tmp())?;
    match fs::rename(path, &gone) {
        Ok(()) => Ok(Some(gone)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(Error::file("remove", path)(error)),
    }
}

/// Removes a folder with all that is in it. Nothing is there: nothing to do.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    match tree::remove(path) {
        Err(error) if !is_absent(&error) => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes from ROOT/tmp what killed processes left there.
pub(crate) fn sweep(layout: &Layout) -> Result<(), Error> {
    for name in names(&layout.tmp())? {
        let path = layout.tmp().join(&name);
        let Ok(folder) = File::open(&path) else {
            continue;
        };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_same(&folder, &path).unwrap_or(false)
        {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// The names in a folder, but for those that begin with a dot; none if it is not there.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("list", folder))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether nothing is there.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use protocol::record::State;

    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        (root, layout)
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_its_absence_is_no_error() {
        let (root, _) = layout();
        let path = root.path().join("state.json");
        assert!(read::<State>(&path).unwrap().is_none());
        write(&path, &State::default()).unwrap();
        assert_eq!(read::<State>(&path).unwrap(), Some(State::default()));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_record_of_a_later_version_is_refused_by_name() {
        let (root, _) = layout();
        let path = root.path().join("state.json");
        fs::write(&path, r#"{"version": 7, "other": []}"#).unwrap();
        let error = read::<State>(&path).unwrap_err();
        assert!(matches!(error, Error::Later { found: 7, .. }), "{error}");
        fs::write(&path, "{").unwrap();
        assert!(matches!(read::<State>(&path), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_nothing_and_one_that_is_placed_stays() {
        let (_root, layout) = layout();
        drop(Draft::begin(&layout, "a").unwrap());
        assert!(names(&layout.tmp()).unwrap().is_empty());
        let mut draft = Draft::begin(&layout, "b").unwrap();
        assert!(is_being_made(&layout, "b"));
        draft.place(&layout.container("b")).unwrap();
        drop(draft);
        assert!(!is_being_made(&layout, "b"));
        assert_eq!(names(&layout.containers()).unwrap(), ["b"]);
    }

    #[test]
    fn a_sweep_spares_what_is_being_made_and_removes_what_a_killed_process_left() {
        let (_root, layout) = layout();
        let draft = Draft::begin(&layout, "living").unwrap();
        fs::create_dir(layout.tmp().join("dead")).unwrap();
        fs::write(layout.tmp().join("dead/file"), "x").unwrap();
        sweep(&layout).unwrap();
        assert_eq!(names(&layout.tmp()).unwrap(), ["living"]);
        drop(draft);
    }

    #[test]
    fn what_is_discarded_is_gone_and_may_be_gone_before() {
        let (_root, layout) = layout();
        let path = layout.container("a");
        fs::create_dir_all(path.join("log")).unwrap();
        discard(&layout, &path).unwrap();
        discard(&layout, &path).unwrap();
        assert!(!path.exists());
        assert!(names(&layout.tmp()).unwrap().is_empty());
    }

    #[test]
    fn the_lock_of_a_folder_that_was_replaced_does_not_count() {
        let (_root, layout) = layout();
        let path = layout.container("a");
        assert!(lock_folder(&path).unwrap().is_none());
        make_folder(&path).unwrap();
        let held = lock_folder(&path).unwrap().unwrap();
        assert!(is_same(&held, &path).unwrap());
        fs::remove_dir(&path).unwrap();
        make_folder(&path).unwrap();
        assert!(!is_same(&held, &path).unwrap());
    }
}
