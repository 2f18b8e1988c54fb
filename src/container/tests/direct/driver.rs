//! A container that runs, and processes executed in it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use container::{
    EtcFiles, ExecRequest, Joinable, Network, PidNamespace, Process, Request, Running, Spec, Stdio,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};

use crate::fixture::{Bundle, cgroup2};

/// A request for a container of the bundle, without streams.
pub(crate) fn request(bundle: &Bundle) -> Request {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("hull-direct-test-{}-{number}", std::process::id());
    Request {
        spec: Spec::from_json(bundle.config.to_string().as_bytes()).unwrap(),
        rootfs: bundle.root(),
        user: None,
        groups: Vec::new(),
        seccomp: None,
        init: false,
        stdio: no_streams(),
        etc: EtcFiles::default(),
        network: Network::Loopback,
        pid: PidNamespace::Own,
        volumes: Vec::new(),
        shares: Vec::new(),
        own_machine: false,
        cgroup: cgroup2().join(name),
        run_dir: bundle.path().join("run"),
    }
}

/// /dev/null for all three.
pub(crate) fn no_streams() -> Stdio {
    Stdio::Pipes {
        stdin: None,
        stdout: None,
        stderr: None,
    }
}

/// A container, killed and removed at the end of the test.
pub(crate) struct Container {
    pub(crate) running: Running,
    process: Value,
}

impl Container {
    /// Runs a bundle.
    pub(crate) fn start(bundle: &Bundle) -> Container {
        Container::of(request(bundle), bundle)
    }

    /// Runs a request for a bundle.
    pub(crate) fn of(request: Request, bundle: &Bundle) -> Container {
        let created = container::create(request).unwrap().wait().unwrap();
        Container {
            running: created.start().wait().unwrap(),
            process: bundle.config["process"].clone(),
        }
    }

    /// A container that sleeps.
    pub(crate) fn sleeping() -> (Container, Bundle) {
        let bundle = Bundle::new("exec sleep 1000");
        (Container::start(&bundle), bundle)
    }

    /// The container's process with another script, as a document.
    pub(crate) fn document(&self, script: &str) -> Value {
        let mut process = self.process.clone();
        process["args"] = json!(["sh", "-c", script]);
        process
    }

    /// Executes a script, to its end.
    pub(crate) fn exec(&self, script: &str) -> Output {
        self.run(&self.document(script), None).unwrap()
    }

    /// Executes a process of a document, to its end.
    pub(crate) fn run(
        &self,
        process: &Value,
        user: Option<&str>,
    ) -> Result<Output, container::Error> {
        self.run_with(process, |request| request.user = user.map(str::to_owned))
    }

    /// Executes a process of a document, with further wishes, to its end.
    pub(crate) fn run_with(
        &self,
        process: &Value,
        change: impl FnOnce(&mut ExecRequest),
    ) -> Result<Output, container::Error> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut request = exec_request(process);
        request.stdio = Stdio::Pipes {
            stdin: None,
            stdout: Some(writer.try_clone().unwrap()),
            stderr: Some(writer),
        };
        change(&mut request);
        let running = container::exec(self.joinable(), request)?.wait()?;
        let mut out = Vec::new();
        File::from(reader).read_to_end(&mut out).unwrap();
        Ok(Output {
            out: String::from_utf8_lossy(&out).into_owned(),
            code: wait(&running.pidfd),
        })
    }

    pub(crate) fn joinable(&self) -> &Joinable {
        &self.running.joinable
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        self.joinable().cgroup().path().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let cgroup = self.joinable().cgroup();
        let _ = cgroup.thaw();
        let _ = cgroup.kill();
        let process = WaitId::PidFd(self.running.pidfd.as_fd());
        // It ends only when all of its PID namespace have been reaped, failed execs among them.
        while let Ok(None) = waitid(
            process.clone(),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            container::sweep();
            std::thread::yield_now();
        }
        let Ok(mut events) = cgroup.events() else {
            return;
        };
        while events.state().is_ok_and(|state| state.populated) {
            let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], None);
        }
        let _ = cgroup.try_remove();
    }
}

/// What a process printed and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) out: String,
    pub(crate) code: i32,
}

/// A process of a document, without streams.
pub(crate) fn exec_request(process: &Value) -> ExecRequest {
    ExecRequest {
        process: Process::from_json(process.to_string().as_bytes()).unwrap(),
        user: None,
        seccomp: None,
        stdio: no_streams(),
    }
}

/// Waits for the end of a process: its code, or 128 and its signal.
pub(crate) fn wait(pidfd: &OwnedFd) -> i32 {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let status = status.unwrap().unwrap();
    status
        .exit_status()
        .or(status.terminating_signal().map(|signal| 128 + signal))
        .unwrap()
}

/// Sweeps until nothing is left.
pub(crate) fn sweep_all() {
    while container::sweep() > 0 {
        std::thread::yield_now();
    }
}

/// The descriptors that this process has open, and its children.
pub(crate) fn open_and_children() -> (usize, usize) {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    (open, children.split_whitespace().count())
}
