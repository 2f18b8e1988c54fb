//! Removal of images, by Docker's rules.

use super::{Error, FileLock, Image, Result, Store};
use crate::digest::Digest;
use crate::reference::Reference;

/// What [`Store::remove`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The names that were removed, in full.
    pub untagged: Vec<String>,
    /// The image, if it was removed too. If a running container uses it, it is deleted when the
    /// container ends.
    pub deleted: Option<Digest>,
    /// The space that was freed, in bytes.
    pub freed_bytes: u64,
}

impl Store {
    /// Removes a name or, if `text` is an id or the image's last name, the image; then its layers,
    /// unless others have them. An image that a running container uses is refused, and so is an id
    /// with several names; with `force` all names go, and the image as soon as no container uses
    /// it.
    pub fn remove(&self, text: &str, force: bool) -> Result<Removed> {
        match self.try_remove(text, force) {
            // Deleting rows needs room for the journal.
            Err(Error::DiskFull { .. }) if self.release_reserve()? => self.try_remove(text, force),
            result => result,
        }
    }

    fn try_remove(&self, text: &str, force: bool) -> Result<Removed> {
        let name = text.parse::<Reference>().ok();
        let named = match &name {
            Some(name) => self.database().image_named(&name.canonical())?,
            None => None,
        };
        let mut removed = Removed {
            untagged: Vec::new(),
            deleted: None,
            freed_bytes: 0,
        };
        let id = match (named, name) {
            (Some(row), Some(name)) => {
                let (going, staying) = self.split_names(&row.id, &name)?;
                if !staying.is_empty() {
                    removed.untagged = self.database().untag(&row.id, &going)?;
                    return Ok(removed);
                }
                row.id
            }
            _ => {
                let id = self.id_with_prefix(text)?;
                let id = id.ok_or_else(|| Error::NotFound {
                    what: text.to_owned(),
                })?;
                let names = self.database().names(&id)?;
                let tags: Vec<String> = names
                    .into_iter()
                    .filter(|name| !name.contains('@'))
                    .collect();
                if tags.len() > 1 && !force {
                    return Err(Error::SeveralNames { id, names: tags });
                }
                id
            }
        };
        removed.untagged = self.database().names(&id)?;
        removed.deleted = Some(id);
        let path = self.lease_path(&id);
        let lock = FileLock::try_exclusive(&path).map_err(Error::io("lock", &path))?;
        match lock {
            Some(lock) => {
                self.database().delete_image(&id)?;
                lock.remove().map_err(Error::io("remove", path))?;
            }
            None if force => self.database().doom(&id)?,
            None => {
                return Err(Error::InUse {
                    image: text.to_owned(),
                });
            }
        }
        removed.freed_bytes = self.sweep(0)?.bytes;
        Ok(removed)
    }

    /// The image's names that go with this one, and those that stay: with the last tag of a
    /// repository go that repository's digests.
    pub(super) fn split_names(
        &self,
        id: &Digest,
        name: &Reference,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let names = self.database().names(id)?;
        let (canonical, repository) = (name.canonical(), name.full_repository());
        let (digests, tags) = (format!("{repository}@"), format!("{repository}:"));
        let last_tag = name.digest().is_none()
            && !names
                .iter()
                .any(|other| other.starts_with(&tags) && *other != canonical);
        Ok(names
            .into_iter()
            .partition(|other| *other == canonical || (last_tag && other.starts_with(&digests))))
    }

    /// Whether a sandbox holds a lease on the image.
    pub fn is_in_use(&self, image: &Image) -> Result<bool> {
        let path = self.lease_path(&image.id);
        match FileLock::try_exclusive(&path).map_err(Error::io("lock", path))? {
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }
}
