//! Pods: sandboxes that several containers share, with one network and, when asked, one PID namespace.

use std::collections::BTreeMap;

use protocol::agent::Stats;
use protocol::monitor::Request;
use protocol::record::{SandboxConfig, SandboxKind};

use crate::control::Stop;
use crate::engine::{Engine, chain, is_id};
use crate::error::{Error, Refusal, Subject};
use crate::events::Told;
use crate::files;
use crate::id::is_valid_name;
use crate::index::Table;
use crate::list::Listed;

/// A pod, as its files say, and its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Identifier.
    pub id: String,
    /// Name.
    pub name: String,
    /// Nanoseconds since the epoch.
    pub created_ns: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its containers share a PID namespace.
    pub shared_pid: bool,
    /// It runs.
    pub running: bool,
}

impl Pod {
    /// `None` for a sandbox of a single container.
    fn of(config: &SandboxConfig, running: bool) -> Option<Pod> {
        let SandboxKind::Pod {
            name,
            shared_pid,
            created_ns,
            labels,
        } = &config.kind
        else {
            return None;
        };
        Some(Pod {
            id: config.id.clone(),
            name: name.clone(),
            created_ns: *created_ns,
            labels: labels.clone(),
            shared_pid: *shared_pid,
            running,
        })
    }

    fn told(&self, action: &str) -> Told {
        let mut told = Told::new("pod", action, &self.id).with("name", &self.name);
        for (name, value) in &self.labels {
            told = told.with(name, value);
        }
        told
    }
}

impl Engine {
    /// Makes a pod, whose name is in its configuration. Nothing of it runs afterwards.
    pub fn pod_create(&self, config: &SandboxConfig) -> Result<(), Error> {
        let pod =
            Pod::of(config, false).ok_or_else(|| Error::not_found(Subject::Pod, &config.id))?;
        if !is_valid_name(&pod.name) {
            return Err(Error::InvalidName {
                subject: Subject::Pod,
                name: pod.name,
            });
        }
        // Its folder is being made from before the name is claimed, as a container's is.
        let keeps = |id: &str| {
            files::is_being_made(self.layout(), &format!("sandbox-{id}"))
                || self.layout().sandbox_config(id).exists()
        };
        let mut draft = self.draft_sandbox(config)?;
        let owner = self.with_index(|index| index.claim_pod(&pod.id, &pod.name, keeps))?;
        if let Some(id) = owner {
            return Err(Error::NameInUse {
                subject: Subject::Pod,
                name: pod.name,
                id,
            });
        }
        draft.place(&self.layout().sandbox(&pod.id))?;
        self.tell(pod.told("create"));
        Ok(())
    }

    /// Every pod, the latest made first.
    pub fn pods(&self) -> Result<Vec<Pod>, Error> {
        let mut pods = Vec::new();
        for id in files::names(&self.layout().sandboxes())? {
            match self.sandbox_config(&id) {
                Ok(Some(config)) if config.kind != SandboxKind::Single => {
                    let running = self.is_alive(&id)?;
                    pods.extend(Pod::of(&config, running));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%id, error = %chain(&error), "a sandbox is not shown"),
            }
        }
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_ns));
        Ok(pods)
    }

    /// The pod of this name, identifier or beginning of one.
    pub fn pod(&self, reference: &str) -> Result<Pod, Error> {
        let config = self.pod_sandbox(reference)?;
        let running = self.is_alive(&config.id)?;
        Pod::of(&config, running).ok_or_else(|| Error::not_found(Subject::Pod, reference))
    }

    /// The same, as its record.
    pub fn pod_sandbox(&self, reference: &str) -> Result<SandboxConfig, Error> {
        let absent = || Error::not_found(Subject::Pod, reference);
        if is_id(reference) {
            return self.pod_config(reference)?.ok_or_else(absent);
        }
        let named = self.with_index(|index| index.pod_named(reference))?;
        if let Some(id) = named
            && let Some(config) = self.pod_config(&id)?
        {
            return Ok(config);
        }
        if reference.is_empty() || !reference.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(absent());
        }
        let ids = self.with_index(|index| index.with_prefix(Table::Pods, reference))?;
        let mut there = Vec::new();
        for id in ids {
            there.extend(self.pod_config(&id)?);
        }
        if there.len() > 1 {
            return Err(Error::Ambiguous(reference.to_owned()));
        }
        there.pop().ok_or_else(absent)
    }

    /// The containers of a pod.
    pub fn pod_containers(&self, reference: &str) -> Result<Vec<Listed>, Error> {
        let id = self.pod(reference)?.id;
        let all = crate::list::ListOptions {
            all: true,
            ..Default::default()
        };
        let mut listed = self.list(&all)?;
        listed.retain(|one| one.summary.sandbox == id);
        Ok(listed)
    }

    /// Starts a pod's sandbox, and every container in it.
    pub fn pod_start(&self, reference: &str) -> Result<(), Error> {
        let pod = self.pod(reference)?;
        let (_, mut link) = self.converse(&pod.id, |link| link.greet())?;
        if let Some(monitor) = link.take_spawned() {
            self.adopt(monitor);
        }
        for one in self.pod_containers(&pod.id)? {
            self.start(&one.summary.id)?;
        }
        self.tell(pod.told("start"));
        Ok(())
    }

    /// Stops a pod's containers and then the pod. Whether it ran.
    pub fn pod_stop(&self, reference: &str, how: Stop) -> Result<bool, Error> {
        let pod = self.pod(reference)?;
        if !pod.running {
            self.repair(&pod.id)?;
            return Ok(false);
        }
        for one in self.pod_containers(&pod.id)? {
            if one.state.status.is_alive() {
                self.stop(&one.summary.id, how)?;
            }
        }
        // The answer is the end; without one the pod may go on by a restart policy.
        while self.ask(&pod.id, Request::Shutdown)?.is_none() && self.is_alive(&pod.id)? {}
        self.await_end(&pod.id)?;
        self.tell(pod.told("stop"));
        Ok(true)
    }

    /// Removes a pod; by force with its containers.
    pub fn pod_remove(&self, reference: &str, force: bool) -> Result<(), Error> {
        let pod = self.pod(reference)?;
        let members = self.members(&pod.id)?;
        if !force && (pod.running || !members.is_empty()) {
            return Err(Error::refused(&pod.name, Refusal::PodNotEmpty));
        }
        let now = Stop {
            signal: Some(libc::SIGKILL),
            timeout_s: Some(0),
        };
        self.pod_stop(&pod.id, now)?;
        let held = self.take_lock(&pod.id)?;
        self.repair_held(&pod.id)?;
        // With the pod goes its disk, and all that they wrote.
        for config in members {
            self.remove_files(&config)?;
        }
        files::discard(self.layout(), &self.layout().sandbox(&pod.id))?;
        drop(held);
        self.with_index(|index| index.forget_pod(&pod.id))?;
        self.tell(pod.told("remove"));
        Ok(())
    }

    /// What each running container of a pod uses.
    pub fn pod_stats(&self, reference: &str) -> Result<Vec<(Listed, Stats)>, Error> {
        let mut all = Vec::new();
        for one in self.pod_containers(reference)? {
            if !one.state.status.is_alive() {
                continue;
            }
            match self.stats(&one.summary.id) {
                Ok(stats) => all.push((one, stats)),
                // It has ended since.
                Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Enters the pods that a new index lacks.
    pub(crate) fn index_pods(&self) -> Result<(), Error> {
        for pod in self.pods()? {
            self.with_index(|index| index.claim_pod(&pod.id, &pod.name, |_| true))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
