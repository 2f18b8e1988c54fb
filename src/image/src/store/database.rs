//! The index of the store: which names mean which image, and which layers an image has.
//! Configurations and manifests are rows too: they are small, and a row cannot be half written.
//!
//! The journal is SQLite's default (a rollback journal), not WAL: a reader's open is what every
//! `hull run` pays, and with WAL the first to open and the last to close also make and remove two
//! more files (see the crate's README for the figures). `synchronous=EXTRA` makes a committed
//! change survive a power cut.

mod blobs;
mod names;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

pub(crate) use blobs::BlobRow;

use super::error::Error;
use crate::digest::Digest;

/// The version of the schema, kept in `user_version`.
const VERSION: i64 = 3;
/// How long a command waits for another's transaction; they last milliseconds, but a disk may be
/// slow.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
CREATE TABLE image (
    id TEXT PRIMARY KEY,            -- digest of the configuration
    config BLOB NOT NULL,
    manifest BLOB,                  -- as pulled; null for what was imported without one
    stored_s INTEGER NOT NULL       -- seconds since 1970
) STRICT;
CREATE TABLE layer (
    id INTEGER PRIMARY KEY,
    diff_id TEXT NOT NULL,
    chain_id TEXT,                  -- not null if it holds copies of what hard links found in the layers below
    converter INTEGER NOT NULL,     -- version of the converter
    file TEXT NOT NULL UNIQUE,      -- name in layers/
    size_bytes INTEGER NOT NULL,
    opaque_root INTEGER NOT NULL,   -- hides all layers below
    stored_s INTEGER NOT NULL
) STRICT;
CREATE INDEX layer_diff_id ON layer (diff_id);
CREATE TABLE image_layer (
    image_id TEXT NOT NULL REFERENCES image ON DELETE CASCADE,
    position INTEGER NOT NULL,      -- 0 at the bottom
    layer_id INTEGER NOT NULL REFERENCES layer,
    PRIMARY KEY (image_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layer_layer ON image_layer (layer_id);
CREATE TABLE name (
    name TEXT PRIMARY KEY,          -- repository:tag or repository@digest, in full
    repository TEXT NOT NULL,
    is_digest INTEGER NOT NULL,
    image_id TEXT NOT NULL REFERENCES image ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX name_image ON name (image_id);
";

/// The database, open.
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
}

/// A row of `image`.
pub(crate) struct ImageRow {
    pub(crate) id: Digest,
    pub(crate) config: Vec<u8>,
    pub(crate) stored_s: i64,
}

/// A row of `layer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerRow {
    pub(crate) id: i64,
    pub(crate) diff_id: Digest,
    pub(crate) converter: u32,
    pub(crate) file: String,
    pub(crate) size_bytes: u64,
    /// Hides all layers below it.
    pub(crate) opaque_root: bool,
}

/// A name to be given to an image; made by [`NewName::of`].
pub(crate) struct NewName {
    pub(crate) name: String,
    pub(crate) repository: String,
    pub(crate) is_digest: bool,
}

type Result<T> = std::result::Result<T, Error>;

/// What a transaction's body says.
type Rows<T> = std::result::Result<T, rusqlite::Error>;

impl Database {
    /// Opens it, and creates it if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Database> {
        let failed = Error::database(path);
        let connection = Connection::open(path).map_err(&failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(&failed)?;
        connection
            .execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = EXTRA;")
            .map_err(&failed)?;
        let mut database = Database {
            connection,
            path: path.to_owned(),
        };
        match database.version()? {
            VERSION => Ok(database),
            0..VERSION => {
                database.write(upgrade)?;
                Ok(database)
            }
            found => Err(Error::Version {
                path: path.to_owned(),
                found,
                known: VERSION,
            }),
        }
    }

    fn version(&self) -> Result<i64> {
        self.read(|db| db.query_row("PRAGMA user_version", [], |row| row.get(0)))
    }

    fn read<T>(&self, body: impl FnOnce(&Connection) -> Rows<T>) -> Result<T> {
        body(&self.connection).map_err(Error::database(&self.path))
    }

    /// One transaction, begun with the write lock, so that what it reads stays true until it
    /// commits.
    fn write<T>(&mut self, body: impl FnOnce(&Transaction<'_>) -> Rows<T>) -> Result<T> {
        let run = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run(&mut self.connection).map_err(Error::database(&self.path))
    }

    /// Every image, newest first.
    pub(crate) fn images(&self) -> Result<Vec<ImageRow>> {
        self.read(|db| {
            db.prepare("SELECT id, config, stored_s FROM image ORDER BY stored_s DESC, id")?
                .query_map([], image_row)?
                .collect()
        })
    }

    pub(crate) fn image(&self, id: &Digest) -> Result<Option<ImageRow>> {
        self.read(|db| {
            db.prepare_cached("SELECT id, config, stored_s FROM image WHERE id = ?1")?
                .query_row([id.to_string()], image_row)
                .optional()
        })
    }

    pub(crate) fn image_named(&self, name: &str) -> Result<Option<ImageRow>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT image.id, config, stored_s FROM name JOIN image ON image.id = image_id WHERE name = ?1",
            )?
            .query_row([name], image_row)
            .optional()
        })
    }

    /// The ids that begin with these hexadecimal digits.
    pub(crate) fn ids_with_prefix(&self, digits: &str) -> Result<Vec<Digest>> {
        let from = format!("sha256:{digits}");
        // 'g' follows every hexadecimal digit.
        let to = format!("{from}g");
        self.read(|db| {
            db.prepare("SELECT id FROM image WHERE id >= ?1 AND id < ?2")?
                .query_map([from, to], |row| digest(row, 0))?
                .collect()
        })
    }

    /// An image's names: tags first.
    pub(crate) fn names(&self, id: &Digest) -> Result<Vec<String>> {
        self.read(|db| {
            db.prepare_cached("SELECT name FROM name WHERE image_id = ?1 ORDER BY is_digest, name")?
                .query_map([id.to_string()], |row| row.get(0))?
                .collect()
        })
    }

    /// An image's layers, bottom first.
    pub(crate) fn layers(&self, id: &Digest) -> Result<Vec<LayerRow>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT layer.id, diff_id, converter, file, size_bytes, opaque_root FROM image_layer
                 JOIN layer ON layer.id = layer_id WHERE image_id = ?1 ORDER BY position",
            )?
            .query_map([id.to_string()], layer_row)?
            .collect()
        })
    }

    /// A converted layer that serves for `diff_id` with just these layers below it.
    pub(crate) fn layer(
        &self,
        diff_id: &Digest,
        chain_id: &Digest,
        converter: u32,
    ) -> Result<Option<LayerRow>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT id, diff_id, converter, file, size_bytes, opaque_root FROM layer
                 WHERE diff_id = ?1 AND converter = ?3 AND (chain_id IS NULL OR chain_id = ?2)
                 ORDER BY chain_id IS NULL LIMIT 1",
            )?
            .query_row(
                params![diff_id.to_string(), chain_id.to_string(), converter],
                layer_row,
            )
            .optional()
        })
    }

    /// Records a layer's file, or what a new conversion made of it.
    pub(crate) fn put_layer(
        &mut self,
        layer: &LayerRow,
        chain_id: Option<&Digest>,
    ) -> Result<LayerRow> {
        let now = now_s();
        self.write(|db| {
            db.query_row(
                "INSERT INTO layer (diff_id, chain_id, converter, file, size_bytes, opaque_root, stored_s)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (file) DO UPDATE SET size_bytes = ?5, opaque_root = ?6, stored_s = ?7
                 RETURNING id, diff_id, converter, file, size_bytes, opaque_root",
                params![
                    layer.diff_id.to_string(),
                    chain_id.map(Digest::to_string),
                    layer.converter,
                    layer.file,
                    // No file system holds more than i64 counts.
                    i64::try_from(layer.size_bytes).unwrap_or(i64::MAX),
                    layer.opaque_root,
                    now
                ],
                layer_row,
            )
        })
    }

    /// Records an image with its layers, and gives it these names, taking them from whatever had
    /// them.
    pub(crate) fn put_image(
        &mut self,
        id: &Digest,
        config: &[u8],
        manifest: Option<&[u8]>,
        layers: &[i64],
        names: &[NewName],
    ) -> Result<()> {
        let (id, now) = (id.to_string(), now_s());
        self.write(|db| {
            db.execute(
                "INSERT INTO image (id, config, manifest, stored_s) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET config = ?2, manifest = coalesce(?3, manifest)",
                params![id, config, manifest, now],
            )?;
            db.execute("DELETE FROM image_layer WHERE image_id = ?1", [&id])?;
            for (position, layer) in layers.iter().enumerate() {
                db.execute(
                    "INSERT INTO image_layer (image_id, position, layer_id) VALUES (?1, ?2, ?3)",
                    params![id, position as i64, layer],
                )?;
            }
            for NewName { name, repository, is_digest } in names {
                db.execute(
                    "INSERT INTO name (name, repository, is_digest, image_id) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (name) DO UPDATE SET image_id = ?4",
                    params![name, repository, is_digest, id],
                )?;
            }
            Ok(())
        })
    }

    /// Takes these names away from an image. Returns those that it had.
    pub(crate) fn untag(&mut self, id: &Digest, names: &[String]) -> Result<Vec<String>> {
        let id = id.to_string();
        self.write(|db| {
            let mut statement = db.prepare("DELETE FROM name WHERE image_id = ?1 AND name = ?2")?;
            let mut gone = Vec::new();
            for name in names {
                if statement.execute([&id, name])? > 0 {
                    gone.push(name.clone());
                }
            }
            Ok(gone)
        })
    }

    /// The ids of all images.
    pub(crate) fn image_ids(&self) -> Result<Vec<Digest>> {
        self.read(|db| {
            db.prepare("SELECT id FROM image")?
                .query_map([], |row| digest(row, 0))?
                .collect()
        })
    }

    /// Deletes the rows of layers without an image that are older than this.
    pub(crate) fn delete_unused_layers(&mut self, min_age_s: i64) -> Result<()> {
        let before = now_s().saturating_sub(min_age_s);
        self.write(|db| {
            db.execute(
                "DELETE FROM layer WHERE stored_s <= ?1 AND id NOT IN (SELECT layer_id FROM image_layer)",
                [before],
            )?;
            blobs::delete_unused(db)
        })
    }

    /// The names of all layers' files.
    pub(crate) fn layer_files(&self) -> Result<Vec<String>> {
        self.read(|db| {
            db.prepare("SELECT file FROM layer")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }
}

/// Brings the schema to [`VERSION`]. Another process may be doing the same: the first to hold the write lock does it.
fn upgrade(db: &Transaction<'_>) -> Rows<()> {
    let found: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found < 1 {
        db.execute_batch(SCHEMA)?;
    }
    if found < 2 {
        db.execute_batch(blobs::SCHEMA)?;
    }
    if (1..3).contains(&found) {
        // Before, an image whose removal was forced was marked so while a container used it.
        db.execute_batch("ALTER TABLE image DROP COLUMN doomed")?;
    }
    if found < VERSION {
        db.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

fn digest(row: &Row<'_>, column: usize) -> Rows<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error: crate::digest::Error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}

fn image_row(row: &Row<'_>) -> Rows<ImageRow> {
    Ok(ImageRow {
        id: digest(row, 0)?,
        config: row.get(1)?,
        stored_s: row.get(2)?,
    })
}

fn layer_row(row: &Row<'_>) -> Rows<LayerRow> {
    Ok(LayerRow {
        id: row.get(0)?,
        diff_id: digest(row, 1)?,
        converter: row.get(2)?,
        file: row.get(3)?,
        // A negative size, which is never written, matches no file.
        size_bytes: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(u64::MAX),
        opaque_root: row.get(5)?,
    })
}
