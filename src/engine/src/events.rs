//! What happened: one line of JSON for each event in ROOT/events/events.jsonl, appended by engines and monitors.
//!
//! Invariants: a line is written by one write(2) with O_APPEND, so those of several processes do not mix; a file that has
//! grown to [`MAX_FILE_BYTES`] is renamed to `events.jsonl.1`, in the place of the one before, so there are two at most. An
//! event that cannot be written is lost, and keeps nothing from going on.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::record::{ContainerConfig, Event};
use rustix::fs::{FlockOperation, flock};

use crate::engine::Engine;
use crate::files;
use crate::time;

mod reader;

pub use reader::{EventFilter, EventOptions, EventReader};

/// The file that is written.
const FILE: &str = "events.jsonl";
/// The file before it.
const OLD_FILE: &str = "events.jsonl.1";
/// The length at which another file is begun: some 50,000 events.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// An event to be told.
#[derive(Debug, Clone)]
pub(crate) struct Told(Event);

impl Told {
    pub(crate) fn new(kind: &str, action: &str, id: &str) -> Told {
        Told(Event {
            time_ns: time::now_ns(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes: BTreeMap::new(),
        })
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Told {
        self.0.attributes.insert(name.to_owned(), value.into());
        self
    }
}

/// An event of a container: its labels, name and image are its attributes.
pub(crate) fn container(config: &ContainerConfig, action: &str) -> Told {
    let mut told = Told::new("container", action, &config.id);
    told.0.attributes.clone_from(&config.labels);
    told.with("name", &config.name).with("image", &config.image)
}

impl Engine {
    /// Appends an event.
    pub(crate) fn tell(&self, told: Told) {
        if let Err(error) = append(&self.layout().events(), &told.0) {
            tracing::warn!(%error, action = told.0.action, "an event is lost");
        }
    }
}

/// Appends an event to the file in this folder.
pub fn append(folder: &Path, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut file = open(folder)?;
    if file.metadata()?.len() >= MAX_FILE_BYTES {
        file = rotate(folder, file)?;
    }
    // What a full disk cuts short is passed over by readers.
    file.write_all(&line)
}

fn open(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    match options.open(folder.join(FILE)) {
        Err(error) if files::is_absent(&error) => {
            std::fs::create_dir_all(folder)?;
            options.open(folder.join(FILE))
        }
        other => other,
    }
}

/// Begins another file, unless another process does so right now. Lines that are written meanwhile are in the old one.
fn rotate(folder: &Path, full: File) -> io::Result<File> {
    let locked = flock(&full, FlockOperation::NonBlockingLockExclusive).is_ok();
    let path = folder.join(FILE);
    let is_current = || -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        Ok(path.metadata()?.ino() == full.metadata()?.ino())
    };
    if !locked || !is_current().unwrap_or(false) {
        return open(folder);
    }
    std::fs::rename(&path, folder.join(OLD_FILE))?;
    open(folder)
}

fn paths(folder: &Path) -> [PathBuf; 2] {
    [folder.join(OLD_FILE), folder.join(FILE)]
}

#[cfg(test)]
mod tests;
