//! Deleting the images that nothing needs.

use super::delete::{NO_USERS, Outcome, in_use};
use super::{Deleted, Deletion, Error, Image, LabelFilter, Result, Store, Users};

/// Which images to prune.
#[derive(Clone)]
pub struct PruneOptions<'a> {
    /// All that no container uses; else only those without a tag.
    pub all: bool,
    /// Only those that were built at or before this time, in seconds since 1970.
    pub until_s: Option<i64>,
    /// Only those whose labels all match.
    pub labels: Vec<LabelFilter>,
    /// All containers that there are, running or not: what they use stays.
    pub users: Users<'a>,
}

impl Default for PruneOptions<'_> {
    fn default() -> Self {
        PruneOptions {
            all: false,
            until_s: None,
            labels: Vec::new(),
            users: NO_USERS,
        }
    }
}

impl Store {
    /// Deletes the images that no container uses and that the options let through, with their names and layers.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<Deleted> {
        match self.try_prune(options) {
            Err(Error::DiskFull { .. }) if self.release_reserve()? => self.try_prune(options),
            result => result,
        }
    }

    fn try_prune(&self, options: &PruneOptions<'_>) -> Result<Deleted> {
        let mut deleted = Deleted::default();
        let users = in_use(options.users)?;
        for image in self.images()? {
            if !options.lets_through(&image) || self.user_of(&image.id, &users)?.is_some() {
                continue;
            }
            let names = self.database().names(&image.id)?;
            // It may have got a tag since it was listed.
            let tagged = names.iter().any(|name| !name.contains('@'));
            if tagged && !options.all {
                continue;
            }
            if self.delete_image(&image.id, &names, options.users)? == Outcome::Changed {
                continue;
            }
            deleted.untagged(names);
            deleted.deletions.push(Deletion::Deleted(image.id));
        }
        if !deleted.deletions.is_empty() {
            deleted.freed_bytes = self.sweep(0)?.bytes;
        }
        Ok(deleted)
    }
}

impl PruneOptions<'_> {
    fn lets_through(&self, image: &Image) -> bool {
        // As in Docker, an image that does not say when it was built is spared where an age is asked for.
        let old = self
            .until_s
            .is_none_or(|limit| image.created_s.is_some_and(|built| built <= limit));
        (self.all || image.names.is_empty())
            && old
            && self.labels.iter().all(|label| label.matches(image))
    }
}
