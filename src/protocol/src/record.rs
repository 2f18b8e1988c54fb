//! What is on disk of a sandbox and of a container: plain, versioned data, written by the engine and by monitors.
//!
//! ```text
//! ROOT/sandboxes/<id>/config.json     SandboxConfig: rewritten by the engine for its networks and its template alone
//!                     lock            held (flock) for as long as a monitor lives
//!                     socket          where the monitor listens
//!                     scratch         the writable disk of a sandbox that outlives its first run
//! ROOT/containers/<id>/config.json    ContainerConfig: rewritten by the engine for update, rename and its networks alone
//!                      state.json     State: written by the holder of the sandbox's lock
//!                      health.json    Health: the speaker's
//!                      log/           json-file: <id>-json.log, .1, .2, …
//! ROOT/volumes/<name>/config.json     Volume: written once, when the volume is made
//!                     _data           what it holds
//! ROOT/networks/<name>/config.json    Network: written once, when the network is made
//! ROOT/events/events.jsonl            Event, one a line, appended by any of hull's processes
//! ```
//!
//! Every file is written under another name and renamed, but for the logs. docs/lifecycle.md says what is durable when.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::agent::{EtcFiles, ExitStatus, Interface, PidNamespace, TerminalSize};

mod health;
mod mount;
mod network;
mod several;

pub use health::{Health, HealthCheck, HealthResult, HealthStatus};
pub use mount::{
    ANONYMOUS_LABEL, GUEST_SHARES, GUEST_SOCKETS, Mount, MountSource, SocketNode, Submounts, Volume,
};
pub use network::{
    Attachment, DEFAULT_NETWORK, Endpoint, Link, MAX_NETWORKS, Network, Port, Publish, Published,
    Transport, cards, way_out,
};

/// The version of everything here. A reader refuses a later one by name; earlier ones are read: version 1 had seccomp
/// programs as arrays of numbers, and one network at most.
pub const VERSION: u32 = 2;
/// The configuration's file name, of a sandbox and of a container.
pub const CONFIG: &str = "config.json";
/// The state's file name.
pub const STATE: &str = "state.json";
/// The health's file name.
pub const HEALTH: &str = "health.json";
/// The folder of a container's logs.
pub const LOGS: &str = "log";

/// A sandbox: a VM, or the host's own kernel, with its containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The root of all state.
    pub root: PathBuf,
    /// The sandbox. That of a single container has the container's identifier.
    pub id: String,
    /// What stands between its containers and the host.
    pub machine: Machine,
    /// How it holds its containers.
    pub kind: SandboxKind,
    /// Its places on networks, at most [`MAX_NETWORKS`], each on another; without one it has loopback alone. Their order is that
    /// of its interfaces at its next start.
    #[serde(
        default,
        rename = "network",
        alias = "bridge",
        serialize_with = "several::write",
        deserialize_with = "Endpoint::read"
    )]
    pub networks: Vec<Endpoint>,
    /// hull-net, which answers the names of a network that the user has made; a sandbox of an earlier version has none.
    #[serde(default)]
    pub net: Option<PathBuf>,
    /// Measure at the end of each container.
    pub measure: bool,
}

impl SandboxConfig {
    /// Puts it on these networks.
    pub fn set_networks(&mut self, networks: Vec<Endpoint>) {
        self.version = VERSION;
        self.networks = networks;
    }

    /// Its place on the network of this name.
    pub fn endpoint(&self, network: &str) -> Option<&Endpoint> {
        self.networks.iter().find(|it| it.network == network)
    }
}

/// How a sandbox holds its containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SandboxKind {
    /// One container of the same identifier; the sandbox's processes end with it.
    Single,
    /// Any number, which share its network; it runs until it is stopped.
    Pod {
        /// The pod's name.
        name: String,
        /// Its containers share a PID namespace too.
        shared_pid: bool,
        /// When it was made, in nanoseconds since the epoch.
        created_ns: u64,
        /// Labels.
        labels: BTreeMap<String, String>,
    },
}

/// What stands between a container and the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Machine {
    /// A virtual machine.
    Vm(Vm),
    /// The host kernel's namespaces.
    Native {
        /// hull-native, the agent's native form.
        program: PathBuf,
    },
}

/// A virtual machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vm {
    /// hull-vmm.
    pub program: PathBuf,
    /// hull-fs; a sandbox of an earlier version has none.
    #[serde(default)]
    pub fs: Option<PathBuf>,
    /// Guest kernel.
    pub kernel: PathBuf,
    /// The agent's initramfs.
    pub initramfs: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Memory.
    pub memory_mib: u32,
    /// Processors.
    pub vcpus: u8,
    /// Thousandths of a processor that the VM may take of the host, if that is limited.
    pub cpu_milli: Option<u64>,
    /// The VM's weight against the host's other VMs, on the scale of cgroup v1 (2 to 262144); 1024 without it.
    #[serde(default)]
    pub cpu_shares: Option<u64>,
    /// What hull-vmm's jail may lack.
    pub jail: JailPolicy,
    /// Network cards, whether there is a network for each or not: as [`cards`] says of the networks when the sandbox was
    /// started last.
    #[serde(default)]
    pub cards: u8,
    /// Template of the writable disk; without one the root file system is read-only.
    pub scratch: Option<PathBuf>,
    /// Size of the writable disk's file system, to which it is grown from its template's; the template's without one.
    #[serde(default)]
    pub scratch_bytes: Option<u64>,
    /// The template's folder, whether it is there or not; without one the VM boots its kernel.
    pub template: Option<PathBuf>,
    /// Pass the guest's console on to the client.
    pub show_console: bool,
}

/// The most that a VM's writable disk may hold.
pub const MAX_SCRATCH_BYTES: u64 = 1 << 40;

/// What hull-vmm's jail may lack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailPolicy {
    /// Nothing.
    #[default]
    Full,
    /// A user namespace, and with it for ordinary users the other namespaces, where the host forbids them.
    NoUserNamespace,
}

/// The variable, and its one value, by which a user asks for [`JailPolicy::NoUserNamespace`].
pub const JAIL_VARIABLE: (&str, &str) = ("HULL_JAIL", "no-user-namespace");

/// What was asked for of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was created, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// The sandbox that it belongs to.
    pub sandbox: String,
    /// The image, as the user named it.
    pub image: String,
    /// The image's identifier, `sha256:…`.
    pub image_id: String,
    /// Labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The network that its sandbox was made on; a container of an earlier version has the default one, or none.
    #[serde(default)]
    pub network: Option<String>,
    /// The names of those that it is on, as listings show them: what is true is in its sandbox's record. Without it, it is
    /// on `network` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// What the monitor makes of it.
    pub run: Run,
    /// When to start it again.
    pub restart: RestartPolicy,
    /// Remove it at its end.
    pub auto_remove: bool,
    /// Signal number that asks it to stop.
    pub stop_signal: i32,
    /// Seconds from that signal to SIGKILL; negative is no limit.
    pub stop_timeout_s: i64,
    /// Where its output is kept.
    pub log: LogConfig,
    /// How its health is checked.
    pub health: Option<HealthCheck>,
    /// What the engine was asked for, for `inspect`: the engine's own document.
    pub asked: Box<RawValue>,
}

/// How a container is made and executed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Its OCI document.
    pub spec: Box<RawValue>,
    /// `USER[:GROUP]`, looked up inside.
    pub user: Option<String>,
    /// Supplementary groups by name or number, looked up inside.
    pub groups: Vec<String>,
    /// Compiled seccomp program.
    #[serde(with = "crate::bytes", default)]
    pub seccomp: Option<Vec<u8>>,
    /// A small init before the command.
    pub init: bool,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Its files in /etc; /etc/hosts lacks what [`Run::etc_with`] adds once the container's address is known.
    pub etc: EtcFiles,
    /// Names of the container's own address in /etc/hosts: the qualified one first.
    #[serde(default)]
    pub own_names: Vec<String>,
    /// Names of the host, which is the network's gateway, in /etc/hosts.
    #[serde(default)]
    pub gateway_names: Vec<String>,
    /// EROFS images of the layers, lowest first.
    pub layers: Vec<LayerFile>,
    /// No writable layer.
    pub read_only: bool,
    /// Absolute paths that are writable directories whatever the root is.
    pub volumes: Vec<String>,
    /// Directories and files of the host's, parents first. The document has a bind mount for each.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Its PID namespace.
    pub pid: PidNamespace,
    /// It has the sandbox's network; otherwise loopback alone.
    pub network: bool,
}

impl Run {
    /// The mounts that hull-fs shows to a VM: all but sockets, to which connections are forwarded.
    pub fn shared_mounts(&self) -> Vec<Mount> {
        let mounts = self.mounts.iter().filter(|mount| mount.socket.is_none());
        mounts.cloned().collect()
    }

    /// Its files in /etc, for a container with these interfaces; without one it has loopback alone. As Docker has it, the
    /// container's own names resolve only where it has an address besides loopback's, and to each of those.
    pub fn etc_with(&self, interfaces: &[Interface]) -> EtcFiles {
        let mut etc = self.etc.clone();
        let Some(hosts) = &mut etc.hosts else {
            return etc;
        };
        let mut add = |address: Ipv4Addr, names: &[String]| {
            if !names.is_empty() {
                hosts.push_str(&format!("{address}\t{}\n", names.join(" ")));
            }
        };
        let gateway = interfaces.iter().find_map(Interface::way_out);
        for name in &self.gateway_names {
            if let Some(gateway) = gateway {
                add(gateway, std::slice::from_ref(name));
            }
        }
        for interface in interfaces {
            add(interface.address, &self.own_names);
        }
        etc
    }
}

/// A layer's file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerFile {
    /// The file: hull's own, read-only.
    pub path: PathBuf,
    /// Its length: a multiple of 4096.
    pub len_bytes: u64,
}

/// A process's standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Stdio {
    /// A terminal.
    Terminal {
        /// Its size at the start.
        size: TerminalSize,
    },
    /// A pipe each.
    Pipes {
        /// Standard input is open; otherwise it is /dev/null.
        stdin: bool,
        /// Standard input ends when the first client that is attached to it ends its own.
        stdin_once: bool,
    },
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ended with another code than 0.
    OnFailure {
        /// At most so often; 0 is no limit.
        max_retries: u32,
    },
    /// At every end, and when hull starts, unless the user has stopped it and hull has not started since.
    Always,
    /// At every end, and when hull starts, unless the user has stopped it.
    UnlessStopped,
}

/// Where a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum LogConfig {
    /// Docker's json-file.
    JsonFile {
        /// A file of this length is rotated; `None` never.
        max_size_bytes: Option<u64>,
        /// Files in all; at least 1.
        max_files: u32,
    },
    /// Nowhere.
    None,
}

impl Default for LogConfig {
    /// Docker's default.
    fn default() -> LogConfig {
        LogConfig::JsonFile {
            max_size_bytes: None,
            max_files: 1,
        }
    }
}

/// What is true of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// How far it has come.
    pub status: Status,
    /// Its first process in the machine's root PID namespace; 0 if it does not run.
    pub pid: i32,
    /// How its last run ended; `None` before.
    pub exit: Option<ExitStatus>,
    /// Code that is reported where the run failed before or beside its process: 127, 126, 125; otherwise that of `exit`.
    pub exit_code: u8,
    /// A process of it was killed for want of memory.
    pub oom_killed: bool,
    /// Why its last run failed, for a person; empty if it did not.
    pub error: String,
    /// When it was started last, in nanoseconds since the epoch; 0 is never.
    pub started_ns: u64,
    /// When it ended last; 0 is never.
    pub finished_ns: u64,
    /// Restarts by policy since the user started it.
    pub restarts: u32,
    /// The user stopped it.
    pub stopped_by_user: bool,
    /// Its network interfaces while it runs; without one it has loopback alone.
    #[serde(
        default,
        rename = "interface",
        serialize_with = "several::write",
        deserialize_with = "several::read"
    )]
    pub interfaces: Vec<Attachment>,
    /// Its ports that are reached by the host's addresses while it runs, in order.
    #[serde(default)]
    pub ports: Vec<Published>,
}

impl Default for State {
    /// A container that was created and never started.
    fn default() -> State {
        State {
            version: VERSION,
            status: Status::Created,
            pid: 0,
            exit: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_ns: 0,
            finished_ns: 0,
            restarts: 0,
            stopped_by_user: false,
            interfaces: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// How far a container has come: Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Never started, or its only start failed.
    Created,
    /// Its process executes.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It has ended and will be started again by its policy.
    Restarting,
    /// It has ended.
    Exited,
    /// It could not be removed.
    Dead,
}

impl Status {
    /// Whether a monitor must be alive for this to be true.
    pub fn is_alive(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Restarting)
    }
}

/// Something that happened, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// `container`, `image`, `network`, `volume`, `pod`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `create`, `start`, `die`, `health_status: healthy`, …
    pub action: String,
    /// The subject's identifier.
    pub id: String,
    /// Its name, image, labels, exit code and the like.
    pub attributes: BTreeMap<String, String>,
}

#[cfg(test)]
#[path = "record/tests.rs"]
mod tests;
