//! The life of a process after it is made: built, started, exited, drained, reported.
//!
//! Invariants (docs/lifecycle.md): a process that executes can be waited for and drained without any allocation that
//! could fail, or it is killed and its start fails (H18); a child is looked at before it is reaped, so its number is not
//! another's while it is looked up (H19); `Exited` follows the reply to Start or Exec and the ends of the streams.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use container::{Progress, Running};
use protocol::agent::{Done, ExitStatus, FromAgent, Interface, ProcessId};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, waitid, waitpid};
use sys::{sigset, wait};

use crate::containers::{Phase, Process};
use crate::failure::Refusal;
use crate::poll::Number;
use crate::server::Server;
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
                        let pid = building.pid();
                        let phase = Phase::Building {
                            seq,
                            number,
                            building,
                        };
                        self.wait_on(id, Process { phase, ..process }, pid, number, seq);
                    }
                    Progress::Done(created) => {
                        self.sources.remove(&number);
                        let pid = created.pid();
                        self.keep_network(id, process.interfaces.clone(), pid);
                        let phase = Phase::Created(created);
                        let process = Process { phase, ..process };
                        self.put_back(id, process, pid);
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
                        let pid = starting.pid();
                        let phase = Phase::Starting {
                            seq,
                            number,
                            starting,
                        };
                        self.wait_on(id, Process { phase, ..process }, pid, number, seq);
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

    /// Keeps the network namespace that was made with a container's process.
    fn keep_network(&mut self, id: &ProcessId, interfaces: Option<Vec<Interface>>, pid: Pid) {
        let container = self.containers.get_mut(&id.container);
        let (Some(container), Some(interfaces)) = (container, interfaces) else {
            return;
        };
        // Without it, the next run may have to wait for the interfaces, and they cannot be changed; that is all.
        if let Ok(namespace) = File::open(format!("/proc/{}/ns/net", pid.as_raw_pid())) {
            container.network = Some((interfaces, namespace.into()));
        }
    }

    /// Puts a process back into the tables, under the number that it has by now: a process that enters a container is
    /// followed by the one that it makes there.
    fn put_back(&mut self, id: &ProcessId, process: Process, pid: Pid) {
        let reaped = process.reaped.filter(|_| pid == process.pid);
        if reaped.is_none() {
            self.children.remove(&process.pid.as_raw_pid());
            self.children.insert(pid.as_raw_pid(), id.clone());
        }
        let process = Process {
            pid,
            reaped,
            ..process
        };
        self.processes.insert(id.clone(), process);
    }

    /// Waits for more news of a process.
    fn wait_on(&mut self, id: &ProcessId, process: Process, pid: Pid, number: Number, seq: u64) {
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
            Ok(()) => self.put_back(id, process, pid),
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
            pid,
            pidfd,
            terminal,
            joinable,
        } = running;
        let reaped = process.reaped.filter(|_| pid == process.pid);
        let reaped = reaped.or_else(|| was_reaped(&pidfd));
        let stream = process.stream;
        let deferred = process.deferred;
        let process = Process {
            phase: Phase::Running { pidfd },
            pid: process.pid,
            reaped: process.reaped,
            pumps: process.pumps,
            stream: None,
            interfaces: None,
            terminal: None,
            deferred: Vec::new(),
        };
        self.put_back(id, process, pid);
        if let (None, Some(container)) = (&id.exec, self.containers.get_mut(&id.container)) {
            container.running = Some(joinable);
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
            match self.reach_process(seq, request) {
                Ok(Some(done)) => self.reply(seq, Ok(done)),
                Ok(None) => {}
                Err(refusal) => self.reply(seq, Err(refusal)),
            }
        }
        if let Some(status) = reaped {
            self.children.retain(|_, child| child != id);
            self.exited(id, status);
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
        let container = self.containers.get_mut(name);
        // What is behind a Delete is for what comes after the container.
        if let Some(container) = container.filter(|container| container.removal.is_none()) {
            container.is_held = false;
            self.go_on(name);
        }
    }

    /// Reaps what has ended: processes of containers, workers, and what has been orphaned.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.take() {}
        while let Ok(Some(pid)) = wait::ended_child() {
            match self.children.get(&pid.as_raw_pid()).cloned() {
                // It may have executed and exited already: that is learned first, since a process that has ended has
                // said all that it will say.
                Some(id) => self.advance(&id),
                // It may be one that has just been made by a process that entered a container.
                None => self.advance_all(),
            }
            // Where it was given up meanwhile, it has been reaped.
            let waited = waitpid(Some(pid), WaitOptions::NOHANG);
            if let (Some(id), Ok(Some((_, status)))) =
                (self.children.remove(&pid.as_raw_pid()), waited)
            {
                self.ended(&id, pid, status);
            }
        }
        container::sweep();
        // Of a cgroup that was removed with a process given up, no event may come.
        self.clear_all();
    }

    fn advance_all(&mut self) {
        let is_made = |process: &Process| {
            matches!(
                process.phase,
                Phase::Building { .. } | Phase::Starting { .. }
            )
        };
        let ids: Vec<ProcessId> = self
            .processes
            .iter()
            .filter(|(_, process)| is_made(process))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.advance(&id);
        }
    }

    fn ended(&mut self, id: &ProcessId, pid: Pid, status: WaitStatus) {
        let Some(process) = self.processes.get_mut(id).filter(|p| p.pid == pid) else {
            return;
        };
        match process.phase {
            Phase::Created(_) => process.phase = Phase::Died,
            Phase::Running { .. } => self.exited(id, exit_status(status)),
            // Another process may still hold the descriptor that tells how far it had come: the one that it was made by.
            Phase::Building { .. } | Phase::Starting { .. } => {
                process.reaped = Some(exit_status(status));
            }
            Phase::Died | Phase::Exited { .. } => {}
        }
    }

    /// A process that executed has exited: what it leaves is killed, and its streams are drained.
    fn exited(&mut self, id: &ProcessId, status: ExitStatus) {
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let pumps = process.pumps.clone();
        let container = self.containers.get(&id.container);
        let joinable = container.and_then(|container| container.running.as_ref());
        let oom_killed = joinable.is_some_and(|joinable| joinable.cgroup().usage().oom_kills > 0);
        process.phase = Phase::Exited { status, oom_killed };
        self.exited.insert(id.clone());
        if id.exec.is_none() {
            self.end_run(&id.container);
        }
        self.drain(&pumps);
    }

    /// Reports the processes that have exited, once all of their output has been sent.
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

/// How a child ended that has been reaped already: one that is killed while it enters a container can be taken for an orphan,
/// before it is known.
fn was_reaped(pidfd: &OwnedFd) -> Option<ExitStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Err(Errno::CHILD) => Some(ExitStatus::Signal(libc::SIGKILL as u8)),
        _ => None,
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.exit_status() {
        Some(code) => ExitStatus::Code(code as u8),
        None => ExitStatus::Signal(status.terminating_signal().unwrap_or(0) as u8),
    }
}
