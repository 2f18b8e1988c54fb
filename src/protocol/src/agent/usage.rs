//! What containers and their files are like: processes, counters, paths.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most processes that [`Done::Processes`](super::Done) lists, so that a frame holds them.
pub const MAX_PROCESSES: usize = 2048;

/// A line of `top`: from /proc/PID/stat and status (proc(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Number in the machine's root PID namespace.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// Real user, a number.
    pub uid: u32,
    /// Threads.
    pub threads: u32,
    /// Terminal device (major and minor as in /proc/PID/stat); 0 is none.
    pub tty: i32,
    /// When it started, in seconds since the epoch.
    pub started_s: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// State letter.
    pub state: char,
    /// Command line, words joined by spaces, or `[comm]`; at most 256 bytes.
    pub command: String,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// The path's last component; that of the target where a link was followed.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// st_mode: type and permissions.
    pub mode: u32,
    /// Modification time in nanoseconds since the epoch.
    pub modified_ns: i64,
    /// The target of a symlink.
    pub link_target: Option<String>,
}

/// What a container uses. Counters count from its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// memory.current of its cgroup.
    pub memory_bytes: u64,
    /// inactive_file of memory.stat: page cache that can be given up at once.
    pub inactive_file_bytes: u64,
    /// memory.max; `None` where there is no limit.
    pub memory_limit_bytes: Option<u64>,
    /// Counters of memory.stat that Docker's API shows, in bytes or events.
    pub memory: BTreeMap<String, u64>,
    /// usage_usec of its cgroup's cpu.stat.
    pub cpu_us: u64,
    /// user_usec.
    pub cpu_user_us: u64,
    /// system_usec.
    pub cpu_system_us: u64,
    /// nr_periods, nr_throttled, throttled_usec.
    pub cpu_throttling: [u64; 3],
    /// Processors of the machine that are online.
    pub processors: u32,
    /// All processors' time of the machine so far, idle included, in microseconds.
    pub machine_cpu_us: u64,
    /// pids.current of its cgroup.
    pub processes: u64,
    /// pids.max; `None` where there is no limit.
    pub processes_limit: Option<u64>,
    /// Bytes read from block devices (rbytes of io.stat).
    pub block_read_bytes: u64,
    /// Bytes written to block devices.
    pub block_written_bytes: u64,
    /// Its interfaces but loopback.
    pub interfaces: BTreeMap<String, InterfaceStats>,
    /// Resident memory of the agent itself.
    pub agent_rss_bytes: u64,
}

/// Counters of an interface, as the container sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Bytes, packets, errors and drops received.
    pub received: [u64; 4],
    /// The same, sent.
    pub sent: [u64; 4],
}
