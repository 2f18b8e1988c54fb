//! Listing volumes, and removing those that no container uses.

use protocol::record::Volume;

use super::DRIVER;
use crate::engine::{Engine, chain};
use crate::error::Error;
use crate::events::Told;
use crate::files;
use crate::system::disk_bytes;

/// A condition on labels: a name, and a value if it is to have one.
type Label = (String, Option<String>);

/// Which volumes. What is empty does not matter; of names and drivers one must match, of labels all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeFilters {
    /// Parts of the name.
    pub names: Vec<String>,
    /// Drivers.
    pub drivers: Vec<String>,
    /// Labels that it has.
    pub labels: Vec<Label>,
    /// Labels that it does not have.
    pub without_labels: Vec<Label>,
    /// No container uses it, or one does.
    pub dangling: Option<bool>,
}

/// A volume in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVolume {
    /// Its record.
    pub volume: Volume,
    /// How many containers use it.
    pub users: usize,
    /// What its content takes of the disk, if asked for and hull's own.
    pub size_bytes: Option<u64>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedVolumes {
    /// Names.
    pub volumes: Vec<String>,
    /// What they took of the host's disk.
    pub freed_bytes: u64,
}

impl VolumeFilters {
    fn hold(&self, volume: &Volume, users: usize) -> bool {
        let has = |(name, value): &Label| {
            let found = volume.labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| found == value))
        };
        let names = &self.names;
        (names.is_empty() || names.iter().any(|part| volume.name.contains(part.as_str())))
            && (self.drivers.is_empty() || self.drivers.iter().any(|driver| driver == DRIVER))
            && self.labels.iter().all(has)
            && !self.without_labels.iter().any(has)
            && self.dangling.is_none_or(|wanted| wanted == (users == 0))
    }
}

impl Engine {
    /// The volumes in the order of their names.
    pub fn volumes(&self, filters: &VolumeFilters) -> Result<Vec<ListedVolume>, Error> {
        self.reap_volumes()?;
        let users = self.volume_users()?;
        let mut names = files::names(&self.layout().volumes())?;
        names.sort();
        let mut listed = Vec::new();
        for name in names {
            let volume = match self.find_volume(&name) {
                Ok(Some(volume)) => volume,
                Ok(None) => continue,
                Err(error @ Error::Later { .. }) => return Err(error),
                // One damaged file does not hide the others.
                Err(error) => {
                    tracing::warn!(name, error = %chain(&error), "a volume is not shown");
                    continue;
                }
            };
            let users = users.get(&name).map_or(0, |users| users.len());
            if filters.hold(&volume, users) {
                listed.push(ListedVolume {
                    volume,
                    users,
                    size_bytes: None,
                });
            }
        }
        Ok(listed)
    }

    /// Finds the sizes of volumes: every file of theirs is looked at.
    pub fn measure_volumes(&self, listed: &mut [ListedVolume]) {
        for one in listed {
            one.size_bytes = self.volume_size(&one.volume);
        }
    }

    /// `None`: it is a directory of the user's.
    fn volume_size(&self, volume: &Volume) -> Option<u64> {
        let is_ours = !volume.options.contains_key("device");
        is_ours.then(|| disk_bytes(&self.mountpoint(volume)))
    }

    /// Removes the volumes that no container uses: the anonymous ones, or `all`.
    pub fn prune_volumes(
        &self,
        all: bool,
        filters: &VolumeFilters,
    ) -> Result<PrunedVolumes, Error> {
        let filters = VolumeFilters {
            dangling: Some(true),
            ..filters.clone()
        };
        let mut unused = Vec::new();
        for ListedVolume { volume, .. } in self.volumes(&filters)? {
            if all || volume.is_anonymous() {
                let size = self.volume_size(&volume).unwrap_or(0);
                unused.push((volume.name, size));
            }
        }
        let (mut pruned, mut hidden) = (PrunedVolumes::default(), Vec::new());
        {
            let _alone = self.lock_volumes()?;
            let users = self.volume_users()?;
            unused.retain(|(name, _)| !users.contains_key(name));
            for (name, size) in unused {
                if let Some(path) = self.hide_volume(&name)? {
                    hidden.push(path);
                    pruned.volumes.push(name);
                    pruned.freed_bytes += size;
                }
            }
        }
        for path in hidden {
            if let Err(error) = files::remove_tree(&path) {
                tracing::warn!(error = %chain(&error), "the next command removes the rest");
            }
        }
        let freed = pruned.freed_bytes.to_string();
        self.tell(Told::new("volume", "prune", "").with("reclaimed", freed));
        Ok(pruned)
    }
}
