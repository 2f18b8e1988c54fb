//! Requests: each container's in the order of their arrival, one container's beside another's.
//!
//! A request that is carried out at once is answered by what begins it; one that takes time is answered by whatever
//! finds it done. Only those that make, start and remove a container hold up the requests behind them. A request for
//! an exec that is starting waits for that exec alone.

use container::{Resources, Rlimit, Spec};
use protocol::agent::{Create, Done, Exec, Mount, Networks, ProcessId, Request, TerminalSize};
use serde_json::value::RawValue;
use sys::sigset;

use crate::Surroundings;
use crate::containers::{Container, MAX_QUEUED, Phase, Process, check_name, subject, unknown};
use crate::failure::Refusal;
use crate::roots::RootFs;
use crate::sandbox::change_network;
use crate::server::{Server, Source};
use crate::streams::Streams;

/// What beginning a request has come to: its answer, or `None` when that comes later.
pub(crate) type Begun = Result<Option<Done>, Refusal>;

const OK: Begun = Ok(Some(Done::Ok));

impl Server {
    /// Takes a request: begins it, or puts it behind those that must come first.
    pub(crate) fn take(&mut self, seq: u64, request: Request) {
        let Some(name) = subject(&request).map(str::to_owned) else {
            let done = match request {
                Request::Network(interfaces) => self
                    .sandbox
                    .add_network(&self.place, &interfaces)
                    .map(|()| Done::Ok),
                Request::Forward { connection, port } => self.forward(connection, port),
                _ => Err(Refusal::AwakeAlready),
            };
            return self.answer(seq, done.map(Some));
        };
        let Some(container) = self.containers.get_mut(&name) else {
            let begun = match request {
                Request::Mount(mount) => self.mount(&mount),
                _ => Err(Refusal::UnknownContainer(name)),
            };
            return self.answer(seq, begun);
        };
        if container.queue.len() >= MAX_QUEUED {
            return self.answer(seq, Err(Refusal::TooManyRequests(name)));
        }
        container.queue.push_back((seq, request));
        self.go_on(&name);
    }

    /// Begins what may be begun of a container's requests.
    pub(crate) fn go_on(&mut self, name: &str) {
        while let Some(container) = self.containers.get_mut(name).filter(|c| c.may_begin()) {
            let Some((seq, request)) = container.queue.pop_front() else {
                return;
            };
            let begun = self.begin(seq, name, request);
            self.answer(seq, begun);
        }
    }

    fn answer(&mut self, seq: u64, begun: Begun) {
        match begun {
            Ok(None) => {}
            Ok(Some(done)) => self.reply(seq, Ok(done)),
            Err(refusal) => self.reply(seq, Err(refusal)),
        }
    }

    fn begin(&mut self, seq: u64, name: &str, request: Request) -> Begun {
        match request {
            Request::Mount(mount) => Err(Refusal::Exists(mount.container)),
            Request::Create(create) => self.create(seq, *create),
            Request::Start { .. } => self.start(seq, name),
            Request::Exec(exec) => self.exec(seq, *exec),
            Request::Signal { .. } | Request::Resize { .. } => self.reach_process(seq, request),
            Request::Pause { .. } => self.pause(seq, name),
            Request::Resume { .. } => self.resume(name),
            Request::Update { resources, .. } => self.update(name, &resources),
            Request::Networks(networks) => self.networks(name, *networks),
            Request::Stats { .. } => self.stats(name),
            Request::Delete { writable, .. } => self.delete(seq, name, writable),
            request => self.set_to_work(seq, name, request),
        }
    }

    fn mount(&mut self, request: &Mount) -> Begun {
        let name = &request.container;
        check_name("a container's name", name)?;
        let dir = self.place.run_dir.join("containers").join(name);
        let root = RootFs::mount(dir, request, &mut self.layers, &mut self.disks)?;
        self.containers
            .insert(name.clone(), Container::mounted(root));
        OK
    }

    fn create(&mut self, seq: u64, request: Create) -> Begun {
        let id = ProcessId::first(&request.container);
        if let Some(process) = self.processes.get(&id) {
            return Err(wrong_state(&id.container, process.phase.name(), "mounted"));
        }
        let mut spec = Spec::from_json(request.spec.get().as_bytes())?;
        let container = self.containers.get_mut(&id.container).expect("begun");
        spec.root.readonly |= container.root.is_read_only();
        // The agent's own score must not be inherited: nothing in the container could be killed for want of memory.
        spec.process.oom_score_adj.get_or_insert(0);
        self.place.limit_files(&mut spec.process);
        if self.place.is_own_machine && !request.shares.is_empty() {
            self.sandbox.mount_shares()?;
        }
        for socket in &request.sockets {
            self.listen(socket)?;
        }
        let container = self.containers.get_mut(&id.container).expect("begun");
        let Streams {
            stdio,
            pumps,
            terminal,
        } = Streams::open(&request.stdio, &self.place)?;
        let network = self
            .sandbox
            .network(&request.network, container, &self.place)?;
        let building = container::create(container::Request {
            spec,
            rootfs: container.root.rootfs(),
            user: request.user,
            groups: request.groups,
            seccomp: request.seccomp,
            init: request.init,
            stdio,
            etc: files(request.etc),
            network,
            pid: self.sandbox.processes(request.pid)?,
            volumes: request.volumes.into_iter().map(Into::into).collect(),
            shares: request
                .shares
                .into_iter()
                .map(|share| container::Share {
                    destination: share.destination.into(),
                    fill: share.fill,
                })
                .collect(),
            own_machine: self.place.is_own_machine,
            cgroup: self.place.cgroup.join(&request.container),
            run_dir: container.root.files(),
        })?;
        container.is_held = true;
        let number = self.poll.number();
        let pid = building.pid();
        let mut process = Process::new(
            pid,
            Phase::Building {
                seq,
                number,
                building,
            },
        );
        process.stream = terminal;
        if let protocol::agent::Network::Own { interfaces } = request.network {
            process.interfaces = Some(interfaces);
        }
        self.add_process(id, process, pumps)?;
        Ok(None)
    }

    fn start(&mut self, seq: u64, name: &str) -> Begun {
        let id = ProcessId::first(name);
        let state = match self.processes.get(&id) {
            Some(process) if matches!(process.phase, Phase::Created(_)) => "created",
            Some(process) if matches!(process.phase, Phase::Died) => {
                self.give_up(&id);
                return Err(Refusal::EndedBeforeStart(name.to_owned()));
            }
            Some(process) => process.phase.name(),
            None => "mounted",
        };
        let process = match self.processes.remove(&id) {
            Some(process) if state == "created" => process,
            process => {
                process.map(|process| self.processes.insert(id, process));
                return Err(wrong_state(name, state, "created"));
            }
        };
        let Phase::Created(created) = process.phase else {
            unreachable!("looked at above");
        };
        let number = self.poll.number();
        let phase = Phase::Starting {
            seq,
            number,
            starting: created.start(),
        };
        let process = Process { phase, ..process };
        self.containers.get_mut(name).expect("begun").is_held = true;
        self.add_process(id, process, Vec::new())?;
        Ok(None)
    }

    fn exec(&mut self, seq: u64, request: Exec) -> Begun {
        let id = request.process.clone();
        let container = self.containers.get(&id.container).expect("begun");
        check_name("an exec's name", id.exec.as_deref().unwrap_or_default())?;
        if self.processes.contains_key(&id) {
            return Err(Refusal::ExecExists {
                container: id.container,
                exec: id.exec.unwrap_or_default(),
            });
        }
        let joinable = container.running.clone();
        let Some(joinable) = joinable.filter(|_| container.is_thawed()) else {
            let state = self.state_of(&id.container);
            return Err(wrong_state(&id.container, state, "running"));
        };
        let process =
            serde_json::from_str(request.document.get()).map_err(container::Unreadable::from)?;
        let Streams {
            stdio,
            pumps,
            terminal,
        } = Streams::open(&request.stdio, &self.place)?;
        let starting = container::exec(
            &joinable,
            container::ExecRequest {
                process,
                user: request.user,
                seccomp: request.seccomp,
                stdio,
            },
        )?;
        let number = self.poll.number();
        let pid = starting.pid();
        let phase = Phase::Starting {
            seq,
            number,
            starting,
        };
        let mut process = Process::new(pid, phase);
        process.stream = terminal;
        self.add_process(id, process, pumps)?;
        Ok(None)
    }

    fn networks(&mut self, name: &str, request: Networks) -> Begun {
        let container = self.containers.get_mut(name).expect("begun");
        if container.running.is_none() {
            return Err(wrong_state(name, self.state_of(name), "running"));
        }
        change_network(container, request.interfaces, &self.place)?;
        let (before, after) = (files(request.before), files(request.after));
        container::edit_etc(&container.root.files(), &before, &after)?;
        OK
    }

    fn update(&mut self, name: &str, resources: &RawValue) -> Begun {
        let container = self.containers.get(name).expect("begun");
        let Some(joinable) = &container.running else {
            return Err(wrong_state(name, self.state_of(name), "running"));
        };
        let resources: Resources =
            serde_json::from_str(resources.get()).map_err(container::Unreadable::from)?;
        joinable.cgroup().update(&resources)?;
        OK
    }

    /// A signal or a new size, for a process that runs, or later for one that is starting.
    pub(crate) fn reach_process(&mut self, seq: u64, request: Request) -> Begun {
        let (Request::Signal { process: id, .. } | Request::Resize { process: id, .. }) = &request
        else {
            unreachable!("no other request comes here");
        };
        let Some(process) = self.processes.get_mut(id) else {
            return Err(unknown(id, self.state_of(&id.container)));
        };
        if matches!(process.phase, Phase::Starting { .. }) {
            if process.deferred.len() >= MAX_QUEUED {
                return Err(Refusal::TooManyRequests(id.container.clone()));
            }
            process.deferred.push((seq, request));
            return Ok(None);
        }
        match request {
            Request::Signal {
                process: id,
                signal,
                all,
            } => self.signal(&id, signal, all),
            Request::Resize { process: id, size } => self.resize(&id, size),
            _ => unreachable!("looked at above"),
        }
    }

    fn signal(&mut self, id: &ProcessId, signal: i32, all: bool) -> Begun {
        if !(1..=sigset::MAX).contains(&signal) {
            return Err(Refusal::NoSuchSignal(signal));
        }
        let process = self.processes.get(id).expect("looked at by the caller");
        let pidfd = process.pidfd().ok_or_else(|| not_running(id, process))?;
        let container = self.containers.get(&id.container);
        match container.and_then(|container| container.running.as_ref()) {
            Some(joinable) if all => joinable.cgroup().signal(signal)?,
            _ => sigset::send(pidfd, signal).map_err(Refusal::Signal)?,
        }
        OK
    }

    fn resize(&mut self, id: &ProcessId, size: TerminalSize) -> Begun {
        let process = self.processes.get(id).expect("looked at by the caller");
        if process.pidfd().is_none() {
            return Err(not_running(id, process));
        }
        let terminal = process.terminal.as_ref().ok_or(Refusal::NoTerminal)?;
        container::set_terminal_size(terminal, size.rows, size.columns).map_err(Refusal::Resize)?;
        OK
    }

    /// How far a container has come, in a word.
    pub(crate) fn state_of(&self, name: &str) -> &'static str {
        let is_thawed = self.containers.get(name).is_none_or(Container::is_thawed);
        match self.processes.get(&ProcessId::first(name)) {
            None => "mounted",
            Some(Process {
                phase: Phase::Running { .. },
                ..
            }) if !is_thawed => "paused",
            Some(process) => process.phase.name(),
        }
    }

    /// Registers a process that is made, and its pumps; nothing of it is left if that fails.
    fn add_process(
        &mut self,
        id: ProcessId,
        process: Process,
        pumps: Vec<crate::pump::Pump>,
    ) -> Result<(), Refusal> {
        use crate::poll::{EventFlags, Side};
        let (number, watched) = match &process.phase {
            Phase::Building {
                number, building, ..
            } => (
                *number,
                self.poll.add(building, *number, Side::From, EventFlags::IN),
            ),
            Phase::Starting {
                number, starting, ..
            } => (
                *number,
                self.poll.add(starting, *number, Side::From, EventFlags::IN),
            ),
            _ => unreachable!("a process that is made is being built or starts"),
        };
        self.children.insert(process.pid.as_raw_pid(), id.clone());
        self.processes.insert(id.clone(), process);
        self.sources.insert(number, Source::Process(id.clone()));
        let result = watched.and_then(|()| self.add_pumps(&id, pumps));
        result.map_err(|source| {
            self.give_up(&id);
            Refusal::Wait {
                what: "the process and its streams",
                source,
            }
        })
    }
}

impl Surroundings {
    /// Gives a process its limit of open files, where its document gives none.
    fn limit_files(&self, process: &mut container::Process) {
        const NAME: &str = "RLIMIT_NOFILE";
        let Some((soft, hard)) = self.open_files else {
            return;
        };
        if !process.rlimits.iter().any(|limit| limit.kind == NAME) {
            process.rlimits.push(Rlimit {
                kind: NAME.to_owned(),
                soft,
                hard,
            });
        }
    }
}

fn files(etc: protocol::agent::EtcFiles) -> container::EtcFiles {
    container::EtcFiles {
        hosts: etc.hosts,
        hostname: etc.hostname,
        resolv_conf: etc.resolv_conf,
    }
}

fn not_running(id: &ProcessId, process: &Process) -> Refusal {
    match id.exec {
        Some(_) => Refusal::ProcessEnded,
        None => wrong_state(&id.container, process.phase.name(), "running"),
    }
}

pub(crate) fn wrong_state(name: &str, state: &'static str, wanted: &'static str) -> Refusal {
    Refusal::WrongState {
        name: name.to_owned(),
        state,
        wanted,
    }
}
