//! Processes that are executed in a running container.

use protocol::agent::{Exec, ExitStatus, Failure, FailureKind, Request as ToAgent};
use protocol::monitor::{Answer, ExecConfig, ExecState, Exit};
use protocol::record::Stdio;

use super::agent::Awaited;
use super::container::{Phase, code_of};
use super::process::{Process, Stage};
use super::{Action, Ask, ProcessId, Session};

/// Execs of a container that run at a time.
const MAX_EXECS: usize = 1024;
/// Execs that have ended and whose codes are kept, the oldest names first to go.
const MAX_ENDED_EXECS: usize = 4096;

impl Session {
    pub(super) fn exec(&mut self, ask: Ask, process: ProcessId, config: Option<ExecConfig>) {
        let (Some(config), Some(name)) = (config, process.exec.clone()) else {
            return self.refuse(
                ask,
                FailureKind::Invalid,
                "an exec needs a name and a document",
            );
        };
        let container = self.container(&process.container);
        let live = container.execs.values().filter(|exec| exec.is_active());
        let refused = if container.phase != Phase::Running {
            Some(container.wrong_state("is not running"))
        } else if container.paused {
            Some(container.wrong_state("is paused, unpause the container before exec"))
        } else if container.execs.contains_key(&name) {
            Some(container.wrong_state("has an exec of this name"))
        } else if live.count() >= MAX_EXECS {
            Some(container.wrong_state("has too many execs running"))
        } else {
            None
        };
        if let Some(failure) = refused {
            return self.answer(ask, Err(failure));
        }
        let ended = container.execs.values().filter(|exec| !exec.is_active());
        if ended.count() >= MAX_ENDED_EXECS {
            container.execs.retain(|_, exec| exec.is_active());
        }
        container.execs.insert(name, Process::new(config.stdio));
        let opened = self.open_stdio(&process, config.stdio, config.attach);
        let (stdio, ports, outputs) = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.exec_failed(ask, &process, failure),
        };
        if config.attach.contains(&true) {
            self.attach_exec(ask, &process, config.attach);
        }
        if let Some(known) = self.process_mut(&process) {
            known.stage = Stage::Asked;
            (known.ports, known.outputs) = (ports, outputs);
        }
        let exec = Exec {
            process: process.clone(),
            document: config.document,
            user: config.user,
            seccomp: config.seccomp,
            stdio,
        };
        self.ask_agent(
            ToAgent::Exec(Box::new(exec)),
            Awaited::Executed { ask, process },
        );
    }

    fn attach_exec(&mut self, ask: Ask, process: &ProcessId, streams: [bool; 3]) {
        let Some(known) = self.process_mut(process) else {
            return;
        };
        let terminal = known.is_terminal();
        let has_input = !matches!(known.stdio, Stdio::Pipes { stdin: false, .. });
        self.actions.push(Action::Attach {
            ask,
            process: process.clone(),
            streams: [streams[0] && has_input, streams[1], streams[2]],
            terminal,
            primary: true,
            ends_input: true,
        });
    }

    pub(super) fn exec_failed(&mut self, ask: Ask, process: &ProcessId, failure: Failure) {
        if let Some(known) = self.process_mut(process) {
            known.stage = Stage::Over;
            known.outputs.clear();
            let ports = std::mem::take(&mut known.ports);
            let exit = Exit {
                status: ExitStatus::Code(code_of(failure.kind)),
                oom_killed: false,
                error: Some(failure.message.clone()),
                console: Vec::new(),
                measured: None,
            };
            self.actions.push(Action::Close { ports });
            self.tell_exit(process, exit);
        }
        self.answer(ask, Err(failure));
    }

    pub(super) fn inspect_exec(&mut self, ask: Ask, process: &ProcessId) {
        let Some(known) = self.process_mut(process) else {
            return self.refuse(ask, FailureKind::NotFound, "there is no such exec");
        };
        let state = ExecState {
            running: known.is_active(),
            pid: match known.stage {
                Stage::Executing { pid } => pid,
                _ => 0,
            },
            status: known.exit.as_ref().map(|exit| exit.status),
        };
        self.answer(ask, Ok(Answer::Exec(state)));
    }
}
