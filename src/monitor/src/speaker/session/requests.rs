//! What clients ask for.

use std::time::Duration;

use protocol::agent::{ExitStatus, FailureKind, Request as ToAgent};
use protocol::monitor::{Answer, ExecConfig, Exit, Request, VERSION, WaitUntil};
use protocol::record::Stdio;

use super::agent::Awaited;
use super::container::{Container, Phase, Recording};
use super::process::Stage;
use super::{Action, Ask, MAX_DEFERRED, ProcessId, Session, after};
use crate::link::ToWarden;

impl Session {
    /// A client has sent a request; with the document of an exec, if it is one.
    pub(crate) fn client_said(&mut self, ask: Ask, request: Request, exec: Option<ExecConfig>) {
        let Some(client) = self.clients.get_mut(&ask.client) else {
            return;
        };
        client.open += 1;
        if self.end.shutting_down {
            // The connection closes unanswered, and another monitor is asked (lifecycle H10).
            return;
        }
        match request {
            Request::Hello { version, .. } => self.greet(ask, version),
            Request::Measure => self.measure(ask),
            Request::Shutdown => {
                self.answer(ask, Ok(Answer::Done));
                self.quit(true);
            }
            request => self.with_container(ask, request, exec),
        }
    }

    fn greet(&mut self, ask: Ask, version: u32) {
        if version == VERSION {
            let build = protocol::BUILD.to_owned();
            self.answer(ask, Ok(Answer::Hello { version, build }));
        } else {
            self.refuse(
                ask,
                FailureKind::Unsupported,
                format!(
                    "this sandbox was started by hull {}, which speaks version {VERSION} of the protocol, and this hull \
                     {version}: stop it with that hull, or with `pkill -f hull-monitor.*IDENTIFIER`, which lets its \
                     containers end in their own time, and start it again",
                    protocol::BUILD
                ),
            );
        }
    }

    fn measure(&mut self, ask: Ask) {
        if self.end.broken.is_some() {
            return self.refuse(ask, FailureKind::WrongState, "the machine has ended");
        }
        self.measuring.push(ask);
        self.actions.push(Action::Measure);
    }

    /// Carries a request out, once its container's record is there.
    fn with_container(&mut self, ask: Ask, request: Request, exec: Option<ExecConfig>) {
        let id = subject(&request).to_owned();
        if self.containers.contains_key(&id) {
            return self.obey(ask, request, exec);
        }
        if !self.setting.pod {
            return self.refuse(
                ask,
                FailureKind::NotFound,
                format!("No such container: {id}"),
            );
        }
        if self.deferred.values().map(|all| all.len()).sum::<usize>() >= MAX_DEFERRED {
            return self.refuse(
                ask,
                FailureKind::Other,
                "too many containers enter the pod at once",
            );
        }
        let deferred = self.deferred.entry(id.clone()).or_default();
        deferred.push_back((ask, request, exec));
        if deferred.len() == 1 {
            self.tell(ToWarden::Load { container: id });
        }
    }

    pub(super) fn obey(&mut self, ask: Ask, request: Request, exec: Option<ExecConfig>) {
        match request {
            Request::Attach { process, streams } => self.attach(ask, &process, streams),
            Request::Detach { process } => {
                let client = ask.client;
                self.actions.push(Action::Detach { client, process });
                self.answer(ask, Ok(Answer::Done));
            }
            Request::Start { container } => self.start(ask, &container),
            Request::Exec { process } => self.exec(ask, process, exec),
            Request::Wait { process, until } => self.wait(ask, &process, until),
            Request::Signal { process, signal } => self.signal(ask, process, signal),
            Request::Stop {
                container,
                signal,
                timeout_s,
            } => self.stop(ask, &container, signal, timeout_s),
            Request::Resize { process, size } => self.resize(ask, process, size),
            Request::Pause { container } => self.pause(ask, container, true),
            Request::Resume { container } => self.pause(ask, container, false),
            Request::Update {
                container,
                resources,
                restart,
            } => self.update(ask, container, resources, restart),
            Request::Networks { container } => self.change_networks(ask, container),
            Request::InspectExec { process } => self.inspect_exec(ask, &process),
            Request::Stats { container } => {
                let request = ToAgent::Stats {
                    container: container.clone(),
                };
                self.pass_on(ask, &container, request);
            }
            Request::Processes { container } => {
                let request = ToAgent::Processes {
                    container: container.clone(),
                };
                self.pass_on(ask, &container, request);
            }
            Request::Remove { container } => self.remove(ask, &container),
            request @ (Request::Stat { .. }
            | Request::Archive { .. }
            | Request::Extract { .. }
            | Request::Diff { .. }
            | Request::Changes { .. }) => self.with_root(ask, request),
            Request::Hello { .. } | Request::Measure | Request::Shutdown => {
                unreachable!("taken before")
            }
        }
    }

    /// The container of a request; `obey` is called only for those that are known.
    pub(super) fn container(&mut self, id: &str) -> &mut Container {
        self.containers.get_mut(id).expect("looked up before")
    }

    fn attach(&mut self, ask: Ask, process: &ProcessId, streams: [bool; 3]) {
        let Some(known) = self.process_mut(process) else {
            return self.refuse(ask, FailureKind::NotFound, "there is no such exec");
        };
        let primary = matches!(known.stage, Stage::New | Stage::Asked | Stage::Over);
        let terminal = known.is_terminal();
        let (has_input, ends_input) = match known.stdio {
            Stdio::Terminal { .. } => (true, false),
            Stdio::Pipes { stdin, stdin_once } => (stdin, stdin_once),
        };
        let streams = [streams[0] && has_input, streams[1], streams[2]];
        self.actions.push(Action::Attach {
            ask,
            process: process.clone(),
            streams,
            terminal,
            primary,
            ends_input,
        });
        self.answer(ask, Ok(Answer::Done));
    }

    fn start(&mut self, ask: Ask, id: &str) {
        if self.end.quitting {
            return self.refuse(ask, FailureKind::WrongState, "the sandbox is being stopped");
        }
        let is_broken = self.end.broken.is_some();
        let container = self.container(id);
        match container.phase {
            Phase::Due(_) if is_broken => {
                let failure = container.wrong_state("is restarting");
                self.answer(ask, Err(failure));
            }
            Phase::Idle | Phase::Due(_) => {
                container.starters.push(ask);
                self.begin_start(id);
            }
            // Another command was first (lifecycle H9): its start is this one's.
            Phase::Starting => container.starters.push(ask),
            _ => {
                let failure = container.wrong_state("is running already");
                self.answer(ask, Err(failure));
            }
        }
    }

    fn wait(&mut self, ask: Ask, process: &ProcessId, until: WaitUntil) {
        let is_first = process.exec.is_none();
        let active = match is_first {
            true => self.container(&process.container).is_active(),
            false => false,
        };
        let Some(known) = self.process_mut(process) else {
            return self.refuse(ask, FailureKind::NotFound, "there is no such exec");
        };
        let runs = known.is_active() || active;
        match (until, &known.exit) {
            (WaitUntil::NotRunning, exit) if !runs => {
                let exit = exit.clone().unwrap_or(Exit {
                    status: ExitStatus::Code(0),
                    oom_killed: false,
                    error: None,
                    console: Vec::new(),
                    measured: None,
                });
                self.answer(ask, Ok(Answer::Exited(Box::new(exit))));
            }
            // An exec ends once.
            (WaitUntil::NextExit, Some(exit)) if !is_first && !runs => {
                let exit = Box::new(exit.clone());
                self.answer(ask, Ok(Answer::Exited(exit)));
            }
            _ => known.waiters.push((ask, until)),
        }
    }

    fn signal(&mut self, ask: Ask, process: ProcessId, signal: i32) {
        if process.exec.is_some() {
            let request = ToAgent::Signal {
                process,
                signal,
                all: false,
            };
            return self.ask_agent(request, Awaited::Answer(ask));
        }
        let id = process.container;
        let container = self.container(&id);
        if container.phase != Phase::Running {
            let failure = container.wrong_state("is not running");
            return self.answer(ask, Err(failure));
        }
        let stops = signal == libc::SIGKILL || signal == container.config.stop_signal;
        if stops {
            // By hand: no policy brings it back. On disk before it ends.
            container
                .recording
                .push_back(Recording::Killing { ask, signal });
            self.tell(ToWarden::Stopping { container: id });
        } else {
            self.kill_now(&id, ask, signal);
        }
    }

    /// Signals a container's first process for a client.
    pub(super) fn kill_now(&mut self, id: &str, ask: Ask, signal: i32) {
        if self.container(id).phase != Phase::Running {
            // It has ended meanwhile, which is what was wanted.
            return self.answer(ask, Ok(Answer::Done));
        }
        let paused = self.container(id).paused;
        let process = ProcessId::first(id);
        let request = ToAgent::Signal {
            process,
            signal,
            all: false,
        };
        self.ask_agent(request, Awaited::Answer(ask));
        if paused {
            self.resume(id);
        }
    }

    /// Signals a container's first process; the answer is ignored.
    pub(super) fn signal_first(&mut self, id: &str, signal: i32) {
        let process = ProcessId::first(id);
        let request = ToAgent::Signal {
            process,
            signal,
            all: false,
        };
        self.ask_agent(request, Awaited::Nothing);
    }

    fn resume(&mut self, id: &str) {
        self.container(id).paused = false;
        let container = id.to_owned();
        self.ask_agent(ToAgent::Resume { container }, Awaited::Nothing);
    }

    fn stop(&mut self, ask: Ask, id: &str, signal: Option<i32>, timeout_s: Option<i64>) {
        let container = self.container(id);
        if !container.is_active() {
            return self.answer(ask, Ok(Answer::Done));
        }
        let signal = signal.unwrap_or(container.config.stop_signal);
        let seconds = timeout_s.unwrap_or(container.config.stop_timeout_s);
        let timeout = u64::try_from(seconds).ok().map(Duration::from_secs);
        container.stoppers.push(ask);
        self.begin_stop(id, signal, timeout);
    }

    /// Has it recorded that a container is stopped by the user, which then is.
    pub(super) fn begin_stop(&mut self, id: &str, signal: i32, timeout: Option<Duration>) {
        let container = self.container(id);
        container.is_stopped = true;
        container
            .recording
            .push_back(Recording::Stopping { signal, timeout });
        self.tell(ToWarden::Stopping {
            container: id.to_owned(),
        });
    }

    /// It is on disk that the user stops the container: it may be signalled.
    pub(super) fn stop_now(&mut self, id: &str, signal: i32, timeout: Option<Duration>) {
        let now = self.now;
        let container = self.container(id);
        match container.phase {
            Phase::Running => {
                let by = timeout.map(|timeout| after(now, timeout));
                // A later stop may be more patient; an earlier one keeps its word.
                container.kill_at = [container.kill_at, by].into_iter().flatten().min();
                let paused = container.paused;
                self.signal_first(id, signal);
                if paused {
                    self.resume(id);
                }
            }
            // A restart is due no more (lifecycle H11).
            Phase::Due(_) | Phase::Idle => {
                container.phase = Phase::Idle;
                container.is_stopped = false;
                let exit = container.first.exit.clone();
                for ask in std::mem::take(&mut container.stoppers) {
                    let answer = match &exit {
                        Some(exit) => Answer::Exited(Box::new(exit.clone())),
                        None => Answer::Done,
                    };
                    self.answer(ask, Ok(answer));
                }
            }
            // Signalled as soon as it runs: by the time limit of this stop.
            Phase::Starting => container.kill_at = Some(after(now, timeout.unwrap_or_default())),
            Phase::Recording => {}
        }
    }

    fn resize(&mut self, ask: Ask, process: ProcessId, size: protocol::agent::TerminalSize) {
        let Some(known) = self.process_mut(&process) else {
            return self.refuse(ask, FailureKind::NotFound, "there is no such exec");
        };
        if !known.is_terminal() {
            return self.refuse(ask, FailureKind::WrongState, "the process has no terminal");
        }
        known.set_size(size);
        match known.stage {
            Stage::Executing { .. } => {
                self.ask_agent(ToAgent::Resize { process, size }, Awaited::Answer(ask));
            }
            _ => self.answer(ask, Ok(Answer::Done)),
        }
    }

    fn pause(&mut self, ask: Ask, id: String, paused: bool) {
        let container = self.container(&id);
        let refused = match (container.phase, container.paused) {
            (Phase::Running, now) if now != paused => None,
            (Phase::Running, true) => Some("is already paused"),
            (Phase::Running, false) => Some("is not paused"),
            _ => Some("is not running"),
        };
        if let Some(what) = refused {
            let failure = container.wrong_state(what);
            return self.answer(ask, Err(failure));
        }
        let container = id.clone();
        let request = match paused {
            true => ToAgent::Pause { container },
            false => ToAgent::Resume { container },
        };
        self.ask_agent(
            request,
            Awaited::Paused {
                ask,
                container: id,
                paused,
            },
        );
    }

    fn update(
        &mut self,
        ask: Ask,
        id: String,
        resources: Option<Box<serde_json::value::RawValue>>,
        restart: Option<protocol::record::RestartPolicy>,
    ) {
        if let Some(restart) = restart {
            self.container(&id).config.restart = restart;
            self.tell(ToWarden::Reload {
                container: id.clone(),
            });
        }
        match resources {
            Some(resources) if self.container(&id).phase == Phase::Running => {
                let request = ToAgent::Update {
                    container: id,
                    resources,
                };
                self.ask_agent(request, Awaited::Answer(ask));
            }
            // The rewritten record holds for the next start.
            _ => self.answer(ask, Ok(Answer::Done)),
        }
    }

    /// Passes a request about a running container on to the agent.
    fn pass_on(&mut self, ask: Ask, id: &str, request: ToAgent) {
        let container = self.container(id);
        if container.phase != Phase::Running {
            let failure = container.wrong_state("is not running");
            return self.answer(ask, Err(failure));
        }
        self.ask_agent(request, Awaited::Answer(ask));
    }
}

/// The container that a request is about.
fn subject(request: &Request) -> &str {
    match request {
        Request::Attach { process, .. }
        | Request::Detach { process }
        | Request::Exec { process }
        | Request::Wait { process, .. }
        | Request::Signal { process, .. }
        | Request::Resize { process, .. }
        | Request::InspectExec { process } => &process.container,
        Request::Start { container }
        | Request::Stop { container, .. }
        | Request::Pause { container }
        | Request::Resume { container }
        | Request::Networks { container }
        | Request::Update { container, .. }
        | Request::Stats { container }
        | Request::Processes { container }
        | Request::Stat { container, .. }
        | Request::Archive { container, .. }
        | Request::Extract { container, .. }
        | Request::Diff { container }
        | Request::Changes { container }
        | Request::Remove { container } => container,
        Request::Hello { .. } | Request::Measure | Request::Shutdown => "",
    }
}
