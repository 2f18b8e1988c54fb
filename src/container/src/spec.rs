//! The document: what of the OCI runtime specification (1.2, config.md and config-linux.md) this crate carries out.
//!
//! The names are the specification's. A property that is not listed here is refused when it is present, so that
//! nothing is read and then ignored; what may be ignored is listed as ignored.
//!
//! Deliberately absent: oci-spec's own types. Reading a document into them links the regex crate (for one property,
//! `execCPUAffinity`): 2.4 MB of program where this takes 0.5. The tests keep both in agreement.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A document that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the container's document is not one that hull can carry out")]
pub struct Unreadable(#[from] serde_json::Error);

/// A container, as config.json describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Ignored: what matters is that every property present is understood.
    #[serde(default, rename = "ociVersion")]
    _oci_version: IgnoredAny,
    /// Ignored: annotations have no effect here.
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    /// The root file system; its path is ignored in favour of the request's.
    #[serde(default)]
    pub root: Root,
    /// What to run.
    pub process: Process,
    /// Host name inside.
    pub hostname: Option<String>,
    /// NIS domain name inside.
    pub domainname: Option<String>,
    /// What to mount, in order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// What is particular to Linux.
    #[serde(default)]
    pub linux: Linux,
}

impl Spec {
    /// Reads config.json.
    pub fn from_json(document: &[u8]) -> Result<Spec, Unreadable> {
        Ok(serde_json::from_slice(document)?)
    }
}

/// `root`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    #[serde(default, rename = "path")]
    _path: IgnoredAny,
    /// Nothing of the root file system itself can be written.
    #[serde(default)]
    pub readonly: bool,
}

/// `process`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Process {
    /// Ignored: the request says whether there is a terminal.
    #[serde(default, rename = "terminal")]
    _terminal: IgnoredAny,
    /// Ignored, as above.
    #[serde(default, rename = "consoleSize")]
    _console_size: IgnoredAny,
    /// User and groups.
    #[serde(default)]
    pub user: User,
    /// The command and its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment, as NAME=VALUE.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory, made if missing.
    pub cwd: PathBuf,
    /// Without it the process has none.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Resource limits (setrlimit).
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Neither setuid nor file capabilities give more.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// /proc/self/oom_score_adj; without it the parent's is inherited.
    pub oom_score_adj: Option<i32>,
}

impl Process {
    /// Reads a `process` document.
    pub fn from_json(document: &[u8]) -> Result<Process, Unreadable> {
        Ok(serde_json::from_slice(document)?)
    }
}

/// `process.user`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// User inside the container.
    #[serde(default)]
    pub uid: u32,
    /// Group inside the container.
    #[serde(default)]
    pub gid: u32,
    /// File mode creation mask; 0o022 without it.
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`: names such as CAP_CHOWN.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

/// `process.rlimits`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// RLIMIT_NOFILE and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// `u64::MAX` is "unlimited".
    pub hard: u64,
    /// `u64::MAX` is "unlimited".
    pub soft: u64,
}

/// `mounts`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where, inside the container.
    pub destination: PathBuf,
    /// The file system's type; "bind", "none" or nothing for a bind mount.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// A path outside the container, or a name.
    pub source: Option<PathBuf>,
    /// Options as of mount(8), and recursive ones as of the specification.
    #[serde(default)]
    pub options: Vec<String>,
}

/// `linux`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Linux {
    /// Users of the user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Groups of the user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Parameters under /proc/sys, by name.
    pub sysctl: BTreeMap<String, String>,
    /// Limits of the cgroup.
    pub resources: Resources,
    /// Ignored: the request names the cgroup.
    #[serde(rename = "cgroupsPath")]
    _cgroups_path: IgnoredAny,
    /// Namespaces to make or join; of the others the container shares its parent's.
    pub namespaces: Vec<Namespace>,
    /// Devices beside the default ones.
    pub devices: Vec<Device>,
    /// Ignored: the request carries the compiled program.
    #[serde(rename = "seccomp")]
    _seccomp: IgnoredAny,
    /// Propagation of the root mount.
    pub rootfs_propagation: Option<String>,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
}

/// `linux.uidMappings`, `linux.gidMappings`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// `linux.namespaces`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// One to join instead of making a new one.
    pub path: Option<PathBuf>,
}

/// `linux.namespaces[].type`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

/// `linux.devices`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Inside the container.
    pub path: PathBuf,
    /// c, u, b or p.
    #[serde(rename = "type")]
    pub kind: char,
    /// Device number.
    #[serde(default)]
    pub major: u32,
    /// Device number.
    #[serde(default)]
    pub minor: u32,
    /// Permissions; 0o666 without it.
    pub file_mode: Option<u32>,
    /// Owner.
    #[serde(default)]
    pub uid: u32,
    /// Owner.
    #[serde(default)]
    pub gid: u32,
}

/// `linux.resources`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Which devices may be used; later rules win. Empty: all.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Memory,
    /// CPU time.
    pub cpu: Cpu,
    /// Number of processes.
    pub pids: Option<Pids>,
    /// Block devices.
    #[serde(rename = "blockIO")]
    pub block_io: BlockIo,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Files of the cgroup and what to write to them.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// Reads a `linux.resources` document.
    pub fn from_json(document: &[u8]) -> Result<Resources, Unreadable> {
        Ok(serde_json::from_slice(document)?)
    }
}

/// `linux.resources.devices`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// a, b or c; `a` is all.
    #[serde(default, rename = "type")]
    pub kind: Option<char>,
    /// Nothing or negative is every number.
    pub major: Option<i64>,
    /// Nothing or negative is every number.
    pub minor: Option<i64>,
    /// Of r, w and m; nothing is all of them.
    pub access: Option<String>,
}

/// `linux.resources.memory`: bytes, -1 is unlimited.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Memory {
    /// memory.max
    pub limit: Option<i64>,
    /// memory.low
    pub reservation: Option<i64>,
    /// Memory and swap together: memory.swap.max is this less `limit`.
    pub swap: Option<i64>,
    /// Ignored: cgroup v2 is always hierarchical.
    #[serde(rename = "useHierarchy")]
    _use_hierarchy: IgnoredAny,
    /// Ignored: false is what cgroup v2 always does; true is refused.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: bool,
}

/// `linux.resources.cpu`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpu {
    /// cpu.weight, on the scale of cgroup v1: 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds in each period; negative or zero is unlimited.
    pub quota: Option<i64>,
    /// cpu.max.burst, in microseconds.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// cpu.idle
    pub idle: Option<i64>,
    /// cpuset.cpus
    pub cpus: Option<String>,
    /// cpuset.mems
    pub mems: Option<String>,
}

/// `linux.resources.pids`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pids {
    /// pids.max; zero or negative is unlimited.
    pub limit: i64,
}

/// `linux.resources.blockIO`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockIo {
    /// io.weight, on the scale of cgroup v1: 10 to 1000.
    pub weight: Option<u16>,
    pub throttle_read_bps_device: Vec<Throttle>,
    pub throttle_write_bps_device: Vec<Throttle>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<Throttle>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<Throttle>,
}

/// A rate for a block device.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    pub major: u32,
    pub minor: u32,
    pub rate: u64,
}

/// `linux.resources.hugepageLimits`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HugepageLimit {
    /// 2MB, 1GB.
    pub page_size: String,
    /// Bytes.
    pub limit: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_oci_spec_writes_is_understood() {
        let mut theirs = oci_spec::runtime::Spec::default();
        let document = serde_json::to_vec(&theirs).unwrap();
        let ours = Spec::from_json(&document).unwrap();
        let process = theirs.process_mut().as_mut().unwrap();
        assert_eq!(Some(&ours.process.args), process.args().as_ref());
        assert_eq!(
            Some(ours.mounts.len()),
            theirs.mounts().as_ref().map(Vec::len)
        );
        assert!(
            ours.linux
                .namespaces
                .iter()
                .any(|n| n.kind == NamespaceKind::Mount)
        );
        assert!(!ours.process.capabilities.bounding.is_empty());
        assert!(
            ours.linux
                .masked_paths
                .contains(&PathBuf::from("/proc/kcore"))
        );
    }

    #[test]
    fn a_property_that_is_not_carried_out_is_refused_by_name() {
        let document = br#"{"process":{"cwd":"/","apparmorProfile":"x"}}"#;
        let error = Spec::from_json(document).unwrap_err();
        assert!(
            error.0.to_string().contains("apparmorProfile"),
            "{}",
            error.0
        );
        let hooks = br#"{"process":{"cwd":"/"},"hooks":{"prestart":[]}}"#;
        assert!(Spec::from_json(hooks).is_err());
    }
}
