//! Sessions in any order of events: what clients are told, what is recorded before, and what never happens.

use std::collections::BTreeMap;

use protocol::agent::{Done, ExitStatus, FromAgent, Root};
use protocol::monitor::WaitUntil;
use protocol::record::{LogConfig, RestartPolicy, Run, Stdio};
use serde_json::value::RawValue;

use super::*;

mod forward;
mod hazards;
mod health;
mod networks;
mod order;

/// A session whose surroundings are written down.
struct World {
    session: Session,
    now: Instant,
    /// Answers, as `client/seq: what`.
    told: Vec<String>,
    /// Requests to the agent that wait for a reply, with their numbers.
    agent: Vec<(u64, ToAgent)>,
    warden: Vec<ToWarden>,
    /// Everything that was done, in order, by name.
    log: Vec<String>,
    open: BTreeMap<u32, Role>,
    /// What was last known of the container's health.
    health: Option<protocol::record::Health>,
}

const ID: &str = "box";

fn document(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// A container of a pod that is removed at its end.
const REMOVED: &str = "once";

fn config(id: &str, restart: RestartPolicy) -> ContainerConfig {
    ContainerConfig {
        version: 1,
        id: id.to_owned(),
        name: format!("name-of-{id}"),
        created_ns: 0,
        sandbox: id.to_owned(),
        image: "demo".into(),
        image_id: "sha256:0".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        run: Run {
            spec: document("{}"),
            user: None,
            groups: Vec::new(),
            seccomp: None,
            init: false,
            stdio: Stdio::Pipes {
                stdin: true,
                stdin_once: true,
            },
            etc: Default::default(),
            own_names: Vec::new(),
            gateway_names: Vec::new(),
            layers: Vec::new(),
            read_only: false,
            volumes: Vec::new(),
            mounts: Vec::new(),
            pid: Default::default(),
            network: false,
        },
        restart,
        auto_remove: false,
        stop_signal: 15,
        stop_timeout_s: 10,
        log: LogConfig::None,
        network: None,
        networks: None,
        health: None,
        asked: document("{}"),
    }
}

fn setting(single: Option<ContainerConfig>) -> Setting {
    Setting {
        pod: single.is_none(),
        writes: Writes::Disk { bytes: None },
        shared_pid: false,
        keeps_disk: true,
        interfaces: Vec::new(),
        measure: false,
        start: Vec::new(),
        failed: None,
        wake: Box::new(|| {
            Ok(Wake {
                realtime_ns: 0,
                entropy: [0; 32],
            })
        }),
        token: Box::new(|| Ok([0; TOKEN_LEN])),
        single,
    }
}

impl World {
    fn of(setting: Setting) -> World {
        let now = Instant::now();
        let mut world = World {
            session: Session::new(setting, now),
            now,
            told: Vec::new(),
            agent: Vec::new(),
            warden: Vec::new(),
            log: Vec::new(),
            open: BTreeMap::new(),
            health: None,
        };
        world.act();
        world
    }

    fn single(restart: RestartPolicy) -> World {
        World::of(setting(Some(config(ID, restart))))
    }

    /// A container that runs, started by client 1 as its request 1.
    fn running(restart: RestartPolicy) -> World {
        let mut world = World::single(restart);
        world.session.agent_hello();
        world.client(1);
        world.ask(1, 1, start(ID));
        world.settle();
        assert_eq!(world.told, ["1/1: started 7"]);
        world.told.clear();
        world
    }

    fn client(&mut self, id: ClientId) {
        self.session.client_came(id);
        self.act();
    }

    fn ask(&mut self, client: ClientId, seq: u64, request: Request) {
        self.session.client_said(Ask { client, seq }, request, None);
        self.act();
    }

    fn exec(&mut self, client: ClientId, seq: u64, name: &str) {
        let exec = ExecConfig {
            document: document("{}"),
            user: None,
            seccomp: None,
            stdio: Stdio::Pipes {
                stdin: false,
                stdin_once: true,
            },
            attach: [false, true, true],
        };
        let process = ProcessId::exec(ID, name);
        self.session
            .client_said(Ask { client, seq }, Request::Exec { process }, Some(exec));
        self.act();
    }

    fn act(&mut self) {
        loop {
            let actions = self.session.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.note(action);
            }
        }
    }

    fn note(&mut self, action: Action) {
        match action {
            Action::Answer { ask, result } => {
                let what = match result {
                    Ok(Answer::Started { pid }) => format!("started {pid}"),
                    Ok(Answer::Exited(exit)) => match &exit.error {
                        Some(error) => format!("exited {} ({error})", exit.status.code()),
                        None => format!("exited {}", exit.status.code()),
                    },
                    Ok(Answer::Done) => "done".to_owned(),
                    Ok(other) => format!("{other:?}"),
                    Err(failure) => format!("{:?}: {}", failure.kind, failure.message),
                };
                self.told
                    .push(format!("{}/{}: {what}", ask.client, ask.seq));
                self.log.push(format!("answer {}/{}", ask.client, ask.seq));
            }
            Action::Agent { seq, request } => {
                self.log.push(format!("agent {}", name(&request)));
                if !matches!(request, ToAgent::Shutdown { .. }) {
                    self.agent.push((seq, request));
                }
            }
            Action::Warden(message) => {
                self.log
                    .push(format!("warden {}", word(&format!("{message:?}"))));
                self.warden.push(message);
            }
            Action::Open { stream, role } => {
                self.open.insert(stream.port, role);
            }
            Action::Close { ports } => {
                for port in ports {
                    self.open.remove(&port);
                }
            }
            Action::Join { connection, port } => {
                self.log.push(format!("join {connection} at {port}"));
            }
            Action::Place { container } => self.session.placed(&container, Ok(Vec::new())),
            Action::Attach { ask, primary, .. } => {
                let kind = if primary { "primary" } else { "later" };
                self.log
                    .push(format!("attach {}/{} {kind}", ask.client, ask.seq));
            }
            Action::Finish { process } => self.log.push(format!("finish {process:?}")),
            Action::Health { health, .. } => self.health = Some(*health),
            Action::Capture { .. } => {}
            Action::Detach { .. } | Action::Measure => {}
            Action::MachineDone => self.log.push("machine done".into()),
            Action::End => self.log.push("end".into()),
        }
    }

    /// The agent carries out its oldest request.
    fn agent_replies(&mut self) {
        let (seq, request) = self.agent.remove(0);
        let result = Ok(match request {
            ToAgent::Start { .. } | ToAgent::Exec(_) => Done::Started { pid: 7 },
            _ => Done::Ok,
        });
        self.session.agent_said(FromAgent::Reply { seq, result });
        self.act();
    }

    /// The warden records the oldest thing that it was told, by this decision.
    fn warden_records(&mut self, next: Next) {
        let container = match self.warden.remove(0) {
            ToWarden::Started { container, .. }
            | ToWarden::StartFailed { container, .. }
            | ToWarden::Stopping { container }
            | ToWarden::Exited { container, .. }
            | ToWarden::Paused { container, .. } => container,
            ToWarden::Load { container } => {
                let mut config = config(&container, RestartPolicy::No);
                config.auto_remove = container == REMOVED;
                self.session.loaded(&container, Ok(Box::new(config)));
                return self.act();
            }
            _ => return,
        };
        self.session.recorded(&container, next);
        self.act();
    }

    /// Agent and warden do all that is asked of them.
    fn settle(&mut self) {
        while !self.agent.is_empty() || !self.warden.is_empty() {
            if self.agent.is_empty() {
                self.warden_records(Next::Stay);
            } else {
                self.agent_replies();
            }
        }
    }

    fn exits(&mut self, process: ProcessId, status: ExitStatus) {
        self.session.agent_said(FromAgent::Exited {
            process,
            status,
            oom_killed: false,
        });
        self.act();
    }

    /// Every output of a process comes to its end.
    fn outputs_end(&mut self, process: &ProcessId) {
        let ports: Vec<u32> = self
            .open
            .iter()
            .filter(|(_, role)| matches!(role, Role::Output { process: of, .. } if of == process))
            .map(|(port, _)| *port)
            .collect();
        for port in ports {
            self.open.remove(&port);
            self.session.stream_ended(process, port);
            self.act();
        }
    }

    /// The container's process ends, with all that it has written.
    fn ends(&mut self, code: u8, next: Next) {
        self.exits(ProcessId::first(ID), ExitStatus::Code(code));
        self.outputs_end(&ProcessId::first(ID));
        while !self.warden.is_empty() {
            self.warden_records(next);
        }
    }

    fn wait(&mut self, pause: Duration) {
        self.now += pause;
        self.session.tick(self.now);
        self.act();
    }

    fn saw(&self, what: &str) -> bool {
        self.log.iter().any(|seen| seen == what)
    }

    fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|seen| *seen == what).count()
    }
}

fn start(id: &str) -> Request {
    Request::Start {
        container: id.to_owned(),
    }
}

fn wait(process: ProcessId, until: WaitUntil) -> Request {
    Request::Wait { process, until }
}

fn stop(id: &str) -> Request {
    Request::Stop {
        container: id.to_owned(),
        signal: None,
        timeout_s: Some(3),
    }
}

fn kill(id: &str, signal: i32) -> Request {
    Request::Signal {
        process: ProcessId::first(id),
        signal,
    }
}

fn name(request: &ToAgent) -> String {
    match request {
        ToAgent::Signal { signal, .. } => format!("Signal {signal}"),
        ToAgent::Mount(mount) => match mount.root {
            Root::Layers { .. } => "Mount".into(),
            Root::Directory { .. } => "Mount directory".into(),
        },
        other => word(&format!("{other:?}")),
    }
}

fn word(debug: &str) -> String {
    debug
        .split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or_default()
        .to_owned()
}
