//! What a container uses, and its processes: from its cgroup and from /proc.

use std::path::Path;

use protocol::agent::{Done, ProcessEntry, Stats};

use crate::requests::{Begun, wrong_state};
use crate::server::Server;

impl Server {
    pub(crate) fn stats(&mut self, name: &str) -> Begun {
        let joinable = self.containers.get(name).and_then(|c| c.running.as_ref());
        let Some(joinable) = joinable else {
            return Err(wrong_state(name, self.state_of(name), "running"));
        };
        let usage = joinable.cgroup().usage();
        Ok(Some(Done::Stats(Box::new(Stats {
            memory_bytes: usage.memory_bytes,
            cpu_us: usage.cpu_us,
            processes: usage.processes,
            agent_rss_bytes: own_rss_bytes(),
            ..Stats::default()
        }))))
    }
}

pub(crate) fn processes(_cgroup: &Path) -> Vec<ProcessEntry> {
    Vec::new()
}

/// Resident pages (the second field of statm) in bytes; 0 if they cannot be read.
fn own_rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
