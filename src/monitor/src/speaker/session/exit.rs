//! The end of a process: heard, drained, recorded, told. docs/lifecycle.md, "Order of the end of a container".

use std::time::Duration;

use protocol::agent::{ExitStatus, Failure};
use protocol::monitor::{Answer, Exit, WaitUntil};

use super::container::{Phase, Recording};
use super::process::Stage;
use super::{Action, Ask, ProcessId, Session, after};
use crate::link::{Next, ToWarden};

/// How long the last measurement may take before an end is told without it.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(2);

impl Session {
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
            Some(_) if self.check_ended(process, status) => self.actions.push(Action::Finish {
                process: process.clone(),
            }),
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
        container.is_stopped = false;
        container.checks = None;
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

    /// Answers all waits for a process's end, and ends its clients' streams.
    pub(super) fn tell_exit(&mut self, process: &ProcessId, exit: Exit) {
        let Some(known) = self.process_mut(process) else {
            return;
        };
        let waiters = std::mem::take(&mut known.waiters);
        known.exit = Some(exit.clone());
        if let Some(exec) = &process.exec {
            self.actions.push(Action::Warden(ToWarden::ExecEnded {
                container: process.container.clone(),
                exec: exec.clone(),
                code: exit.status.code(),
            }));
        }
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
                container.phase = match next {
                    Next::Restart { after_ms } if !self.end.quitting => {
                        Phase::Due(after(now, Duration::from_millis(after_ms)))
                    }
                    _ => Phase::Idle,
                };
                let stoppers = std::mem::take(&mut container.stoppers);
                self.tell_exit(&ProcessId::first(id), (*exit).clone());
                for ask in stoppers {
                    self.answer(ask, Ok(Answer::Exited(exit.clone())));
                }
                self.remove_at_its_end(id);
            }
        }
    }

    fn tell_start_failed(&mut self, id: &str, failure: Failure) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.phase = Phase::Idle;
        container.is_stopped = false;
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
        self.remove_at_its_end(id);
    }
}
