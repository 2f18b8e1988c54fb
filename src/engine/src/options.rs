//! What a container is to be: plain values, already parsed from what the user wrote.

use std::path::PathBuf;

use crate::size::MilliCpus;

/// Everything that `hull run` can ask for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The image, as the user named it.
    pub image: String,
    /// What to run instead of the image's Cmd, when not empty.
    pub command: Vec<String>,
    /// Keep standard input open.
    pub interactive: bool,
    /// Give the container a terminal.
    pub terminal: bool,
    /// The container's name; one is made up otherwise.
    pub name: Option<String>,
    /// Environment, in order; the last of a name wins.
    pub env: Vec<Variable>,
    /// Working directory instead of the image's.
    pub workdir: Option<String>,
    /// `USER[:GROUP]` instead of the image's.
    pub user: Option<String>,
    /// Instead of the image's entrypoint (whose Cmd is then dropped); an empty string means none.
    pub entrypoint: Option<String>,
    /// Instead of the identifier's first digits.
    pub hostname: Option<String>,
    /// Memory limit.
    pub memory_bytes: Option<u64>,
    /// CPU limit.
    pub cpus: Option<MilliCpus>,
    /// No writable layer.
    pub read_only: bool,
    /// Temporary file systems.
    pub tmpfs: Vec<Tmpfs>,
    /// Capabilities to add, as the user wrote them.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, as the user wrote them.
    pub cap_drop: Vec<String>,
    /// All privileges, inside the VM: every capability and device of the guest, nothing masked, no seccomp profile.
    pub privileged: bool,
    /// Nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// Nothing may gain privileges by exec.
    pub no_new_privileges: bool,
    /// Which system calls are let through.
    pub seccomp: Seccomp,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// A small init before the command.
    pub init: bool,
    /// When to ask the registry.
    pub pull: Pull,
    /// Which network; the default depends on the user.
    pub network: Option<Network>,
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

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `NAME=VALUE`
    Set(String, String),
    /// `NAME` alone, which the host does not have: it is taken out of the image's environment, as Docker does.
    Unset(String),
}

/// A temporary file system in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub path: String,
    /// Mount options besides (or against) the default `nosuid,nodev,noexec`.
    pub options: Vec<String>,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// As in `nofile`: the limit's name without RLIMIT_, in lower case.
    pub name: String,
    /// Soft limit; `u64::MAX` is none.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is none.
    pub hard: u64,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// When it is not here.
    #[default]
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// A container's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Only loopback.
    None,
    /// Hull's bridge with NAT.
    Bridge,
}

/// What stands between a container and the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// A virtual machine of its own.
    #[default]
    Vm,
    /// The host kernel's namespaces.
    Native,
}

/// How a VM begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// Where one of its shape was saved when its agent was ready; the first of a shape makes that.
    Template,
    /// By booting its kernel.
    Kernel,
}
