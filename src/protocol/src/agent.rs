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

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

mod container;
mod failure;
mod usage;

pub use container::{
    Create, EtcFiles, Exec, Interface, Layer, LayerExtent, Mount, Network, Networks, PidNamespace,
    Root, Share, Socket, Stdio, TerminalSize, Writable,
};
pub use failure::{Failure, FailureKind};
pub use usage::{FileStat, InterfaceStats, MAX_PROCESSES, ProcessEntry, Stats};

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
    /// Make the sandbox's own network namespace, with these interfaces, for containers that share it.
    Network(Vec<Interface>),
    /// What becomes of a connection to a socket of the host's ([`FromAgent::Connected`]).
    Forward {
        /// The connection.
        connection: u64,
        /// The port at which the host's socket waits, without a token: everything on the stream is the connection's. Without one
        /// the host's socket cannot be reached, and the connection is closed.
        port: Option<u32>,
    },
    /// Put a container's root file system together.
    Mount(Mount),
    /// Make the container's namespaces and process, stopped before it executes. The reply comes when it is built.
    Create(Box<Create>),
    /// Give a running container, whose network namespace is its own, other interfaces.
    Networks(Box<Networks>),
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
    /// A container has connected to a socket of the host's: answered by [`Request::Forward`].
    Connected {
        /// Its name ([`Socket::name`]).
        socket: String,
        /// A number of the agent's choice, which does not come again.
        connection: u64,
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
            sockets: Vec::new(),
            shares: vec![Share {
                destination: "/data".into(),
                fill: true,
            }],
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
    fn signals_are_reported_as_shells_do() {
        assert_eq!(ExitStatus::Code(3).code(), 3);
        assert_eq!(ExitStatus::Signal(9).code(), 137);
        assert_eq!(ExitStatus::Signal(200).code(), 255);
    }
}
