//! A process of a container, from the request that makes it to its end being told.

use std::collections::BTreeSet;

use protocol::agent::{self, ExitStatus, Failure, Stream, TerminalSize};
use protocol::monitor::{Exit, WaitUntil};
use protocol::record::Stdio;

use super::{Ask, ProcessId, Role, Session};

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not asked for, or not again.
    New,
    /// The agent makes it.
    Asked,
    /// It executes.
    Executing { pid: i32 },
    /// It has ended; its output may not have.
    Exited {
        status: ExitStatus,
        oom_killed: bool,
    },
    /// All of it is over: its end can be told, and is recorded if it has to be.
    Over,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) stage: Stage,
    pub(super) stdio: Stdio,
    /// Ports of outputs that have not come to their ends.
    pub(super) outputs: BTreeSet<u32>,
    /// All ports of its streams.
    pub(super) ports: Vec<u32>,
    pub(super) waiters: Vec<(Ask, WaitUntil)>,
    /// How it ended last.
    pub(super) exit: Option<Exit>,
    /// A part of its output was lost on the way.
    pub(super) lost: Option<String>,
    /// What a health check has written.
    pub(super) captured: Vec<u8>,
}

impl Process {
    pub(super) fn new(stdio: Stdio) -> Process {
        Process {
            stage: Stage::New,
            stdio,
            outputs: BTreeSet::new(),
            ports: Vec::new(),
            waiters: Vec::new(),
            exit: None,
            lost: None,
            captured: Vec::new(),
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.stdio, Stdio::Terminal { .. })
    }

    /// Whether it is between being asked for and its end being told.
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::New | Stage::Over)
    }

    /// Whether an output stream is still to come to its end.
    pub(super) fn is_drained(&self) -> bool {
        self.outputs.is_empty()
    }

    pub(super) fn set_size(&mut self, new: TerminalSize) {
        if let Stdio::Terminal { size } = &mut self.stdio {
            *size = new;
        }
    }
}

impl Session {
    /// Opens the streams of a process that is about to be made.
    pub(super) fn open_stdio(
        &mut self,
        process: &ProcessId,
        stdio: Stdio,
        wanted: [bool; 3],
    ) -> Result<(agent::Stdio, Vec<u32>, BTreeSet<u32>), Failure> {
        let (mut ports, mut outputs) = (Vec::new(), BTreeSet::new());
        let stdio = match stdio {
            Stdio::Terminal { size } => {
                let stream = self.open(Role::Terminal(process.clone()))?;
                ports.push(stream.port);
                outputs.insert(stream.port);
                agent::Stdio::Terminal { stream, size }
            }
            Stdio::Pipes { stdin, .. } => {
                let mut open = |role, wanted: bool, is_output| -> Result<Option<Stream>, Failure> {
                    if !wanted {
                        return Ok(None);
                    }
                    let stream = self.open(role)?;
                    ports.push(stream.port);
                    if is_output {
                        outputs.insert(stream.port);
                    }
                    Ok(Some(stream))
                };
                let output = |is_stderr| Role::Output {
                    process: process.clone(),
                    is_stderr,
                };
                agent::Stdio::Pipes {
                    stdin: open(Role::Input(process.clone()), stdin && wanted[0], false)?,
                    stdout: open(output(false), wanted[1], true)?,
                    stderr: open(output(true), wanted[2], true)?,
                }
            }
        };
        Ok((stdio, ports, outputs))
    }

    /// A process, if it is known.
    pub(super) fn process_mut(&mut self, id: &ProcessId) -> Option<&mut Process> {
        let container = self.containers.get_mut(&id.container)?;
        match &id.exec {
            None => Some(&mut container.first),
            Some(exec) => container.execs.get_mut(exec),
        }
    }

    /// An output stream of a process has been read to its end, and handed to its log and its clients' queues.
    pub(crate) fn stream_ended(&mut self, process: &ProcessId, port: u32) {
        if let Some(known) = self.process_mut(process) {
            known.outputs.remove(&port);
            self.try_finish(process);
        }
    }

    /// A part of a process's output is lost, which its end will say. False if its end has been told.
    pub(crate) fn output_lost(&mut self, process: &ProcessId, why: &str) -> bool {
        let Some(known) = self.process_mut(process) else {
            return false;
        };
        if !known.is_active() {
            return false;
        }
        known.lost.get_or_insert_with(|| why.to_owned());
        true
    }
}
