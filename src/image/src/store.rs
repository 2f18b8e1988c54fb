//! The store: a folder with the layers of all images, and a database of images, names and layers.
//!
//! ```text
//! images.db                 names, images, layers (SQLite)
//! layers/<diffID>-v<n>.erofs  read-only; <n> is the converter's version
//! records/<the same name>     what the layer's image does not hold of its tar
//! partial/<digest>          downloads, complete or not, until their layer is converted
//! tmp/                      files being written
//! locks/<diffID>            held while a layer is converted, so that one process does it and others wait
//! leases/<image id>         held, shared, while a sandbox runs the image
//! reserve                   room for the database on a full disk, so that images can be removed
//! lock                      held shared by every pull and import, exclusively by a sweep
//! ```
//!
//! Consistency: a layer is written to `tmp/`, synced, renamed into `layers/`, and only then entered
//! in the database; an image is entered in one transaction once all its layers are present.
//! Leftovers of a killed process are in `tmp/` or have no row; a sweep, which holds `lock`
//! exclusively, removes them. Locks are flock(2)'s: they end with their holder, so no process ids
//! are compared.

mod database;
mod delete;
mod details;
mod error;
mod glob;
mod image;
mod known;
mod layers;
mod list;
mod lock;
mod prune;
mod records;
mod reserve;
mod sweep;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use database::Database;
pub(crate) use database::{BlobRow, LayerRow, NewName};
pub use delete::{DeleteError, DeleteOptions, Deleted, Deletion, ImageUser, User, Users};
pub use details::{Details, DiskUsage, HistoryEntry, ImageUsage};
pub use error::{Damage, Error};
pub(crate) use error::{available_bytes, is_full};
pub use glob::{Pattern, PatternError};
pub use image::{Image, Layer};
pub(crate) use layers::LayerJob;
pub use list::{LabelFilter, ListFilter};
pub(crate) use lock::FileLock;
pub use prune::PruneOptions;
pub use sweep::Swept;

use crate::digest::Digest;
use crate::reference::Reference;

/// A result with the store's error.
pub type Result<T> = std::result::Result<T, Error>;

/// The images of one user, on one file system. May be open in any number of processes and threads.
pub struct Store {
    root: PathBuf,
    database: Mutex<Database>,
}

/// Keeps an image from being deleted while the lease exists. It is a lock on a descriptor: a
/// process that inherits the descriptor, or is sent it, keeps the lease too, until the last copy is
/// closed.
#[derive(Debug)]
pub struct Lease(FileLock);

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Lease> for OwnedFd {
    fn from(lease: Lease) -> OwnedFd {
        lease.0.into()
    }
}

/// A pull or an import in progress: while it exists, no sweep runs.
pub(crate) struct Session(#[expect(dead_code, reason = "held for its lock")] FileLock);

impl Store {
    /// Opens the store in this folder, which is created if missing. Leftovers of killed processes
    /// are removed, unless a pull or an import is in progress.
    pub fn open(root: &Path) -> Result<Store> {
        let store = Store::open_unswept(root)?;
        if store.has_leftovers()? {
            store.sweep(sweep::UNUSED_MAX_AGE_S)?;
        }
        Ok(store)
    }

    fn open_unswept(root: &Path) -> Result<Store> {
        let database = root.join("images.db");
        // The folder that came last: stores of earlier versions lack it.
        if !database.exists() || !root.join("records").exists() {
            for folder in ["", "layers", "partial", "tmp", "locks", "leases", "records"] {
                let folder = root.join(folder);
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)
                    .map_err(Error::io("make the folder", folder))?;
            }
        }
        let database = Mutex::new(Database::open(&database)?);
        Ok(Store {
            root: root.to_owned(),
            database,
        })
    }

    /// The image of this name, or `None`.
    pub fn image(&self, name: &Reference) -> Result<Option<Image>> {
        let row = self.database().image_named(&name.canonical())?;
        row.map(|row| self.load(row, Check::Files)).transpose()
    }

    /// The image of this name or id (whole, or its first digits; with or without `sha256:`). A name
    /// takes precedence over a prefix of an id. `None` for text that is neither.
    pub fn find(&self, text: &str) -> Result<Option<Image>> {
        if let Ok(name) = text.parse::<Reference>()
            && let Some(image) = self.image(&name)?
        {
            return Ok(Some(image));
        }
        let Some(id) = self.id_with_prefix(text)? else {
            return Ok(None);
        };
        let row = self.database().image(&id)?;
        row.map(|row| self.load(row, Check::Files)).transpose()
    }

    /// Every image, newest first. Their files are not looked at.
    pub fn images(&self) -> Result<Vec<Image>> {
        let rows = self.database().images()?;
        rows.into_iter()
            .map(|row| self.load(row, Check::Nothing))
            .collect()
    }

    /// Keeps the image while the lease exists. Fails with [`Error::NotFound`] if it has been
    /// removed meanwhile.
    pub fn lease(&self, image: &Image) -> Result<Lease> {
        let path = self.lease_path(&image.id);
        let lock = FileLock::shared(&path).map_err(Error::io("lock", path))?;
        match self.database().image(&image.id)? {
            Some(_) => Ok(Lease(lock)),
            None => Err(Error::NotFound {
                what: image.id.short(),
            }),
        }
    }

    fn id_with_prefix(&self, text: &str) -> Result<Option<Digest>> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(hexadecimal) {
            return Ok(None);
        }
        match self.database().ids_with_prefix(digits)?.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            ids => Err(Error::Ambiguous {
                prefix: text.to_owned(),
                count: ids.len(),
            }),
        }
    }

    /// The configuration of the image with this id.
    pub(crate) fn config_bytes(&self, id: &Digest) -> Result<Option<Vec<u8>>> {
        Ok(self.database().image(id)?.map(|row| row.config))
    }

    /// Whether this name means the image with this id.
    pub(crate) fn names_image(&self, name: &Reference, id: &Digest) -> Result<bool> {
        let row = self.database().image_named(&name.canonical())?;
        Ok(row.is_some_and(|row| row.id == *id))
    }

    /// Begins a pull or an import.
    pub(crate) fn session(&self) -> Result<Session> {
        self.hold_reserve()?;
        let path = self.root.join("lock");
        FileLock::shared(&path)
            .map(Session)
            .map_err(Error::io("lock", path))
    }

    /// Enters an image; all its layers are in the store.
    pub(crate) fn put_image(
        &self,
        config: &crate::manifest::Config,
        manifest: Option<&[u8]>,
        layers: &[LayerRow],
        names: &[Reference],
    ) -> Result<Image> {
        let id = config.id();
        let layers: Vec<i64> = layers.iter().map(|layer| layer.id).collect();
        let names: Vec<NewName> = names.iter().map(NewName::of).collect();
        self.database()
            .put_image(&id, &config.bytes, manifest, &layers, &names)?;
        let row = self.database().image(&id)?;
        let row = row.ok_or_else(|| Error::NotFound { what: id.short() })?;
        self.load(row, Check::Files)
    }

    /// The database, for one statement or transaction.
    fn database(&self) -> MutexGuard<'_, Database> {
        // If a thread panicked while holding this, SQLite has rolled back.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn lease_path(&self, id: &Digest) -> PathBuf {
        self.root.join("leases").join(id.hex())
    }

    fn layers_folder(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Where the download of this blob is kept.
    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }
}

/// What [`Store::load`] checks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    /// Only the database.
    Nothing,
    /// The layers' files too.
    Files,
}

/// Makes a rename in this folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}
