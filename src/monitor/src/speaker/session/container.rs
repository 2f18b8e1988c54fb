//! A container in a session: from its record to its process, and its end.
//!
//! ```text
//! Idle --Start--> Starting --Started--> Running --Exited--> Recording --+--> Idle
//!   ^                |                  (paused)                        |
//!   '--- failed -----'                     ^                            '--> Due --(back-off)--> Starting
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use protocol::agent::{
    Create, Failure, FailureKind, Layer, Mount, Network, PidNamespace, Request, Root, Share,
    Socket, Writable,
};
use protocol::monitor::{Exit, Measured};
use protocol::record::ContainerConfig;

use super::agent::Awaited;
use super::health::Checks;
use super::process::{Process, Stage};
use super::{Action, Ask, ClientId, ProcessId, Session, Writes};
use crate::devices::SCRATCH_SERIAL;
use crate::link::ToWarden;

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does not run.
    Idle,
    /// It is on its way to its process.
    Starting,
    /// Its process executes.
    Running,
    /// Its end is being recorded.
    Recording,
    /// It is started again at this time.
    Due(Instant),
}

/// How far its root has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mounted {
    No,
    Placing,
    Placed(Vec<Layer>),
    Asked,
    Yes,
}

/// What the warden's next word about a container means.
#[derive(Debug)]
pub(super) enum Recording {
    Started,
    StartFailed(Failure),
    /// It may be stopped now, by this signal.
    Stopping {
        signal: i32,
        timeout: Option<Duration>,
    },
    /// It may be signalled now.
    Killing {
        ask: Ask,
        signal: i32,
    },
    Paused {
        ask: Ask,
    },
    Exited(Box<Exit>),
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) config: ContainerConfig,
    pub(super) phase: Phase,
    pub(super) mounted: Mounted,
    pub(super) paused: bool,
    pub(super) first: Process,
    pub(super) execs: BTreeMap<String, Process>,
    pub(super) starters: Vec<Ask>,
    pub(super) stoppers: Vec<Ask>,
    /// Requests that need its root, in order.
    pub(super) after_mount: VecDeque<(Ask, protocol::monitor::Request)>,
    pub(super) recording: VecDeque<Recording>,
    pub(super) kill_at: Option<Instant>,
    /// A user has stopped it, and it has not ended yet.
    pub(super) is_stopped: bool,
    pub(super) measure_by: Option<Instant>,
    pub(super) measured: Option<Box<Measured>>,
    /// It has been started in this session.
    pub(super) has_run: bool,
    pub(super) checks: Option<Checks>,
}

impl Container {
    pub(super) fn new(config: ContainerConfig) -> Container {
        Container {
            phase: Phase::Idle,
            mounted: Mounted::No,
            paused: false,
            first: Process::new(config.run.stdio),
            config,
            execs: BTreeMap::new(),
            starters: Vec::new(),
            stoppers: Vec::new(),
            after_mount: VecDeque::new(),
            recording: VecDeque::new(),
            kill_at: None,
            is_stopped: false,
            measure_by: None,
            measured: None,
            has_run: false,
            checks: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = match self.phase {
            Phase::Due(at) => Some(at),
            _ => None,
        };
        let check = self.checks.as_ref().and_then(Checks::deadline);
        [due, self.kill_at, self.measure_by, check]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn forget_client(&mut self, client: ClientId) {
        self.starters.retain(|ask| ask.client != client);
        self.stoppers.retain(|ask| ask.client != client);
        self.after_mount.retain(|(ask, _)| ask.client != client);
        for process in self.execs.values_mut().chain([&mut self.first]) {
            process.waiters.retain(|(ask, _)| ask.client != client);
        }
    }

    /// It runs, or will without a request.
    pub(super) fn is_active(&self) -> bool {
        self.phase != Phase::Idle || !self.recording.is_empty()
    }

    pub(super) fn wrong_state(&self, what: &str) -> Failure {
        let id = self.config.id.get(..12).unwrap_or(&self.config.id);
        Failure::new(FailureKind::WrongState, format!("container {id} {what}"))
    }
}

impl Session {
    /// Starts a container that ran before this machine did.
    pub(super) fn start_again(&mut self, id: &str) {
        if self.containers.contains_key(id) {
            self.begin_start(id);
        } else {
            self.tell(ToWarden::Load {
                container: id.to_owned(),
            });
        }
    }

    /// Brings a container that does not run on its way.
    pub(super) fn begin_start(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.phase = Phase::Starting;
        container.has_run = true;
        if let Some(failure) = self.end.broken.clone() {
            return self.start_failed(id, failure);
        }
        self.advance(id);
    }

    /// Takes the next step towards a mounted root and, if it is to start, a process.
    pub(super) fn advance(&mut self, id: &str) {
        let ready = self.ready;
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if !ready {
            return;
        }
        match container.mounted.clone() {
            Mounted::No => {
                container.mounted = Mounted::Placing;
                self.actions.push(Action::Place {
                    container: id.to_owned(),
                });
            }
            Mounted::Placed(layers) => {
                container.mounted = Mounted::Asked;
                let request = Request::Mount(mount(container, layers, &self.setting.writes));
                self.ask_agent(request, Awaited::Mounted(id.to_owned()));
                self.make_process(id);
            }
            Mounted::Yes => self.make_process(id),
            Mounted::Placing | Mounted::Asked => {}
        }
    }

    /// A container's layers are where these say, or cannot be.
    pub(crate) fn placed(&mut self, id: &str, result: Result<Vec<Layer>, Failure>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        match result {
            Ok(layers) => {
                container.mounted = Mounted::Placed(layers);
                self.advance(id);
            }
            Err(failure) => {
                container.mounted = Mounted::No;
                self.mount_failed(id, failure);
            }
        }
    }

    /// Asks for a starting container's process, behind the request that mounts its root.
    fn make_process(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        if container.phase != Phase::Starting || container.first.is_active() {
            return;
        }
        let process = ProcessId::first(id);
        let stdio = container.first.stdio;
        let (stdio, ports, outputs) = match self.open_stdio(&process, stdio, [true; 3]) {
            Ok(opened) => opened,
            Err(failure) => return self.start_failed(id, failure),
        };
        let (network, pid) = (self.network_of(id), self.setting.shared_pid);
        let forwards = self.setting.writes.are_of_a_vm();
        let interfaces = self.setting.interfaces.clone();
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.first.stage = Stage::Asked;
        container.first.ports = ports;
        container.first.outputs = outputs;
        container.first.lost = None;
        container.measured = None;
        let run = &container.config.run;
        let etc = match run.network {
            true => run.etc_with(&interfaces),
            false => run.etc_with(&[]),
        };
        let create = Create {
            container: id.to_owned(),
            spec: run.spec.clone(),
            user: run.user.clone(),
            groups: run.groups.clone(),
            seccomp: run.seccomp.clone(),
            init: run.init,
            stdio,
            etc,
            network,
            pid: match pid {
                true => PidNamespace::Sandbox,
                false => run.pid,
            },
            volumes: run.volumes.clone(),
            shares: run
                .mounts
                .iter()
                .filter(|mount| !forwards || mount.socket.is_none())
                .map(|mount| Share {
                    destination: mount.destination.clone(),
                    fill: mount.fill,
                })
                .collect(),
            sockets: run
                .mounts
                .iter()
                .filter(|_| forwards)
                .filter_map(|mount| {
                    Some(Socket {
                        name: mount.share.clone(),
                        node: mount.socket?,
                    })
                })
                .collect(),
        };
        self.ask_agent(
            Request::Create(Box::new(create)),
            Awaited::Created(id.to_owned()),
        );
        let container = id.to_owned();
        self.ask_agent(
            Request::Start {
                container: container.clone(),
            },
            Awaited::Started(container),
        );
    }

    fn network_of(&self, id: &str) -> Network {
        let wanted = self
            .containers
            .get(id)
            .is_some_and(|container| container.config.run.network);
        match (wanted, self.setting.pod) {
            (true, true) => Network::Sandbox,
            // Perhaps none: it can be connected while it runs.
            (true, false) => Network::Own {
                interfaces: self.setting.interfaces.clone(),
            },
            (false, _) => Network::None,
        }
    }

    /// The agent has executed a container's process.
    pub(super) fn started(&mut self, id: &str, pid: i32) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if container.first.stage == Stage::Asked {
            container.first.stage = Stage::Executing { pid };
        }
        container.phase = Phase::Running;
        container.paused = false;
        let stopping = container.is_stopped;
        container.recording.push_back(Recording::Started);
        self.tell(ToWarden::Started {
            container: id.to_owned(),
            pid,
            stopping,
        });
        self.begin_checks(id);
    }

    /// A container's root cannot be mounted.
    pub(super) fn mount_failed(&mut self, id: &str, failure: Failure) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let waiting = std::mem::take(&mut container.after_mount);
        for (ask, _) in waiting {
            self.answer(ask, Err(failure.clone()));
        }
        self.start_failed(id, failure);
    }

    /// A start has failed: recorded, then told.
    pub(super) fn start_failed(&mut self, id: &str, failure: Failure) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if container.phase != Phase::Starting {
            return;
        }
        container.phase = Phase::Recording;
        container.first.stage = Stage::Over;
        container.first.outputs.clear();
        let ports = std::mem::take(&mut container.first.ports);
        let error = failure.message.clone();
        let code = code_of(failure.kind);
        container
            .recording
            .push_back(Recording::StartFailed(failure));
        self.actions.push(Action::Close { ports });
        self.tell(ToWarden::StartFailed {
            container: id.to_owned(),
            code,
            error,
        });
    }

    /// What is due for a container at this time.
    pub(super) fn tick_container(&mut self, id: &str) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if container.measure_by.is_some_and(|by| now >= by) {
            container.measure_by = None;
            self.try_finish(&ProcessId::first(id));
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if container.kill_at.is_some_and(|at| now >= at) {
            container.kill_at = None;
            self.signal_first(id, libc::SIGKILL);
        }
        self.tick_checks(id);
        if let Some(Phase::Due(at)) = self.containers.get(id).map(|container| container.phase)
            && now >= at
        {
            match self.end.broken.is_some() {
                true => self.leave_restarts(),
                false => self.begin_start(id),
            }
        }
    }
}

fn mount(container: &Container, layers: Vec<Layer>, writes: &Writes) -> Mount {
    let writable = match (container.config.run.read_only, writes) {
        (true, _) => Writable::Nothing,
        (false, Writes::Folder(folder)) => Writable::Directory {
            path: format!("{folder}/{}", container.config.id),
        },
        (false, Writes::Disk { bytes }) => Writable::Disk {
            serial: SCRATCH_SERIAL.into(),
            grow_to_bytes: *bytes,
        },
    };
    Mount {
        container: container.config.id.clone(),
        root: Root::Layers { layers, writable },
    }
}

/// The exit code that stands for a failed start: Docker's.
pub(super) fn code_of(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::CommandNotFound => 127,
        FailureKind::CommandNotExecutable => 126,
        _ => 125,
    }
}
