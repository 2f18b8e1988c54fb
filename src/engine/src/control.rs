//! What is done to a container that runs: stop, kill, wait, pause, and what it uses.
//!
//! Invariant: an end that this reports is on disk before (docs/lifecycle.md, "What is durable when").

use protocol::agent::{FailureKind, ProcessEntry, ProcessId, Stats, TerminalSize};
use protocol::monitor::{Answer, Exit, Measured, Request, WaitUntil};
use protocol::record::{ContainerConfig, State, Status};

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Refusal};
use crate::events;
use crate::memory;
use crate::watch::Watch;

/// What a wait waits for, in Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Until it does not run: at once if it does not.
    #[default]
    NotRunning,
    /// Until it ends the next time, also if it has yet to start.
    NextExit,
    /// Until it has been removed.
    Removed,
}

/// How a container ended, or that it does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The code that a front end reports.
    pub code: u8,
    /// Why it ended, where that was not its own end; else empty.
    pub error: String,
}

impl Ended {
    fn of(state: &State) -> Ended {
        Ended {
            code: state.exit_code,
            error: state.error.clone(),
        }
    }

    fn of_exit(exit: &Exit) -> Ended {
        Ended {
            code: exit.status.code(),
            error: exit.error.clone().unwrap_or_default(),
        }
    }
}

/// How to stop a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stop {
    /// Instead of the container's own signal.
    pub signal: Option<i32>,
    /// Seconds until SIGKILL instead of the container's own; negative is no limit.
    pub timeout_s: Option<i64>,
}

impl Engine {
    /// Stops a container and waits for its end; no restart policy applies to it. Whether it ran.
    pub fn stop(&self, reference: &str, how: Stop) -> Result<bool, Error> {
        let config = self.container(reference)?.config;
        let ran = self.end(&config, how)?;
        if ran {
            self.tell(events::container(&config, "stop"));
        }
        Ok(ran)
    }

    /// Signals a container, and waits for its end, whatever monitor it has meanwhile. Whether it ran.
    pub(crate) fn end(&self, config: &ContainerConfig, how: Stop) -> Result<bool, Error> {
        let signal = how.signal.unwrap_or(config.stop_signal);
        let mut ran = false;
        loop {
            let container = match self.container_with_id(&config.id) {
                // It went with its end.
                Err(Error::NotFound { .. }) if ran => return Ok(true),
                other => other?,
            };
            if !container.state.status.is_alive() {
                self.repair_if_dead(&config.id)?;
                return Ok(ran);
            }
            if !ran {
                let event = events::container(config, "kill");
                self.tell(event.with("signal", signal.to_string()));
            }
            ran = true;
            let request = Request::Stop {
                container: config.id.clone(),
                signal: how.signal,
                timeout_s: how.timeout_s,
            };
            if self.ask(&config.sandbox, request)?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Stops a container if it runs, and starts it.
    pub fn restart(&self, reference: &str, how: Stop) -> Result<(), Error> {
        let config = self.container(reference)?.config;
        self.stop(&config.id, how)?;
        self.start(&config.id)?;
        self.tell(events::container(&config, "restart"));
        Ok(())
    }

    /// Signals a container's first process.
    pub fn kill(&self, reference: &str, signal: i32) -> Result<(), Error> {
        let container = self.running(reference, Refusal::Kill)?;
        let process = ProcessId::first(&container.config.id);
        self.ask_running(
            &container,
            Request::Signal { process, signal },
            Refusal::Kill,
        )?;
        let event = events::container(&container.config, "kill");
        self.tell(event.with("signal", signal.to_string()));
        Ok(())
    }

    /// Waits for a container's end. Blocks without a limit.
    pub fn wait(&self, reference: &str, condition: WaitCondition) -> Result<Ended, Error> {
        let id = self.id(reference)?;
        let mut last = None;
        loop {
            let container = match self.container_with_id(&id) {
                Ok(container) => container,
                Err(Error::NotFound { .. }) => return Ok(last.unwrap_or_else(gone)),
                Err(error) => return Err(error),
            };
            if container.state.status.is_alive() {
                match self.wait_running(&container, condition)? {
                    Some(ended) if condition != WaitCondition::Removed => return Ok(ended),
                    Some(ended) => last = Some(ended),
                    None => {}
                }
                continue;
            }
            self.repair_if_dead(&id)?;
            if condition == WaitCondition::NotRunning {
                return Ok(Ended::of(&container.state));
            }
            if let Some(ended) = self.wait_stopped(&container, condition)? {
                return Ok(ended);
            }
        }
    }

    /// `None`: the monitor ended without saying how, and the files are to be looked at again.
    fn wait_running(
        &self,
        container: &Container,
        condition: WaitCondition,
    ) -> Result<Option<Ended>, Error> {
        let until = match condition {
            WaitCondition::NotRunning => WaitUntil::NotRunning,
            WaitCondition::NextExit | WaitCondition::Removed => WaitUntil::NextExit,
        };
        let process = ProcessId::first(&container.config.id);
        let request = Request::Wait { process, until };
        let ended = match self.ask(&container.config.sandbox, request)? {
            Some(Answer::Exited(exit)) => Ended::of_exit(&exit),
            _ => return Ok(None),
        };
        if condition == WaitCondition::Removed && container.config.auto_remove {
            self.await_removal(&container.config.id, &container.config.sandbox)?;
        }
        Ok(Some(ended))
    }

    /// Waits until a container that does not run has been started, or has run once more, or is gone.
    fn wait_stopped(
        &self,
        container: &Container,
        condition: WaitCondition,
    ) -> Result<Option<Ended>, Error> {
        let id = &container.config.id;
        let folder = self.layout().container(id);
        let watch = Watch::new().map_err(Error::file("watch", &folder))?;
        if let Err(error) = watch.folder(&folder) {
            return match self.exists(id) {
                true => Err(Error::file("watch", &folder)(error)),
                false => Ok(None),
            };
        }
        loop {
            let now = match self.container_with_id(id) {
                Ok(now) => now,
                Err(Error::NotFound { .. }) => return Ok(Some(Ended::of(&container.state))),
                Err(error) => return Err(error),
            };
            if now.state.status.is_alive() {
                return Ok(None);
            }
            let has_run = now.state.finished_ns != container.state.finished_ns;
            if has_run && condition == WaitCondition::NextExit {
                return Ok(Some(Ended::of(&now.state)));
            }
            watch.wait(None).map_err(Error::file("watch", &folder))?;
        }
    }

    /// Freezes every process of a container.
    pub fn pause(&self, reference: &str) -> Result<(), Error> {
        let container = self.running(reference, Refusal::NotRunning)?;
        if container.state.status == Status::Paused {
            return Err(Error::refused(reference, Refusal::AlreadyPaused));
        }
        let request = Request::Pause {
            container: container.config.id.clone(),
        };
        self.ask_running(&container, request, Refusal::NotRunning)?;
        Ok(())
    }

    /// Lets a frozen container go on.
    pub fn unpause(&self, reference: &str) -> Result<(), Error> {
        let container = self.running(reference, Refusal::NotRunning)?;
        if container.state.status != Status::Paused {
            return Err(Error::refused(reference, Refusal::NotPaused));
        }
        let request = Request::Resume {
            container: container.config.id.clone(),
        };
        self.ask_running(&container, request, Refusal::NotRunning)?;
        Ok(())
    }

    /// The processes of a running container.
    pub fn top(&self, reference: &str) -> Result<Vec<ProcessEntry>, Error> {
        let container = self.running(reference, Refusal::NotRunning)?;
        let request = Request::Processes {
            container: container.config.id.clone(),
        };
        match self.ask_running(&container, request, Refusal::NotRunning)? {
            Answer::Processes(processes) => Ok(processes),
            other => Err(unexpected(&container.config.sandbox, &other)),
        }
    }

    /// What a running container uses now. Counters count from its start.
    pub fn stats(&self, reference: &str) -> Result<Stats, Error> {
        let container = self.running(reference, Refusal::NotRunning)?;
        let request = Request::Stats {
            container: container.config.id.clone(),
        };
        match self.ask_running(&container, request, Refusal::NotRunning)? {
            Answer::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&container.config.sandbox, &other)),
        }
    }

    /// The clock and the counters of a running container's sandbox, and the memory that its processes take as far as this
    /// process may see it: see [`memory`].
    pub fn measure(&self, reference: &str) -> Result<Measured, Error> {
        let container = self.running(reference, Refusal::NotRunning)?;
        match self.ask_running(&container, Request::Measure, Refusal::NotRunning)? {
            Answer::Measured(mut measured) => {
                memory::add(&mut measured);
                Ok(*measured)
            }
            other => Err(unexpected(&container.config.sandbox, &other)),
        }
    }

    /// Tells a container's first process the size of its terminal.
    pub fn resize(&self, reference: &str, size: TerminalSize) -> Result<(), Error> {
        let container = self.running(reference, Refusal::NotRunning)?;
        let process = ProcessId::first(&container.config.id);
        let request = Request::Resize { process, size };
        self.ask_running(&container, request, Refusal::NotRunning)?;
        Ok(())
    }

    /// A container whose monitor lives.
    pub(crate) fn running(&self, reference: &str, why: Refusal) -> Result<Container, Error> {
        let container = self.container(reference)?;
        match container.state.status.is_alive() {
            true => Ok(container),
            false => Err(Error::refused(&container.config.id, why)),
        }
    }

    /// Asks the monitor of a container that runs.
    pub(crate) fn ask_running(
        &self,
        container: &Container,
        request: Request,
        why: Refusal,
    ) -> Result<Answer, Error> {
        let ContainerConfig { id, sandbox, .. } = &container.config;
        match self.ask(sandbox, request) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Error::refused(id, why)),
            // It has ended since it was looked at.
            Err(Error::Failure(failure)) if failure.kind == FailureKind::WrongState => {
                match self.container_with_id(id)?.state.status.is_alive() {
                    true => Err(Error::Failure(failure)),
                    false => Err(Error::refused(id, why)),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// The end of a container that was removed before anything was known of it.
fn gone() -> Ended {
    Ended {
        code: 0,
        error: String::new(),
    }
}

pub(crate) fn unexpected(sandbox: &str, answer: &Answer) -> Error {
    tracing::debug!(?answer, "an answer that does not fit");
    crate::sandbox::conversation(sandbox)(crate::connection::Error::Unexpected)
}

#[cfg(test)]
mod tests;
