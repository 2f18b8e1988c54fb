//! Deleting images by Docker's rules (moby, daemon/images/image_delete.go): what a name or an id takes with it, and
//! what containers keep. Where Docker's containers keep the layers alone, hull's keep the image, without names: pruning
//! removes it when they are gone.
//!
//! | Given | Without force | With force |
//! |---|---|---|
//! | a name, others remain | the name goes | the same |
//! | the last name | refused if any container uses the image | goes; the image too, unless a container uses it |
//! | an id with several names | refused | all names and the image go |
//! | an id in use by a stopped container | refused | all names go |
//! | an id in use by a running container | refused | refused |

use super::{Error, FileLock, Result, Store};
use crate::digest::Digest;
use crate::reference::Reference;

/// A container that uses an image, as the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// The image.
    pub image: Digest,
    /// The container's name or id, for messages.
    pub container: String,
    /// Whether it runs. What runs holds a lease as well.
    pub running: bool,
}

/// The containers there are, or at least those that use images. Asked once more when an image is locked and about to go:
/// a container that was made meanwhile keeps it. An error keeps everything.
pub type Users<'a> =
    &'a dyn Fn() -> std::result::Result<Vec<ImageUser>, Box<dyn std::error::Error + Send + Sync>>;

/// No container uses an image.
pub(super) const NO_USERS: Users<'static> = &|| Ok(Vec::new());

/// How to delete.
#[derive(Clone, Copy)]
pub struct DeleteOptions<'a> {
    /// As the table above says.
    pub force: bool,
    /// Who keeps images.
    pub users: Users<'a>,
}

impl Default for DeleteOptions<'_> {
    fn default() -> Self {
        DeleteOptions {
            force: false,
            users: NO_USERS,
        }
    }
}

/// One thing that was deleted; Docker's `Untagged: …` and `Deleted: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// A name, in its short form: `nginx:1.27` or `nginx@sha256:…`.
    Untagged(String),
    /// The image.
    Deleted(Digest),
}

/// What a deletion or a pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// In the order in which it happened.
    pub deletions: Vec<Deletion>,
    /// The space that was freed, in bytes.
    pub freed_bytes: u64,
}

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A container uses the image, which would go with its last name.
    #[error(
        "conflict: unable to remove repository reference \"{name}\" (must force) - {} is using its referenced image {}",
        .user.named(),
        .image.short()
    )]
    NameInUse {
        /// The name, as it was given.
        name: String,
        /// What it names.
        image: Digest,
        /// Which container.
        user: User,
    },
    /// A container uses the image.
    #[error(
        "conflict: unable to delete {} ({}) - image is being used by {user}",
        .image.short(),
        if *.can_be_forced { "must be forced" } else { "cannot be forced" }
    )]
    InUse {
        /// The image.
        image: Digest,
        /// Which container.
        user: User,
        /// It does not run, and the image has names that can go.
        can_be_forced: bool,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A container that keeps an image, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name or id; `None` if only its lease is known.
    pub container: Option<String>,
    /// Whether it runs.
    pub running: bool,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.container, self.running) {
            (Some(container), true) => write!(f, "running container {container}"),
            (Some(container), false) => write!(f, "stopped container {container}"),
            (None, _) => f.write_str("a running container"),
        }
    }
}

impl User {
    fn named(&self) -> String {
        match &self.container {
            Some(container) => format!("container {container}"),
            None => "a container".to_owned(),
        }
    }
}

impl DeleteError {
    /// What a person can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            DeleteError::NameInUse { .. } => {
                Some("remove the container first, or force the removal of the name".to_owned())
            }
            DeleteError::InUse {
                can_be_forced: true,
                ..
            } => Some("remove the container first, or force the image's removal".to_owned()),
            DeleteError::InUse { user, .. } if user.running => {
                Some("stop and remove the container first".to_owned())
            }
            DeleteError::InUse { .. } => Some("remove the container first".to_owned()),
            DeleteError::Store(error) => error.help(),
        }
    }
}

impl Store {
    /// Deletes a name or, if `text` is an id or an image's last name, the image; then its layers, unless others have
    /// them. Fails with [`Error::NotFound`] where there is neither.
    pub fn delete(
        &self,
        text: &str,
        options: &DeleteOptions<'_>,
    ) -> std::result::Result<Deleted, DeleteError> {
        match self.try_delete(text, options) {
            // The database cannot even forget without some room for its journal.
            Err(DeleteError::Store(Error::DiskFull { .. })) if self.release_reserve()? => {
                self.try_delete(text, options)
            }
            result => result,
        }
    }

    fn try_delete(
        &self,
        text: &str,
        options: &DeleteOptions<'_>,
    ) -> std::result::Result<Deleted, DeleteError> {
        if let Ok(name) = text.parse::<Reference>() {
            let named = self.database().image_named(&name.canonical())?;
            if let Some(row) = named {
                return self.delete_name(&row.id, (text, &name), options);
            }
        }
        let id = self.id_with_prefix(text)?;
        let id = id.ok_or_else(|| Error::NotFound {
            what: text.to_owned(),
        })?;
        self.delete_id(id, options)
    }

    fn delete_name(
        &self,
        id: &Digest,
        (text, name): (&str, &Reference),
        options: &DeleteOptions<'_>,
    ) -> std::result::Result<Deleted, DeleteError> {
        let (going, staying) = self.split_names(id, name)?;
        let mut deleted = Deleted::default();
        if !staying.is_empty() {
            deleted.untagged(self.database().untag(id, &going)?);
            return Ok(deleted);
        }
        if let Some(user) = self.user_of(id, &in_use(options.users)?)? {
            if !options.force {
                return Err(DeleteError::NameInUse {
                    name: text.to_owned(),
                    image: *id,
                    user,
                });
            }
            deleted.untagged(self.database().untag(id, &going)?);
            return Ok(deleted);
        }
        if self.delete_image(id, &going, options.users)? == Outcome::Changed {
            return self.delete_name(id, (text, name), options);
        }
        deleted.untagged(going);
        deleted.deletions.push(Deletion::Deleted(*id));
        deleted.freed_bytes = self.sweep(0)?.bytes;
        Ok(deleted)
    }

    fn delete_id(
        &self,
        id: Digest,
        options: &DeleteOptions<'_>,
    ) -> std::result::Result<Deleted, DeleteError> {
        let names = self.database().names(&id)?;
        let user = self.user_of(&id, &in_use(options.users)?)?;
        if let Some(user) = &user
            && (!options.force || user.running || names.is_empty())
        {
            return Err(DeleteError::InUse {
                image: id,
                can_be_forced: !options.force && !user.running && !names.is_empty(),
                user: user.clone(),
            });
        }
        if !options.force && !is_single(&names) {
            return Err(Error::SeveralNames { id, names }.into());
        }
        if user.is_some() {
            let mut deleted = Deleted::default();
            deleted.untagged(self.database().untag(&id, &names)?);
            return Ok(deleted);
        }
        if self.delete_image(&id, &names, options.users)? == Outcome::Changed {
            return self.delete_id(id, options);
        }
        let mut deleted = Deleted::default();
        deleted.untagged(names);
        deleted.deletions.push(Deletion::Deleted(id));
        deleted.freed_bytes = self.sweep(0)?.bytes;
        Ok(deleted)
    }

    /// A container that uses the image.
    pub(super) fn user_of(&self, id: &Digest, users: &[ImageUser]) -> Result<Option<User>> {
        let known = users
            .iter()
            .filter(|user| user.image == *id)
            .max_by_key(|user| user.running);
        if let Some(user) = known {
            return Ok(Some(User {
                container: Some(user.container.clone()),
                running: user.running,
            }));
        }
        let path = self.lease_path(id);
        // An image that was never leased has no such file, and none is to be made.
        let leased = path.exists()
            && FileLock::try_exclusive(&path)
                .map_err(Error::io("lock", path))?
                .is_none();
        Ok(leased.then_some(User {
            container: None,
            running: true,
        }))
    }

    /// The image's names that go with this one, and those that stay: with the last tag of a
    /// repository go that repository's digests.
    fn split_names(&self, id: &Digest, name: &Reference) -> Result<(Vec<String>, Vec<String>)> {
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

    /// Deletes an image that has no other names than these and no users. Its layers are left to a sweep.
    pub(super) fn delete_image(
        &self,
        id: &Digest,
        names: &[String],
        users: Users<'_>,
    ) -> Result<Outcome> {
        let path = self.lease_path(id);
        let lock = FileLock::try_exclusive(&path).map_err(Error::io("lock", &path))?;
        let Some(lock) = lock else {
            return Ok(Outcome::Changed);
        };
        // Whoever makes a container of it holds a lease until that is there to be seen.
        let used = in_use(users)?.iter().any(|user| user.image == *id);
        let gone = !used && self.database().delete_named(id, names)?;
        lock.remove().map_err(Error::io("remove", path))?;
        Ok(if gone {
            Outcome::Gone
        } else {
            Outcome::Changed
        })
    }
}

/// The containers that use images, asked for.
pub(super) fn in_use(users: Users<'_>) -> Result<Vec<ImageUser>> {
    users().map_err(|source| Error::Users { source })
}

/// What became of an image that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is deleted.
    Gone,
    /// Another process has given it a name or a container meanwhile.
    Changed,
}

impl Deleted {
    /// Adds names of the store, in their short form.
    pub(super) fn untagged(&mut self, names: Vec<String>) {
        let short = |name: String| match name.parse::<Reference>() {
            Ok(reference) => reference.to_string(),
            Err(_) => name,
        };
        self.deletions.extend(
            names
                .into_iter()
                .map(|name| Deletion::Untagged(short(name))),
        );
    }
}

/// Whether these names are one tag at most, and digests of its repository: then an id means the name as well.
fn is_single(names: &[String]) -> bool {
    let repository = |name: &String| {
        let end = name.find('@').or_else(|| name.rfind(':'));
        name[..end.unwrap_or(name.len())].to_owned()
    };
    let tags = names.iter().filter(|name| !name.contains('@')).count();
    let mut repositories: Vec<String> = names.iter().map(repository).collect();
    repositories.sort();
    repositories.dedup();
    tags <= 1 && repositories.len() <= 1
}

#[cfg(test)]
mod tests {
    use super::is_single;

    #[test]
    fn one_tag_with_its_digests_is_one_reference() {
        let single = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            is_single(&names)
        };
        let digest = "localhost:5000/a@sha256:00";
        assert!(single(&[]));
        assert!(single(&["localhost:5000/a:1"]));
        assert!(single(&["localhost:5000/a:1", digest]));
        assert!(!single(&["localhost:5000/a:1", "localhost:5000/a:2"]));
        assert!(!single(&["docker.io/library/a:1", digest]));
    }
}
