//! The smaller values of [`super::Options`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Network, Place};
use crate::size::MilliCpus;

/// Standard streams that a client is attached to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// Standard input.
    pub stdin: bool,
    /// Standard output, and all of a terminal's.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

impl Attach {
    /// As the protocol orders them: stdin, stdout, stderr.
    pub fn streams(self) -> [bool; 3] {
        [self.stdin, self.stdout, self.stderr]
    }
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    /// `NAME=VALUE`
    Set(String, String),
    /// `NAME` alone, which the host does not have: it is taken out of the image's environment, as Docker does.
    Unset(String),
}

/// A temporary file system in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the container, without empty or dot components.
    pub path: String,
    /// Mount options besides (or against) the default `nosuid,nodev,noexec`.
    pub options: Vec<String>,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in `nofile`: the limit's name without RLIMIT_, in lower case.
    pub name: String,
    /// Soft limit; `u64::MAX` is none.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is none.
    pub hard: u64,
}

/// A device of the machine in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// In the machine: the VM, or natively the host.
    pub machine_path: String,
    /// In the container.
    pub container_path: String,
    /// What the container may do with it.
    pub access: DeviceAccess,
}

/// Rights to a device, as the device cgroup has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// r
    pub read: bool,
    /// w
    pub write: bool,
    /// m: make a node of it.
    pub mknod: bool,
}

impl DeviceAccess {
    /// All of them: what a device has when the user names no rights.
    pub const ALL: DeviceAccess = DeviceAccess {
        read: true,
        write: true,
        mknod: true,
    };
}

/// Changes to the image's health check. What is `None` is as in the image, and else as in Docker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// There is none, whatever the image says; excludes the others.
    pub disabled: bool,
    /// A command line for the image's shell.
    pub command: Option<String>,
    /// A command and its arguments, executed without a shell; not together with `command`.
    pub words: Vec<String>,
    /// From one check's end to the next check.
    pub interval_ms: Option<u64>,
    /// A check that takes longer has failed.
    pub timeout_ms: Option<u64>,
    /// Failures in this time from the start do not count.
    pub start_period_ms: Option<u64>,
    /// Interval during the start period.
    pub start_interval_ms: Option<u64>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// A container's IPC namespace: System V objects, POSIX message queues and /dev/shm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipc {
    /// Its own.
    #[default]
    Private,
    /// Its own, and no /dev/shm.
    WithoutShm,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// Hull's default profile.
    #[default]
    Default,
    /// All but AF_VSOCK sockets.
    Unconfined,
    /// A profile in the user's file (Docker's or the OCI's JSON).
    File(PathBuf),
}

/// When to ask the registry for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// When it is not here.
    #[default]
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// What stands between a container and the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A virtual machine of its own.
    #[default]
    Vm,
    /// A virtual machine that it shares with the pod's other containers.
    Pod(String),
    /// The host kernel's namespaces.
    Native,
}

/// How a VM begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// Where one of its shape was saved when its agent was ready; the first of a shape makes that.
    Template,
    /// By booting its kernel.
    Kernel,
}

/// What a pod is to be.
#[derive(Debug, Clone, Default)]
pub struct PodOptions {
    /// Memory that its containers may use together.
    pub memory_bytes: Option<u64>,
    /// CPU time that they may use together.
    pub cpus: Option<MilliCpus>,
    /// Size of the disk that takes their writes; without one, its file system's.
    pub storage_bytes: Option<u64>,
    /// Its network, which its containers share.
    pub network: Option<Network>,
    /// What is asked for there.
    pub place: Place,
    /// Its containers share a PID namespace.
    pub shared_pid: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How its VM begins.
    pub boot: Option<Boot>,
    /// A guest kernel of the user's.
    pub kernel: Option<PathBuf>,
}
