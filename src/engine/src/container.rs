//! What is known of a container without asking its monitor: its configuration, its state and its health.

use std::collections::BTreeMap;
use std::path::PathBuf;

use protocol::agent::ExitStatus;
use protocol::record::{
    ContainerConfig, DEFAULT_NETWORK, Health, Mount, MountSource, State, Status,
};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, Subject};
use crate::layout::Layout;
use crate::{files, lock};

/// The code of a container whose monitor was killed.
pub(crate) const KILLED_MONITOR_CODE: u8 = 255;
/// Why such a container ended.
pub(crate) const KILLED_MONITOR: &str =
    "its monitor was killed, so how the container ended is not known";

/// A container, as its files say, and its sandbox's lock.
#[derive(Debug, Clone)]
pub struct Container {
    /// What was asked for.
    pub config: ContainerConfig,
    /// What is true: a state that needs a monitor only where one is alive.
    pub state: State,
    /// What its health checks have found, while it runs or since it ran; `None` without a check.
    pub health: Option<Health>,
}

/// What a listing shows of a container's configuration: kept in the index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Identifier.
    pub id: String,
    /// Name.
    pub name: String,
    /// Nanoseconds since the epoch.
    pub created_ns: u64,
    /// The sandbox that it belongs to: its own identifier, or a pod's.
    pub sandbox: String,
    /// The image, as the user named it.
    pub image: String,
    /// The image's identifier.
    pub image_id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its command and arguments, joined with spaces; an argument with a blank is in single quotes, as in Docker.
    pub command: String,
    /// It has a health check.
    pub has_health_check: bool,
    /// It has a network.
    pub has_network: bool,
    /// The one that it was made on, if it is not the default one.
    #[serde(default)]
    pub network: Option<String>,
    /// Those that it is on, if they are not that one alone.
    #[serde(default)]
    pub networks: Option<Vec<String>>,
    /// Ports that it offers: `80/tcp`.
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    /// What of the host's it has mounted.
    #[serde(default)]
    pub mounts: Vec<MountSummary>,
}

/// What a listing shows of a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSummary {
    /// The volume, if it is one.
    pub volume: Option<String>,
    /// The path on the host otherwise, as the user named it.
    pub path: PathBuf,
    /// Where it is in the container.
    pub destination: String,
}

impl MountSummary {
    fn of(mount: &Mount) -> MountSummary {
        let (volume, path) = match &mount.source {
            MountSource::Volume { name, .. } => (Some(name.clone()), PathBuf::new()),
            MountSource::Bind { named, .. } => (None, named.clone()),
        };
        MountSummary {
            volume,
            path,
            destination: mount.destination.clone(),
        }
    }
}

/// The part of an OCI document that a listing shows.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Process {
    #[serde(default)]
    args: Vec<String>,
}

impl Summary {
    /// The names of its networks.
    pub fn networks(&self) -> Vec<&str> {
        let (first, all) = (self.network.as_deref(), self.networks.as_deref());
        names_of_networks(self.has_network, first, all)
    }

    /// Of a configuration.
    pub fn of(config: &ContainerConfig) -> Summary {
        let command = serde_json::from_str::<Document>(config.run.spec.get())
            .ok()
            .and_then(|document| document.process)
            .map_or_else(String::new, |process| joined(&process.args));
        Summary {
            id: config.id.clone(),
            name: config.name.clone(),
            created_ns: config.created_ns,
            sandbox: config.sandbox.clone(),
            image: config.image.clone(),
            image_id: config.image_id.clone(),
            labels: config.labels.clone(),
            command,
            has_health_check: config.health.is_some(),
            has_network: config.run.network,
            network: config.network.clone(),
            networks: config.networks.clone(),
            exposed_ports: exposed_ports(config),
            mounts: config.run.mounts.iter().map(MountSummary::of).collect(),
        }
    }
}

/// The part of what was asked for that a listing shows.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Offered {
    exposed_ports: Vec<String>,
}

fn exposed_ports(config: &ContainerConfig) -> Vec<String> {
    let offered: Offered = serde_json::from_str(config.asked.get()).unwrap_or_default();
    offered.exposed_ports
}

/// The name of the network that a container with this record, or its sandbox, was made on.
pub fn network_name(config: &ContainerConfig) -> &str {
    name_of_network(config.run.network, config.network.as_deref())
}

/// The names of the networks that it is on, as its record has them.
pub fn network_names(config: &ContainerConfig) -> Vec<&str> {
    let (first, all) = (config.network.as_deref(), config.networks.as_deref());
    names_of_networks(config.run.network, first, all)
}

fn names_of_networks<'a>(
    has_network: bool,
    first: Option<&'a str>,
    all: Option<&'a [String]>,
) -> Vec<&'a str> {
    match all {
        Some(all) if has_network => all.iter().map(String::as_str).collect(),
        _ => vec![name_of_network(has_network, first)],
    }
}

fn name_of_network(has_network: bool, network: Option<&str>) -> &str {
    match (has_network, network) {
        (true, Some(name)) => name,
        (true, None) => DEFAULT_NETWORK,
        (false, _) => "none",
    }
}

/// A command as a listing shows it.
fn joined(args: &[String]) -> String {
    let Some((program, args)) = args.split_first() else {
        return String::new();
    };
    args.iter()
        .fold(program.clone(), |line, arg| match arg.contains(' ') {
            true => format!("{line} '{arg}'"),
            false => format!("{line} {arg}"),
        })
}

/// The configuration of the container with this whole identifier; `None` if there is none.
pub(crate) fn read_config(layout: &Layout, id: &str) -> Result<Option<ContainerConfig>, Error> {
    let path = layout.container_config(id);
    let config: Option<ContainerConfig> = files::read(&path)?;
    if let Some(config) = &config {
        files::check_version(&path, config.version)?;
    }
    Ok(config)
}

/// The state as its file says, which may claim what is not true any more. A container without the file was created.
pub(crate) fn read_recorded_state(layout: &Layout, id: &str) -> Result<State, Error> {
    let path = layout.state(id);
    let state: State = files::read(&path)?.unwrap_or_default();
    files::check_version(&path, state.version)?;
    Ok(state)
}

/// The state that is true, without writing it (lifecycle H5): what needs a monitor and has none has been killed with it.
pub(crate) fn read_state(layout: &Layout, id: &str, sandbox: &str) -> Result<State, Error> {
    let state = read_recorded_state(layout, id)?;
    if !state.status.is_alive() {
        return Ok(state);
    }
    let path = layout.sandbox_lock(sandbox);
    if lock::is_held(&path).map_err(Error::file("look at", &path))? {
        return Ok(state);
    }
    // The monitor may have recorded the end and gone between the two looks.
    let state = read_recorded_state(layout, id)?;
    Ok(if state.status.is_alive() {
        as_killed(state)
    } else {
        state
    })
}

/// The state of a container whose monitor was killed.
pub(crate) fn as_killed(state: State) -> State {
    State {
        status: Status::Exited,
        pid: 0,
        interfaces: Vec::new(),
        ports: Vec::new(),
        exit: Some(ExitStatus::Code(KILLED_MONITOR_CODE)),
        exit_code: KILLED_MONITOR_CODE,
        error: KILLED_MONITOR.to_owned(),
        // Nothing says when.
        finished_ns: state.finished_ns.max(state.started_ns),
        ..state
    }
}

pub(crate) fn read_health(layout: &Layout, id: &str) -> Result<Option<Health>, Error> {
    files::read(&layout.health(id))
}

impl Engine {
    /// The container of this name, identifier or beginning of one: what `inspect` shows.
    pub fn container(&self, reference: &str) -> Result<Container, Error> {
        let id = self.id(reference)?;
        self.container_with_id(&id)
            .map_err(|error| rename_subject(error, reference))
    }

    /// The container with this whole identifier.
    pub(crate) fn container_with_id(&self, id: &str) -> Result<Container, Error> {
        let layout = self.layout();
        let config =
            read_config(layout, id)?.ok_or_else(|| Error::not_found(Subject::Container, id))?;
        let state = read_state(layout, id, &config.sandbox)?;
        let health = match config.health {
            Some(_) => Some(read_health(layout, id)?.unwrap_or_default()),
            None => None,
        };
        Ok(Container {
            config,
            state,
            health,
        })
    }
}

/// What vanished since it was looked up is named as the user named it.
fn rename_subject(error: Error, reference: &str) -> Error {
    match error {
        Error::NotFound { subject, .. } => Error::not_found(subject, reference),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, running};

    #[test]
    fn a_state_that_needs_a_monitor_and_has_none_reads_as_killed_and_is_not_written() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        fixture.set_state(&id, running());
        let container = fixture.engine.container("web").unwrap();
        assert_eq!(container.state.status, Status::Exited);
        assert_eq!(container.state.exit_code, 255);
        assert!(container.state.error.contains("monitor was killed"));
        assert_eq!(fixture.recorded(&id).status, Status::Running);
    }

    #[test]
    fn a_running_container_reads_as_running_while_the_lock_is_held() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        fixture.set_state(&id, running());
        let _held = fixture.hold(&id);
        let container = fixture.engine.container("web").unwrap();
        assert_eq!(container.state.status, Status::Running);
    }

    #[test]
    fn a_summary_shows_the_whole_command() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        let config = read_config(fixture.engine.layout(), &id).unwrap().unwrap();
        assert_eq!(Summary::of(&config).command, "sleep 1000");
        let words = ["sh", "-c", "exit 3", ""].map(str::to_owned);
        assert_eq!(joined(&words), "sh -c 'exit 3' ");
    }
}
