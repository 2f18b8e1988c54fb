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
    Create, ExitStatus, Failure, FailureKind, Layer, Mount, Network, PidNamespace, Request, Root,
    Writable,
};
use protocol::monitor::{Answer, Exit, Measured, WaitUntil};
use protocol::record::ContainerConfig;

use super::agent::Awaited;
use super::process::{Process, Stage};
use super::{Action, Ask, ClientId, ProcessId, Session, after};
use crate::devices::SCRATCH_SERIAL;
use crate::link::{Next, ToWarden};

/// How long the last measurement may take before an end is told without it.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(2);

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
    pub(super) measure_by: Option<Instant>,
    pub(super) measured: Option<Box<Measured>>,
    /// It has been started in this session.
    pub(super) has_run: bool,
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
            measure_by: None,
            measured: None,
            has_run: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = match self.phase {
            Phase::Due(at) => Some(at),
            _ => None,
        };
        [due, self.kill_at, self.measure_by]
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

    /// It runs, or will without anybody's doing.
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
                let request =
                    Request::Mount(mount(container, layers, self.setting.native.as_deref()));
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
        let interface = self.setting.interface.clone();
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.first.stage = Stage::Asked;
        container.first.ports = ports;
        container.first.outputs = outputs;
        container.first.lost = None;
        container.measured = None;
        let run = &container.config.run;
        let etc = run.etc_with(interface.as_ref().filter(|_| run.network));
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
        match (wanted, self.setting.pod, &self.setting.interface) {
            (true, true, _) => Network::Sandbox,
            (true, false, Some(interface)) => Network::Own(interface.clone()),
            _ => Network::None,
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
        container.recording.push_back(Recording::Started);
        self.tell(ToWarden::Started {
            container: id.to_owned(),
            pid,
        });
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

    /// The agent says that a process has ended.
    pub(super) fn exited(&mut self, process: &ProcessId, status: ExitStatus, oom_killed: bool) {
        let measure = self.setting.measure && process.exec.is_none();
        let now = self.now;
        let Some(known) = self.process_mut(process) else {
            return;
        };
        // An end comes behind the reply to the start: one that does not is an invention.
        if !matches!(known.stage, Stage::Executing { .. }) {
            return;
        }
        known.stage = Stage::Exited { status, oom_killed };
        if measure && let Some(container) = self.containers.get_mut(&process.container) {
            container.measure_by = Some(after(now, MEASURE_TIMEOUT));
            self.actions.push(Action::Measure);
        }
        self.try_finish(process);
    }

    /// Goes on with a process's end, once its output has come to its end and what is measured is there.
    pub(super) fn try_finish(&mut self, process: &ProcessId) {
        let Some(container) = self.containers.get_mut(&process.container) else {
            return;
        };
        let measuring = container.measure_by.is_some() && process.exec.is_none();
        let measured = container.measured.clone();
        let Some(known) = self.process_mut(process) else {
            return;
        };
        let Stage::Exited { status, oom_killed } = known.stage else {
            return;
        };
        if measuring || !known.is_drained() {
            return;
        }
        known.stage = Stage::Over;
        let exit = Exit {
            status,
            oom_killed,
            error: known.lost.take().map(|why| {
                format!("the process has ended, and a part of its output was lost: {why}")
            }),
            console: Vec::new(),
            measured: measured.filter(|_| process.exec.is_none()),
        };
        match &process.exec {
            Some(_) => self.tell_exit(process, exit),
            None => self.record_exit(&process.container, exit),
        }
    }

    /// Has a container's end recorded.
    pub(super) fn record_exit(&mut self, id: &str, exit: Exit) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.phase = Phase::Recording;
        container.kill_at = None;
        container.paused = false;
        let message = ToWarden::Exited {
            container: id.to_owned(),
            status: exit.status,
            oom_killed: exit.oom_killed,
            error: exit.error.clone(),
        };
        container
            .recording
            .push_back(Recording::Exited(Box::new(exit)));
        self.tell(message);
    }

    /// Tells a process's end to everybody who waits for it, and ends its clients' streams.
    pub(super) fn tell_exit(&mut self, process: &ProcessId, exit: Exit) {
        let Some(known) = self.process_mut(process) else {
            return;
        };
        let waiters = std::mem::take(&mut known.waiters);
        known.exit = Some(exit.clone());
        for (ask, _) in waiters {
            self.answer(ask, Ok(Answer::Exited(Box::new(exit.clone()))));
        }
        self.actions.push(Action::Finish {
            process: process.clone(),
        });
    }

    /// The warden has recorded what it was told first of what it has not recorded yet.
    pub(super) fn container_recorded(&mut self, id: &str, next: Next) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(recording) = container.recording.pop_front() else {
            return;
        };
        match recording {
            Recording::Started => {
                let pid = match container.first.stage {
                    Stage::Executing { pid } => pid,
                    _ => 0,
                };
                for ask in std::mem::take(&mut container.starters) {
                    self.answer(ask, Ok(Answer::Started { pid }));
                }
            }
            Recording::StartFailed(failure) => self.tell_start_failed(id, failure),
            Recording::Stopping { signal, timeout } => self.stop_now(id, signal, timeout),
            Recording::Killing { ask, signal } => self.kill_now(id, ask, signal),
            Recording::Paused { ask } => self.answer(ask, Ok(Answer::Done)),
            Recording::Exited(exit) => {
                // Without a machine, the restart is the warden's: with another machine and another speaker.
                let goes_on = !self.end.quitting && self.end.broken.is_none();
                container.phase = match next {
                    Next::Restart { after_ms } if goes_on => {
                        Phase::Due(after(now, Duration::from_millis(after_ms)))
                    }
                    _ => Phase::Idle,
                };
                let stoppers = std::mem::take(&mut container.stoppers);
                self.tell_exit(&ProcessId::first(id), (*exit).clone());
                for ask in stoppers {
                    self.answer(ask, Ok(Answer::Exited(exit.clone())));
                }
            }
        }
    }

    fn tell_start_failed(&mut self, id: &str, failure: Failure) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.phase = Phase::Idle;
        let starters = std::mem::take(&mut container.starters);
        let stoppers = std::mem::take(&mut container.stoppers);
        let (next, rest) = std::mem::take(&mut container.first.waiters)
            .into_iter()
            .partition(|(_, until)| *until == WaitUntil::NextExit);
        container.first.waiters = rest;
        let next: Vec<(Ask, WaitUntil)> = next;
        let asks = starters
            .into_iter()
            .chain(next.into_iter().map(|(ask, _)| ask));
        for ask in asks {
            self.answer(ask, Err(failure.clone()));
        }
        for ask in stoppers {
            self.answer(ask, Ok(Answer::Done));
        }
        self.actions.push(Action::Finish {
            process: ProcessId::first(id),
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
        if let Some(Phase::Due(at)) = self.containers.get(id).map(|container| container.phase)
            && now >= at
        {
            self.begin_start(id);
        }
    }
}

fn mount(container: &Container, layers: Vec<Layer>, native: Option<&str>) -> Mount {
    let writable = match (container.config.run.read_only, native) {
        (true, _) => Writable::Nothing,
        (false, Some(folder)) => Writable::Directory {
            path: format!("{folder}/{}", container.config.id),
        },
        (false, None) => Writable::Disk {
            serial: SCRATCH_SERIAL.into(),
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
