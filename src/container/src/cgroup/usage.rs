//! What a cgroup's files say of its use (Linux's Documentation/admin-guide/cgroup-v2.rst).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What the processes of a cgroup use, and its limits; 0 or nothing where the controller is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// memory.current
    pub memory_bytes: u64,
    /// memory.max; `None` where there is no limit.
    pub memory_limit_bytes: Option<u64>,
    /// memory.stat: bytes or events, by name.
    pub memory: BTreeMap<String, u64>,
    /// oom_kill of memory.events.
    pub oom_kills: u64,
    /// usage_usec of cpu.stat.
    pub cpu_us: u64,
    /// user_usec of cpu.stat.
    pub cpu_user_us: u64,
    /// system_usec of cpu.stat.
    pub cpu_system_us: u64,
    /// nr_periods, nr_throttled and throttled_usec of cpu.stat.
    pub cpu_throttling: [u64; 3],
    /// pids.current
    pub processes: u64,
    /// pids.max; `None` where there is no limit.
    pub processes_limit: Option<u64>,
    /// rbytes of io.stat, of all devices.
    pub block_read_bytes: u64,
    /// wbytes of io.stat, of all devices.
    pub block_written_bytes: u64,
}

pub(super) fn read(cgroup: &Path) -> Usage {
    let text = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    // "max" is no number, and no limit.
    let number = |file: &str| text(file).trim().parse().ok();
    let cpu = fields(&text("cpu.stat"));
    let cpu = |name: &str| cpu.get(name).copied().unwrap_or(0);
    let io = text("io.stat");
    let events = fields(&text("memory.events"));
    Usage {
        memory_bytes: number("memory.current").unwrap_or(0),
        memory_limit_bytes: number("memory.max"),
        memory: fields(&text("memory.stat")),
        oom_kills: events.get("oom_kill").copied().unwrap_or(0),
        cpu_us: cpu("usage_usec"),
        cpu_user_us: cpu("user_usec"),
        cpu_system_us: cpu("system_usec"),
        cpu_throttling: ["nr_periods", "nr_throttled", "throttled_usec"].map(cpu),
        processes: number("pids.current").unwrap_or(0),
        processes_limit: number("pids.max"),
        block_read_bytes: sum(&io, "rbytes"),
        block_written_bytes: sum(&io, "wbytes"),
    }
}

/// A flat keyed file: a name and a number in each line.
fn fields(text: &str) -> BTreeMap<String, u64> {
    let field = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(field).collect()
}

/// A nested keyed file: the sum of `key` over all lines.
fn sum(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\ninactive_file 22\n"),
            ("memory.events", "oom 3\noom_kill 2\n"),
            (
                "cpu.stat",
                "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 7\n",
            ),
            ("pids.max", "20\n"),
            (
                "io.stat",
                "8:0 rbytes=5 wbytes=6 rios=1\n8:16 rbytes=7 wbytes=1\n",
            ),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let usage = read(dir.path());
        assert_eq!((usage.memory_bytes, usage.memory_limit_bytes), (4096, None));
        assert_eq!(usage.memory["inactive_file"], 22);
        assert_eq!(usage.oom_kills, 2);
        assert_eq!(
            (usage.cpu_us, usage.cpu_user_us, usage.cpu_system_us),
            (9, 5, 4)
        );
        assert_eq!(usage.cpu_throttling, [7, 0, 0]);
        assert_eq!((usage.processes, usage.processes_limit), (0, Some(20)));
        assert_eq!((usage.block_read_bytes, usage.block_written_bytes), (12, 7));
    }
}
