//! What the agent says, and what each of its replies means.

use protocol::agent::{Done, Failure, FailureKind, FromAgent, ProcessId, Request};
use protocol::monitor::Answer;

use super::container::{Phase, Recording};
use super::process::Stage;
use super::{Action, Ask, Session};
use crate::link::ToWarden;

/// What a reply of the agent's is awaited for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// The machine's own setting up: without it nothing runs.
    Machine,
    /// A container's root.
    Mounted(String),
    /// A container's process, before it executes.
    Created(String),
    /// A container's process executes.
    Started(String),
    /// An exec's process executes.
    Executed { ask: Ask, process: ProcessId },
    /// A health check's process executes.
    Checked(ProcessId),
    /// A client's answer is the agent's.
    Answer(Ask),
    /// An archive: the stream was this one.
    Transfer { ask: Ask, port: u32 },
    /// A container is frozen, or goes on.
    Paused {
        ask: Ask,
        container: String,
        paused: bool,
    },
    /// A container is gone from the machine.
    Deleted { ask: Ask, container: String },
    /// The same of one that is removed at its end.
    Removed { container: String },
    /// No request's.
    Nothing,
}

impl Session {
    /// The agent is there: what has been asked for so far goes to it.
    pub(crate) fn agent_hello(&mut self) {
        if self.ready {
            return;
        }
        // Made now: a template's clock stands where it was saved, and nothing random may be older than this VM.
        match (self.setting.wake)() {
            Ok(wake) => self.ask_agent(Request::Wake(wake), Awaited::Machine),
            Err(failure) => return self.machine_ended(super::Broken::of(failure)),
        }
        self.ready = true;
        if self.setting.pod && !self.setting.interfaces.is_empty() {
            let interfaces = self.setting.interfaces.clone();
            self.ask_agent(Request::Network(interfaces), Awaited::Machine);
        }
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            let wanted = self.containers.get(&id).is_some_and(|container| {
                container.phase == Phase::Starting || !container.after_mount.is_empty()
            });
            if wanted {
                self.advance(&id);
            }
        }
    }

    /// The agent has said something.
    pub(crate) fn agent_said(&mut self, message: FromAgent) {
        match message {
            FromAgent::Reply { seq, result } => {
                // A number that was not given stands for nothing (lifecycle H21).
                if let Some(awaited) = self.awaited.remove(&seq) {
                    self.replied(awaited, result);
                }
            }
            FromAgent::Exited {
                process,
                status,
                oom_killed,
            } => self.exited(&process, status, oom_killed),
            FromAgent::Connected { socket, connection } => self.connected(socket, connection),
        }
    }

    fn replied(&mut self, awaited: Awaited, result: Result<Done, Failure>) {
        match awaited {
            Awaited::Machine => {
                if let Err(failure) = result {
                    self.machine_ended(super::Broken::of(failure));
                }
            }
            Awaited::Mounted(id) => self.mounted(&id, result),
            Awaited::Created(id) => {
                if let Err(failure) = result {
                    self.start_failed(&id, failure);
                }
            }
            Awaited::Started(id) => match result {
                Ok(Done::Started { pid }) => self.started(&id, pid),
                Ok(_) => self.started(&id, 0),
                Err(failure) => self.start_failed(&id, failure),
            },
            Awaited::Executed { ask, process } => self.executed(ask, &process, result),
            Awaited::Checked(process) => match result {
                Ok(done) => {
                    let pid = match done {
                        Done::Started { pid } => pid,
                        _ => 0,
                    };
                    if let Some(known) = self.process_mut(&process)
                        && known.stage == Stage::Asked
                    {
                        known.stage = Stage::Executing { pid };
                    }
                }
                Err(failure) => self.check_failed(&process, &failure.message),
            },
            Awaited::Answer(ask) => self.answer(ask, result.map(answer_of)),
            Awaited::Transfer { ask, port } => {
                self.actions.push(Action::Close { ports: vec![port] });
                self.answer(ask, result.map(answer_of));
            }
            Awaited::Paused {
                ask,
                container,
                paused,
            } => self.paused(ask, &container, paused, result),
            Awaited::Deleted { ask, container } => match result {
                Ok(_) => {
                    self.containers.remove(&container);
                    self.tell(ToWarden::Forget { container });
                    self.answer(ask, Ok(Answer::Done));
                }
                Err(failure) => self.answer(ask, Err(failure)),
            },
            Awaited::Removed { container } => {
                if result.is_ok() {
                    self.containers.remove(&container);
                    self.tell(ToWarden::Forget { container });
                }
            }
            Awaited::Nothing => {}
        }
    }

    fn executed(&mut self, ask: Ask, process: &ProcessId, result: Result<Done, Failure>) {
        let Some(known) = self.process_mut(process) else {
            return;
        };
        match result {
            Ok(done) => {
                let pid = match done {
                    Done::Started { pid } => pid,
                    _ => 0,
                };
                if known.stage == Stage::Asked {
                    known.stage = Stage::Executing { pid };
                }
                self.answer(ask, Ok(Answer::Started { pid }));
            }
            Err(failure) => self.exec_failed(ask, process, failure),
        }
    }

    fn paused(&mut self, ask: Ask, id: &str, paused: bool, result: Result<Done, Failure>) {
        let Some(container) = self.containers.get_mut(id) else {
            return self.refuse(ask, FailureKind::NotFound, "the container is gone");
        };
        if let Err(failure) = result {
            return self.answer(ask, Err(failure));
        }
        if container.phase != Phase::Running {
            let failure = container.wrong_state("has ended");
            return self.answer(ask, Err(failure));
        }
        container.paused = paused;
        container.recording.push_back(Recording::Paused { ask });
        self.tell(ToWarden::Paused {
            container: id.to_owned(),
            paused,
        });
    }
}

fn answer_of(done: Done) -> Answer {
    match done {
        Done::Ok => Answer::Done,
        Done::Started { pid } => Answer::Started { pid },
        Done::Stats(stats) => Answer::Stats(stats),
        Done::Processes { processes } => Answer::Processes(processes),
        Done::Stat(stat) => Answer::Stat(stat),
    }
}

/// The client that a reply was for.
pub(super) fn asker(awaited: Awaited) -> Option<Ask> {
    match awaited {
        Awaited::Executed { ask, .. }
        | Awaited::Answer(ask)
        | Awaited::Transfer { ask, .. }
        | Awaited::Paused { ask, .. }
        | Awaited::Deleted { ask, .. } => Some(ask),
        Awaited::Machine
        | Awaited::Mounted(_)
        | Awaited::Created(_)
        | Awaited::Started(_)
        | Awaited::Checked(_)
        | Awaited::Removed { .. }
        | Awaited::Nothing => None,
    }
}
