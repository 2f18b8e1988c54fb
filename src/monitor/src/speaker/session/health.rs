//! Health checks: Docker's HEALTHCHECK, as execs of the speaker's own.
//!
//! ```text
//! Started --interval--> check executes --exit, or time is up--> result --interval--> …
//! ```
//!
//! A check that takes longer than its time is killed and has failed. What it writes is kept up to [`MAX_OUTPUT_LEN`].

use std::time::{Duration, Instant};

use protocol::agent::{Exec, ExitStatus, Request as ToAgent};
use protocol::record::{Health, HealthCheck, HealthResult, HealthStatus, Stdio};
use serde_json::value::RawValue;

use super::agent::Awaited;
use super::container::Phase;
use super::process::{Process, Stage};
use super::{Action, ProcessId, Session, after};
use crate::link::ToWarden;

/// How the execs of checks are named; clients' have names of hexadecimal digits.
const PREFIX: &str = "health-";
/// Results that are kept.
const KEPT: usize = 5;
/// What is kept of a check's output, in bytes: Docker's figure.
pub(super) const MAX_OUTPUT_LEN: usize = 4096;

/// The checks of a container that runs.
#[derive(Debug)]
pub(super) struct Checks {
    check: HealthCheck,
    document: Box<RawValue>,
    health: Health,
    started: Instant,
    count: u64,
    /// The check that executes.
    current: Option<Current>,
    /// When the next begins.
    next: Instant,
}

#[derive(Debug)]
struct Current {
    exec: String,
    start_ns: u64,
    by: Instant,
    timed_out: bool,
}

impl Checks {
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(match &self.current {
            Some(current) if current.timed_out => return None,
            Some(current) => current.by,
            None => self.next,
        })
    }

    fn is_starting(&self, now: Instant) -> bool {
        let period = Duration::from_millis(self.check.start_period_ms);
        self.health.status == HealthStatus::Starting && now < after(self.started, period)
    }

    fn interval(&self, now: Instant) -> Duration {
        Duration::from_millis(match self.is_starting(now) {
            true => self.check.start_interval_ms,
            false => self.check.interval_ms,
        })
    }

    /// Takes a result in. True if the status has changed.
    fn take(&mut self, result: HealthResult, now: Instant) -> bool {
        let before = self.health.status;
        if result.exit_code == 0 {
            self.health.failing_streak = 0;
            self.health.status = HealthStatus::Healthy;
        } else if !self.is_starting(now) {
            self.health.failing_streak = self.health.failing_streak.saturating_add(1);
            if self.health.failing_streak >= self.check.retries.max(1) {
                self.health.status = HealthStatus::Unhealthy;
            }
        }
        self.health.log.push(result);
        let excess = self.health.log.len().saturating_sub(KEPT);
        self.health.log.drain(..excess);
        before != self.health.status
    }
}

impl Session {
    /// A container runs: its checks begin.
    pub(super) fn begin_checks(&mut self, id: &str) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(check) = container.config.health.clone() else {
            return;
        };
        let Ok(document) = RawValue::from_string(check.document.to_string()) else {
            tracing::warn!("the health check's document is not one");
            return;
        };
        let mut checks = Checks {
            check,
            document,
            health: Health::default(),
            started: now,
            count: 0,
            current: None,
            next: now,
        };
        checks.next = after(now, checks.interval(now));
        container.checks = Some(checks);
        self.write_health(id, false);
    }

    /// What is due for a container's checks at this time.
    pub(super) fn tick_checks(&mut self, id: &str) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let runs = container.phase == Phase::Running;
        let paused = container.paused;
        let Some(checks) = &mut container.checks else {
            return;
        };
        match &mut checks.current {
            Some(current) if !current.timed_out && now >= current.by => {
                current.timed_out = true;
                let process = ProcessId::exec(id, current.exec.clone());
                let request = ToAgent::Signal {
                    process,
                    signal: libc::SIGKILL,
                    all: false,
                };
                self.ask_agent(request, Awaited::Nothing);
            }
            None if now >= checks.next && paused => checks.next = after(now, checks.interval(now)),
            None if now >= checks.next && runs => self.begin_check(id),
            _ => {}
        }
    }

    fn begin_check(&mut self, id: &str) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let (user, seccomp) = (
            container.config.run.user.clone(),
            container.config.run.seccomp.clone(),
        );
        let Some(checks) = &mut container.checks else {
            return;
        };
        checks.count += 1;
        let exec = format!("{PREFIX}{}", checks.count);
        checks.current = Some(Current {
            exec: exec.clone(),
            start_ns: sys::clock::realtime_ns(),
            by: after(now, Duration::from_millis(checks.check.timeout_ms)),
            timed_out: false,
        });
        let document = checks.document.clone();
        let stdio = Stdio::Pipes {
            stdin: false,
            stdin_once: true,
        };
        let process = ProcessId::exec(id, exec.clone());
        container.execs.insert(exec, Process::new(stdio));
        let (stdio, ports, outputs) = match self.open_stdio(&process, stdio, [false, true, true]) {
            Ok(opened) => opened,
            Err(failure) => return self.checked(&process, -1, &failure.message),
        };
        if let Some(known) = self.process_mut(&process) {
            known.stage = Stage::Asked;
            (known.ports, known.outputs) = (ports, outputs);
        }
        self.actions.push(Action::Capture {
            process: process.clone(),
        });
        let exec = Exec {
            process: process.clone(),
            document,
            user,
            seccomp,
            stdio,
        };
        self.ask_agent(ToAgent::Exec(Box::new(exec)), Awaited::Checked(process));
    }

    /// A check's process could not be executed.
    pub(super) fn check_failed(&mut self, process: &ProcessId, message: &str) {
        if let Some(known) = self.process_mut(process) {
            known.stage = Stage::Over;
            let ports = std::mem::take(&mut known.ports);
            self.actions.push(Action::Close { ports });
        }
        self.checked(process, -1, message);
    }

    /// Whether a process is a check, and has ended: its result is taken in.
    pub(super) fn check_ended(&mut self, process: &ProcessId, status: ExitStatus) -> bool {
        let is_check = process
            .exec
            .as_ref()
            .is_some_and(|exec| exec.starts_with(PREFIX));
        if is_check {
            let output = self
                .process_mut(process)
                .map(|known| std::mem::take(&mut known.captured))
                .unwrap_or_default();
            let output = crate::text::printable(&String::from_utf8_lossy(&output), MAX_OUTPUT_LEN);
            self.checked(process, i32::from(status.code()), &output);
        }
        is_check
    }

    fn checked(&mut self, process: &ProcessId, exit_code: i32, output: &str) {
        let now = self.now;
        let Some(container) = self.containers.get_mut(&process.container) else {
            return;
        };
        container
            .execs
            .remove(process.exec.as_deref().unwrap_or_default());
        let Some(checks) = &mut container.checks else {
            return;
        };
        let Some(current) = checks
            .current
            .take_if(|current| Some(&current.exec) == process.exec.as_ref())
        else {
            return;
        };
        let seconds = checks.check.timeout_ms as f64 / 1000.0;
        let (exit_code, output) = match current.timed_out {
            true => (-1, format!("Health check exceeded timeout ({seconds}s)")),
            false => (exit_code, output.to_owned()),
        };
        let result = HealthResult {
            start_ns: current.start_ns,
            end_ns: sys::clock::realtime_ns(),
            exit_code,
            output,
        };
        let changed = checks.take(result, now);
        checks.next = after(now, checks.interval(now));
        self.write_health(&process.container, changed);
    }

    fn write_health(&mut self, id: &str, changed: bool) {
        let health = self
            .containers
            .get(id)
            .and_then(|container| container.checks.as_ref())
            .map(|checks| checks.health.clone());
        if let Some(health) = health {
            let status = health.status;
            self.actions.push(Action::Health {
                container: id.to_owned(),
                health: Box::new(health),
            });
            let container = id.to_owned();
            self.tell(ToWarden::Health {
                container,
                status,
                changed,
            });
        }
    }

    /// What a check has written.
    pub(crate) fn captured(&mut self, process: &ProcessId, bytes: &[u8]) {
        if let Some(known) = self.process_mut(process) {
            let room = MAX_OUTPUT_LEN.saturating_sub(known.captured.len());
            known.captured.extend(&bytes[..bytes.len().min(room)]);
        }
    }
}
