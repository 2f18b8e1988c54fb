//! What a container uses, and its processes: from its cgroup and from /proc (proc(5)).

use std::collections::BTreeMap;
use std::fs;

use container::cgroup::Cgroup;
use protocol::agent::{Done, InterfaceStats, MAX_PROCESSES, ProcessEntry, ProcessId, Stats};
use protocol::frame::MAX_REPLY_LEN;
use rustix::param::clock_ticks_per_second;

use crate::requests::{Begun, wrong_state};
use crate::server::Server;

/// The longest command line that is told, in bytes.
const MAX_COMMAND_LEN: usize = 256;
/// Bytes of JSON of a process without its command line, or more.
const ENTRY_LEN: usize = 320;

/// What /proc/stat says of the whole machine.
#[derive(Debug, Default, PartialEq, Eq)]
struct Machine {
    /// Time of all processors, idle included, in clock ticks.
    ticks: u64,
    /// Processors that are online.
    processors: u32,
    /// When it booted, in seconds since the epoch.
    booted_s: u64,
}

impl Server {
    pub(crate) fn stats(&mut self, name: &str) -> Begun {
        let container = self.containers.get(name);
        let joinable = container.and_then(|container| container.running.as_ref());
        let process = self.processes.get(&ProcessId::first(name));
        let (Some(joinable), Some(process)) = (joinable, process) else {
            return Err(wrong_state(name, self.state_of(name), "running"));
        };
        let usage = joinable.cgroup().usage();
        let machine = machine(&read("/proc/stat"));
        let interfaces = read(&format!("/proc/{}/net/dev", process.pid.as_raw_pid()));
        // Without the controllers (on a host that has them in cgroup v1), what can be counted is.
        let processes = match usage.processes {
            0 => joinable.cgroup().pids().map_or(0, |pids| pids.len() as u64),
            counted => counted,
        };
        let limit = usage.memory_limit_bytes;
        Ok(Some(Done::Stats(Box::new(Stats {
            memory_bytes: usage.memory_bytes,
            inactive_file_bytes: usage.memory.get("inactive_file").copied().unwrap_or(0),
            memory_limit_bytes: limit.or_else(|| memory_total(&read("/proc/meminfo"))),
            memory: usage.memory,
            cpu_us: usage.cpu_us,
            cpu_user_us: usage.cpu_user_us,
            cpu_system_us: usage.cpu_system_us,
            cpu_throttling: usage.cpu_throttling,
            processors: machine.processors,
            machine_cpu_us: scaled(machine.ticks, 1_000_000),
            processes,
            processes_limit: usage.processes_limit,
            block_read_bytes: usage.block_read_bytes,
            block_written_bytes: usage.block_written_bytes,
            interfaces: counters(&interfaces),
            agent_rss_bytes: own_rss_bytes(),
        }))))
    }
}

/// The machine's memory, of /proc/meminfo: what limits a container without a limit, as in Docker.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The processes of a cgroup, by number, as many as a reply holds. One that ends meanwhile is left out.
pub(crate) fn processes(cgroup: &Cgroup) -> Vec<ProcessEntry> {
    let booted_s = machine(&read("/proc/stat")).booted_s;
    let mut entries = Vec::new();
    let mut len = 0;
    for pid in cgroup.pids().unwrap_or_default() {
        let of = |file: &str| read(&format!("/proc/{}/{file}", pid.as_raw_pid()));
        let Some(entry) = entry(&of("stat"), &of("status"), &of("cmdline"), booted_s) else {
            continue;
        };
        // A quote takes two bytes.
        len += ENTRY_LEN + 2 * entry.command.len();
        if len > MAX_REPLY_LEN || entries.len() == MAX_PROCESSES {
            break;
        }
        entries.push(entry);
    }
    entries
}

/// A process, from its files `stat`, `status` and `cmdline`.
fn entry(stat: &str, status: &str, cmdline: &str, booted_s: u64) -> Option<ProcessEntry> {
    // The name is in parentheses and may hold any character, parentheses too.
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // The fields are numbered from 1 in proc(5); the first one here is the third.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let signed = |field: usize| fields.get(field - 3)?.parse::<i32>().ok();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Some(ProcessEntry {
        pid: pid.parse().ok()?,
        state: fields.first()?.chars().next()?,
        ppid: signed(4)?,
        tty: signed(7)?,
        cpu_ms: scaled(number(14)?.saturating_add(number(15)?), 1000),
        threads: u32::try_from(number(20)?).ok()?,
        started_s: booted_s.saturating_add(scaled(number(22)?, 1)),
        virtual_bytes: number(23)?,
        rss_bytes: number(24)?.saturating_mul(rustix::param::page_size() as u64),
        uid: uid?.split_whitespace().next()?.parse().ok()?,
        command: command(cmdline, name),
    })
}

/// A command line as one line of text, cut.
fn command(cmdline: &str, name: &str) -> String {
    let words = cmdline.trim_end_matches('\0').replace('\0', " ");
    let text = if words.is_empty() {
        format!("[{name}]")
    } else {
        words
    };
    let mut command = String::new();
    for char in text.chars() {
        let char = if char.is_control() { '?' } else { char };
        if command.len() + char.len_utf8() > MAX_COMMAND_LEN {
            break;
        }
        command.push(char);
    }
    command
}

/// What /proc/stat says.
fn machine(stat: &str) -> Machine {
    let mut machine = Machine::default();
    for line in stat.lines() {
        let (key, rest) = line.split_once(' ').unwrap_or_default();
        let mut numbers = rest
            .split_whitespace()
            .filter_map(|n| n.parse::<u64>().ok());
        match key {
            // Guests' time, the ninth and tenth, is in the users' as well.
            "cpu" => machine.ticks = numbers.take(8).sum(),
            "btime" => machine.booted_s = numbers.next().unwrap_or(0),
            _ if key.starts_with("cpu") => machine.processors += 1,
            _ => {}
        }
    }
    machine
}

/// What /proc/PID/net/dev says of the interfaces but loopback: eight counters received, then eight sent.
fn counters(dev: &str) -> BTreeMap<String, InterfaceStats> {
    let lines = dev.lines().filter_map(|line| line.split_once(':'));
    let parsed = lines.filter_map(|(name, rest)| {
        let mut numbers = [0u64; 16];
        let words = rest.split_whitespace();
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = word.parse().ok()?;
        }
        let counters = InterfaceStats {
            received: [numbers[0], numbers[1], numbers[2], numbers[3]],
            sent: [numbers[8], numbers[9], numbers[10], numbers[11]],
        };
        Some((name.trim().to_owned(), counters))
    });
    parsed.filter(|(name, _)| name != "lo").collect()
}

/// Clock ticks in another unit, of which a second has so many.
fn scaled(ticks: u64, per_second: u64) -> u64 {
    let product = u128::from(ticks) * u128::from(per_second);
    u64::try_from(product / u128::from(clock_ticks_per_second())).unwrap_or(u64::MAX)
}

/// A file of /proc as text; empty if it cannot be read.
fn read(path: &str) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Resident pages (the second field of statm) in bytes; 0 if they cannot be read.
fn own_rss_bytes() -> u64 {
    let statm = read("/proc/self/statm");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages: u64 = pages.unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str =
        "42 (a ) (b) S 1 42 42 34816 42 4194304 100 0 0 0 150 50 0 0 20 0 3 0 1000 8192000 200 0";

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let text = "MemTotal:       24682096 kB\nMemFree: 1 kB\n";
        assert_eq!(memory_total(text), Some(24_682_096 << 10));
        assert_eq!(memory_total("MemTotal: many\n"), None);
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let entry = entry(
            STAT,
            "Name:\ta\nUid:\t7\t8\t9\t9\n",
            "sh\0-c\0a\nb\0",
            1_000_000,
        )
        .unwrap();
        let expected = ProcessEntry {
            pid: 42,
            ppid: 1,
            uid: 7,
            threads: 3,
            tty: 34816,
            started_s: 1_000_010,
            cpu_ms: 2000,
            rss_bytes: 200 * 4096,
            virtual_bytes: 8_192_000,
            state: 'S',
            command: "sh -c a?b".to_owned(),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_process_without_arguments_is_called_by_its_name() {
        let entry = entry(STAT, "Uid:\t0\t0\t0\t0\n", "", 0).unwrap();
        assert_eq!(entry.command, "[a ) (b]");
    }

    #[test]
    fn the_machine_counts_processors_and_time() {
        let stat = "cpu  1 2 3 4 5 6 7 8 100 100\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\nbtime 77\n";
        let expected = Machine {
            ticks: 36,
            processors: 2,
            booted_s: 77,
        };
        assert_eq!(machine(stat), expected);
    }

    #[test]
    fn interfaces_are_counted_but_loopback() {
        let dev = "Inter-| Receive\n face |bytes\n    lo: 1 1 1 1 0 0 0 0 2 2 2 2 0 0 0 0\n  \
                   eth0: 10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0\n";
        let expected = InterfaceStats {
            received: [10, 11, 12, 13],
            sent: [20, 21, 22, 23],
        };
        assert_eq!(
            counters(dev),
            BTreeMap::from([("eth0".to_owned(), expected)])
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_is_too_strange(stat in ".*", status in ".*", cmdline in ".*") {
            let _ = entry(&stat, &status, &cmdline, u64::MAX);
            let _ = machine(&stat);
            let _ = counters(&stat);
            prop_assert!(command(&cmdline, &stat).len() <= MAX_COMMAND_LEN);
        }
    }
}
