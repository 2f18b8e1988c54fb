//! The end of a session: asked for, come of itself, or forced by the machine's end.
//!
//! ```text
//! serving --(nothing runs, no request is open)--> shutting down --(machine ended, or time is up)--> last words --> End
//!    '------(the machine broke)-- ends are recorded and told ------------------------------------^
//! ```

use std::time::{Duration, Instant};

use protocol::agent::{ExitStatus, Failure, FailureKind, Request};
use protocol::monitor::Exit;

use super::container::{Mounted, Phase};
use super::process::Stage;
use super::{Action, ProcessId, Session, after};

/// How long a machine may take to write what it has and to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// The code with which it is asked to end; any will do.
const CODE: u32 = 0;

/// Why the machine ended that was not asked to.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) message: String,
    /// The last lines of the guest's console.
    pub(crate) console: Vec<String>,
}

impl Broken {
    pub(super) fn of(failure: Failure) -> Broken {
        Broken {
            message: failure.message,
            console: Vec::new(),
        }
    }

    /// As one text.
    fn told(&self) -> String {
        match self.console.is_empty() {
            true => self.message.clone(),
            false => format!(
                "{}\nthe guest's last words were:\n  {}",
                self.message,
                self.console.join("\n  ")
            ),
        }
    }
}

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Nothing is started any more.
    pub(super) quitting: bool,
    /// Why there is no machine, or none any more.
    pub(super) broken: Option<Failure>,
    /// A client has connected: before that none can have given the sandbox up.
    pub(super) had_client: bool,
    /// The machine is asked to end, or has ended: nothing more is asked of it.
    pub(super) shutting_down: bool,
    done: bool,
    pub(super) deadline: Option<Instant>,
}

impl Session {
    /// Stops every container, each as it wants to be stopped, and ends. `by_user`: none of them is started again by its
    /// policy.
    pub(crate) fn quit(&mut self, by_user: bool) {
        self.end.quitting = true;
        let now = self.now;
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            let Some(container) = self.containers.get_mut(&id) else {
                continue;
            };
            let signal = container.config.stop_signal;
            let seconds = u64::try_from(container.config.stop_timeout_s).unwrap_or(10);
            let timeout = Duration::from_secs(seconds);
            match container.phase {
                Phase::Idle => {}
                Phase::Due(_) if !by_user => container.phase = Phase::Idle,
                _ if by_user => self.begin_stop(&id, signal, Some(timeout)),
                _ => {
                    container.kill_at = Some(after(now, timeout));
                    self.signal_first(&id, signal);
                }
            }
        }
    }

    /// The machine has ended: asked to, or broken.
    pub(crate) fn machine_ended(&mut self, broken: Broken) {
        if self.end.shutting_down {
            self.end.deadline = None;
            self.done();
            return;
        }
        if self.end.broken.is_some() {
            return;
        }
        let failure = Failure::new(FailureKind::Other, broken.told());
        self.end.broken = Some(failure.clone());
        let awaited = std::mem::take(&mut self.awaited);
        for ask in awaited.into_values().filter_map(super::agent::asker) {
            self.answer(ask, Err(failure.clone()));
        }
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            self.break_container(&id, &broken, &failure);
        }
    }

    fn break_container(&mut self, id: &str, broken: &Broken, failure: &Failure) {
        let killed = |exit: Option<(ExitStatus, bool)>| {
            let (status, oom_killed) =
                exit.unwrap_or((ExitStatus::Signal(libc::SIGKILL as u8), false));
            Exit {
                status,
                oom_killed,
                // An end that had come already is its own, but for the output that is lost with the machine.
                error: Some(broken.message.clone()),
                console: broken.console.clone(),
                measured: None,
            }
        };
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.mounted = Mounted::No;
        container.measure_by = None;
        let waiting = std::mem::take(&mut container.after_mount);
        let execs: Vec<String> = container
            .execs
            .iter()
            .filter(|(_, exec)| exec.is_active())
            .map(|(name, _)| name.clone())
            .collect();
        let phase = container.phase;
        let exit = match container.first.stage {
            Stage::Exited { status, oom_killed } => Some((status, oom_killed)),
            _ => None,
        };
        for (ask, _) in waiting {
            self.answer(ask, Err(failure.clone()));
        }
        for name in execs {
            let process = ProcessId::exec(id, name);
            if let Some(known) = self.process_mut(&process) {
                known.stage = Stage::Over;
                known.outputs.clear();
            }
            self.tell_exit(&process, killed(None));
        }
        match phase {
            Phase::Starting => self.start_failed(id, failure.clone()),
            Phase::Running => {
                if let Some(container) = self.containers.get_mut(id) {
                    container.first.stage = Stage::Over;
                    container.first.outputs.clear();
                }
                self.record_exit(id, killed(exit));
            }
            Phase::Idle | Phase::Recording | Phase::Due(_) => {}
        }
    }

    /// Without a machine, restarts are the warden's: with another machine and another speaker, once the first is due.
    /// Until then clients are served here.
    pub(super) fn leave_restarts(&mut self) {
        for container in self.containers.values_mut() {
            if matches!(container.phase, Phase::Due(_)) {
                container.phase = Phase::Idle;
            }
        }
    }

    /// Ends the session if nothing runs, nothing will, and no client waits for an answer.
    pub(super) fn check_end(&mut self) {
        if self.end.shutting_down {
            return;
        }
        let active = self
            .containers
            .values()
            .any(|container| container.is_active());
        if active || !self.deferred.is_empty() || self.clients.values().any(|c| c.open > 0) {
            // A wait for the next end of what is over is for another life of the sandbox.
            let only_waits = !active && self.open_asks_are_waits();
            if !only_waits {
                return;
            }
        }
        let has_run = self.containers.values().any(|container| container.has_run);
        let wanted = match self.setting.pod {
            true => self.end.quitting || self.end.broken.is_some(),
            false => {
                (self.end.had_client && self.clients.is_empty()) || has_run || self.end.quitting
            }
        };
        if !wanted {
            return;
        }
        let mounted = self
            .containers
            .values()
            .any(|container| container.mounted == Mounted::Yes);
        self.end.shutting_down = true;
        if mounted && self.setting.keeps_disk && self.end.broken.is_none() {
            self.end.deadline = Some(after(self.now, SHUTDOWN_TIMEOUT));
            let seq = self.next_seq;
            self.next_seq += 1;
            let request = Request::Shutdown { code: CODE };
            self.actions.push(Action::Agent { seq, request });
        } else {
            self.done();
        }
    }

    fn open_asks_are_waits(&self) -> bool {
        let open: usize = self.clients.values().map(|client| client.open).sum();
        let waits: usize = self
            .containers
            .values()
            .map(|container| container.first.waiters.len())
            .sum();
        self.deferred.is_empty() && open == waits
    }

    pub(super) fn tick_end(&mut self) {
        if self.end.deadline.is_some_and(|by| self.now >= by) {
            self.end.deadline = None;
            self.done();
        }
    }

    fn done(&mut self) {
        if !self.end.done {
            self.end.done = true;
            self.actions.push(Action::MachineDone);
            self.actions.push(Action::End);
        }
    }
}
