//! Names: which there are in a repository, and giving one to an image.

use rusqlite::{OptionalExtension, params};

use super::{Database, NewName, Result, digest};
use crate::digest::Digest;
use crate::reference::Reference;

impl NewName {
    pub(crate) fn of(name: &Reference) -> NewName {
        NewName {
            name: name.canonical(),
            repository: name.full_repository(),
            is_digest: name.digest().is_some(),
        }
    }
}

impl Database {
    /// The tags of a repository (`docker.io/library/nginx`) with their images, sorted.
    pub(crate) fn tags(&self, repository: &str) -> Result<Vec<(String, Digest)>> {
        self.read(|db| {
            db.prepare_cached(
                "SELECT name, image_id FROM name WHERE repository = ?1 AND is_digest = 0 ORDER BY name",
            )?
            .query_map([repository], |row| Ok((row.get(0)?, digest(row, 1)?)))?
            .collect()
        })
    }

    /// Gives an image a name, taking it from whatever image has it. `false` if there is no such image.
    pub(crate) fn put_name(&mut self, id: &Digest, name: &NewName) -> Result<bool> {
        let id = id.to_string();
        self.write(|db| {
            let known = db
                .prepare("SELECT 1 FROM image WHERE id = ?1")?
                .exists([&id])?;
            if known {
                db.execute(
                    "INSERT INTO name (name, repository, is_digest, image_id) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (name) DO UPDATE SET image_id = ?4",
                    params![name.name, name.repository, name.is_digest, id],
                )?;
            }
            Ok(known)
        })
    }

    /// Deletes an image, if it has no other names than these: `false` if it has got one since they were read.
    pub(crate) fn delete_named(&mut self, id: &Digest, names: &[String]) -> Result<bool> {
        let id = id.to_string();
        self.write(|db| {
            let mut now: Vec<String> = db
                .prepare("SELECT name FROM name WHERE image_id = ?1 ORDER BY is_digest, name")?
                .query_map([&id], |row| row.get(0))?
                .collect::<std::result::Result<_, _>>()?;
            now.retain(|name| !names.contains(name));
            if now.is_empty() {
                db.execute("DELETE FROM image WHERE id = ?1", [&id])?;
            }
            Ok(now.is_empty())
        })
    }

    /// The manifest that an image was pulled or imported with.
    pub(crate) fn manifest(&self, id: &Digest) -> Result<Option<Vec<u8>>> {
        self.read(|db| {
            db.query_row(
                "SELECT manifest FROM image WHERE id = ?1",
                [id.to_string()],
                |row| row.get(0),
            )
            .optional()
            .map(Option::flatten)
        })
    }
}
