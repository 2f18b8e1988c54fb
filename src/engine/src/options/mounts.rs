//! What of the host's is asked for in a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use protocol::record::Submounts;
use serde::{Deserialize, Serialize};

/// A mount that is asked for: `-v`, `--mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    pub source: Source,
    /// Where in the container: an absolute path below the root, without empty or dot components.
    pub target: String,
    /// The container cannot change it.
    pub read_only: bool,
    /// How it was asked for, which `inspect` shows.
    pub form: Form,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A directory or a file of the host's.
    Bind {
        /// Its absolute path.
        path: PathBuf,
        /// What becomes of what is mounted below it.
        submounts: Submounts,
    },
    /// A volume, made when missing.
    Volume(Volume),
    /// A temporary file system.
    Tmpfs {
        /// Its size, if it has a limit of its own.
        size_bytes: Option<u64>,
        /// Its root's permissions.
        mode: Option<u32>,
    },
}

/// A volume that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name; a new one is made up otherwise.
    pub name: Option<String>,
    /// It stays empty, whatever the image has there.
    pub no_copy: bool,
    /// A directory in it instead of the whole.
    pub subpath: Option<PathBuf>,
    /// Labels, if it is made.
    pub labels: BTreeMap<String, String>,
    /// Options of its driver, if it is made.
    pub options: BTreeMap<String, String>,
}

/// How a mount was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `-v`, with the options behind the last colon. A directory of the host's is made when missing.
    Volume(String),
    /// `--mount`
    Mount,
}

/// `--volumes-from`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// The container whose mounts this one has too.
    pub container: String,
    /// All of them read-only.
    pub read_only: bool,
    /// The options as given.
    pub mode: String,
}
