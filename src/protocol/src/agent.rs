//! Monitor to agent, over the first vsock connection of a sandbox (guest to host, port [`CONTROL_PORT`]).
//!
//! The agent's first frame is [`Hello`]. After that the monitor sends [`ToAgent`] requests and the agent answers each
//! with one [`FromAgent::Reply`] of the same `seq`. Requests are begun in the order of their arrival; replies may come in
//! any order, since some requests take long. Requests for one container are carried out in order, so the monitor may send
//! [`Request::Mount`], [`Request::Create`] and [`Request::Start`] without waiting; when one fails, the later ones fail too.
//!
//! ```text
//! container:  Mount -> Create -> Start -> (Exited) -> Delete
//! exec:                            Exec -> (Exited)
//! ```
//!
//! docs/lifecycle.md is the contract of these states.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The vsock port of the control connection. Ports of streams are above it.
pub const CONTROL_PORT: u32 = 1024;
/// The host's context id (virtio 1.2, 5.10.4).
pub const HOST_CID: u32 = 2;
/// A word on the kernel's command line of a VM that is to be saved as a template: its agent prepares what every VM that
/// begins there will need.
pub const TO_BE_SAVED: &str = "hull.saved";
/// Length of a stream's token in bytes: the first bytes that the agent sends on a stream, before any data.
pub const TOKEN_LEN: usize = 16;

/// A stream to open: the agent connects to `port` on the host and sends the token, then data flows both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Host port; used once.
    pub port: u32,
    /// [`TOKEN_LEN`] random bytes.
    pub token: [u8; TOKEN_LEN],
}

/// Names a process: a container's first, or one that was executed in it later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The container.
    pub container: String,
    /// The exec's identifier; `None` is the container's first process.
    pub exec: Option<String>,
}

impl ProcessId {
    /// The first process of a container.
    pub fn first(container: impl Into<String>) -> ProcessId {
        ProcessId {
            container: container.into(),
            exec: None,
        }
    }

    /// A process that was executed in a container.
    pub fn exec(container: impl Into<String>, exec: impl Into<String>) -> ProcessId {
        ProcessId {
            container: container.into(),
            exec: Some(exec.into()),
        }
    }
}

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::BUILD`] of the agent.
    pub build: String,
    /// The guest kernel's release, as `uname -r` prints it.
    pub kernel_release: String,
}

/// What the monitor sends: a request and the number that its reply carries.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToAgent {
    /// Chosen by the monitor, unique in the connection.
    pub seq: u64,
    /// What to do.
    pub request: Request,
}

/// What the agent is asked to do.
///
/// Externally tagged, unlike the other enums: an internally tagged enum buffers its content, and a [`RawValue`] cannot
/// be read from that buffer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What a machine cannot know that may have been saved and started many times since. The first request of all:
    /// before it the agent's clock and random numbers are those of every other VM of the same template.
    Wake(Wake),
    /// Make the sandbox's own network namespace, with this interface, for containers that share it.
    Network(Interface),
    /// Put a container's root file system together.
    Mount(Mount),
    /// Make the container's namespaces and process, stopped before it executes. The reply comes when it is built.
    Create(Box<Create>),
    /// Let a created container's process execute. The reply comes when it has, or when it failed to.
    Start {
        /// The container.
        container: String,
    },
    /// Execute a further process in a running container. The reply comes when it executes, or when it failed to.
    Exec(Box<Exec>),
    /// Send a signal to a process, or to all of a container's.
    Signal {
        /// The process.
        process: ProcessId,
        /// Signal number.
        signal: i32,
        /// All processes of the container, not only this one.
        all: bool,
    },
    /// A client's terminal has changed its size.
    Resize {
        /// The process whose terminal it is.
        process: ProcessId,
        /// The new size.
        size: TerminalSize,
    },
    /// Freeze every process of a container. The reply comes when they are frozen.
    Pause {
        /// The container.
        container: String,
    },
    /// Let a frozen container go on.
    Resume {
        /// The container.
        container: String,
    },
    /// Change a container's limits.
    Update {
        /// The container.
        container: String,
        /// An OCI `linux.resources` document. Members that it lacks stay as they are.
        resources: Box<RawValue>,
    },
    /// What a container uses: answered by [`Done::Stats`].
    Stats {
        /// The container.
        container: String,
    },
    /// The processes of a container: answered by [`Done::Processes`].
    Processes {
        /// The container.
        container: String,
    },
    /// What is at a path inside a mounted container: answered by [`Done::Stat`].
    Stat {
        /// The container.
        container: String,
        /// Absolute path in it, resolved inside its root.
        path: String,
        /// Follow a symlink that the path itself is.
        follow: bool,
    },
    /// Write a tar archive of what is at `path` to the stream: entries are named from the path's last component. The reply
    /// comes when all has been sent.
    Archive {
        /// The container.
        container: String,
        /// Absolute path in it, resolved inside its root. `/` is the whole root without what is mounted in it.
        path: String,
        /// Follow a symlink that the path itself is.
        follow: bool,
        /// Where it goes.
        stream: Stream,
    },
    /// Unpack the tar archive that comes over the stream below the directory `path`. The reply comes at its end.
    Extract {
        /// The container.
        container: String,
        /// Absolute path in it, resolved inside its root; a directory.
        path: String,
        /// Give files the owners of the archive (`cp -a`); otherwise they belong to root of the container.
        owners: bool,
        /// Refuse to replace a directory by another kind of file and the reverse.
        no_overwrite_kind: bool,
        /// Where it comes from.
        stream: Stream,
    },
    /// Write a container's changes against its image, as an OCI layer (a tar with whiteouts), to the stream.
    Diff {
        /// The container.
        container: String,
        /// Where it goes.
        stream: Stream,
    },
    /// List a container's changes against its image on the stream: for each a letter (`A`dded, `C`hanged, `D`eleted), a
    /// space, the absolute path, and a zero byte.
    Changes {
        /// The container.
        container: String,
        /// Where they go.
        stream: Stream,
    },
    /// Kill what is left of a container, unmount and forget it; its writable directory stays. The reply comes when it is
    /// gone.
    Delete {
        /// The container.
        container: String,
        /// Remove its writable directory as well.
        writable: bool,
    },
    /// Stop every container, flush the disks and end the VM with this code. There is no reply: the VM is gone.
    Shutdown {
        /// Reported by the control device.
        code: u32,
    },
}

/// See [`Request::Wake`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// The host's CLOCK_REALTIME when this was sent, in nanoseconds.
    pub realtime_ns: u64,
    /// Random bytes of the host's kernel: mixed into the guest kernel's generator, which is reseeded with them.
    pub entropy: [u8; 32],
}

/// The root file system of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The container.
    pub container: String,
    /// What it is made of.
    pub root: Root,
}

/// What a container's root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Root {
    /// Read-only layers and a writable directory above them.
    Layers {
        /// EROFS images, lowest layer first.
        layers: Vec<Layer>,
        /// What takes the container's writes.
        writable: Writable,
    },
    /// A directory of this machine, as it is. (Native sandboxes; shared directories.)
    Directory {
        /// Absolute path.
        path: String,
    },
}

/// Where a layer's EROFS image is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Layer {
    /// A part of the layer device, of which the agent makes a partition (BLKPG) once.
    Extent(LayerExtent),
    /// A file of this machine. (Native sandboxes.)
    File {
        /// Absolute path.
        path: String,
    },
}

/// A layer's place on the layer device, in bytes; both are multiples of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerExtent {
    /// First byte.
    pub offset_bytes: u64,
    /// Length.
    pub len_bytes: u64,
}

/// What takes a container's writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Writable {
    /// A directory named after the container on an ext4 file system, which all containers of the sandbox share. The block
    /// device is named by its virtio serial (see [`crate::vmm::DiskConfig::serial`]).
    Disk {
        /// The device's serial.
        serial: String,
    },
    /// A directory of this machine. (Native sandboxes.)
    Directory {
        /// Absolute path; made when missing.
        path: String,
    },
    /// The machine's memory.
    Tmpfs,
    /// Nothing: the root file system is read-only, whatever the document's `root.readonly` says. (A little memory above
    /// the layers holds mount targets that the image lacks.)
    Nothing,
}

/// A container to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    /// The container; one that was mounted.
    pub container: String,
    /// An OCI runtime-spec document (config.json). `root.path` is ignored: the root is the mounted one.
    pub spec: Box<RawValue>,
    /// `USER[:GROUP]` by name or number, looked up in the container's /etc/passwd and /etc/group when the process is
    /// made; replaces `process.user` of the spec, and sets HOME where the spec's environment does not.
    pub user: Option<String>,
    /// Supplementary groups by name or number, looked up in the same way, besides the user's own.
    #[serde(default)]
    pub groups: Vec<String>,
    /// A compiled seccomp program: an array of `struct sock_filter`, 8 bytes each, in the host's byte order. The
    /// document's own `linux.seccomp` is ignored by the agent.
    pub seccomp: Option<Vec<u8>>,
    /// Put a small init between the container's PID namespace and its process.
    pub init: bool,
    /// Where the standard streams go.
    pub stdio: Stdio,
    /// Contents of /etc/hosts, /etc/hostname and /etc/resolv.conf, bind-mounted over the image's.
    pub etc: EtcFiles,
    /// The container's network.
    pub network: Network,
    /// The container's PID namespace.
    #[serde(default)]
    pub pid: PidNamespace,
    /// Absolute paths that must be writable directories whatever the root is: the image's volumes that nothing else is
    /// mounted on. Their content in the image is kept.
    #[serde(default)]
    pub volumes: Vec<String>,
}

/// A container's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Network {
    /// A namespace of its own with loopback alone.
    None,
    /// A namespace of its own, with this interface.
    Own(Interface),
    /// The sandbox's, which all its containers share: made by [`Request::Network`], or with loopback alone.
    Sandbox,
}

/// A container's PID namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Own,
    /// The sandbox's, which it shares with the other containers that say so.
    Sandbox,
}

/// A process to execute in a running container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The process; its `exec` is given and new in this container.
    pub process: ProcessId,
    /// An OCI `process` document: args, env, cwd, terminal, capabilities, rlimits, noNewPrivileges.
    pub document: Box<RawValue>,
    /// As [`Create::user`].
    pub user: Option<String>,
    /// As [`Create::seccomp`].
    pub seccomp: Option<Vec<u8>>,
    /// Where the standard streams go.
    pub stdio: Stdio,
}

/// The files that every container gets in /etc. `None` leaves the image's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcFiles {
    /// /etc/hosts
    pub hosts: Option<String>,
    /// /etc/hostname
    pub hostname: Option<String>,
    /// /etc/resolv.conf
    pub resolv_conf: Option<String>,
}

/// A network interface: in a VM the one network device, natively the one with this MAC address. It gets this address and
/// is called eth0 inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// MAC address.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub address: std::net::Ipv4Addr,
    /// Bits of the network's prefix.
    pub prefix_len: u8,
    /// Default gateway.
    pub gateway: Option<std::net::Ipv4Addr>,
    /// Largest packet, in bytes.
    pub mtu: u16,
}

/// Where a process's standard streams go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Stdio {
    /// One stream for a terminal, both ways.
    Terminal {
        /// The stream.
        stream: Stream,
        /// Size at the start.
        size: TerminalSize,
    },
    /// A stream each; `None` is /dev/null.
    Pipes {
        /// Host to container. The host shuts its sending side down at the end of the input.
        stdin: Option<Stream>,
        /// Container to host. The agent shuts its sending side down when every writer is gone or the process has exited
        /// and what it wrote has been sent.
        stdout: Option<Stream>,
        /// Container to host, as stdout.
        stderr: Option<Stream>,
    },
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl Default for TerminalSize {
    /// What a terminal of an unknown size is taken for.
    fn default() -> TerminalSize {
        TerminalSize {
            rows: 24,
            columns: 80,
        }
    }
}

/// What the agent sends after its [`Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// The answer to the request with this `seq`.
    Reply {
        /// Of the request.
        seq: u64,
        /// What came of it.
        result: Result<Done, Failure>,
    },
    /// A process has ended, and its output streams have been sent to their ends. Comes after the reply to its Start or
    /// Exec.
    Exited {
        /// The process.
        process: ProcessId,
        /// How it ended.
        status: ExitStatus,
        /// The kernel killed a process of this container for want of memory.
        oom_killed: bool,
    },
}

/// What a request that succeeded gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Done {
    /// Done, and nothing more to say.
    Ok,
    /// For [`Request::Start`] and [`Request::Exec`].
    Started {
        /// The process in the machine's root PID namespace.
        pid: i32,
    },
    /// For [`Request::Stats`].
    Stats(Box<Stats>),
    /// For [`Request::Processes`].
    Processes {
        /// At most [`MAX_PROCESSES`], by process number.
        processes: Vec<ProcessEntry>,
    },
    /// For [`Request::Stat`].
    Stat(FileStat),
}

/// The most processes that [`Done::Processes`] lists, so that a frame holds them.
pub const MAX_PROCESSES: usize = 2048;

/// A line of `top`: from /proc/PID/stat and status (proc(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Number in the machine's root PID namespace.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// Real user, a number.
    pub uid: u32,
    /// Threads.
    pub threads: u32,
    /// Terminal device (major and minor as in /proc/PID/stat); 0 is none.
    pub tty: i32,
    /// When it started, in seconds since the epoch.
    pub started_s: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// State letter.
    pub state: char,
    /// Command line, words joined by spaces, or `[comm]`; at most 256 bytes.
    pub command: String,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// The path's last component; that of the target where a link was followed.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// st_mode: type and permissions.
    pub mode: u32,
    /// Modification time in nanoseconds since the epoch.
    pub modified_ns: i64,
    /// The target of a symlink.
    pub link_target: Option<String>,
}

/// What a container uses. Counters count from its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// memory.current of its cgroup.
    pub memory_bytes: u64,
    /// inactive_file of memory.stat: page cache that can be given up at once.
    pub inactive_file_bytes: u64,
    /// memory.max; `None` where there is no limit.
    pub memory_limit_bytes: Option<u64>,
    /// Counters of memory.stat that Docker's API shows, in bytes or events.
    pub memory: BTreeMap<String, u64>,
    /// usage_usec of its cgroup's cpu.stat.
    pub cpu_us: u64,
    /// user_usec.
    pub cpu_user_us: u64,
    /// system_usec.
    pub cpu_system_us: u64,
    /// nr_periods, nr_throttled, throttled_usec.
    pub cpu_throttling: [u64; 3],
    /// Processors of the machine that are online.
    pub processors: u32,
    /// All processors' time of the machine so far, idle included, in microseconds.
    pub machine_cpu_us: u64,
    /// pids.current of its cgroup.
    pub processes: u64,
    /// pids.max; `None` where there is no limit.
    pub processes_limit: Option<u64>,
    /// Bytes read from block devices (rbytes of io.stat).
    pub block_read_bytes: u64,
    /// Bytes written to block devices.
    pub block_written_bytes: u64,
    /// Its interfaces but loopback.
    pub interfaces: BTreeMap<String, InterfaceStats>,
    /// Resident memory of the agent itself.
    pub agent_rss_bytes: u64,
}

/// Counters of an interface, as the container sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Bytes, packets, errors and drops received.
    pub received: [u64; 4],
    /// The same, sent.
    pub sent: [u64; 4],
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

impl ExitStatus {
    /// The code that a shell and Docker report: the process's own, or 128 + the signal's number.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

/// Why a request failed, for a person and for the exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What was attempted, on what, and why it failed: the whole chain, joined with ": ".
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
        }
    }
}

/// Kinds of failure that the host treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command does not exist in the container (exit code 127).
    CommandNotFound,
    /// The command exists and cannot be executed (exit code 126).
    CommandNotExecutable,
    /// The user or group is not known inside the image (exit code 125).
    UnknownUser,
    /// There is no such container, exec or path (exit code 125; HTTP 404).
    NotFound,
    /// The request does not fit the state that its subject is in (exit code 125; HTTP 409).
    WrongState,
    /// The request itself is not valid (exit code 125; HTTP 400).
    Invalid,
    /// This sandbox, or this version of hull, cannot do that (exit code 125; HTTP 501).
    Unsupported,
    /// Anything else (exit code 125; HTTP 500).
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_travels_unread() {
        let document = r#"{"ociVersion": "1.2.0",  "any": [1, {}]}"#;
        let create = Create {
            container: "box".into(),
            spec: RawValue::from_string(document.into()).unwrap(),
            user: None,
            groups: Vec::new(),
            seccomp: Some(vec![6, 0, 0, 0, 0, 0, 255, 127]),
            init: false,
            stdio: Stdio::Pipes {
                stdin: None,
                stdout: None,
                stderr: None,
            },
            etc: EtcFiles::default(),
            network: Network::None,
            pid: PidNamespace::Own,
            volumes: Vec::new(),
        };
        let sent = ToAgent {
            seq: 1,
            request: Request::Create(Box::new(create)),
        };
        let received: ToAgent =
            serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap();
        let Request::Create(create) = received.request else {
            panic!("another request");
        };
        assert_eq!(create.spec.get(), document);
    }

    #[test]
    fn a_kind_of_failure_from_a_later_version_is_some_other() {
        let kind: FailureKind = serde_json::from_str(r#""of_tomorrow""#).unwrap();
        assert_eq!(kind, FailureKind::Other);
    }

    #[test]
    fn signals_are_reported_as_shells_do() {
        assert_eq!(ExitStatus::Code(3).code(), 3);
        assert_eq!(ExitStatus::Signal(9).code(), 137);
        assert_eq!(ExitStatus::Signal(200).code(), 255);
    }
}
