//! The speaker: talks to the guest's agent and to the clients, and can do nothing else.
//!
//! ```text
//! warden, clients, agent, hull-vmm, streams --(epoll)--> Speaker --what was said--> Session --actions--> Speaker
//! ```
//!
//! Invariants: one thread; never blocks on a guest or a client; opens nothing: what it works with was opened before it was
//! confined, or comes from the warden. The session decides, this carries out.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

use protocol::agent::{Failure, FailureKind, FromAgent, Request as ToAgent};
use protocol::monitor::{FromMonitor, Measured};
use protocol::record::{ContainerConfig, Health};
use protocol::vmm::FromVmm;
use rustix::process::Pid;

use crate::agent::{self, Agent, Said};
use crate::chain;
use crate::link::{Link, ToSpeaker};
use crate::machine::{Backend, Machine};

mod birth;
mod client;
mod log;
mod machine;
mod networks;
mod poller;
mod session;
mod streams;

pub(crate) use birth::Birth;
use birth::{confine, new_log, setting};
use client::Client;
use poller::{Poller, Ready, Source};
use session::{Action, Ask, Broken, ClientId, Session};
use streams::{Attachment, Event, Streams};

/// What a speaker is born with.
pub(crate) struct Parts {
    pub(crate) link: Link,
    pub(crate) machine: Option<Machine>,
    /// Where the warden says how the machine's process ended.
    pub(crate) status: OwnedFd,
    /// Where its own last words go.
    pub(crate) words: OwnedFd,
    pub(crate) birth: Birth,
    /// A user of its own.
    pub(crate) user: Option<u32>,
    /// Its parent.
    pub(crate) warden: Pid,
}

/// Why a speaker cannot go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot give up what the speaker does not need")]
    Confine(#[source] io::Error),
    #[error("cannot wait for events")]
    Poll(#[from] io::Error),
    #[error(transparent)]
    Link(#[from] crate::link::Error),
    #[error(transparent)]
    Streams(#[from] streams::Error),
}

/// Runs a speaker to its end; the process's exit code.
pub(crate) fn run(parts: Parts) -> i32 {
    match Speaker::new(parts).and_then(Speaker::serve) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the speaker cannot go on");
            1
        }
    }
}

struct Speaker {
    poller: Poller,
    link: Link,
    session: Session,
    streams: Streams,
    machine: Option<Machine>,
    agent: Option<Agent>,
    clients: BTreeMap<ClientId, Client>,
    next_client: ClientId,
    /// Files of layers that are not on the layer device yet, by container.
    layer_files: BTreeMap<String, Vec<Option<OwnedFd>>>,
    /// Containers whose layers hull-vmm is adding, by request.
    adding: BTreeMap<u32, (String, Vec<protocol::agent::Layer>)>,
    next_addition: u32,
    /// Connections to sockets of the host's that the agent is not told of yet, by its numbers.
    reached: BTreeMap<u64, OwnedFd>,
    /// Where each container's health is written for the warden, which puts it on disk.
    health_files: BTreeMap<String, File>,
    notices: VecDeque<String>,
    hello_ns: Option<u64>,
    status: OwnedFd,
    is_ending: bool,
}

impl Speaker {
    fn new(parts: Parts) -> Result<Speaker, Error> {
        let Parts {
            link,
            mut machine,
            status,
            words,
            birth,
            user,
            warden,
        } = parts;
        let poller = Poller::new()?;
        // First: what is the warden's is not to be taken down here, whatever fails.
        if let Some(machine) = &mut machine {
            machine
                .leave_host(&status, birth.config.measure)
                .map_err(Error::Confine)?;
        }
        let agent = machine
            .as_ref()
            .map(|machine| machine.control.try_clone().map(Agent::new))
            .transpose()?;
        confine(user, warden, words).map_err(Error::Confine)?;
        let mut streams = Streams::new();
        let mut health_files = BTreeMap::new();
        let single = birth.single.map(|(config, log, health)| {
            health_files.insert(config.id.clone(), File::from(health));
            if let Some(log) = new_log(&config, log) {
                streams.set_log(&config.id, log);
            }
            config
        });
        let interfaces = machine
            .as_ref()
            .map_or_else(Vec::new, |machine| machine.interfaces.clone());
        let setting = setting(&birth.config, single, birth.start, birth.failed, interfaces);
        let speaker = Speaker {
            poller,
            link,
            session: Session::new(setting, Instant::now()),
            streams,
            agent,
            clients: BTreeMap::new(),
            next_client: 1,
            layer_files: BTreeMap::new(),
            adding: BTreeMap::new(),
            next_addition: 1,
            reached: BTreeMap::new(),
            health_files,
            notices: birth.notices.into(),
            hello_ns: None,
            status,
            is_ending: false,
            machine,
        };
        speaker.watch()?;
        Ok(speaker)
    }

    /// Waits for what is there from the start.
    fn watch(&self) -> Result<(), Error> {
        self.poller.add(&self.link, Source::Warden, Ready::READ)?;
        let (Some(machine), Some(agent)) = (&self.machine, &self.agent) else {
            return Ok(());
        };
        self.poller
            .add(agent.socket(), Source::Agent, Ready::READ)?;
        match &machine.backend {
            Backend::Vm(side) => {
                self.poller
                    .add(side.vmm.descriptor(), Source::Vmm, Ready::READ)?;
                if let Some(console) = side.console.descriptor() {
                    self.poller.add(console, Source::Console, Ready::READ)?;
                }
            }
            Backend::Native { .. } => {
                self.poller.add(&self.status, Source::Status, Ready::READ)?;
            }
        }
        Ok(())
    }

    fn serve(mut self) -> Result<(), Error> {
        loop {
            self.act()?;
            if self.is_ending
                && self.streams.is_idle()
                && self.clients.values().all(Client::is_idle)
            {
                return Ok(());
            }
            let deadlines = [self.session.deadline(), self.streams.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            let sources = self.poller.wait(deadline)?;
            self.session.woke(Instant::now());
            for (source, ready) in sources {
                self.ready(source, ready)?;
            }
            let now = Instant::now();
            let events = self.streams.drop_stalled(&self.poller, now)?;
            self.stream_events(events)?;
            self.session.tick(now);
        }
    }

    fn ready(&mut self, source: Source, ready: Ready) -> Result<(), Error> {
        match source {
            Source::Agent => self.agent_ready(),
            Source::Guest(port) => match self.streams.guest_ready(&self.poller, port, ready) {
                Ok(events) => self.stream_events(events),
                Err(error) => self.machine_broke(chain(&error)),
            },
            Source::Sink(id) => {
                let events = self.streams.sink_ready(&self.poller, id, ready)?;
                self.stream_events(events)
            }
            Source::Vmm => self.vmm_ready(),
            Source::Status => self.machine_broke("hull-native ended".to_owned()),
            Source::Console => self.console_ready(),
            Source::Warden => self.warden_ready(),
            Source::Client(id) => self.client_ready(id, ready),
        }
    }

    fn stream_events(&mut self, events: Vec<Event>) -> Result<(), Error> {
        for event in events {
            match event {
                Event::Ended {
                    process,
                    port,
                    failure,
                } => {
                    if let Some(why) = failure {
                        self.session.output_lost(&process, &why);
                    }
                    self.session.stream_ended(&process, port);
                }
                Event::Cut {
                    client,
                    process,
                    primary,
                    why,
                } => {
                    if !(primary && self.session.output_lost(&process, &why)) {
                        let text = format!("a part of the output was lost: {why}");
                        self.send(client, &FromMonitor::Notice { text }, Vec::new());
                    }
                }
                Event::Captured { process, bytes } => self.session.captured(&process, &bytes),
                Event::LogFull { container } => {
                    let message = crate::link::ToWarden::Rotate { container };
                    self.link.send(&message, &[])?;
                }
                Event::Transfer { ask, socket } => {
                    let streams = FromMonitor::Streams {
                        seq: ask.seq,
                        terminal: true,
                        pipes: [false; 3],
                    };
                    self.send(ask.client, &streams, vec![socket]);
                }
            }
        }
        Ok(())
    }

    fn warden_ready(&mut self) -> Result<(), Error> {
        let (message, descriptors) = self.link.receive::<ToSpeaker>()?;
        match message {
            ToSpeaker::Client => {
                if let Some(socket) = descriptors.into_iter().next() {
                    self.welcome(socket)?;
                }
            }
            ToSpeaker::Recorded { container, next } => self.session.recorded(&container, next),
            ToSpeaker::Loaded {
                container,
                log,
                shares,
                result,
            } => self.loaded(&container, log, shares, result, descriptors)?,
            ToSpeaker::Networks { container, result } => {
                self.networks_changed(&container, result, descriptors)?;
            }
            ToSpeaker::Log { container } => {
                if let Some(log) = self.streams.log_mut(&container) {
                    log.replace(descriptors.into_iter().next());
                }
            }
            ToSpeaker::Connected { connection } => {
                let socket = descriptors.into_iter().next();
                let is_reached = socket.is_some();
                self.reached
                    .extend(socket.map(|socket| (connection, socket)));
                self.session.reached(connection, is_reached);
            }
            ToSpeaker::Quit => self.session.quit(false),
        }
        Ok(())
    }

    /// A container enters the sandbox, with its files.
    fn loaded(
        &mut self,
        container: &str,
        log: bool,
        shares: bool,
        result: Result<(), Failure>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Error> {
        let mut descriptors = descriptors.into_iter();
        let config = result.and_then(|()| {
            let file = descriptors
                .next()
                .ok_or_else(|| broken("its record did not come"))?;
            client::read_document::<ContainerConfig>(file).map_err(|error| broken(&chain(&error)))
        });
        match config {
            Ok(config) => {
                self.health_files.extend(
                    descriptors
                        .next()
                        .map(|file| (container.to_owned(), file.into())),
                );
                let log = if log { descriptors.next() } else { None };
                if let Some(log) = new_log(&config, log) {
                    self.streams.set_log(container, log);
                }
                if let Some(socket) = shares.then(|| descriptors.next()).flatten() {
                    self.serve_fs(socket)?;
                }
                let files = descriptors.map(Some).collect();
                self.layer_files.insert(container.to_owned(), files);
                self.session.loaded(container, Ok(Box::new(config)));
            }
            Err(failure) => self.session.loaded(container, Err(failure)),
        }
        Ok(())
    }

    /// Writes what is known of a container's health where the warden finds it.
    fn write_health(&mut self, container: &str, health: &Health) {
        let Some(file) = self.health_files.get_mut(container) else {
            return;
        };
        let written = serde_json::to_vec(health)
            .map_err(io::Error::from)
            .and_then(|text| {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&text)
            });
        if let Err(error) = written {
            tracing::warn!(%error, "a health check's result is lost");
        }
    }

    /// Carries out what the session wants done.
    fn act(&mut self) -> Result<(), Error> {
        loop {
            let actions = self.session.take_actions();
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                tracing::debug!(?action, "to be done");
                self.carry_out(action)?;
            }
        }
    }

    fn carry_out(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Answer { ask, result } => {
                let seq = ask.seq;
                self.send(ask.client, &FromMonitor::Answer { seq, result }, Vec::new());
            }
            Action::Attach {
                ask,
                process,
                streams,
                terminal,
                primary,
                ends_input,
            } => {
                let how = Attachment {
                    streams,
                    terminal,
                    primary,
                    ends_input,
                };
                let (ends, pipes) = self
                    .streams
                    .attach(&self.poller, ask.client, &process, how)?;
                let message = FromMonitor::Streams {
                    seq: ask.seq,
                    terminal,
                    pipes,
                };
                self.send(ask.client, &message, ends);
            }
            Action::Detach { client, process } => {
                self.streams.detach(&self.poller, client, Some(&process))?;
            }
            Action::Open { stream, role } => self.open(&stream, role)?,
            Action::Join { connection, port } => self.join(connection, port)?,
            Action::Close { ports } => self.streams.close(&self.poller, &ports),
            Action::Finish { process } => self.streams.finish(&self.poller, &process),
            Action::Capture { process } => self.streams.capture(process),
            Action::Health { container, health } => self.write_health(&container, &health),
            Action::Place { container } => self.place(&container),
            Action::Agent { seq, request } => self.ask_agent(seq, request)?,
            Action::Warden(message) => self.link.send(&message, &[])?,
            Action::Measure => self.measure(),
            Action::MachineDone => {
                self.link.send(&crate::link::ToWarden::MachineDone, &[])?;
                self.forget_machine();
            }
            Action::End => self.is_ending = true,
        }
        Ok(())
    }
}

fn broken(why: &str) -> Failure {
    Failure::new(
        FailureKind::Other,
        format!("cannot load the container: {why}"),
    )
}

/// For `fuzz/` only: a guest that opens a stream with `bytes`, which reach no client without the stream's token.
#[cfg(fuzzing)]
pub(crate) fn fuzz_stream(bytes: &[u8]) {
    use protocol::agent::{ProcessId, Stream, TOKEN_LEN};
    let (Ok(poller), Ok((ours, theirs))) = (Poller::new(), sys::packet::stream_pair()) else {
        return;
    };
    let mut token = [0; TOKEN_LEN];
    if sys::random::fill(&mut token).is_err() || rustix::io::write(&theirs, bytes).is_err() {
        return;
    }
    let process = ProcessId::first("c");
    let role = session::Role::Output {
        process: process.clone(),
        is_stderr: false,
    };
    let how = Attachment {
        streams: [false, true, false],
        terminal: false,
        primary: true,
        ends_input: true,
    };
    let mut streams = Streams::new();
    let stream = Stream { port: 2000, token };
    let opened = streams.open(&poller, &stream, role, ours);
    let (Ok(()), Ok((ends, _))) = (opened, streams.attach(&poller, 1, &process, how)) else {
        return;
    };
    let came = streams.guest_ready(&poller, 2000, Ready::READ);
    // Fewer bytes may be the token's beginning, by chance, and are not let through.
    assert!(
        bytes.len() < TOKEN_LEN || came.is_err(),
        "a guessed token was taken"
    );
    let mut byte = [0];
    let flags = rustix::net::RecvFlags::DONTWAIT;
    assert!(rustix::net::recv(&ends[0], &mut byte, flags).is_err());
}
