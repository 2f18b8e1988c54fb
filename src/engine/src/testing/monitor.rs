//! A monitor without a machine: this test program, executed by the engine in the place of hull-monitor.
//!
//! What a container does is in its label `fake`, words with commas between them:
//!
//! - `exit=N`: it ends with this code as soon as it has started.
//! - `refuse`: its start fails with "not found".
//! - `vanish`: the monitor is killed instead of answering the start.
//! - `linger`: the monitor takes no connection any more and lives on for a moment after the container's end.
//! - `log`: it writes a line to its log before it ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocol::agent::{ExitStatus, Failure, FailureKind, FileStat, ProcessId, Stats};
use protocol::monitor::{
    Answer, ExecState, Exit, FromMonitor, LISTENER_FD, LOCK_FD, Request, ToMonitor, VERSION,
    WaitUntil,
};
use protocol::record::{SandboxConfig, SandboxKind, State, Status};
use rustix::event::{PollFd, PollFlags, poll};

use crate::container::read_config;
use crate::layout::Layout;
use crate::{files, time};

#[test]
#[ignore = "a monitor, for the other tests"]
fn process() {
    let Some(folder) = std::env::var_os(super::MONITOR_OF) else {
        return;
    };
    let listener = sys::spawn::inherited(LISTENER_FD).unwrap();
    let lock = sys::spawn::inherited(LOCK_FD).unwrap();
    let folder = PathBuf::from(folder);
    let path = folder.join("config.json");
    let config: SandboxConfig = files::read(&path).unwrap().unwrap();
    Monitor {
        layout: Layout::new(&config.root),
        is_pod: config.kind != SandboxKind::Single,
        config,
        lock: Some(lock),
        clients: BTreeMap::new(),
        waiters: Vec::new(),
        execs: BTreeMap::new(),
        has_run: false,
        quits: false,
    }
    .serve(listener);
    std::process::exit(0);
}

struct Monitor {
    layout: Layout,
    is_pod: bool,
    config: SandboxConfig,
    lock: Option<OwnedFd>,
    clients: BTreeMap<u64, OwnedFd>,
    waiters: Vec<(u64, u64, ProcessId)>,
    execs: BTreeMap<ProcessId, ExitStatus>,
    has_run: bool,
    quits: bool,
}

impl Monitor {
    fn serve(mut self, listener: OwnedFd) {
        let mut next = 0;
        while next == 0 || !self.is_over() {
            let ids: Vec<u64> = self.clients.keys().copied().collect();
            let mut fds = vec![PollFd::new(&listener, PollFlags::IN)];
            for client in self.clients.values() {
                fds.push(PollFd::new(client, PollFlags::IN));
            }
            poll(&mut fds, None).unwrap();
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] {
                next += 1;
                self.clients
                    .insert(next, rustix::net::accept(&listener).unwrap());
            }
            for (id, ready) in ids.into_iter().zip(&ready[1..]) {
                if *ready {
                    self.hear(id);
                }
            }
        }
        drop(listener);
        let lingers = self
            .behaviour(&self.config.id.clone())
            .contains(&"linger".to_owned());
        self.clients.clear();
        if lingers {
            std::thread::sleep(std::time::Duration::from_millis(150));
        }
        if let Ok(Some(config)) = read_config(&self.layout, &self.config.id)
            && config.auto_remove
            && self.has_run
        {
            files::discard(&self.layout, &self.layout.container(&config.id)).unwrap();
            files::discard(&self.layout, &self.layout.sandbox(&config.id)).unwrap();
        }
        drop(self.lock.take());
    }

    fn is_over(&self) -> bool {
        let runs = self.state(&self.config.id).status.is_alive();
        self.quits || (!self.is_pod && self.clients.is_empty() && !runs)
    }

    fn hear(&mut self, id: u64) {
        let mut buffer = vec![0; 1 << 16];
        let packet = sys::packet::receive(&self.clients[&id], &mut buffer);
        match packet {
            Ok(packet) if packet.len > 0 => {
                let message: ToMonitor = serde_json::from_slice(&buffer[..packet.len]).unwrap();
                self.obey(id, message.seq, message.request);
            }
            _ => {
                self.clients.remove(&id);
                self.waiters.retain(|(client, ..)| *client != id);
            }
        }
    }

    fn obey(&mut self, id: u64, seq: u64, request: Request) {
        match request {
            Request::Hello { .. } => {
                let build = "fake".into();
                let version = VERSION;
                self.answer(id, seq, Ok(Answer::Hello { version, build }));
            }
            Request::Start { container } => self.start(id, seq, &container),
            Request::Wait { process, until } => self.wait(id, seq, process, until),
            Request::Signal { process, signal } => {
                self.answer(id, seq, Ok(Answer::Done));
                if signal == libc::SIGKILL {
                    self.end(&process.container, ExitStatus::Signal(9));
                }
            }
            Request::Stop { container, .. } => {
                self.state_of(&container, |state| state.stopped_by_user = true);
                self.end(&container, ExitStatus::Signal(15));
                let exit = exit(ExitStatus::Signal(15));
                self.answer(id, seq, Ok(Answer::Exited(exit)));
            }
            Request::Attach { process, .. } => self.attach(id, seq, &process),
            Request::Exec { process } => {
                self.execs.insert(process, ExitStatus::Code(5));
                self.answer(id, seq, Ok(Answer::Started { pid: 9 }));
            }
            Request::InspectExec { process } => self.inspect(id, seq, &process),
            Request::Pause { container } => {
                self.state_of(&container, |state| state.status = Status::Paused);
                self.answer(id, seq, Ok(Answer::Done));
            }
            Request::Resume { container } => {
                self.state_of(&container, |state| state.status = Status::Running);
                self.answer(id, seq, Ok(Answer::Done));
            }
            Request::Stats { .. } => {
                let stats = Stats {
                    memory_bytes: 42,
                    ..Stats::default()
                };
                self.answer(id, seq, Ok(Answer::Stats(Box::new(stats))));
            }
            Request::Processes { .. } => {
                self.answer(id, seq, Ok(Answer::Processes(vec![Default::default()])));
            }
            Request::Stat { path, .. } => {
                let stat = FileStat {
                    name: path,
                    size_bytes: 1,
                    mode: 0o100644,
                    modified_ns: 0,
                    link_target: None,
                };
                self.answer(id, seq, Ok(Answer::Stat(stat)));
            }
            Request::Changes { .. } => self.stream(id, seq, b"A /new\0C /etc\0D /old name\0"),
            Request::Archive { path, .. } if path == "/missing" => {
                let failure = Failure::new(FailureKind::NotFound, "no such path");
                self.answer(id, seq, Err(failure));
            }
            Request::Diff { container }
                if self.behaviour(&container).iter().any(|w| w == "torn") =>
            {
                let failure = Failure::new(FailureKind::Other, "it was torn");
                self.stream_until(id, seq, &[0; 1024], Err(failure));
            }
            Request::Diff { .. } => self.stream(id, seq, &[0; 1024]),
            Request::Archive { .. } => self.stream(id, seq, b"a tar"),
            Request::Shutdown => {
                let ids: Vec<String> = self.members();
                for container in ids {
                    self.end(&container, ExitStatus::Signal(9));
                }
                self.answer(id, seq, Ok(Answer::Done));
                self.quits = true;
            }
            _ => self.answer(id, seq, Ok(Answer::Done)),
        }
    }

    fn start(&mut self, id: u64, seq: u64, container: &str) {
        let behaviour = self.behaviour(container);
        let has = |word: &str| behaviour.iter().any(|other| other == word);
        if has("vanish") {
            std::process::abort();
        }
        if self.state(container).status.is_alive() {
            let failure = Failure::new(FailureKind::WrongState, "it is running already");
            return self.answer(id, seq, Err(failure));
        }
        if has("refuse") {
            let failure = Failure::new(FailureKind::CommandNotFound, "no such command");
            return self.answer(id, seq, Err(failure));
        }
        self.has_run = true;
        self.state_of(container, |state| *state = super::running());
        self.answer(id, seq, Ok(Answer::Started { pid: 7 }));
        if has("log") {
            self.log(container, "hello");
        }
        let code = behaviour.iter().find_map(|word| word.strip_prefix("exit="));
        if let Some(code) = code {
            self.end(container, ExitStatus::Code(code.parse().unwrap()));
        }
    }

    fn wait(&mut self, id: u64, seq: u64, process: ProcessId, until: WaitUntil) {
        if let Some(status) = self.execs.get(&process).copied() {
            return self.answer(id, seq, Ok(Answer::Exited(exit(status))));
        }
        let state = self.state(&process.container);
        match (until, state.status.is_alive()) {
            (WaitUntil::NotRunning, false) => {
                let status = state.exit.unwrap_or(ExitStatus::Code(0));
                self.answer(id, seq, Ok(Answer::Exited(exit(status))));
            }
            _ => self.waiters.push((id, seq, process)),
        }
    }

    fn attach(&mut self, id: u64, seq: u64, process: &ProcessId) {
        let (read, write) = std::io::pipe().unwrap();
        let pipes = [false, true, false];
        let message = FromMonitor::Streams {
            seq,
            terminal: false,
            pipes,
        };
        self.say(id, &message, &[read.as_fd()]);
        self.answer(id, seq, Ok(Answer::Done));
        writeln!(&write, "output of {}", &process.container[..4]).unwrap();
    }

    fn inspect(&mut self, id: u64, seq: u64, process: &ProcessId) {
        let result = match self.execs.get(process) {
            Some(status) => Ok(Answer::Exec(ExecState {
                running: false,
                pid: 9,
                status: Some(*status),
            })),
            None => Err(Failure::new(FailureKind::NotFound, "no such exec")),
        };
        self.answer(id, seq, result);
    }

    fn end(&mut self, container: &str, status: ExitStatus) {
        if !self.state(container).status.is_alive() {
            return;
        }
        self.state_of(container, |state| {
            state.status = Status::Exited;
            state.exit = Some(status);
            state.exit_code = status.code();
            state.finished_ns = time::now_ns();
        });
        let first = ProcessId::first(container);
        for (client, seq, process) in std::mem::take(&mut self.waiters) {
            match process == first {
                true => self.answer(client, seq, Ok(Answer::Exited(exit(status)))),
                false => self.waiters.push((client, seq, process)),
            }
        }
    }

    fn stream(&mut self, id: u64, seq: u64, bytes: &[u8]) {
        self.stream_until(id, seq, bytes, Ok(Answer::Done));
    }

    fn stream_until(&mut self, id: u64, seq: u64, bytes: &[u8], end: Result<Answer, Failure>) {
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        let message = FromMonitor::Streams {
            seq,
            terminal: true,
            pipes: [false; 3],
        };
        self.say(id, &message, &[theirs.as_fd()]);
        File::from(ours).write_all(bytes).unwrap();
        self.answer(id, seq, end);
    }

    fn log(&self, container: &str, text: &str) {
        let line = serde_json::json!({
            "log": format!("{text}\n"), "stream": "stdout", "time": time::format(time::now_ns())
        });
        append(&self.layout.log(container), &format!("{line}\n"));
    }

    fn answer(&mut self, id: u64, seq: u64, result: Result<Answer, Failure>) {
        self.say(id, &FromMonitor::Answer { seq, result }, &[]);
    }

    fn say(&self, id: u64, message: &FromMonitor, descriptors: &[BorrowedFd<'_>]) {
        if let Some(client) = self.clients.get(&id) {
            let bytes = serde_json::to_vec(message).unwrap();
            let _ = sys::packet::send(client, &bytes, descriptors);
        }
    }

    fn members(&self) -> Vec<String> {
        let ids = files::names(&self.layout.containers()).unwrap();
        ids.into_iter()
            .filter(|id| {
                read_config(&self.layout, id)
                    .unwrap()
                    .is_some_and(|config| config.sandbox == self.config.id)
            })
            .collect()
    }

    fn behaviour(&self, container: &str) -> Vec<String> {
        let config = read_config(&self.layout, container).ok().flatten();
        config
            .and_then(|config| config.labels.get(super::BEHAVIOUR).cloned())
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    }

    fn state(&self, container: &str) -> State {
        files::read(&self.layout.state(container))
            .unwrap()
            .unwrap_or_default()
    }

    fn state_of(&self, container: &str, change: impl FnOnce(&mut State)) {
        let mut state = self.state(container);
        change(&mut state);
        files::write(&self.layout.state(container), &state).unwrap();
    }
}

fn exit(status: ExitStatus) -> Box<Exit> {
    Box::new(Exit {
        status,
        oom_killed: false,
        error: None,
        console: Vec::new(),
        measured: None,
    })
}

/// Appends to a file, as the speaker does.
pub(super) fn append(path: &Path, text: &str) {
    let mut options = File::options();
    let mut file = options.create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
