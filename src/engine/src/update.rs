//! Changing what was asked for of a container: its name, its limits, its restart policy.
//!
//! Invariant: config.json is rewritten under the lock of the container's folder; a new name's row is there before the file
//! says it, without a stamp, so that a reader in between reads the file.

use protocol::monitor::Request;
use protocol::record::{self, ContainerConfig, RestartPolicy};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::container::{Summary, read_config};
use crate::engine::Engine;
use crate::error::{Error, Refusal, Subject};
use crate::id::is_valid_name;
use crate::index::{self, Entry};
use crate::{events, files};

/// What changes of a container.
#[derive(Debug, Default)]
pub struct Update {
    /// An OCI `linux.resources` document of the members that change.
    pub resources: Option<Box<RawValue>>,
    /// The new policy.
    pub restart: Option<RestartPolicy>,
}

impl Engine {
    /// Gives a container another name.
    pub fn rename(&self, reference: &str, name: &str) -> Result<(), Error> {
        let id = self.id(reference)?;
        let name = name.strip_prefix('/').unwrap_or(name);
        if !is_valid_name(name) {
            return Err(Error::InvalidName {
                subject: Subject::Container,
                name: name.to_owned(),
            });
        }
        let _lock = self.lock_config(&id, reference)?;
        let mut config = self.config(&id, reference)?;
        if config.name == name {
            return Err(Error::refused(reference, Refusal::SameName));
        }
        let old = std::mem::replace(&mut config.name, name.to_owned());
        let entry = Entry {
            stamp: String::new(),
            summary: Summary::of(&config),
        };
        if let Some(owner) = self.claim_name(&entry)? {
            return Err(Error::NameInUse {
                subject: Subject::Container,
                name: name.to_owned(),
                id: owner,
            });
        }
        self.rewrite(&config)?;
        self.tell(events::container(&config, "rename").with("oldName", format!("/{old}")));
        Ok(())
    }

    /// Changes a container's limits, its restart policy, or both; at once if it runs.
    pub fn update(&self, reference: &str, update: Update) -> Result<(), Error> {
        let id = self.id(reference)?;
        {
            let _lock = self.lock_config(&id, reference)?;
            let mut config = self.config(&id, reference)?;
            if let Some(restart) = update.restart {
                config.restart = restart;
            }
            if let Some(resources) = &update.resources {
                config.run.spec = with_resources(&config.run.spec, resources)?;
            }
            self.rewrite(&config)?;
        }
        let container = loop {
            let container = self.container(&id)?;
            // One that ended meanwhile has the new limits when it starts again.
            if !container.state.status.is_alive() {
                break container;
            }
            let request = Request::Update {
                container: id.clone(),
                resources: update.resources.clone(),
                restart: update.restart,
            };
            if self.ask(&container.config.sandbox, request)?.is_some() {
                break container;
            }
        };
        self.tell(events::container(&container.config, "update"));
        Ok(())
    }

    pub(crate) fn lock_config(&self, id: &str, reference: &str) -> Result<std::fs::File, Error> {
        let lock = files::lock_folder(&self.layout().container(id))?;
        lock.ok_or_else(|| Error::not_found(Subject::Container, reference))
    }

    pub(crate) fn config(&self, id: &str, reference: &str) -> Result<ContainerConfig, Error> {
        let config = read_config(self.layout(), id)?;
        config.ok_or_else(|| Error::not_found(Subject::Container, reference))
    }

    /// Writes a container's configuration, in the form of this version, and its row. The caller holds the folder's lock.
    pub(crate) fn rewrite(&self, config: &ContainerConfig) -> Result<(), Error> {
        let path = self.layout().container(&config.id).join(record::CONFIG);
        let config = ContainerConfig {
            version: record::VERSION,
            ..config.clone()
        };
        files::write(&path, &config)?;
        let entry = Entry {
            stamp: index::stamp(&path).map_err(Error::file("look at", &path))?,
            summary: Summary::of(&config),
        };
        self.with_index(|index| index.claim(&entry, |_| true))?;
        Ok(())
    }
}

/// The document with these members of `linux.resources` in the place of its own.
fn with_resources(document: &RawValue, resources: &RawValue) -> Result<Box<RawValue>, Error> {
    let mut document: Map<String, Value> = serde_json::from_str(document.get())?;
    let changes: Value = serde_json::from_str(resources.get())?;
    let linux = document
        .entry("linux")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(linux) = linux {
        let own = linux
            .entry("resources")
            .or_insert_with(|| Value::Object(Map::new()));
        merge(own, changes);
    }
    Ok(RawValue::from_string(serde_json::to_string(&document)?)?)
}

/// Objects are merged member by member; anything else is replaced.
fn merge(own: &mut Value, changes: Value) {
    match (own, changes) {
        (Value::Object(own), Value::Object(changes)) => {
            for (name, value) in changes {
                merge(own.entry(name).or_insert(Value::Null), value);
            }
        }
        (own, changes) => *own = changes,
    }
}

#[cfg(test)]
mod tests;
