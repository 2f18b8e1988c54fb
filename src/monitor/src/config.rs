//! What a monitor is told: plain data, in the sandbox's folder.

use std::path::PathBuf;

use protocol::agent::{EtcFiles, TerminalSize};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use crate::jail::Policy;

/// The name of the file in the sandbox's folder.
pub const FILE_NAME: &str = "config.json";

/// A sandbox with its one container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Config {
    /// [`protocol::BUILD`] of the client: the monitor is the same program.
    pub build: String,
    /// The root of all state.
    pub root: PathBuf,
    /// The sandbox and its container.
    pub id: String,
    /// What stands between the container and the host.
    pub machine: Machine,
    /// The container.
    pub container: Container,
    /// Measure at the end.
    pub measure: bool,
}

/// What stands between the container and the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Machine {
    /// A virtual machine.
    Vm(Vm),
    /// The host kernel's namespaces.
    Native,
}

/// A virtual machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Vm {
    /// hull-vmm.
    pub program: PathBuf,
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
    /// What hull-vmm's jail may lack.
    pub jail: Policy,
    /// Template of the writable disk; without one the root file system is read-only.
    pub scratch: Option<PathBuf>,
    /// Where the template lies, or is to lie, from which the VM begins ([`crate::template`]); without one it boots its
    /// kernel.
    pub template: Option<PathBuf>,
    /// Pass the guest's console on to the client.
    pub show_console: bool,
}

/// A container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Container {
    /// Its OCI document.
    pub spec: Box<RawValue>,
    /// `USER[:GROUP]`, looked up inside.
    pub user: Option<String>,
    /// Compiled seccomp program.
    pub seccomp: Vec<u8>,
    /// A small init before the command.
    pub init: bool,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Its files in /etc; /etc/hosts gets the container's address when that is known.
    pub etc: EtcFiles,
    /// Attach it to the bridge.
    pub bridge: bool,
    /// EROFS images of the layers, lowest first.
    pub layers: Vec<Layer>,
}

/// A layer's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Layer {
    /// The file.
    pub path: PathBuf,
    /// Its length: a multiple of 4096.
    pub len_bytes: u64,
}

/// A container's standard streams.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Stdio {
    /// A terminal.
    Terminal {
        /// Its size at the start.
        size: TerminalSize,
    },
    /// A pipe each.
    Pipes {
        /// Standard input is open.
        stdin: bool,
    },
}
