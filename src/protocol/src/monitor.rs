//! A client (`hull run`) to the monitor, over the sandbox's Unix socket (SOCK_SEQPACKET, one JSON document a packet,
//! descriptors as SCM_RIGHTS). The engine owns both ends; these are the words of their conversation.

use serde::{Deserialize, Serialize};

use crate::agent::{ExitStatus, Failure, TerminalSize};
use crate::timeline::Timeline;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToMonitor {
    /// Give this client the container's standard streams.
    Attach,
    /// Start the created container.
    Start,
    /// Signal the container's first process.
    Signal {
        /// Signal number.
        signal: i32,
    },
    /// The client's terminal has a new size.
    Resize {
        /// The new size.
        size: TerminalSize,
    },
    /// Measure the sandbox: answered with [`FromMonitor::Measured`].
    Measure,
}

/// What the monitor sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromMonitor {
    /// The streams of an attached client, as descriptors of this packet in this order, those that are there: a
    /// terminal's one, or stdin, stdout and stderr.
    Attached {
        /// One descriptor for both ways.
        terminal: bool,
        /// A descriptor for each of stdin, stdout, stderr.
        pipes: [bool; 3],
    },
    /// The container's process has been executed.
    Started,
    /// The container could not be made or started; nothing follows.
    Failed(Failure),
    /// The container's process has ended; the sandbox is being taken down.
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// For want of memory.
        oom_killed: bool,
        /// The sandbox's clock and counters at the end.
        measured: Box<Measured>,
    },
    /// The answer to [`ToMonitor::Measure`].
    Measured(Box<Measured>),
    /// Some of the guest's console, for a client that asked to see it. What does not fit the socket is dropped.
    Console {
        /// Text, with whatever is not UTF-8 replaced.
        text: String,
    },
    /// Something that the user should know, and that keeps nothing from going on.
    Notice {
        /// What, for a person.
        text: String,
    },
    /// The VM ended on its own, or the engine failed: a message for a person; nothing follows.
    Broken {
        /// What happened, and why.
        message: String,
        /// The last lines of the guest's console.
        console: Vec<String>,
    },
}

/// How a VM began.
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
    /// Private, modified bytes of the kernel's mapping.
    pub kernel_private_dirty_bytes: u64,
    /// Resident bytes of all other mappings of hull-vmm.
    pub vmm_rss_bytes: u64,
    /// Resident bytes of the monitor.
    pub monitor_rss_bytes: u64,
}
