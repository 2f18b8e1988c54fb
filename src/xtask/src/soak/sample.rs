//! What a machine holds while no container runs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// Tolerance for memory: the kernel's caches and per-processor lists vary by this much.
const MEMORY_KIB: u64 = 24 << 10;
/// Tolerance for open files: the kernel frees them a moment later.
const FILES: u64 = 32;
/// Databases keep pages that they have freed. A layer that is left is a file more.
const STATE_BYTES: u64 = 1 << 20;

/// One sample.
#[derive(Debug)]
pub(crate) struct Sample {
    available_kib: u64,
    slab_kib: u64,
    /// Of the loader's own process, whose bookkeeping is not hull's leak.
    own_kib: u64,
    /// Of user processes other than ours.
    processes: BTreeSet<String>,
    threads: u64,
    descriptors: u64,
    /// Open files of the whole system.
    files: u64,
    mounts: u64,
    cgroups: u64,
    links: u64,
    rules: u64,
    /// Below the state roots.
    entries: u64,
    bytes: u64,
}

impl Sample {
    /// Takes a sample, after the caches have been dropped.
    pub(crate) fn take(root: &Path) -> Result<Sample> {
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", "3\n").context("cannot drop the caches")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kib = |name: &str| field(&memory, name);
        let mut sample = Sample {
            available_kib: kib("MemAvailable:"),
            slab_kib: kib("Slab:"),
            own_kib: field(&fs::read_to_string("/proc/self/status")?, "VmRSS:"),
            processes: BTreeSet::new(),
            threads: 0,
            descriptors: 0,
            files: first_number(&fs::read_to_string("/proc/sys/fs/file-nr")?),
            mounts: lines(&fs::read_to_string("/proc/self/mountinfo")?),
            cgroups: 0,
            links: fs::read_dir("/sys/class/net")?.count() as u64,
            rules: lines(&output("nft", &["list", "ruleset"])?),
            entries: 0,
            bytes: 0,
        };
        sample.look_at_processes()?;
        sample.cgroups = folders(Path::new("/sys/fs/cgroup"));
        for state in [root, Path::new("/run/hull")] {
            let (entries, bytes) = contents(state);
            sample.entries += entries;
            sample.bytes += bytes;
        }
        Ok(sample)
    }

    fn look_at_processes(&mut self) -> Result<()> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_own = name == std::process::id().to_string();
            if is_own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let folder = Path::new("/proc").join(&name);
            // Kernel threads have no command line; a process that has just ended is left out.
            let command = fs::read(folder.join("cmdline")).unwrap_or_default();
            if command.is_empty() {
                continue;
            }
            let count = |what: &str| {
                fs::read_dir(folder.join(what)).map_or(0, |entries| entries.count() as u64)
            };
            self.threads += count("task");
            self.descriptors += count("fd");
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            self.processes
                .insert(format!("{name} {}", command.trim_end()));
        }
        Ok(())
    }

    /// The table's first line.
    pub(crate) fn heading() -> String {
        format!(
            "{:>6} {:>8} {:>10} {:>8} {:>6} {:>5} {:>5} {:>7} {:>6} {:>6} {:>7} {:>5} {:>5} {:>7} {:>9}",
            "time",
            "actions",
            "avail KiB",
            "slab KiB",
            "own",
            "procs",
            "thr",
            "descr",
            "files",
            "mounts",
            "cgroups",
            "links",
            "rules",
            "entries",
            "state KiB"
        )
    }

    /// A line of the table.
    pub(crate) fn line(&self, time: Duration, actions: u64) -> String {
        let seconds = time.as_secs();
        format!(
            "{:>3}:{:02} {actions:>8} {:>10} {:>8} {:>6} {:>5} {:>5} {:>7} {:>6} {:>6} {:>7} {:>5} {:>5} {:>7} {:>9}",
            seconds / 60,
            seconds % 60,
            self.available_kib,
            self.slab_kib,
            self.own_kib,
            self.processes.len(),
            self.threads,
            self.descriptors,
            self.files,
            self.mounts,
            self.cgroups,
            self.links,
            self.rules,
            self.entries,
            self.bytes >> 10,
        )
    }

    /// What has grown beyond its tolerance.
    pub(crate) fn grown_since(&self, first: &Sample) -> Vec<String> {
        let mut grown = Vec::new();
        // The loader's own growth is part of what is not available.
        let own = self.own_kib.saturating_sub(first.own_kib);
        let used = first.available_kib.saturating_sub(self.available_kib);
        for (name, before, now, tolerance) in [
            (
                "memory in use, KiB",
                0,
                used.saturating_sub(own),
                MEMORY_KIB,
            ),
            ("slab, KiB", first.slab_kib, self.slab_kib, MEMORY_KIB),
            ("threads", first.threads, self.threads, 0),
            ("descriptors", first.descriptors, self.descriptors, 0),
            ("open files", first.files, self.files, FILES),
            ("mounts", first.mounts, self.mounts, 0),
            ("cgroups", first.cgroups, self.cgroups, 0),
            ("links", first.links, self.links, 0),
            ("lines of firewall rules", first.rules, self.rules, 0),
            ("files of state", first.entries, self.entries, 0),
            ("bytes of state", first.bytes, self.bytes, STATE_BYTES),
        ] {
            if now > before + tolerance {
                grown.push(format!("{name}: {before} to {now}"));
            }
        }
        for process in self.processes.difference(&first.processes) {
            grown.push(format!("a process is left: {process}"));
        }
        grown
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, first_number)
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

fn lines(text: &str) -> u64 {
    text.lines().count() as u64
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Directories below one, on whatever file systems.
fn folders(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + folders(&entry.path()))
        .sum()
}

/// Files and folders below one, and the bytes that the files take: a template is mostly holes.
fn contents(folder: &Path) -> (u64, u64) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.fold((0, 0), |(count, bytes), entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let (below, below_bytes) = match is_folder {
            true => contents(&entry.path()),
            false => (
                0,
                entry
                    .metadata()
                    .map_or(0, |metadata| metadata.blocks() * 512),
            ),
        };
        (count + 1 + below, bytes + below_bytes)
    })
}
