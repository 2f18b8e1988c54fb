//! Ends of containers: what is recorded, and what follows by the policy.

use std::time::Duration;

use protocol::agent::ExitStatus as Exit;
use protocol::record::Status;

use super::life::cut;
use super::members::Member;
use super::{After, Warden, policy};
use crate::link::Next;
use crate::{chain, events};

impl Warden {
    /// Records a container's end and decides what follows; `None` if there is no such container.
    pub(super) fn end_container(
        &mut self,
        container: &str,
        status: Exit,
        oom_killed: bool,
        error: Option<String>,
    ) -> Option<Next> {
        let now = sys::clock::realtime_ns();
        let member = self.members.get_mut(container)?;
        let again =
            !self.is_quitting && policy::restarts(member.config.restart, &member.state, status);
        let ran = Duration::from_nanos(now.saturating_sub(member.state.started_ns));
        let next = match again {
            true => Next::Restart {
                after_ms: member.backoff.next(ran).as_millis() as u64,
            },
            false => Next::Stay,
        };
        let recorded = member.record(|state| {
            state.status = if again {
                Status::Restarting
            } else {
                Status::Exited
            };
            state.pid = 0;
            state.interfaces.clear();
            state.ports.clear();
            state.exit = Some(status);
            state.exit_code = status.code();
            state.oom_killed = oom_killed;
            state.error = error.map(cut).unwrap_or_default();
            state.finished_ns = now;
        });
        if let Err(error) = recorded {
            tracing::warn!(error = %chain(&error), "the end is not on disk yet");
        }
        if oom_killed {
            events::write(&self.config.root, member, "oom", &[]);
        }
        let code = [("exitCode", status.code().to_string())];
        events::write(&self.config.root, member, "die", &code);
        Some(next)
    }

    /// What follows the end of a speaker: containers that it has not reported ended with it (lifecycle H7).
    pub(super) fn aftermath(&mut self, reason: Option<String>) -> After {
        let running: Vec<String> = self
            .members
            .iter_mut()
            .filter(|member| matches!(member.state.status, Status::Running | Status::Paused))
            .map(|member| member.config.id.clone())
            .collect();
        let has_failed = reason.is_some();
        let error = reason.unwrap_or_else(|| match self.is_quitting {
            true => "hull was asked to end".to_owned(),
            false => "the sandbox ended".to_owned(),
        });
        for id in running {
            self.end_container(
                &id,
                Exit::Signal(libc::SIGKILL as u8),
                false,
                Some(error.clone()),
            );
        }
        if self.is_quitting {
            return After::End;
        }
        let (mut start, mut pause) = (Vec::new(), Duration::ZERO);
        for member in self.members.iter_mut() {
            if member.state.status == Status::Restarting {
                // A speaker that ended by itself has waited, and served clients meanwhile.
                if has_failed {
                    pause = pause.max(member.backoff.current());
                }
                start.push(member.config.id.clone());
            }
        }
        match start.is_empty() {
            true => After::End,
            false => After::Again { pause, start },
        }
    }
}

impl Warden {
    /// Removes a container that has run or was to run, and is to be removed at its end. Whether it was one.
    pub(super) fn remove_ended(&mut self, container: &str) -> bool {
        let ended =
            |member: &&mut Member| member.config.auto_remove && member.state.finished_ns != 0;
        let Some(member) = self.members.get_mut(container).filter(ended) else {
            return false;
        };
        events::write(&self.config.root, member, "destroy", &[]);
        if let Err(error) = member.remove() {
            tracing::warn!(%error, "the container was not removed; the next command tries again");
        }
        true
    }
}
