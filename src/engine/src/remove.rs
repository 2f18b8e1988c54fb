//! Removing a container.
//!
//! ```text
//! it has ended -> lock taken -> ROOT/containers/<id> out of sight -> row -> ROOT/sandboxes/<id> out of sight
//! ```
//!
//! Invariant (docs/lifecycle.md, "What is durable when", 5): a kill leaves a whole container, or rubbish that
//! [`Engine::sweep`] removes.

use protocol::monitor::Request;
use protocol::record::{ContainerConfig, SandboxKind};

use crate::control::Stop;
use crate::engine::Engine;
use crate::error::{Error, Refusal};
use crate::{events, files};

/// How to remove a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remove {
    /// Kill it if it runs.
    pub force: bool,
    /// Remove its anonymous volumes, but for those that others use.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container.
    pub fn remove(&self, reference: &str, how: Remove) -> Result<(), Error> {
        let config = self.remove_container(reference, how)?;
        match config.run.mounts.is_empty() {
            true => Ok(()),
            false => self.reap_volumes(),
        }
    }

    fn remove_container(&self, reference: &str, how: Remove) -> Result<ContainerConfig, Error> {
        let container = self.container(reference)?;
        let config = container.config;
        if container.state.status.is_alive() {
            if !how.force {
                let why = match container.state.status {
                    protocol::record::Status::Paused => Refusal::RemovePaused,
                    _ => Refusal::RemoveRunning,
                };
                return Err(Error::refused(reference, why));
            }
            self.kill_for_good(&config)?;
        }
        if how.volumes {
            self.let_volumes_go(&config)?;
        }
        let is_pod = self
            .sandbox_config(&config.sandbox)?
            .is_some_and(|sandbox| sandbox.kind != SandboxKind::Single);
        if is_pod {
            self.remove_member(&config)?;
            return Ok(config);
        }
        // A monitor that is ending is waited for; one that was started since is refused.
        let held = self.take_lock(&config.sandbox)?;
        if held.is_some() {
            self.repair_held(&config.sandbox)?;
        }
        self.remove_files(&config)?;
        Ok(config)
    }

    /// Kills a container; no restart policy applies.
    fn kill_for_good(&self, config: &ContainerConfig) -> Result<(), Error> {
        let now = Stop {
            signal: Some(libc::SIGKILL),
            timeout_s: Some(0),
        };
        match self.end(config, now) {
            // It went with its end.
            Err(Error::NotFound { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes a container of a pod, with its writable directory, which is on the pod's disk: a pod that does not run is
    /// started for that, without any container.
    fn remove_member(&self, config: &ContainerConfig) -> Result<(), Error> {
        let request = || Request::Remove {
            container: config.id.clone(),
        };
        let (removed, mut link) = self.converse(&config.sandbox, |link| link.ask(request()))?;
        if let Some(monitor) = link.take_spawned() {
            let _ = link.connection.send(Request::Shutdown);
            self.adopt(monitor);
        }
        removed.map_err(Error::Failure)?;
        self.remove_files(config)
    }

    /// Removes what is on disk of a container that does not run. The caller holds its sandbox's lock, or it is a pod's.
    pub(crate) fn remove_files(&self, config: &ContainerConfig) -> Result<(), Error> {
        let existed = self.exists(&config.id);
        self.remove_folders(config)?;
        if existed {
            self.tell(events::container(config, "destroy"));
        }
        Ok(())
    }

    /// The same, of a container that nothing has been told of.
    pub(crate) fn remove_folders(&self, config: &ContainerConfig) -> Result<(), Error> {
        let layout = self.layout();
        files::discard(layout, &layout.container(&config.id))?;
        self.with_index(|index| index.forget(&config.id))?;
        if config.sandbox == config.id {
            files::discard(layout, &layout.sandbox(&config.id))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
