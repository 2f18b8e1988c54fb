//! The sandbox's containers as the warden knows them: their records on disk, and the files that the speaker works with.
//!
//! Invariant: only containers whose record names this sandbox are members, whatever a speaker asks for.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::record::{
    self, ContainerConfig, LayerFile, LogConfig, Mount, RestartPolicy, SandboxConfig, State,
    VERSION,
};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::de::DeserializeOwned;

use super::policy::Backoff;

/// Length of a container's identifier: 64 hexadecimal digits.
const ID_LEN: usize = 64;
/// The largest record that is read: a document with as many arguments as execve takes, written as JSON.
const MAX_RECORD_LEN: u64 = 32 << 20;

/// The longest health record: five results of 4096 bytes, each of which JSON may write as six.
const MAX_HEALTH_LEN: usize = 256 << 10;

/// Why a container's record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not an identifier.
    #[error("{0:?} is not a container's identifier")]
    Id(String),
    /// There is no such container.
    #[error("No such container: {0}")]
    Absent(String),
    /// It belongs to another sandbox.
    #[error("container {id} belongs to sandbox {sandbox}")]
    Elsewhere {
        /// The container.
        id: String,
        /// The sandbox that its record names.
        sandbox: String,
    },
    /// A file.
    #[error("cannot {action} {path}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record is not one.
    #[error("{path} is not a record of hull's")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A record is of a later hull.
    #[error("{path} has version {found}, and this hull knows {VERSION}; use the hull that made it")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: u32,
    },
}

/// A container of this sandbox.
#[derive(Debug)]
pub(crate) struct Member {
    /// What was asked for.
    pub(crate) config: ContainerConfig,
    /// What is true, as it is on disk, or will be once the disk takes it.
    pub(crate) state: State,
    /// `state` is not on disk yet: the disk was full.
    pub(crate) unsaved: bool,
    /// The pause before its next restart.
    pub(super) backoff: Backoff,
    folder: PathBuf,
    /// Shared with the speaker.
    health: Option<File>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Members {
    root: PathBuf,
    sandbox: String,
    by_id: BTreeMap<String, Member>,
}

impl Members {
    /// None yet.
    pub(crate) fn new(root: &Path, sandbox: &str) -> Members {
        Members {
            root: root.to_owned(),
            sandbox: sandbox.to_owned(),
            by_id: BTreeMap::new(),
        }
    }

    /// Reads a container's record, unless it is known already.
    pub(crate) fn load(&mut self, id: &str) -> Result<&mut Member, Error> {
        check_id(id)?;
        if !self.by_id.contains_key(id) {
            let folder = self.root.join("containers").join(id);
            let config = read_config(&folder, id)?;
            if config.sandbox != self.sandbox {
                return Err(Error::Elsewhere {
                    id: id.to_owned(),
                    sandbox: config.sandbox,
                });
            }
            let state = read_state(&folder)?;
            let member = Member {
                config,
                state,
                unsaved: false,
                backoff: Backoff::default(),
                folder,
                health: None,
            };
            self.by_id.insert(id.to_owned(), member);
        }
        Ok(self.by_id.get_mut(id).expect("inserted above"))
    }

    /// A container that is known.
    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.by_id.get_mut(id)
    }

    /// All that are known.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.by_id.values_mut()
    }

    /// What of the host's is mounted in them.
    pub(crate) fn mounts(&self) -> Vec<&Mount> {
        let members = self.by_id.values();
        members
            .flat_map(|member| &member.config.run.mounts)
            .collect()
    }

    /// Forgets a container.
    pub(crate) fn forget(&mut self, id: &str) {
        self.by_id.remove(id);
    }
}

impl Member {
    /// Changes the state and writes it. What cannot be written is kept, and written with the next change.
    pub(crate) fn record(&mut self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        change(&mut self.state);
        self.unsaved = true;
        self.save()
    }

    /// Writes the state, if it is not on disk.
    pub(crate) fn save(&mut self) -> Result<(), Error> {
        if self.unsaved {
            replace(&self.folder, record::STATE, &self.state)?;
            self.unsaved = false;
        }
        Ok(())
    }

    /// Reads its record again, but for what its processes were made of.
    pub(crate) fn reload(&mut self) -> Result<RestartPolicy, Error> {
        let config = read_config(&self.folder, &self.config.id)?;
        self.config.restart = config.restart;
        self.config.name = config.name;
        self.config.run.etc = config.run.etc;
        Ok(config.restart)
    }

    /// Its config.json, for the speaker.
    pub(crate) fn open_config(&self) -> Result<OwnedFd, Error> {
        let path = self.folder.join(record::CONFIG);
        Ok(attempt("open", &path, sys::trusted::read(&path))?.into())
    }

    /// A file in memory, in which the speaker writes what is known of its health.
    pub(crate) fn open_health(&mut self) -> Result<OwnedFd, Error> {
        let path = self.folder.join(record::HEALTH);
        let made = memfd_create("health", MemfdFlags::CLOEXEC).map_err(io::Error::from);
        let file = File::from(attempt("make a copy of", &path, made)?);
        let theirs = attempt("make a copy of", &path, file.try_clone())?;
        self.health = Some(file);
        Ok(theirs.into())
    }

    /// Puts on disk what the speaker has written of its health, unread.
    pub(crate) fn save_health(&self) -> Result<(), Error> {
        let Some(file) = &self.health else {
            return Ok(());
        };
        let path = self.folder.join(record::HEALTH);
        let mut text = vec![0; MAX_HEALTH_LEN];
        let len = attempt("read", &path, file.read_at(&mut text, 0))?;
        let temporary = self.folder.join(".health.json.new");
        let written =
            fs::write(&temporary, &text[..len]).and_then(|()| fs::rename(&temporary, &path));
        attempt("write", &path, written)
    }

    /// Its log, open for appending; `None` if it has none.
    pub(crate) fn open_log(&self) -> Result<Option<OwnedFd>, Error> {
        match self.config.log {
            LogConfig::None => Ok(None),
            LogConfig::JsonFile { .. } => {
                let path = self.log_path(0);
                let parent = path.parent().unwrap_or(&self.folder);
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o700);
                attempt("make", parent, builder.create(parent))?;
                let mut options = OpenOptions::new();
                options.create(true).append(true).read(true).mode(0o600);
                Ok(Some(attempt("open", &path, options.open(&path))?.into()))
            }
        }
    }

    /// Gives every log file the next number, drops the last, and makes a new one.
    pub(crate) fn rotate_log(&self) -> Result<Option<OwnedFd>, Error> {
        if let LogConfig::JsonFile { max_files, .. } = self.config.log {
            for number in (0..max_files.max(1)).rev() {
                let path = self.log_path(number);
                let result = match number + 1 < max_files {
                    true => fs::rename(&path, self.log_path(number + 1)),
                    false => fs::remove_file(&path),
                };
                match result {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => attempt("rotate", &path, other)?,
                }
            }
        }
        self.open_log()
    }

    fn log_path(&self, number: u32) -> PathBuf {
        let name = format!("{}-json.log", self.config.id);
        let folder = self.folder.join(record::LOGS);
        match number {
            0 => folder.join(name),
            number => folder.join(format!("{name}.{number}")),
        }
    }

    /// The files of its layers.
    pub(crate) fn open_layers(&self) -> Result<Vec<OwnedFd>, Error> {
        open_layers(&self.config.run.layers)
    }

    /// Removes its folder, first out of sight: a folder of this name is whole or not there.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        remove_folder(&self.folder)
    }
}

/// The record of the sandbox in this folder.
pub(crate) fn read_sandbox(folder: &Path) -> Result<SandboxConfig, Error> {
    let path = folder.join(record::CONFIG);
    let config: Option<SandboxConfig> = read(&path)?;
    let name = || folder.file_name().unwrap_or_default();
    let config = config.ok_or_else(|| Error::Absent(name().to_string_lossy().into_owned()))?;
    check_version(&path, config.version)?;
    Ok(config)
}

/// Removes a folder of hull's state: renamed to a hidden name first, which the next command's sweep removes if this one
/// does not get so far.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Error> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let gone = folder.with_file_name(format!(".gone.{name}"));
    match fs::rename(folder, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => attempt("remove", folder, other)?,
    }
    attempt("remove", &gone, fs::remove_dir_all(&gone))
}

/// The files of layers.
pub(crate) fn open_layers(layers: &[LayerFile]) -> Result<Vec<OwnedFd>, Error> {
    layers
        .iter()
        .map(|layer| Ok(attempt("open", &layer.path, sys::trusted::read(&layer.path))?.into()))
        .collect()
}

fn check_id(id: &str) -> Result<(), Error> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match id.len() == ID_LEN && id.bytes().all(is_digit) {
        true => Ok(()),
        false => Err(Error::Id(id.chars().take(ID_LEN).collect())),
    }
}

fn read_config(folder: &Path, id: &str) -> Result<ContainerConfig, Error> {
    let path = folder.join(record::CONFIG);
    let config: Option<ContainerConfig> = read(&path)?;
    let config = config.ok_or_else(|| Error::Absent(id.to_owned()))?;
    check_version(&path, config.version)?;
    match config.id == id {
        true => Ok(config),
        false => Err(Error::Absent(id.to_owned())),
    }
}

fn read_state(folder: &Path) -> Result<State, Error> {
    let path = folder.join(record::STATE);
    let state: State = read(&path)?.unwrap_or_default();
    check_version(&path, state.version)?;
    Ok(state)
}

pub(crate) fn check_version(path: &Path, found: u32) -> Result<(), Error> {
    match found <= VERSION {
        true => Ok(()),
        false => Err(Error::Version {
            path: path.to_owned(),
            found,
        }),
    }
}

/// Reads a record; `None` if it is not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let file = match sys::trusted::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => attempt("open", path, other)?,
    };
    let mut text = Vec::new();
    attempt(
        "read",
        path,
        file.take(MAX_RECORD_LEN).read_to_end(&mut text),
    )?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| Error::Malformed {
            path: path.to_owned(),
            source,
        })
}

/// Writes a record under another name and renames it.
fn replace(folder: &Path, name: &str, value: &State) -> Result<(), Error> {
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        fs::rename(&temporary, &path)
    };
    attempt("write", &path, write())
}

fn attempt<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::File {
        action,
        path: path.to_owned(),
        source,
    })
}
