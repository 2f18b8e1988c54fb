//! A client (the engine) to a sandbox's monitor, over the sandbox's Unix socket: SOCK_SEQPACKET, one JSON document of at
//! most [`MAX_PACKET_LEN`] bytes a packet, descriptors as SCM_RIGHTS.
//!
//! ```text
//! client                                   monitor
//!   Request seq 1 Hello        ------------->
//!                              <------------- Answer seq 1 Hello
//!   Request seq 2 Attach       ------------->
//!   Request seq 3 Start        ------------->  any number in flight
//!                              <------------- Streams seq 2 (descriptors), Answer seq 2 Done
//!                              <------------- Answer seq 3 Started
//! ```
//!
//! Every request is answered once. A client that vanishes takes nothing with it but its own streams. Monitors outlive the
//! command that started them and may be older than their clients: the conversation carries [`VERSION`], members that one
//! side does not know are ignored, a request that the monitor does not know is answered
//! [`FailureKind::Unsupported`](crate::agent::FailureKind), and a client skips messages that it does not know.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::agent::{ExitStatus, Failure, FileStat, ProcessEntry, ProcessId, Stats, TerminalSize};
use crate::record::RestartPolicy;
use crate::timeline::Timeline;

/// The version of this conversation. A monitor serves clients of the same version; both say it in [`Request::Hello`].
pub const VERSION: u32 = 1;
/// The largest packet in either direction, in bytes. What may be longer travels in a descriptor.
pub const MAX_PACKET_LEN: usize = 64 << 10;
/// The largest document that a client passes as a descriptor, in bytes: execve takes 2 MiB of arguments, which JSON may
/// write six times as long.
pub const MAX_DOCUMENT_LEN: u64 = 16 << 20;

/// The number of the listening socket in a monitor that is spawned.
pub const LISTENER_FD: i32 = 3;
/// The number of the sandbox's lock in a monitor that is spawned.
pub const LOCK_FD: i32 = 4;

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToMonitor {
    /// Chosen by the client, unique in the connection.
    pub seq: u64,
    /// What to do.
    pub request: Request,
}

/// What a monitor is asked to do. (Externally tagged: see [`crate::agent::Request`].)
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first request: answered by [`Answer::Hello`], or refused when the versions differ.
    Hello {
        /// [`VERSION`] of the client.
        version: u32,
        /// [`crate::BUILD`] of the client; informative.
        build: String,
    },
    /// Attach to a process's standard streams, running or not yet started. Answered by [`FromMonitor::Streams`] and
    /// [`Answer::Done`]. What the process wrote before is not repeated.
    Attach {
        /// The process.
        process: ProcessId,
        /// Which streams: stdin, stdout, stderr. Of a terminal, stdin and stdout are one.
        streams: [bool; 3],
    },
    /// The streams of this client's attachment are about to be closed and the process's input must not end by that.
    Detach {
        /// The process.
        process: ProcessId,
    },
    /// Start a container. Answered by [`Answer::Started`]; [`FailureKind::WrongState`](crate::agent::FailureKind) if it
    /// runs.
    Start {
        /// The container.
        container: String,
    },
    /// Execute a process in a container. The packet's one descriptor is a file that holds an [`ExecConfig`] as JSON, at most
    /// [`MAX_DOCUMENT_LEN`] bytes long. Answered by [`FromMonitor::Streams`] (unless nothing is attached) and
    /// [`Answer::Started`].
    Exec {
        /// The process; its `exec` is chosen by the client.
        process: ProcessId,
    },
    /// Wait for a process's end: answered by [`Answer::Exited`].
    Wait {
        /// The process.
        process: ProcessId,
        /// Which end.
        until: WaitUntil,
    },
    /// Signal a process.
    Signal {
        /// The process.
        process: ProcessId,
        /// Signal number.
        signal: i32,
    },
    /// Stop a container: its stop signal, and SIGKILL when it has not ended in time. No restart policy applies to this
    /// end. Answered by [`Answer::Exited`] once it has ended, at once if it does not run.
    Stop {
        /// The container.
        container: String,
        /// Instead of the container's own signal.
        signal: Option<i32>,
        /// Instead of the container's own time to stop, in seconds; negative waits without limit.
        timeout_s: Option<i64>,
    },
    /// A client's terminal has a new size.
    Resize {
        /// The process whose terminal it is.
        process: ProcessId,
        /// The new size.
        size: TerminalSize,
    },
    /// Freeze a container's processes.
    Pause {
        /// The container.
        container: String,
    },
    /// Let a frozen container go on.
    Resume {
        /// The container.
        container: String,
    },
    /// Change limits of a running container, its restart policy, or both. The client has rewritten config.json before.
    Update {
        /// The container.
        container: String,
        /// An OCI `linux.resources` document of what changes.
        resources: Option<Box<RawValue>>,
        /// The new policy.
        restart: Option<RestartPolicy>,
    },
    /// Be on the networks that the sandbox's record names. The client has rewritten it before, and the container's; if this
    /// fails, it writes them as they were and asks again.
    Networks {
        /// The sandbox's only container.
        container: String,
    },
    /// What a container uses: answered by [`Answer::Stats`].
    Stats {
        /// The container.
        container: String,
    },
    /// Its processes: answered by [`Answer::Processes`].
    Processes {
        /// The container.
        container: String,
    },
    /// The state of an exec: answered by [`Answer::Exec`].
    InspectExec {
        /// The process.
        process: ProcessId,
    },
    /// What is at a path: answered by [`Answer::Stat`].
    Stat {
        /// The container.
        container: String,
        /// Absolute path inside.
        path: String,
        /// Follow a symlink that the path itself is.
        follow: bool,
    },
    /// A tar archive of a path: answered by [`FromMonitor::Streams`] with one descriptor to read it from, then by
    /// [`Answer::Done`] when it is complete.
    Archive {
        /// The container.
        container: String,
        /// Absolute path inside.
        path: String,
        /// Follow a symlink that the path itself is.
        follow: bool,
    },
    /// Unpack a tar archive: answered by [`FromMonitor::Streams`] with one descriptor to write it to, then by
    /// [`Answer::Done`].
    Extract {
        /// The container.
        container: String,
        /// Absolute path of a directory inside.
        path: String,
        /// Keep the archive's owners.
        owners: bool,
        /// Refuse to replace a directory by another kind of file and the reverse.
        no_overwrite_kind: bool,
    },
    /// Its changes as a layer: answered as [`Request::Archive`].
    Diff {
        /// The container.
        container: String,
    },
    /// A list of its changes, in the form of [`crate::agent::Request::Changes`]: answered as [`Request::Archive`].
    Changes {
        /// The container.
        container: String,
    },
    /// Forget a container that does not run, and remove its writable directory. (Pods: a sandbox of one container goes with
    /// it.)
    Remove {
        /// The container.
        container: String,
    },
    /// Measure the sandbox: answered by [`Answer::Measured`].
    Measure,
    /// Stop every container and end the sandbox. The answer is the end of the connection.
    Shutdown,
}

/// A process to execute, as its client passes it in a file.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecConfig {
    /// An OCI `process` document.
    pub document: Box<RawValue>,
    /// `USER[:GROUP]`, looked up inside.
    pub user: Option<String>,
    /// Compiled seccomp program.
    #[serde(with = "crate::bytes", default)]
    pub seccomp: Option<Vec<u8>>,
    /// Its standard streams.
    pub stdio: crate::record::Stdio,
    /// Which of them this client is attached to: stdin, stdout, stderr. The others are thrown away.
    pub attach: [bool; 3],
}

/// Which end of a process a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitUntil {
    /// Until it does not run: at once if it does not.
    NotRunning,
    /// Until it ends the next time, also if it has yet to start.
    NextExit,
}

/// What the monitor sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromMonitor {
    /// The streams that the request with this `seq` asked for, as descriptors of this packet in this order: a terminal's or
    /// an archive's one, or those of stdin, stdout and stderr that are there. An [`FromMonitor::Answer`] of the same `seq`
    /// follows.
    Streams {
        /// Of the request.
        seq: u64,
        /// One descriptor for both ways.
        terminal: bool,
        /// A descriptor for each of stdin, stdout, stderr.
        pipes: [bool; 3],
    },
    /// The answer to a request.
    Answer {
        /// Of the request.
        seq: u64,
        /// What came of it.
        result: Result<Answer, Failure>,
    },
    /// Some of the guest's console, where the sandbox shows it. What the client does not read in time is dropped.
    Console {
        /// Text, with whatever is not UTF-8 replaced.
        text: String,
    },
    /// Something that the user should know, and that keeps nothing from going on. Sent to the client that is connected first.
    Notice {
        /// What, for a person.
        text: String,
    },
}

/// What a request that succeeded gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done, and nothing more to say.
    Done,
    /// The monitor's version and build.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// [`crate::BUILD`].
        build: String,
    },
    /// A process executes.
    Started {
        /// In the machine's root PID namespace.
        pid: i32,
    },
    /// A process has ended. Whatever it wrote has been handed to its attached clients and its log before.
    Exited(Box<Exit>),
    /// For [`Request::Stats`].
    Stats(Box<Stats>),
    /// For [`Request::Processes`].
    Processes(Vec<ProcessEntry>),
    /// For [`Request::InspectExec`].
    Exec(ExecState),
    /// For [`Request::Stat`].
    Stat(FileStat),
    /// For [`Request::Measure`].
    Measured(Box<Measured>),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// How.
    pub status: ExitStatus,
    /// For want of memory.
    pub oom_killed: bool,
    /// Why it ended, where it was not its own end: the VM or the monitor's other process broke.
    pub error: Option<String>,
    /// With `error`: the last lines of the guest's console.
    pub console: Vec<String>,
    /// The sandbox's clock and counters at that moment, where its record asks for that.
    pub measured: Option<Box<Measured>>,
}

/// How far an exec has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    /// It executes.
    pub running: bool,
    /// In the machine's root PID namespace; 0 before it executes.
    pub pid: i32,
    /// How it ended.
    pub status: Option<ExitStatus>,
}

/// How a VM came to its first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Began {
    /// It booted a kernel.
    WithKernel,
    /// Where a template was saved.
    FromTemplate,
}

/// What `--timing` prints, each measured as DESIGN.md defines it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// How the VM began; a native container has none.
    pub began: Option<Began>,
    /// T1 to T5.
    pub timeline: Timeline,
    /// Exits by kind, from KVM's statistics.
    pub kvm_stats: std::collections::BTreeMap<String, u64>,
    /// Exits that reached user space, by kind.
    pub user_exits: std::collections::BTreeMap<String, u64>,
    /// Resident bytes of the memory slots' mappings.
    pub guest_touched_bytes: u64,
    /// Those of them that are pages of a file (the kernel's, a template's, a layer's), which all VMs that map it share.
    /// 0 from a monitor that does not say.
    #[serde(default)]
    pub guest_shared_bytes: u64,
    /// Private, modified bytes of the kernel's mapping.
    pub kernel_private_dirty_bytes: u64,
    /// Resident bytes of all other mappings of hull-vmm.
    pub vmm_rss_bytes: u64,
    /// Resident bytes of the monitor.
    pub monitor_rss_bytes: u64,
    /// The processes of a VM whose monitor has not measured their memory, so that whoever may can.
    #[serde(default)]
    pub processes: Option<Processes>,
}

/// A VM's processes on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// hull-vmm's process identifier.
    pub vmm: u32,
    /// Those of the monitor's processes.
    pub monitor: Vec<u32>,
    /// Where in hull-vmm the guest's memory is: addresses from, to.
    pub guest_memory: Vec<[u64; 2]>,
}
