//! What of the host's is mounted in containers, and volumes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fs::Cache;

/// Where an agent in a VM shows shares, each by its name.
pub const GUEST_SHARES: &str = "/hull/shares";
/// Where an agent in a VM listens for connections to sockets of the host's, each by its share's name.
pub const GUEST_SOCKETS: &str = "/hull/sockets";
/// The label of a volume that was made without a name: Docker's.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A directory or a file of the host's in a container. The container's document has a bind mount of `path` at
/// `destination`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// The name of the share that shows it to a VM ([`crate::fs::ToFs::Add`]): one name for one path and one `read_only`,
    /// whichever container of a sandbox asks.
    pub share: String,
    /// Where it is on the host: absolute, and no component is a symlink.
    pub path: PathBuf,
    /// Where it goes in the container: absolute, without empty or dot components.
    pub destination: String,
    /// The container cannot change it.
    pub read_only: bool,
    /// What becomes of what is mounted below it.
    pub submounts: Submounts,
    /// It is a file, not a directory.
    pub single_file: bool,
    /// It is a Unix socket. A VM's containers do not see it as a file: connections to it are forwarded.
    #[serde(default)]
    pub socket: Option<SocketNode>,
    /// What a guest may remember of it.
    pub cache: Cache,
    /// Where it is an empty directory when the container starts, it is given the image's content at `destination` first.
    pub fill: bool,
    /// Docker's word for its options, for `inspect`.
    pub mode: String,
}

/// How a socket's node looks to containers: as it did on the host when the first was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketNode {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions, as of chmod(2).
    pub mode: u32,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the user's.
    Bind {
        /// As the user named it, absolute.
        named: PathBuf,
        /// A directory is made where nothing is.
        make: bool,
    },
    /// A volume, or a part of one.
    Volume {
        /// Its name.
        name: String,
        /// It was not named when its first container was made: it goes with the last container that it is removed with.
        anonymous: bool,
        /// The part, relative to the volume; empty is the whole.
        #[serde(default)]
        subpath: PathBuf,
    },
}

/// What becomes of what is mounted below a directory that is mounted in a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Submounts {
    /// It comes along, read-only where the directory is.
    #[default]
    Alike,
    /// It comes along as it is.
    AsTheyAre,
    /// It is left out.
    Hidden,
}

impl Mount {
    /// The volume that is mounted, if it is one.
    pub fn volume(&self) -> Option<&str> {
        match &self.source {
            MountSource::Bind { .. } => None,
            MountSource::Volume { name, .. } => Some(name),
        }
    }
}

/// A volume's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// [`super::VERSION`] of the writer.
    pub version: u32,
    /// Its name, which is that of its folder.
    pub name: String,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of its driver, as given.
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// Whether it was made without a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }
}
