//! What the tests share: a state root with containers, and a monitor that is a process of its own and no more than that.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use protocol::agent::{EtcFiles, PidNamespace};
use protocol::record::{
    ContainerConfig, LogConfig, Machine, RestartPolicy, Run, SandboxConfig, SandboxKind, State,
    Status, Stdio, VERSION,
};
use serde_json::json;
use serde_json::value::RawValue;

use crate::create::NewContainer;
use crate::engine::Engine;
use crate::install::Installation;
use crate::{files, id, lock, time};

mod monitor;

/// The label by which a test says what the fake monitor is to do: see [`monitor`].
pub(crate) const BEHAVIOUR: &str = "fake";
/// The variable that tells this test program to be a monitor.
const MONITOR_OF: &str = "HULL_FAKE_MONITOR_OF";

/// A state root, and the engine of it.
pub(crate) struct Fixture {
    pub(crate) engine: Engine,
    libexec: PathBuf,
    // Last: its folder goes when nothing uses it.
    root: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let libexec = root.path().join("libexec");
        std::fs::create_dir(&libexec).unwrap();
        let program = libexec.join("hull-monitor");
        let script = format!(
            "#!/bin/sh\ncase $1 in sweep) echo x >> '{}/swept'; exit 0;; esac\nexport {MONITOR_OF}=\"$1\"\n\
             exec '{}' --exact testing::monitor::process --ignored --nocapture\n",
            root.path().display(),
            std::env::current_exe().unwrap().display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Fixture {
            engine: Engine::open(root.path(), Installation::at(&libexec)),
            libexec,
            root,
        }
    }

    /// Another process's engine, as it were.
    pub(crate) fn another_engine(&self) -> Engine {
        Engine::open(self.root.path(), Installation::at(&self.libexec))
    }

    /// How often what dead monitors left on the host was swept.
    pub(crate) fn host_sweeps(&self) -> usize {
        std::fs::read_to_string(self.root.path().join("swept"))
            .map_or(0, |text| text.lines().count())
    }

    pub(crate) fn create(&self, name: &str) -> String {
        self.create_with(name, |_| {})
    }

    pub(crate) fn create_with_id(&self, id: &str, name: &str) -> String {
        self.create_with(name, |config| {
            config.id = id.to_owned();
            config.sandbox = id.to_owned();
        })
    }

    /// A container that behaves so when it is started.
    pub(crate) fn create_behaving(&self, name: &str, behaviour: &str) -> String {
        self.create_with(name, |config| {
            config.labels.insert(BEHAVIOUR.into(), behaviour.into());
        })
    }

    pub(crate) fn create_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        let new = self.new_container(name, change);
        let id = new.config.id.clone();
        self.engine.create(new).unwrap();
        id
    }

    pub(crate) fn new_container(
        &self,
        name: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> NewContainer {
        let mut config = config(name);
        change(&mut config);
        let sandbox =
            (config.sandbox == config.id).then(|| self.sandbox(&config.id, SandboxKind::Single));
        NewContainer {
            config,
            sandbox,
            lease: None,
        }
    }

    /// A pod, and its identifier.
    pub(crate) fn create_pod(&self, name: &str) -> String {
        let kind = SandboxKind::Pod {
            name: name.into(),
            shared_pid: false,
            created_ns: time::now_ns(),
            labels: BTreeMap::new(),
        };
        let pod = self.sandbox(&id::new_id(), kind);
        self.engine.pod_create(&pod).unwrap();
        pod.id
    }

    pub(crate) fn sandbox(&self, id: &str, kind: SandboxKind) -> SandboxConfig {
        SandboxConfig {
            version: VERSION,
            root: self.root.path().to_owned(),
            id: id.to_owned(),
            machine: Machine::Native {
                program: "/nowhere/hull-native".into(),
            },
            kind,
            networks: Vec::new(),
            net: None,
            measure: false,
        }
    }

    pub(crate) fn set_state(&self, id: &str, state: State) {
        files::write(&self.engine.layout().state(id), &state).unwrap();
    }

    /// The state as it is on disk.
    pub(crate) fn recorded(&self, id: &str) -> State {
        files::read(&self.engine.layout().state(id))
            .unwrap()
            .unwrap()
    }

    /// Holds a sandbox's lock, as a monitor does.
    pub(crate) fn hold(&self, sandbox: &str) -> File {
        let path = self.engine.layout().sandbox_lock(sandbox);
        lock::try_take(&path).unwrap().unwrap()
    }

    /// The actions of all events, in their order.
    pub(crate) fn actions(&self) -> Vec<String> {
        let path = self.engine.layout().events().join("events.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let action = |line: &str| {
            let event: protocol::record::Event = serde_json::from_str(line).unwrap();
            event.action
        };
        text.lines().map(action).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // No fake monitor outlives its test.
        for pod in self.engine.pods().unwrap_or_default() {
            let _ = self.engine.pod_remove(&pod.id, true);
        }
        for summary in self.engine.summaries().unwrap_or_default() {
            let force = crate::remove::Remove {
                force: true,
                volumes: true,
            };
            let _ = self.engine.remove(&summary.id, force);
        }
    }
}

/// A state that needs a monitor.
pub(crate) fn running() -> State {
    State {
        status: Status::Running,
        pid: 7,
        started_ns: time::now_ns(),
        ..State::default()
    }
}

pub(crate) fn config(name: &str) -> ContainerConfig {
    let id = id::new_id();
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {"args": ["sleep", "1000"], "cwd": "/"},
        "linux": {"resources": {"memory": {"limit": 1000}}}
    });
    ContainerConfig {
        version: VERSION,
        sandbox: id.clone(),
        id,
        name: name.to_owned(),
        created_ns: time::now_ns(),
        image: "demo".into(),
        image_id: format!("sha256:{}", "d".repeat(64)),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        run: Run {
            spec: RawValue::from_string(spec.to_string()).unwrap(),
            user: None,
            groups: Vec::new(),
            seccomp: None,
            init: false,
            stdio: Stdio::Pipes {
                stdin: false,
                stdin_once: false,
            },
            etc: EtcFiles::default(),
            own_names: Vec::new(),
            gateway_names: Vec::new(),
            layers: Vec::new(),
            read_only: false,
            volumes: Vec::new(),
            mounts: Vec::new(),
            pid: PidNamespace::Own,
            network: false,
        },
        restart: RestartPolicy::No,
        auto_remove: false,
        stop_signal: libc::SIGTERM,
        stop_timeout_s: 10,
        log: LogConfig::default(),
        health: None,
        network: None,
        networks: None,
        asked: RawValue::from_string("{}".into()).unwrap(),
    }
}
