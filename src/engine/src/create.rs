//! Making a container: files and a name, and nothing that runs.
//!
//! ```text
//! ROOT/tmp/<id> made and locked -> row with the name -> ROOT/sandboxes/<id> placed -> ROOT/containers/<id> placed
//!     -> its volumes made, while ROOT/volumes is locked
//! ```
//!
//! Invariant: a kill at any point leaves no container or a whole one. A row without a folder is a free name; a sandbox of a
//! single container without that container is removed by [`Engine::sweep`].

use image::Lease;
use protocol::record::{self, ContainerConfig, SandboxConfig, SandboxKind, State};

use crate::container::Summary;
use crate::engine::{Engine, chain, is_id};
use crate::error::{Error, Subject};
use crate::events;
use crate::files::{self, Draft};
use crate::id::is_valid_name;
use crate::index::{self, Entry};
use crate::names;

/// Attempts to find a free name: 4,608 names without digits, and 46 million with.
const NAME_ATTEMPTS: u32 = 20;

/// A container to make.
#[derive(Debug)]
pub struct NewContainer {
    /// What is asked for. `id` is a new one of [`crate::id::new_id`]; an empty `name` is made up.
    pub config: ContainerConfig,
    /// Its sandbox, of the same identifier; `None` for a container of a pod, which `config.sandbox` names.
    pub sandbox: Option<SandboxConfig>,
    /// Keeps its image until the container exists, and so keeps it.
    pub lease: Option<Lease>,
}

impl Engine {
    /// Makes a container, and returns its name. Afterwards it exists, and nothing of it runs.
    pub fn create(&self, new: NewContainer) -> Result<String, Error> {
        let NewContainer {
            mut config,
            sandbox,
            lease,
        } = new;
        assert!(is_id(&config.id), "identifiers come from id::new_id");
        if !config.name.is_empty() && !is_valid_name(&config.name) {
            return Err(Error::InvalidName {
                subject: Subject::Container,
                name: config.name,
            });
        }
        if sandbox.is_none() && self.pod_config(&config.sandbox)?.is_none() {
            return Err(Error::not_found(Subject::Pod, &config.sandbox));
        }
        if config.run.mounts.is_empty() {
            self.place(&mut config, sandbox)?;
        } else {
            self.place_with_mounts(&mut config, sandbox)?;
        }
        drop(lease);
        self.tell(events::container(&config, "create"));
        Ok(config.name)
    }

    fn place(
        &self,
        config: &mut ContainerConfig,
        sandbox: Option<SandboxConfig>,
    ) -> Result<(), Error> {
        let mut draft = Draft::begin(self.layout(), &config.id)?;
        self.place_with_name(config, sandbox, &mut draft)
    }

    /// Makes the container, and then its volumes: what a kill keeps from being made is made at its start.
    fn place_with_mounts(
        &self,
        config: &mut ContainerConfig,
        sandbox: Option<SandboxConfig>,
    ) -> Result<(), Error> {
        let _sharing = self.share_volumes()?;
        if config.auto_remove {
            self.let_volumes_go(config)?;
        }
        self.place(config, sandbox)
            .inspect_err(|_| self.keep_volumes(&config.id))?;
        self.provide_mounts(config).inspect_err(|_| {
            // The next command removes its volumes.
            let noted = self.let_volumes_go(config);
            if let Err(error) = noted.and_then(|()| self.remove_folders(config)) {
                tracing::warn!(error = %chain(&error), "a container that was begun is left");
            }
        })
    }

    fn place_with_name(
        &self,
        config: &mut ContainerConfig,
        sandbox: Option<SandboxConfig>,
        draft: &mut Draft,
    ) -> Result<(), Error> {
        files::make_folder(&draft.path().join(record::LOGS))?;
        files::write_new(&draft.path().join(record::STATE), &State::default())?;
        let given = !config.name.is_empty();
        for attempt in 0..NAME_ATTEMPTS {
            if !given {
                config.name = names::random(attempt);
            }
            let path = draft.path().join(record::CONFIG);
            files::write_new(&path, config)?;
            let entry = Entry {
                stamp: index::stamp(&path).map_err(Error::file("look at", &path))?,
                summary: Summary::of(config),
            };
            match self.claim_name(&entry)? {
                None => {
                    if let Some(sandbox) = sandbox {
                        self.place_sandbox(&sandbox)?;
                    }
                    return draft.place(&self.layout().container(&config.id));
                }
                Some(_) if !given && attempt + 1 < NAME_ATTEMPTS => {}
                Some(id) => {
                    return Err(Error::NameInUse {
                        subject: Subject::Container,
                        name: config.name.clone(),
                        id,
                    });
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Gives a container its name; the answer is another container's identifier if that has it. One that only seems to
    /// have it loses it: a row that is stale, or a container that goes with its end and whose monitor was killed.
    pub(crate) fn claim_name(&self, entry: &Entry) -> Result<Option<String>, Error> {
        // In this order: what is not being made any more has its place.
        let keeps = |id: &str| files::is_being_made(self.layout(), id) || self.exists(id);
        let claim = || self.with_index(|index| index.claim(entry, keeps));
        let Some(owner) = claim()? else {
            return Ok(None);
        };
        self.repair_if_dead(&owner)?;
        let renamed = self
            .summary(&owner)?
            .is_some_and(|summary| summary.name != entry.summary.name);
        if renamed || !keeps(&owner) {
            return claim();
        }
        Ok(Some(owner))
    }

    /// Makes a sandbox's folder.
    pub(crate) fn place_sandbox(&self, sandbox: &SandboxConfig) -> Result<(), Error> {
        let mut draft = self.draft_sandbox(sandbox)?;
        draft.place(&self.layout().sandbox(&sandbox.id))
    }

    /// Makes a sandbox's folder, still out of sight.
    pub(crate) fn draft_sandbox(&self, sandbox: &SandboxConfig) -> Result<Draft, Error> {
        // Not the name of its container's draft.
        let draft = Draft::begin(self.layout(), &format!("sandbox-{}", sandbox.id))?;
        files::write_new(&draft.path().join(record::CONFIG), sandbox)?;
        Ok(draft)
    }

    /// Reads a sandbox's configuration; `None` if there is no such sandbox.
    pub(crate) fn sandbox_config(&self, id: &str) -> Result<Option<SandboxConfig>, Error> {
        let path = self.layout().sandbox_config(id);
        let config: Option<SandboxConfig> = files::read(&path)?;
        if let Some(config) = &config {
            files::check_version(&path, config.version)?;
        }
        Ok(config)
    }

    /// The configuration of the pod with this whole identifier.
    pub(crate) fn pod_config(&self, id: &str) -> Result<Option<SandboxConfig>, Error> {
        let config = self.sandbox_config(id)?;
        Ok(config.filter(|config| matches!(config.kind, SandboxKind::Pod { .. })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn a_container_without_a_name_gets_one_and_may_be_found_by_it() {
        let fixture = Fixture::new();
        let new = fixture.new_container("", |_| {});
        let id = new.config.id.clone();
        let name = fixture.engine.create(new).unwrap();
        assert!(name.contains('_'));
        assert_eq!(fixture.engine.id(&name).unwrap(), id);
        assert_eq!(fixture.actions(), ["create"]);
    }

    #[test]
    fn a_created_container_is_whole_and_has_not_started() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        let container = fixture.engine.container("web").unwrap();
        assert_eq!(container.state, State::default());
        assert!(fixture.engine.layout().logs(&id).is_dir());
        assert!(fixture.engine.layout().sandbox_config(&id).exists());
        assert!(
            files::names(&fixture.engine.layout().tmp())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_name_in_use_is_refused_with_its_owner_and_nothing_is_left() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        let error = fixture
            .engine
            .create(fixture.new_container("web", |_| {}))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("in use by container \"{id}\""))
        );
        assert_eq!(
            files::names(&fixture.engine.layout().containers()).unwrap(),
            [id]
        );
        assert!(
            files::names(&fixture.engine.layout().tmp())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let fixture = Fixture::new();
        let error = fixture
            .engine
            .create(fixture.new_container("a/b", |_| {}))
            .unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Invalid);
    }

    #[test]
    fn of_many_that_want_one_name_one_gets_it() {
        let fixture = Fixture::new();
        let created = std::thread::scope(|scope| {
            let create = || {
                let engine = fixture.another_engine();
                engine.create(fixture.new_container("web", |_| {})).is_ok()
            };
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(create)).collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            results.filter(|created| *created).count()
        });
        assert_eq!(created, 1);
        assert_eq!(
            files::names(&fixture.engine.layout().containers())
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn a_folder_of_a_later_hull_is_refused_by_name() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        let path = fixture.engine.layout().container_config(&id);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"version\":1", "\"version\":9", 1)).unwrap();
        let error = fixture.engine.container("web").unwrap_err().to_string();
        assert!(error.contains("written by a later hull"), "{error}");
    }
}
