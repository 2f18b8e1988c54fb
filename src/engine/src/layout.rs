//! Where everything of hull's state is below its root.
//!
//! ```text
//! ROOT/hull.sqlite            the index (rebuilt when missing or damaged)
//! ROOT/containers/<id>/       config.json, state.json, health.json, log/, execs/ (see protocol::record)
//! ROOT/sandboxes/<id>/        config.json, lock, socket, scratch
//! ROOT/volumes/<name>/        config.json, _data (see protocol::record)
//! ROOT/networks/<name>/       config.json (see protocol::record)
//! ROOT/net/                   an ordinary user's networks while sandboxes are on them (the network crate's)
//! ROOT/tmp/                   folders that are being made or removed; each is locked by its maker
//! ROOT/events/events.jsonl    what happened; events.jsonl.1 is the file before
//! ROOT/images, ROOT/templates, ROOT/cache, …: the image store's, the monitor's, what can be made again
//! ```

use std::path::{Path, PathBuf};

use protocol::record;

/// The paths below a root.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of this root.
    pub fn new(root: &Path) -> Layout {
        Layout {
            root: root.to_owned(),
        }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The index.
    pub fn index(&self) -> PathBuf {
        self.root.join("hull.sqlite")
    }

    /// All containers' folders.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// A container's folder.
    pub fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// What was asked for of a container.
    pub fn container_config(&self, id: &str) -> PathBuf {
        self.container(id).join(record::CONFIG)
    }

    /// What is true of a container.
    pub fn state(&self, id: &str) -> PathBuf {
        self.container(id).join(record::STATE)
    }

    /// What a container's health checks found.
    pub fn health(&self, id: &str) -> PathBuf {
        self.container(id).join(record::HEALTH)
    }

    /// The folder of a container's log files.
    pub fn logs(&self, id: &str) -> PathBuf {
        self.container(id).join(record::LOGS)
    }

    /// A container's current log file; those before it have `.1`, `.2`, … appended.
    pub fn log(&self, id: &str) -> PathBuf {
        self.logs(id).join(format!("{id}-json.log"))
    }

    /// The folder of execs that were created in a container.
    pub fn execs(&self, id: &str) -> PathBuf {
        self.container(id).join("execs")
    }

    /// All sandboxes' folders.
    pub fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// A sandbox's folder.
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.root.join("sandboxes").join(id)
    }

    /// A sandbox's configuration.
    pub fn sandbox_config(&self, id: &str) -> PathBuf {
        self.sandbox(id).join(record::CONFIG)
    }

    /// A sandbox's lock: held by its monitor for as long as that lives.
    pub fn sandbox_lock(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("lock")
    }

    /// Where a sandbox's monitor listens. There is none once a monitor has ended by itself: with the lock free, a socket says
    /// that it was killed.
    pub fn socket(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("socket")
    }

    /// The writable disk of a sandbox.
    pub fn scratch(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("scratch")
    }

    /// All volumes' folders; it is locked by those that make and remove what uses them.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// A volume's folder.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// What a volume holds, unless its options say elsewhere.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volume(name).join("_data")
    }

    /// Notes of the volumes that go with containers, one for each container.
    pub fn going_volumes(&self) -> PathBuf {
        self.volumes().join(".with")
    }

    /// All networks' folders; it is locked by those that make and remove one.
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// A network's folder.
    pub fn network(&self, name: &str) -> PathBuf {
        self.networks().join(name)
    }

    /// Folders that are being made or removed.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The folder of events.
    pub fn events(&self) -> PathBuf {
        self.root.join("events")
    }

    /// The image store.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Saved VMs.
    pub fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }
}
