//! Monitor to agent, over the first vsock connection of a sandbox (guest to host, port [`CONTROL_PORT`]).
//!
//! The agent's first frame is [`Hello`]; then the monitor sends [`Request`]s, which the agent carries out in
//! order, and the agent answers each with a [`FromAgent::Reply`] of the same `seq`. Events come in between.
//! The monitor may send requests without waiting for replies; when one fails, later ones that depend on it fail too.
//!
//! ```text
//! container:  Mount -> Create -> Start -> (Exited event) -> Delete
//! ```

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The vsock port of the control connection. Ports of streams are above it.
pub const CONTROL_PORT: u32 = 1024;
/// The host's context id (virtio 1.2, 5.10.4).
pub const HOST_CID: u32 = 2;
/// A word on the kernel's command line of a VM that is to be saved: its agent has time to prepare what all VMs that begin
/// there will need.
pub const TO_BE_SAVED: &str = "hull.saved";
/// Bytes of a stream's token on the wire: the first bytes that the agent sends on a stream, before any data.
pub const TOKEN_LEN: usize = 16;

/// A stream to open: the agent connects to `port` on the host and sends the token, then data flows both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Host port; used once.
    pub port: u32,
    /// [`TOKEN_LEN`] random bytes.
    pub token: [u8; TOKEN_LEN],
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
/// Not tagged from inside as the other enums are: for that serde holds the message in between, and a [`RawValue`]
/// cannot be read from there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What a machine cannot know that may have been saved and started many times since. The first request of all: before
    /// it the agent's clock and random numbers are those of every other VM from the same snapshot.
    Wake(Wake),
    /// Put a container's root file system together.
    Mount(Mount),
    /// Make the container's namespaces and process, stopped before it executes.
    Create(Box<Create>),
    /// Let a created container's process execute. The reply comes when it has, or when it failed to.
    Start {
        /// The container.
        container: String,
    },
    /// Send a signal to the container's first process, or to all of its processes.
    Signal {
        /// The container.
        container: String,
        /// Signal number.
        signal: i32,
        /// All processes of the container, not only the first.
        all: bool,
    },
    /// The client's terminal has changed its size.
    Resize {
        /// The container.
        container: String,
        /// The new size.
        size: TerminalSize,
    },
    /// Unmount and forget a container that has exited.
    Delete {
        /// The container.
        container: String,
    },
    /// Memory and CPU use of a container.
    Stats {
        /// The container.
        container: String,
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
    /// Random bytes of the host's kernel: mixed into the guest kernel's generator, which starts afresh with them.
    pub entropy: [u8; 32],
}

/// The root file system of a container: read-only layers and a writable one above them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The container.
    pub container: String,
    /// Where on the layer device each layer's EROFS image lies, lowest layer first. The agent makes one partition
    /// (BLKPG) for each that it has not seen yet.
    pub layers: Vec<LayerExtent>,
    /// What takes the container's writes.
    pub writable: Writable,
}

/// A layer's place on the layer device, in bytes; both are multiples of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// An ext4 file system on a block device, named by its virtio serial (see [`crate::vmm::DiskConfig::serial`]).
    Disk {
        /// The device's serial.
        serial: String,
    },
    /// Guest memory.
    Tmpfs,
    /// Nothing: the root file system is read-only, whatever the document's `root.readonly` says. (The agent has a
    /// little memory above the layers, for mount targets that the image lacks.)
    Nothing,
}

/// A container to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct Create {
    /// The container; one that was mounted.
    pub container: String,
    /// An OCI runtime-spec document (config.json). `root.path` is ignored: the root is the mounted one.
    pub spec: Box<RawValue>,
    /// `USER[:GROUP]` by name or number, looked up in the container's /etc/passwd and /etc/group when the process
    /// is made; replaces `process.user` of the spec, and sets HOME where the spec's environment does not.
    pub user: Option<String>,
    /// A compiled seccomp program: an array of `struct sock_filter`, 8 bytes each, in the host's byte order.
    /// The document's own `linux.seccomp` is ignored by the agent.
    pub seccomp: Option<Vec<u8>>,
    /// Put a small init between the container's PID namespace and its process.
    pub init: bool,
    /// Where the standard streams go.
    pub stdio: Stdio,
    /// Contents of /etc/hosts, /etc/hostname and /etc/resolv.conf, bind-mounted over the image's.
    pub etc: EtcFiles,
    /// The network interface to move into the container and set up; without it there is only loopback.
    pub interface: Option<Interface>,
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

/// A container's network interface: the VM's one device, which gets this MAC address and is called eth0 inside.
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

/// Where a container's standard streams go.
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
        /// Container to host. The agent shuts its sending side down when every writer is gone.
        stdout: Option<Stream>,
        /// Container to host.
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
    /// The container's first process has ended and its output streams have been sent to their ends.
    Exited {
        /// The container.
        container: String,
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
    /// For [`Request::Start`].
    Started {
        /// The process in the guest's root PID namespace.
        pid: i32,
    },
    /// For [`Request::Stats`].
    Stats(Stats),
}

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// memory.current of its cgroup.
    pub memory_bytes: u64,
    /// usage_usec of its cgroup's cpu.stat.
    pub cpu_us: u64,
    /// pids.current of its cgroup.
    pub processes: u64,
    /// Resident memory of the agent itself.
    pub agent_rss_bytes: u64,
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
    /// The request is not valid now: an unknown container, a second create (exit code 125).
    Invalid,
    /// Anything else (exit code 125).
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
            seccomp: Some(vec![6, 0, 0, 0, 0, 0, 255, 127]),
            init: false,
            stdio: Stdio::Pipes {
                stdin: None,
                stdout: None,
                stderr: None,
            },
            etc: EtcFiles::default(),
            interface: None,
        };
        let sent = ToAgent {
            seq: 1,
            request: Request::Create(Box::new(create)),
        };
        let received: ToAgent =
            serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap();
        let Request::Create(create) = received.request else {
            panic!("{received:?}")
        };
        assert_eq!(create.spec.get(), document);
    }
}
