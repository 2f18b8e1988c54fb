//! What a container and its processes are made of.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ProcessId, Stream};
use crate::record::SocketNode;

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
        /// The file system is grown to this size if it is smaller.
        #[serde(default)]
        grow_to_bytes: Option<u64>,
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
    #[serde(with = "crate::bytes", default)]
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
    /// The document's bind mounts that share a directory or a file of the host's.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// Sockets of the host's that the document has bind mounts of.
    #[serde(default)]
    pub sockets: Vec<Socket>,
}

/// A socket of the host's: at [`crate::record::GUEST_SOCKETS`] the agent listens for connections, which it tells the monitor
/// of ([`super::FromAgent::Connected`]). All containers that name it share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Of the share, a file's name.
    pub name: String,
    /// Its owner and permissions.
    pub node: SocketNode,
}

/// A bind mount of a container's document that shares a directory or a file of the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The mount's destination in the document. No component of its source may be a symlink.
    pub destination: String,
    /// Where it is an empty directory, it is given the image's content at its destination first, with owner and mode.
    pub fill: bool,
}

/// A container's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Network {
    /// A namespace of its own with loopback alone.
    None,
    /// A namespace of its own, with these interfaces.
    Own {
        /// Each with another slot.
        interfaces: Vec<Interface>,
    },
    /// The sandbox's, which all its containers share: made by [`Request::Network`](super::Request), or with loopback alone.
    Sandbox,
}

/// What a running container's network is to be. Everything that it says is true afterwards, whatever was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    /// The container.
    pub container: String,
    /// All interfaces, as in [`Network::Own`].
    pub interfaces: Vec<Interface>,
    /// The files in /etc that it was told of last.
    pub before: EtcFiles,
    /// What they are to be: lines that are not in `before` are added, lines that are in `before` alone are removed.
    pub after: EtcFiles,
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
    #[serde(with = "crate::bytes", default)]
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

/// A network interface: in a VM the network card of its slot, natively the one with this MAC address. It gets this address and
/// is called eth and its slot's number inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// MAC address.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub address: std::net::Ipv4Addr,
    /// Bits of the network's prefix.
    pub prefix_len: u8,
    /// The network's gateway, if it leads out.
    pub gateway: Option<std::net::Ipv4Addr>,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// Its number: less than [`crate::record::MAX_NETWORKS`].
    #[serde(default)]
    pub slot: u8,
    /// The default route goes by its gateway.
    #[serde(default = "yes")]
    pub is_way_out: bool,
}

/// Of earlier versions, whose sandboxes had one interface.
fn yes() -> bool {
    true
}

impl Interface {
    /// The gateway of the default route, if that goes by this interface.
    pub fn way_out(&self) -> Option<std::net::Ipv4Addr> {
        self.gateway.filter(|_| self.is_way_out)
    }
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
