//! The other end: a monitor of a few lines, and an agent that runs as an ordinary process in namespaces of its own.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::time::Duration;

use protocol::agent::{
    Create, Done, EtcFiles, Exec, ExitStatus, Failure, FromAgent, Hello, Layer, LayerExtent, Mount,
    Network, PidNamespace, ProcessId, Request, Root, Stdio, Stream, ToAgent, Wake, Writable,
};
use protocol::frame;
use serde_json::json;

/// Layers begin at multiples of this, as hull-vmm lays them out.
const ALIGN: u64 = 2 << 20;

/// A moment, and bytes that are random enough for a test.
pub(crate) const WAKE: Wake = Wake {
    realtime_ns: 1_800_000_000_123_456_789,
    entropy: [7; 32],
};

/// An agent and what it talks to.
pub(crate) struct Host {
    agent: Child,
    control: UnixStream,
    dir: tempfile::TempDir,
    loop_device: String,
    cgroup: PathBuf,
    layers: Vec<LayerExtent>,
    events: VecDeque<FromAgent>,
    replies: BTreeMap<u64, Result<Done, Failure>>,
    seq: u64,
    port: u32,
}

/// The host's end of a stream that the agent is to open.
pub(crate) struct Listener {
    listener: UnixListener,
    stream: Stream,
}

impl Host {
    /// An agent that is ready for containers.
    pub(crate) fn start() -> Host {
        let mut host = Host::start_asleep();
        host.ask(Request::Wake(WAKE)).unwrap();
        host
    }

    /// An agent that has said hello.
    pub(crate) fn start_asleep() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let sockets = dir.path().join("sockets");
        let run_dir = dir.path().join("run");
        std::fs::create_dir_all(&sockets).unwrap();
        std::fs::create_dir_all(&run_dir).unwrap();
        let (image, layers) = layer_device(dir.path());
        let loop_device = output(
            Command::new("losetup")
                .args(["-P", "--show", "-f"])
                .arg(image),
        );
        let cgroup = cgroup2().join(format!("hull-agent-test-{}", rand()));
        let listener = UnixListener::bind(sockets.join("control")).unwrap();
        let agent = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--net",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .arg(env!("CARGO_BIN_EXE_agent-native"))
            .args([&sockets, &run_dir, &cgroup])
            .arg(&loop_device)
            .stdin(ProcessStdio::null())
            .spawn()
            .unwrap();
        let mut control = listener.accept().unwrap().0;
        control
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let hello: Hello = frame::read(&mut control).unwrap();
        assert_eq!(hello.build, protocol::BUILD);
        Host {
            agent,
            control,
            dir,
            loop_device,
            cgroup,
            layers,
            events: VecDeque::new(),
            replies: BTreeMap::new(),
            seq: 0,
            port: 2000,
        }
    }

    /// A place where the agent may open a stream.
    pub(crate) fn listen(&mut self) -> Listener {
        self.port += 1;
        let path = self.dir.path().join("sockets").join(self.port.to_string());
        let token =
            std::array::from_fn(|at| (self.port as u8).wrapping_mul(7).wrapping_add(at as u8));
        Listener {
            listener: UnixListener::bind(path).unwrap(),
            stream: Stream {
                port: self.port,
                token,
            },
        }
    }

    pub(crate) fn send(&mut self, request: Request) -> u64 {
        self.seq += 1;
        frame::write(
            &mut self.control,
            &ToAgent {
                seq: self.seq,
                request,
            },
        )
        .unwrap();
        self.seq
    }

    /// Sends requests so that they arrive together; the numbers of their replies.
    pub(crate) fn send_at_once<const N: usize>(&mut self, requests: [Request; N]) -> [u64; N] {
        let mut bytes = Vec::new();
        let sent = requests.map(|request| {
            self.seq += 1;
            let seq = self.seq;
            bytes.extend(frame::encode(&ToAgent { seq, request }).unwrap());
            seq
        });
        self.control.write_all(&bytes).unwrap();
        sent
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Done, Failure> {
        let wanted = self.send(request);
        self.reply_of(wanted)
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> FromAgent {
        frame::read(&mut self.control).unwrap()
    }

    /// Waits for the reply to a request that was sent, whatever comes before it.
    pub(crate) fn reply_of(&mut self, wanted: u64) -> Result<Done, Failure> {
        if let Some(result) = self.replies.remove(&wanted) {
            return result;
        }
        loop {
            match self.next() {
                FromAgent::Reply { seq, result } if seq == wanted => return result,
                FromAgent::Reply { seq, result } => drop(self.replies.insert(seq, result)),
                event => self.events.push_back(event),
            }
        }
    }

    /// Descriptors that the agent has open.
    pub(crate) fn agent_descriptors(&self) -> usize {
        let [agent] = children(self.agent.id())[..] else {
            panic!("unshare has one child");
        };
        std::fs::read_dir(format!("/proc/{agent}/fd"))
            .unwrap()
            .count()
    }

    /// Processes that the agent has made or adopted.
    pub(crate) fn agent_children(&self) -> Vec<u32> {
        children(self.agent.id())
            .into_iter()
            .flat_map(children)
            .collect()
    }

    /// A directory of the host's, outside of every container.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn delete(&mut self, name: &str) -> Result<Done, Failure> {
        self.ask(Request::Delete {
            container: name.into(),
            writable: true,
        })
    }

    /// The next message, which is to be the reply to a request that was sent.
    pub(crate) fn reply(&mut self, wanted: u64) -> Result<Done, Failure> {
        match frame::read(&mut self.control).unwrap() {
            FromAgent::Reply { seq, result } if seq == wanted => result,
            message => panic!("{message:?}"),
        }
    }

    /// What the agent's machine has woken with, a line each time.
    pub(crate) fn woken(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("sockets/woken")).unwrap_or_default()
    }

    /// The root of a container, to be put together.
    pub(crate) fn mount_request(&self, name: &str, writable: Writable) -> Request {
        Request::Mount(Mount {
            container: name.into(),
            root: Root::Layers {
                layers: self.layers.iter().copied().map(Layer::Extent).collect(),
                writable,
            },
        })
    }

    /// Waits for a container's end.
    pub(crate) fn exit_of(&mut self, name: &str) -> ExitStatus {
        self.exit_of_process(&ProcessId::first(name))
    }

    /// Waits for a process's end. Ends of others are kept for later.
    pub(crate) fn exit_of_process(&mut self, wanted: &ProcessId) -> ExitStatus {
        let is_it = |event: &FromAgent| matches!(event, FromAgent::Exited { process, .. } if process == wanted);
        loop {
            if let Some(at) = self.events.iter().position(is_it) {
                let Some(FromAgent::Exited { status, .. }) = self.events.remove(at) else {
                    unreachable!("looked at above");
                };
                return status;
            }
            match self.next() {
                FromAgent::Reply { seq, result } => drop(self.replies.insert(seq, result)),
                event => self.events.push_back(event),
            }
        }
    }

    pub(crate) fn mount(&mut self, name: &str) -> Result<Done, Failure> {
        self.mount_with(name, Writable::Tmpfs)
    }

    pub(crate) fn mount_with(&mut self, name: &str, writable: Writable) -> Result<Done, Failure> {
        self.ask(self.mount_request(name, writable))
    }

    /// Mounts and creates a container that runs a shell script.
    pub(crate) fn create(&mut self, name: &str, script: &str, stdio: Stdio) {
        self.mount(name).unwrap();
        self.ask(Request::Create(Box::new(create(
            name,
            &["sh", "-c", script],
            stdio,
        ))))
        .unwrap();
    }

    pub(crate) fn start_container(&mut self, name: &str) -> Result<Done, Failure> {
        self.ask(Request::Start {
            container: name.into(),
        })
    }

    /// Ends the agent and returns its code.
    pub(crate) fn shut_down(mut self, code: u32) -> i32 {
        self.send(Request::Shutdown { code });
        self.agent.wait().unwrap().code().unwrap()
    }

    /// Closes the control connection, as a host that goes away does, and returns the agent's code.
    pub(crate) fn vanish(mut self) -> i32 {
        self.control.shutdown(std::net::Shutdown::Both).unwrap();
        self.agent.wait().unwrap().code().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Without its host the agent ends by itself and cleans up.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.agent.wait();
        // The containers' cgroups, below, are gone by then.
        let _ = std::fs::remove_dir(&self.cgroup);
        let _ = Command::new("losetup")
            .arg("-d")
            .arg(&self.loop_device)
            .status();
    }
}

impl Listener {
    pub(crate) fn stream(&self) -> Stream {
        self.stream.clone()
    }

    /// The stream, once the agent has opened it and shown its token.
    pub(crate) fn accept(&self) -> UnixStream {
        let mut stream = self.listener.accept().unwrap().0;
        let mut token = [0; protocol::agent::TOKEN_LEN];
        stream.read_exact(&mut token).unwrap();
        assert_eq!(token, self.stream.token);
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }
}

fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Standard output alone, to a stream.
pub(crate) fn output_to(listener: &Listener) -> Stdio {
    Stdio::Pipes {
        stdin: None,
        stdout: Some(listener.stream()),
        stderr: None,
    }
}

/// A further process in a container.
pub(crate) fn exec(name: &str, exec: &str, args: &[&str], stdio: Stdio) -> Request {
    let document = json!({
        "args": args, "cwd": "/", "env": ["PATH=/bin"],
        "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
    });
    Request::Exec(Box::new(Exec {
        process: ProcessId::exec(name, exec),
        document: serde_json::value::to_raw_value(&document).unwrap(),
        user: None,
        seccomp: None,
        stdio,
    }))
}

pub(crate) fn text(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A container's document.
pub(crate) fn create(name: &str, args: &[&str], stdio: Stdio) -> Create {
    let document = json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 0,
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
        },
        "root": { "path": "rootfs" },
        "hostname": name,
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        ],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "network" }, { "type": "uts" },
                                  { "type": "pid" }, { "type": "ipc" }, { "type": "cgroup" }] },
    });
    Create {
        container: name.into(),
        spec: serde_json::value::to_raw_value(&document).unwrap(),
        user: None,
        seccomp: None,
        init: false,
        stdio,
        etc: EtcFiles::default(),
        groups: Vec::new(),
        network: Network::None,
        pid: PidNamespace::Own,
        volumes: Vec::new(),
        shares: Vec::new(),
        sockets: Vec::new(),
    }
}

/// Two layers of EROFS: busybox, and one file that is over another.
pub(crate) fn erofs_images(dir: &Path) -> [PathBuf; 2] {
    let lower = dir.join("lower");
    for path in ["bin", "etc", "proc", "dev", "tmp", "deleted", "remade"] {
        std::fs::create_dir_all(lower.join(path)).unwrap();
    }
    std::fs::copy("/bin/busybox", lower.join("bin/busybox")).unwrap();
    for name in [
        "sh",
        "cat",
        "echo",
        "sleep",
        "hostname",
        "sha256sum",
        "tty",
        "stty",
        "head",
        "mount",
        "wc",
        "kill",
        "dd",
        "ls",
        "ln",
        "rm",
        "mkdir",
        "mkfifo",
        "chmod",
        "stat",
        "readlink",
        "yes",
        "true",
    ] {
        std::os::unix::fs::symlink("busybox", lower.join("bin").join(name)).unwrap();
    }
    std::fs::write(lower.join("etc/which"), "lower\n").unwrap();
    std::fs::write(lower.join("remade/old"), "old\n").unwrap();
    let upper = dir.join("upper");
    std::fs::create_dir_all(upper.join("etc")).unwrap();
    std::fs::write(upper.join("etc/which"), "upper\n").unwrap();
    [lower, upper].map(|layer| {
        let image = layer.with_extension("erofs");
        output(
            Command::new("mkfs.erofs")
                .arg("--quiet")
                .arg(&image)
                .arg(&layer),
        );
        // As hull makes them: of whole pages.
        let file = std::fs::File::options().write(true).open(&image).unwrap();
        let len = file.metadata().unwrap().len().next_multiple_of(4096);
        file.set_len(len).unwrap();
        image
    })
}

/// The layers one after the other, on one device.
fn layer_device(dir: &Path) -> (PathBuf, Vec<LayerExtent>) {
    let mut device = Vec::new();
    let mut layers = Vec::new();
    for image in erofs_images(dir) {
        let bytes = std::fs::read(image).unwrap();
        device.resize(device.len().next_multiple_of(ALIGN as usize), 0);
        layers.push(LayerExtent {
            offset_bytes: device.len() as u64,
            len_bytes: bytes.len() as u64,
        });
        device.extend(bytes);
    }
    device.resize(device.len().next_multiple_of(ALIGN as usize), 0);
    let path = dir.join("layers");
    std::fs::write(&path, device).unwrap();
    (path, layers)
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Where the version 2 hierarchy is mounted.
fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .expect("a cgroup2 mount");
    line.split(' ').nth(4).unwrap().into()
}

fn rand() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}
