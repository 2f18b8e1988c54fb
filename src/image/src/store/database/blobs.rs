//! Which packed blobs are known to hold which layers, and in which repositories they are: what a push need not send.
//! A row is a hint. A registry is asked before it is relied on.

use rusqlite::{Transaction, params};

use super::{Database, Result, Rows, digest};
use crate::digest::Digest;
use crate::manifest::{Descriptor, oci_layer_type};

/// The table, new in version 2 of the schema.
pub(super) const SCHEMA: &str = "
CREATE TABLE blob (
    diff_id TEXT NOT NULL,          -- of the layer that it holds
    repository TEXT NOT NULL,       -- registry and repository in full
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (diff_id, repository, digest)
) STRICT, WITHOUT ROWID;
";

/// A layer's blob in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobRow {
    /// Registry and repository in full.
    pub(crate) repository: String,
    /// Of the packed layer.
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size_bytes: u64,
}

impl BlobRow {
    /// What a manifest says of it.
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::layer(
            oci_layer_type(&self.media_type),
            self.digest,
            self.size_bytes,
        )
    }

    pub(crate) fn of(layer: &Descriptor, repository: &str) -> BlobRow {
        BlobRow {
            repository: repository.to_owned(),
            digest: layer.digest,
            media_type: layer.media_type.clone(),
            size_bytes: layer.size,
        }
    }
}

impl Database {
    /// Records where blobs of these layers are.
    pub(crate) fn put_blobs(&mut self, blobs: &[(Digest, BlobRow)]) -> Result<()> {
        self.write(|db| {
            for (diff_id, blob) in blobs {
                db.execute(
                    "INSERT OR REPLACE INTO blob (diff_id, repository, digest, media_type, size_bytes)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        diff_id.to_string(),
                        blob.repository,
                        blob.digest.to_string(),
                        blob.media_type,
                        // Sizes of blobs are bounded far below what i64 holds.
                        i64::try_from(blob.size_bytes).unwrap_or(i64::MAX)
                    ],
                )?;
            }
            Ok(())
        })
    }

    /// The known blobs of a layer.
    pub(crate) fn blobs(&self, diff_id: &Digest) -> Result<Vec<BlobRow>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT repository, digest, media_type, size_bytes FROM blob WHERE diff_id = ?1",
            )?
            .query_map([diff_id.to_string()], |row| {
                Ok(BlobRow {
                    repository: row.get(0)?,
                    digest: digest(row, 1)?,
                    media_type: row.get(2)?,
                    size_bytes: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                })
            })?
            .collect()
        })
    }
}

/// Forgets the blobs of layers that are gone.
pub(super) fn delete_unused(db: &Transaction<'_>) -> Rows<()> {
    db.execute(
        "DELETE FROM blob WHERE diff_id NOT IN (SELECT diff_id FROM layer)",
        [],
    )
    .map(drop)
}
