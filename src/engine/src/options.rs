//! What a container is to be: plain values, already parsed from what the user wrote.
//!
//! They are also what `inspect` shows as asked for, so they are kept with the container (see [`crate::asked`]): every
//! member has a default, and a document of an earlier version is read with those.

use std::collections::BTreeMap;
use std::path::PathBuf;

use protocol::agent::TerminalSize;
use protocol::record::{LogConfig, Port, RestartPolicy};
use serde::{Deserialize, Deserializer, Serialize};

use crate::size::MilliCpus;

mod kinds;
mod limits;
pub mod mounts;
mod names;
mod place;

pub use kinds::{
    Attach, Boot, Device, DeviceAccess, Health, Ipc, Isolation, PodOptions, Pull, Seccomp, Tmpfs,
    Ulimit, Variable,
};
pub use limits::{CpuSet, NoCpuSet, Swap};
pub use mounts::{Mount, VolumesFrom};
pub use names::{Dns, ExtraHost, HostAddress};
pub use place::{Further, Network, Place};

/// Everything that `hull run` and `hull create` can ask for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The image, as the user named it.
    pub image: String,
    /// What to run instead of the image's Cmd, when not empty.
    pub command: Vec<String>,
    /// Keep standard input open.
    pub interactive: bool,
    /// Give the container a terminal.
    pub terminal: bool,
    /// That terminal's size at the start, where the client has one.
    pub console_size: Option<TerminalSize>,
    /// The streams that the creating command is attached to; none when it is detached. Standard input ends with the first
    /// client's where it is among them.
    pub attach: Attach,
    /// The container's name; one is made up otherwise.
    pub name: Option<String>,
    /// Labels, in addition to the image's and before them.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the OCI document.
    pub annotations: BTreeMap<String, String>,
    /// Environment, in order; the last of a name wins.
    pub env: Vec<Variable>,
    /// Working directory instead of the image's.
    pub workdir: Option<String>,
    /// `USER[:GROUP]` instead of the image's.
    pub user: Option<String>,
    /// Supplementary groups, by name or number.
    pub groups: Vec<String>,
    /// Instead of the image's entrypoint (whose Cmd is then dropped); no word, or a single empty one, means none.
    #[serde(deserialize_with = "entrypoint")]
    pub entrypoint: Option<Vec<String>>,

    /// Instead of the identifier's first digits.
    pub hostname: Option<String>,
    /// NIS domain name; together with the host name it is the container's qualified name in /etc/hosts.
    pub domainname: Option<String>,
    /// Further lines of /etc/hosts.
    pub extra_hosts: Vec<ExtraHost>,
    /// Instead of the host's resolvers.
    pub dns: Dns,
    /// Which network; the default depends on the user.
    pub network: Option<Network>,
    /// What is asked for there.
    pub place: Place,
    /// Further networks, in this order.
    pub further_networks: Vec<Further>,
    /// Every port that the image or `exposed` names is published, each at a port of the host's that the kernel chooses.
    pub publish_all: bool,
    /// Ports that it offers, besides the image's.
    pub exposed: Vec<Port>,

    /// Remove the container at its end.
    pub auto_remove: bool,
    /// When to start it again.
    pub restart: RestartPolicy,
    /// Signal that asks it to stop, instead of the image's.
    pub stop_signal: Option<i32>,
    /// Seconds from that signal to SIGKILL instead of [`DEFAULT_STOP_TIMEOUT_S`]; negative is no limit.
    pub stop_timeout_s: Option<i64>,
    /// A small init before the command.
    pub init: bool,
    /// Where its output is kept.
    pub log: LogConfig,
    /// Changes to the image's health check.
    pub health: Health,

    /// Memory limit.
    pub memory_bytes: Option<u64>,
    /// Memory that reclaim leaves alone while others have more than theirs.
    pub memory_reservation_bytes: Option<u64>,
    /// Swap.
    pub memory_swap: Option<Swap>,
    /// CPU limit.
    pub cpus: Option<MilliCpus>,
    /// CPU time in each period, in microseconds; not together with `cpus`.
    pub cpu_quota_us: Option<u64>,
    /// That period, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Weight against other containers of the same machine, on the scale of cgroup v1: 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// The CPUs that it may run on: the VM's, or natively the host's.
    pub cpuset_cpus: Option<CpuSet>,
    /// Likewise memory nodes.
    pub cpuset_mems: Option<CpuSet>,
    /// Most processes and threads; `None` is no limit.
    pub pids_limit: Option<u64>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// /proc/self/oom_score_adj: -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Kernel parameters, by name with dots.
    pub sysctls: BTreeMap<String, String>,

    /// No writable layer.
    pub read_only: bool,
    /// Size of the writable layer; without one, its file system's.
    pub storage_bytes: Option<u64>,
    /// Temporary file systems.
    pub tmpfs: Vec<Tmpfs>,
    /// Directories and files of the host's, volumes, and what else `--mount` mounts.
    pub mounts: Vec<Mount>,
    /// Containers whose mounts this one has too.
    pub volumes_from: Vec<VolumesFrom>,
    /// Size of /dev/shm instead of 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// Devices besides the default ones.
    pub devices: Vec<Device>,
    /// Its IPC namespace.
    pub ipc: Ipc,

    /// Capabilities to add, as the user wrote them.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, as the user wrote them.
    pub cap_drop: Vec<String>,
    /// All privileges, inside the VM: every capability and device of the guest, nothing masked, no seccomp profile.
    pub privileged: bool,
    /// Nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// No process gains privileges by exec.
    pub no_new_privileges: bool,
    /// Which system calls are let through.
    pub seccomp: Seccomp,

    /// When to ask the registry.
    pub pull: Pull,
    /// What stands between the container and the host.
    pub isolation: Isolation,
    /// How the VM begins: from a template, unless something asks for a kernel.
    pub boot: Option<Boot>,
    /// A guest kernel of the user's.
    pub kernel: Option<PathBuf>,
    /// Show the guest kernel's log.
    pub console: bool,
    /// Stamp and measure.
    pub measure: bool,
}

/// Seconds from the stop signal to SIGKILL, as in Docker.
pub const DEFAULT_STOP_TIMEOUT_S: i64 = 10;

/// Earlier versions had a single word.
fn entrypoint<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Word(String),
        Words(Vec<String>),
    }
    Ok(
        Option::<Either>::deserialize(from)?.map(|either| match either {
            Either::Word(word) => vec![word],
            Either::Words(words) => words,
        }),
    )
}
