//! Volumes: directories of hull's own that outlive containers.
//!
//! ```text
//! ROOT/volumes/<name>/config.json   its record: written before the folder has its place
//!                     _data         what it holds
//! ROOT/volumes/.with/<container>    the anonymous volumes that go when this container is gone: written before a container
//!                                   that is removed at its end is made, and before one is removed with its volumes
//! ```
//!
//! Invariants: a volume is there whole or not at all; one that a container's record names is not removed. ROOT/volumes is
//! locked for both: shared by whoever makes a container, until its volumes are there, and exclusively by whoever removes a
//! volume. A container that lost its volumes to a `kill -9` while it was made has them made when it starts; volumes whose
//! container a `kill -9` kept from taking them with it are removed by [`Engine::sweep`] and by every command about volumes.
//! Deliberately absent: a table in the index. A volume's name is its folder's, and which containers use it is in theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::record::{self, ANONYMOUS_LABEL, ContainerConfig, MountSource, VERSION, Volume};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::Error as EngineError;
use crate::events::Told;
use crate::files::{self, Draft};
use crate::{id, time};

mod list;

pub use list::{ListedVolume, PrunedVolumes, VolumeFilters};

/// The one driver.
pub const DRIVER: &str = "local";
/// The folder of a volume that holds its content.
const DATA: &str = "_data";
/// The longest name, in bytes: what is made of it for a moment is a little longer, and NAME_MAX is 255.
const MAX_NAME_LEN: usize = 200;

/// Why a volume cannot be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no volume of that name.
    #[error("get {0}: no such volume")]
    Absent(String),
    /// A name that it cannot have.
    #[error(
        "create {name}: {name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
         are allowed. If you intended to pass a host directory, use absolute path"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A name of one character.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    ShortName,
    /// A name that no folder can have.
    #[error("volume name is too long: it has {0} bytes and may have {MAX_NAME_LEN}")]
    LongName(usize),
    /// Containers have it mounted, whether they run or not.
    #[error("remove {name}: volume is in use - [{containers}]")]
    InUse {
        /// The volume.
        name: String,
        /// Their identifiers.
        containers: String,
    },
    /// A driver that there is not.
    #[error(
        "error looking up volume plugin {0}: plugin {0:?} not found; hull has the driver local alone"
    )]
    Driver(String),
    /// An option of the driver that hull cannot carry out.
    #[error(
        "create {name}: the options of a local volume may be type=none, o=bind and device=DIRECTORY together, which makes it that \
         directory; hull mounts no file system on the host, so {option} is refused"
    )]
    Option {
        /// The volume.
        name: String,
        /// The option.
        option: String,
    },
}

/// A volume to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name; one is made up otherwise.
    pub name: Option<String>,
    /// Its driver, where one is named.
    pub driver: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// The anonymous volumes that go with a container.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Going {
    version: u32,
    volumes: Vec<String>,
}

/// Refuses what cannot be a volume's name, in Docker's words.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if name.len() == 1 {
        return Err(Error::ShortName);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(Error::LongName(name.len()));
    }
    match id::is_valid_name(name) {
        true => Ok(()),
        false => Err(Error::Name {
            name: name.to_owned(),
        }),
    }
}

/// Refuses options that cannot be carried out.
pub(crate) fn check_options(name: &str, options: &BTreeMap<String, String>) -> Result<(), Error> {
    let is_known = |(key, value): (&String, &String)| match key.as_str() {
        "type" => matches!(value.as_str(), "none" | "bind"),
        "o" => matches!(value.as_str(), "bind" | "rbind"),
        "device" => value.starts_with('/'),
        _ => false,
    };
    let complete =
        options.is_empty() || ["o", "device"].iter().all(|key| options.contains_key(*key));
    let bad = options.iter().find(|option| !is_known(*option));
    match bad.or_else(|| options.iter().find(|_| !complete)) {
        None => Ok(()),
        Some((key, value)) => Err(Error::Option {
            name: name.to_owned(),
            option: format!("{key}={value}"),
        }),
    }
}

impl Engine {
    /// Makes a volume. One of that name that exists is the answer as it is.
    pub fn volume_create(&self, new: NewVolume) -> Result<Volume, EngineError> {
        if let Some(driver) = new.driver.filter(|driver| driver != DRIVER) {
            return Err(Error::Driver(driver).into());
        }
        self.reap_volumes()?;
        let mut labels = new.labels;
        let name = match new.name {
            Some(name) => name,
            None => {
                labels.insert(ANONYMOUS_LABEL.into(), String::new());
                id::new_id()
            }
        };
        let _sharing = self.share_volumes()?;
        self.make_volume(&name, &labels, &new.options)
    }

    /// The volume of this name.
    pub fn volume(&self, name: &str) -> Result<Volume, EngineError> {
        match self.find_volume(name)? {
            Some(volume) => Ok(volume),
            None => Err(Error::Absent(name.to_owned()).into()),
        }
    }

    /// Where a volume's content is on the host.
    pub fn mountpoint(&self, volume: &Volume) -> PathBuf {
        match volume.options.get("device") {
            Some(device) => device.into(),
            None => self.layout().volume_data(&volume.name),
        }
    }

    /// Removes a volume that no container uses. By force, one that is not there is no failure.
    pub fn volume_remove(&self, name: &str, force: bool) -> Result<(), EngineError> {
        self.reap_volumes()?;
        let gone = {
            let _alone = self.lock_volumes()?;
            if self.find_volume(name)?.is_none() {
                return match force {
                    true => Ok(()),
                    false => Err(Error::Absent(name.to_owned()).into()),
                };
            }
            if let Some(containers) = self.volume_users()?.remove(name) {
                let containers: Vec<String> = containers.into_iter().collect();
                return Err(Error::InUse {
                    name: name.to_owned(),
                    containers: containers.join(", "),
                }
                .into());
            }
            self.hide_volume(name)?
        };
        gone.map_or(Ok(()), |gone| files::remove_tree(&gone))
    }

    /// The containers that use volumes, by the volume's name.
    pub fn volume_users(&self) -> Result<BTreeMap<String, BTreeSet<String>>, EngineError> {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for summary in self.summaries()? {
            for volume in summary.mounts.into_iter().filter_map(|mount| mount.volume) {
                users.entry(volume).or_default().insert(summary.id.clone());
            }
        }
        Ok(users)
    }

    pub(crate) fn find_volume(&self, name: &str) -> Result<Option<Volume>, EngineError> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let path = self.layout().volume(name).join(record::CONFIG);
        let volume: Option<Volume> = files::read(&path)?;
        if let Some(volume) = &volume {
            files::check_version(&path, volume.version)?;
        }
        Ok(volume)
    }

    /// Makes a volume, unless it is there.
    pub(crate) fn make_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<Volume, EngineError> {
        check_name(name)?;
        if let Some(volume) = self.find_volume(name)? {
            return Ok(volume);
        }
        check_options(name, options)?;
        let volume = Volume {
            version: VERSION,
            name: name.to_owned(),
            created_ns: time::now_ns(),
            labels: labels.clone(),
            options: options.clone(),
        };
        let mut draft = Draft::begin(self.layout(), &format!("volume-{}", id::new_id()))?;
        files::write_new(&draft.path().join(record::CONFIG), &volume)?;
        make_data(&draft.path().join(DATA))?;
        match draft.place(&self.layout().volume(name)) {
            // Another process was first.
            Err(EngineError::File { source, .. }) if is_taken(&source) => self.volume(name),
            placed => {
                placed?;
                self.tell(Told::new("volume", "create", name).with("driver", DRIVER));
                Ok(volume)
            }
        }
    }

    /// Locks volumes against their removal, together with others.
    pub(crate) fn share_volumes(&self) -> Result<fs::File, EngineError> {
        let path = self.layout().volumes();
        files::make_folder(&path)?;
        files::share_folder(&path)
    }

    fn lock_volumes(&self) -> Result<Option<fs::File>, EngineError> {
        files::lock_folder(&self.layout().volumes())
    }

    /// Takes a volume out of sight. The caller holds the lock alone, and removes the folder whose path it is given.
    fn hide_volume(&self, name: &str) -> Result<Option<PathBuf>, EngineError> {
        let gone = files::hide(self.layout(), &self.layout().volume(name))?;
        if gone.is_some() {
            self.tell(Told::new("volume", "destroy", name).with("driver", DRIVER));
        }
        Ok(gone)
    }

    /// Notes that a container's anonymous volumes go when it is gone.
    pub(crate) fn let_volumes_go(&self, config: &ContainerConfig) -> Result<(), EngineError> {
        let volumes: Vec<String> = anonymous(config).map(str::to_owned).collect();
        if volumes.is_empty() {
            return Ok(());
        }
        let folder = self.layout().going_volumes();
        files::make_folder(&folder)?;
        let going = Going {
            version: VERSION,
            volumes,
        };
        files::write(&folder.join(&config.id), &going)
    }

    /// Forgets that note: the container was not made.
    pub(crate) fn keep_volumes(&self, container: &str) {
        let _ = fs::remove_file(self.layout().going_volumes().join(container));
    }

    /// Removes the anonymous volumes that were to go with containers that are gone, but for those that others use.
    pub fn reap_volumes(&self) -> Result<(), EngineError> {
        let folder = self.layout().going_volumes();
        let is_gone = |container: &String| {
            !files::is_being_made(self.layout(), container)
                && !self.layout().container(container).exists()
        };
        let mut containers = files::names(&folder)?;
        containers.retain(&is_gone);
        if containers.is_empty() {
            return Ok(());
        }
        let mut hidden = Vec::new();
        {
            let _alone = self.lock_volumes()?;
            // Looked at again: one that was being made may be there by now.
            containers.retain(&is_gone);
            let users = self.volume_users()?;
            for container in &containers {
                let path = folder.join(container);
                let going: Going = files::read(&path)?.unwrap_or_default();
                let unused = going
                    .volumes
                    .iter()
                    .filter(|name| !users.contains_key(name.as_str()) && check_name(name).is_ok());
                for name in unused {
                    hidden.extend(self.hide_volume(name)?);
                }
                remove_file(&path)?;
            }
        }
        hidden.iter().try_for_each(|path| files::remove_tree(path))
    }
}

/// The anonymous volumes that a container has mounted.
fn anonymous(config: &ContainerConfig) -> impl Iterator<Item = &str> {
    config
        .run
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Volume {
                name,
                anonymous: true,
                ..
            } => Some(name.as_str()),
            _ => None,
        })
}

/// A volume's content: a directory that every user of a container may enter, as in Docker.
fn make_data(path: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(EngineError::file("make", path))
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty
    )
}

fn remove_file(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Err(error) if !files::is_absent(&error) => Err(EngineError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
