//! The life of a process after it is made: built, started, exited, drained, reported.
//!
//! Invariants (docs/lifecycle.md): a process that executes can be waited for and drained without any allocation that
//! could fail, or it is killed and its start fails (H18); a child is looked at before it is reaped, so its number is not
//! another's while it is looked up (H19); `Exited` follows the reply to Start or Exec and the ends of the streams.

use std::os::fd::OwnedFd;

use protocol::agent::{Done, ExitStatus, FromAgent, ProcessId};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};
use sys::{sigset, wait};

use crate::containers::{Interior, Phase, Process};
use crate::failure::Refusal;
use crate::poll::Number;
use crate::server::Server;
use crate::spawn::{Progress, Running};
use crate::streams::join_terminal;

impl Server {
    /// A process that is being built or starts has news.
    pub(crate) fn advance(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.remove(id) else {
            return;
        };
        match process.phase {
            Phase::Building {
                seq,
                number,
                building,
            } => {
                self.poll.delete(&building);
                match building.advance() {
                    Progress::Pending(building) => {
                        let phase = Phase::Building {
                            seq,
                            number,
                            building,
                        };
                        self.wait_on(id, Process { phase, ..process }, number, seq);
                    }
                    Progress::Done(created) => {
                        self.sources.remove(&number);
                        let phase = Phase::Created(created);
                        self.processes
                            .insert(id.clone(), Process { phase, ..process });
                        self.reply(seq, Ok(Done::Ok));
                        self.release(&id.container);
                    }
                    Progress::Failed(error) => {
                        self.failed(id, seq, number, process.pumps, error.into());
                    }
                }
            }
            Phase::Starting {
                seq,
                number,
                starting,
            } => {
                self.poll.delete(&starting);
                match starting.advance() {
                    Progress::Pending(starting) => {
                        let phase = Phase::Starting {
                            seq,
                            number,
                            starting,
                        };
                        self.wait_on(id, Process { phase, ..process }, number, seq);
                    }
                    Progress::Done(running) => {
                        self.sources.remove(&number);
                        // Only a marker, until the running process is put in its place.
                        let phase = Phase::Died;
                        self.executes(id, Process { phase, ..process }, running, seq);
                    }
                    Progress::Failed(error) => {
                        let deferred = process.deferred;
                        self.failed(id, seq, number, process.pumps, error.into());
                        for (seq, _) in deferred {
                            self.reply(seq, Err(Refusal::ProcessEnded));
                        }
                    }
                }
            }
            phase => {
                self.processes
                    .insert(id.clone(), Process { phase, ..process });
            }
        }
    }

    /// Waits for more news of a process.
    fn wait_on(&mut self, id: &ProcessId, process: Process, number: Number, seq: u64) {
        use crate::poll::{EventFlags, Side};
        let watched = match &process.phase {
            Phase::Building { building, .. } => {
                self.poll.add(building, number, Side::From, EventFlags::IN)
            }
            Phase::Starting { starting, .. } => {
                self.poll.add(starting, number, Side::From, EventFlags::IN)
            }
            _ => Ok(()),
        };
        match watched {
            Ok(()) => {
                self.processes.insert(id.clone(), process);
            }
            Err(source) => {
                let refusal = Refusal::Wait {
                    what: "the process",
                    source,
                };
                self.failed(id, seq, number, process.pumps, refusal);
            }
        }
    }

    /// A process could not be built or started, and is gone.
    fn failed(
        &mut self,
        id: &ProcessId,
        seq: u64,
        number: Number,
        pumps: Vec<Number>,
        refusal: Refusal,
    ) {
        self.sources.remove(&number);
        for pump in pumps {
            self.retire(pump);
        }
        self.reply(seq, Err(refusal));
        self.forget(id);
    }

    /// Kills a process that is not to run, and forgets it.
    pub(crate) fn give_up(&mut self, id: &ProcessId) {
        let Some(process) = self.processes.remove(id) else {
            return;
        };
        for pump in process.pumps {
            self.retire(pump);
        }
        match &process.phase {
            Phase::Building {
                number, building, ..
            } => {
                self.poll.delete(building);
                self.sources.remove(number);
            }
            Phase::Starting {
                number, starting, ..
            } => {
                self.poll.delete(starting);
                self.sources.remove(number);
            }
            Phase::Running { pidfd } => {
                // Only one that has just ended cannot be killed by its parent.
                let _ = sigset::send(pidfd, libc::SIGKILL);
            }
            _ => {}
        }
        // What is not yet running is killed by being dropped.
        drop(process.phase);
        self.forget(id);
    }

    /// A process is not in the tables any more: its container is as it was before it was made.
    fn forget(&mut self, id: &ProcessId) {
        self.children.retain(|_, child| child != id);
        if id.exec.is_none() {
            self.end_run(&id.container);
            self.release(&id.container);
        }
    }

    /// A process executes: its terminal is joined with its stream, and its start is answered.
    fn executes(&mut self, id: &ProcessId, process: Process, running: Running, seq: u64) {
        let Running {
            pidfd,
            terminal,
            cgroup,
            joinable,
            ..
        } = running;
        let (stream, pid) = (process.stream, process.pid);
        let deferred = process.deferred;
        let process = Process {
            phase: Phase::Running { pidfd },
            pid,
            stream: None,
            terminal: None,
            pumps: process.pumps,
            deferred: Vec::new(),
        };
        self.processes.insert(id.clone(), process);
        if let (None, Some(cgroup)) = (&id.exec, cgroup)
            && let Some(container) = self.containers.get_mut(&id.container)
        {
            container.running = Some(Interior { cgroup, joinable });
        }
        if let Err(source) = self.add_terminal(id, terminal, stream) {
            // It would run without anyone to hear it (lifecycle H18).
            self.give_up(id);
            let what = "the terminal of the process";
            self.reply(seq, Err(Refusal::Wait { what, source }));
            return;
        }
        if !std::mem::replace(&mut self.has_executed, true) {
            (self.place.on_exec)();
        }
        let pid = pid.as_raw_pid();
        self.reply(seq, Ok(Done::Started { pid }));
        for (seq, request) in deferred {
            match self.to_process(seq, request) {
                Ok(Some(done)) => self.reply(seq, Ok(done)),
                Ok(None) => {}
                Err(refusal) => self.reply(seq, Err(refusal)),
            }
        }
        if id.exec.is_none() {
            self.release(&id.container);
        }
    }

    fn add_terminal(
        &mut self,
        id: &ProcessId,
        master: Option<OwnedFd>,
        stream: Option<OwnedFd>,
    ) -> std::io::Result<()> {
        let (Some(master), Some(stream)) = (master, stream) else {
            return Ok(());
        };
        let pumps = join_terminal(&master, stream)?;
        if let Some(process) = self.processes.get_mut(id) {
            process.terminal = Some(master);
        }
        self.add_pumps(id, pumps.into())
    }

    /// The container's next requests may be begun.
    fn release(&mut self, name: &str) {
        if let Some(container) = self.containers.get_mut(name) {
            container.is_held = false;
            self.go_on(name);
        }
    }

    /// Reaps what has ended: processes of containers, workers, and what has been orphaned.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.take() {}
        while let Ok(Some(pid)) = wait::ended_child() {
            let id = self.children.get(&pid.as_raw_pid()).cloned();
            if let Some(id) = &id {
                // It may have executed and exited already: that is learned first, since a process that has ended has
                // said all that it will say.
                self.advance(id);
            }
            let status = match waitpid(Some(pid), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => status,
                // Nobody else reaps this process's children, so it is there.
                _ => return,
            };
            if let Some(id) = self.children.remove(&pid.as_raw_pid()) {
                self.ended(&id, pid, status);
            }
        }
    }

    fn ended(&mut self, id: &ProcessId, pid: Pid, status: WaitStatus) {
        let Some(process) = self.processes.get_mut(id).filter(|p| p.pid == pid) else {
            return;
        };
        match process.phase {
            Phase::Created(_) => {
                process.phase = Phase::Died;
                return;
            }
            Phase::Running { .. } => {}
            // It ended without saying why, or is no process any more.
            _ => return self.give_up_unanswered(id),
        }
        let pumps = process.pumps.clone();
        let container = self.containers.get(&id.container);
        let interior = container.and_then(|container| container.running.as_ref());
        let oom_killed = interior.is_some_and(|interior| interior.cgroup.usage().oom_kills > 0);
        if let Some(process) = self.processes.get_mut(id) {
            process.phase = Phase::Exited {
                status: exit_status(status),
                oom_killed,
            };
        }
        self.exited.insert(id.clone());
        if id.exec.is_none() {
            self.end_run(&id.container);
        }
        self.drain(&pumps);
    }

    /// A process ended while it was built or started, and what it had said was not the end of that.
    fn give_up_unanswered(&mut self, id: &ProcessId) {
        let seq = match self.processes.get(id).map(|process| &process.phase) {
            Some(Phase::Building { seq, .. } | Phase::Starting { seq, .. }) => *seq,
            _ => return,
        };
        self.reply(seq, Err(Refusal::ProcessEnded));
        self.give_up(id);
    }

    /// Tells the monitor of the processes that have exited and whose output is on its way.
    pub(crate) fn report_exits(&mut self) {
        let mut over = Vec::new();
        for id in &self.exited {
            match self.processes.get(id) {
                Some(process) if !process.pumps.is_empty() => {}
                _ => over.push(id.clone()),
            }
        }
        for id in over {
            self.exited.remove(&id);
            let Some(process) = self.processes.remove(&id) else {
                continue;
            };
            if let Phase::Exited { status, oom_killed } = process.phase {
                let name = id.container.clone();
                self.connection.send(&FromAgent::Exited {
                    process: id,
                    status,
                    oom_killed,
                });
                self.finish_removal(&name);
            }
        }
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.exit_status() {
        Some(code) => ExitStatus::Code(code as u8),
        None => ExitStatus::Signal(status.terminating_signal().unwrap_or(0) as u8),
    }
}
