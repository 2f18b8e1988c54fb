//! What happens between clients, agent and warden: step functions over what one of them said, which return what is to be done.
//!
//! ```text
//! client_said, client_gone --\                    /--> Answer, Attach          (clients)
//! agent_hello, agent_said ----\                  /---> Agent, Open, Close      (machine)
//! recorded, loaded, quit ------> Session --------------> Warden                (warden)
//! stream_ended, placed -------/                  \---> Measure, MachineDone, End
//! tick, machine_ended -------/
//! ```
//!
//! Invariants: no descriptor and no system call in here; every request of a client is answered once; an end is told when
//! the warden has recorded it, and recorded when the process's output has come to its end. docs/lifecycle.md is the
//! contract.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use protocol::agent::{
    Failure, FailureKind, ProcessId, Request as ToAgent, Stream, TOKEN_LEN, Wake,
};
use protocol::monitor::{Answer, ExecConfig, Measured, Request};
use protocol::record::ContainerConfig;

use crate::link::{Next, ToWarden};

mod agent;
mod container;
mod end;
mod exec;
mod exit;
mod files;
mod forward;
mod health;
mod networks;
mod process;
mod requests;
#[cfg(test)]
mod tests;

use agent::Awaited;
use container::{Container, Phase};
pub(crate) use end::Broken;

/// The first port of a stream: those below are the control connection's.
const FIRST_PORT: u32 = protocol::agent::CONTROL_PORT + 1;
/// Requests that wait for a container to be loaded.
const MAX_DEFERRED: usize = 64;

/// A client's connection.
pub(crate) type ClientId = u64;

/// A request that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ask {
    pub(crate) client: ClientId,
    pub(crate) seq: u64,
}

/// What a stream of the guest's is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// A process's standard input.
    Input(ProcessId),
    /// Its standard output, or its standard error.
    Output { process: ProcessId, is_stderr: bool },
    /// Its terminal, both ways.
    Terminal(ProcessId),
    /// An archive on its way to or from a client, which gets the stream itself.
    Transfer(Ask),
}

/// Something to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Answer a request.
    Answer {
        ask: Ask,
        result: Result<Answer, Failure>,
    },
    /// Give a client streams of a process.
    Attach {
        ask: Ask,
        process: ProcessId,
        /// stdin, stdout, stderr; or any of them for a terminal.
        streams: [bool; 3],
        terminal: bool,
        /// It may hold the process up without limit.
        primary: bool,
        /// The process's input ends with the client's.
        ends_input: bool,
    },
    /// Close a client's streams of a process without ending the process's input.
    Detach {
        client: ClientId,
        process: ProcessId,
    },
    /// Let the agent open a stream.
    Open { stream: Stream, role: Role },
    /// Let the agent open a stream that is a connection's to the host's socket.
    Join { connection: u64, port: u32 },
    /// Forget streams that were not opened, or are of no more use.
    Close { ports: Vec<u32> },
    /// The process has ended: its clients' streams end once they have been written.
    Finish { process: ProcessId },
    /// What this process writes is kept: [`Session::captured`].
    Capture { process: ProcessId },
    /// What is known of a container's health, for the warden to put on disk.
    Health {
        container: String,
        health: Box<protocol::record::Health>,
    },
    /// Put a container's layers on the layer device; answered by [`Session::placed`].
    Place { container: String },
    /// Send a request to the agent.
    Agent { seq: u64, request: ToAgent },
    /// Tell the warden.
    Warden(ToWarden),
    /// Ask hull-vmm for its figures; answered by [`Session::measured`].
    Measure,
    /// The machine may go.
    MachineDone,
    /// The speaker ends.
    End,
}

/// What takes the writes of a sandbox's containers.
#[derive(Debug)]
pub(crate) enum Writes {
    /// A directory for each in this folder of the host.
    Folder(String),
    /// The VM's writable disk, grown to this size.
    Disk { bytes: Option<u64> },
}

impl Writes {
    /// The containers are a VM's, to which connections to sockets of the host's are forwarded; a native one has the sockets
    /// themselves.
    fn are_of_a_vm(&self) -> bool {
        matches!(self, Writes::Disk { .. })
    }
}

/// How a session begins.
pub(crate) struct Setting {
    /// The sandbox's only container, if it has only one.
    pub(crate) single: Option<ContainerConfig>,
    /// It has any number of containers, which share its network.
    pub(crate) pod: bool,
    /// What takes its containers' writes.
    pub(crate) writes: Writes,
    /// Its containers share a PID namespace.
    pub(crate) shared_pid: bool,
    /// The agent is to shut the machine down at its end: its writable disk outlives it.
    pub(crate) keeps_disk: bool,
    /// What the containers' network interfaces are.
    pub(crate) interfaces: Vec<protocol::agent::Interface>,
    /// Measure at the end of each container.
    pub(crate) measure: bool,
    /// Started without a client's asking: what ran before.
    pub(crate) start: Vec<String>,
    /// Why there is no machine.
    pub(crate) failed: Option<Failure>,
    /// What a machine wakes with.
    pub(crate) wake: Box<dyn FnMut() -> Result<Wake, Failure>>,
    /// Draws a stream's token.
    pub(crate) token: Box<dyn FnMut() -> Result<[u8; TOKEN_LEN], Failure>>,
}

/// See the module.
pub(crate) struct Session {
    setting: Setting,
    /// The agent has said hello.
    ready: bool,
    containers: BTreeMap<String, Container>,
    clients: BTreeMap<ClientId, Client>,
    awaited: BTreeMap<u64, Awaited>,
    deferred: BTreeMap<String, VecDeque<(Ask, Request, Option<ExecConfig>)>>,
    measuring: Vec<Ask>,
    /// Clients that have the sandbox's networks changed, in the order in which the warden answers.
    changing_networks: VecDeque<Ask>,
    /// Connections to sockets of the host's that are being made, by the agent's numbers.
    connecting: BTreeSet<u64>,
    next_seq: u64,
    next_port: u32,
    end: end::End,
    now: Instant,
    actions: Vec<Action>,
}

#[derive(Debug, Default)]
struct Client {
    /// Requests that are not answered yet.
    open: usize,
}

impl Session {
    /// A session before its first message.
    pub(crate) fn new(mut setting: Setting, now: Instant) -> Session {
        let mut containers = BTreeMap::new();
        if let Some(config) = setting.single.take() {
            containers.insert(config.id.clone(), Container::new(config));
        }
        let start = std::mem::take(&mut setting.start);
        let failed = setting.failed.clone();
        let mut session = Session {
            setting,
            ready: false,
            containers,
            clients: BTreeMap::new(),
            awaited: BTreeMap::new(),
            deferred: BTreeMap::new(),
            measuring: Vec::new(),
            changing_networks: VecDeque::new(),
            connecting: BTreeSet::new(),
            next_seq: 1,
            next_port: FIRST_PORT,
            end: end::End::default(),
            now,
            actions: Vec::new(),
        };
        for id in start {
            session.start_again(&id);
        }
        if let Some(failure) = failed {
            session.end.broken = Some(failure);
        }
        session
    }

    /// What is to be done, in this order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        self.check_end();
        std::mem::take(&mut self.actions)
    }

    /// A container's record.
    pub(crate) fn config(&self, container: &str) -> Option<&ContainerConfig> {
        Some(&self.containers.get(container)?.config)
    }

    /// A client has connected.
    pub(crate) fn client_came(&mut self, client: ClientId) {
        self.end.had_client = true;
        self.clients.insert(client, Client::default());
    }

    /// A client has gone. What it asked for and was not begun is not begun (lifecycle H3); what runs, runs on (H4).
    pub(crate) fn client_gone(&mut self, client: ClientId) {
        self.clients.remove(&client);
        self.measuring.retain(|ask| ask.client != client);
        for deferred in self.deferred.values_mut() {
            deferred.retain(|(ask, ..)| ask.client != client);
        }
        let ready = self.ready;
        let mut given_up = Vec::new();
        for (id, container) in &mut self.containers {
            let wanted = !container.starters.is_empty();
            container.forget_client(client);
            if container.phase == Phase::Starting
                && wanted
                && container.starters.is_empty()
                && !ready
            {
                given_up.push(id.clone());
            }
        }
        for id in given_up {
            let failure = Failure::new(
                FailureKind::Other,
                "its client went away before it was started",
            );
            self.start_failed(&id, failure);
        }
    }

    /// Events follow that came at this time: the deadlines that they set count from it, however long the sleep was before.
    pub(crate) fn woke(&mut self, now: Instant) {
        self.now = now;
    }

    /// The time has come that [`Session::deadline`] named.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.now = now;
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            self.tick_container(&id);
        }
        self.tick_end();
    }

    /// When [`Session::tick`] is to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let containers = self.containers.values().filter_map(Container::deadline);
        containers.chain(self.end.deadline).min()
    }

    /// A container's record has come, or will not.
    pub(crate) fn loaded(
        &mut self,
        container: &str,
        result: Result<Box<ContainerConfig>, Failure>,
    ) {
        let deferred = self.deferred.remove(container).unwrap_or_default();
        match result {
            Ok(config) => {
                let loaded = || Container::new(*config);
                self.containers
                    .entry(container.to_owned())
                    .or_insert_with(loaded);
                for (ask, request, exec) in deferred {
                    self.obey(ask, request, exec);
                }
            }
            Err(failure) => {
                for (ask, ..) in deferred {
                    self.answer(ask, Err(failure.clone()));
                }
            }
        }
    }

    /// What the warden was told of a container is on disk.
    pub(crate) fn recorded(&mut self, container: &str, next: Next) {
        self.container_recorded(container, next);
    }

    /// hull-vmm's figures, or none.
    pub(crate) fn measured(&mut self, measured: Option<Box<Measured>>) {
        for ask in std::mem::take(&mut self.measuring) {
            let result = match &measured {
                Some(measured) => Ok(Answer::Measured(measured.clone())),
                None => Err(Failure::new(
                    FailureKind::Unsupported,
                    "only VMs can be measured",
                )),
            };
            self.answer(ask, result);
        }
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            if let Some(container) = self.containers.get_mut(&id)
                && container.measure_by.take().is_some()
            {
                container.measured = measured.clone();
                self.try_finish(&ProcessId::first(id));
            }
        }
    }

    fn answer(&mut self, ask: Ask, result: Result<Answer, Failure>) {
        if let Some(client) = self.clients.get_mut(&ask.client) {
            client.open = client.open.saturating_sub(1);
            self.actions.push(Action::Answer { ask, result });
        }
    }

    fn refuse(&mut self, ask: Ask, kind: FailureKind, message: impl Into<String>) {
        self.answer(ask, Err(Failure::new(kind, message)));
    }

    fn tell(&mut self, message: ToWarden) {
        self.actions.push(Action::Warden(message));
    }

    fn ask_agent(&mut self, request: ToAgent, awaited: Awaited) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.awaited.insert(seq, awaited);
        self.actions.push(Action::Agent { seq, request });
    }

    /// A port that was not used yet: more than four billion streams are more than a VM opens in its life.
    fn new_port(&mut self) -> u32 {
        let port = self.next_port;
        self.next_port = port.wrapping_add(1).max(FIRST_PORT);
        port
    }

    /// Lets the agent open a stream for `role`.
    fn open(&mut self, role: Role) -> Result<Stream, Failure> {
        let stream = Stream {
            port: self.new_port(),
            token: (self.setting.token)()?,
        };
        self.actions.push(Action::Open {
            stream: stream.clone(),
            role,
        });
        Ok(stream)
    }
}

/// Milliseconds that end after all that a clock can tell.
fn after(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now)
}
