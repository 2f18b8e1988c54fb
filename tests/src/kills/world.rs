//! What the machine really holds of a store: processes, locks, mounts, cgroups, files. Compared with what `hull` says.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;
use serde_json::Value;

use super::plan::Victim;
use crate::Hull;
use crate::process::{Process, processes};

/// Programs that a sandbox consists of.
const MONITOR: &str = "hull-monitor";
const MACHINES: [&str; 2] = ["hull-vmm", "hull-native"];

/// Files that come and go with an open database, and what is kept on purpose.
const OTHER_FILES: [&str; 4] = [
    "hull.sqlite-wal",
    "hull.sqlite-shm",
    "images.db-wal",
    "images.db-shm",
];

/// A container as `hull inspect` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) code: i64,
    pub(super) error: String,
}

impl Seen {
    pub(super) fn is_alive(&self) -> bool {
        matches!(&*self.status, "running" | "paused" | "restarting")
    }
}

/// Inspects a container; `None` if there is none of this name.
pub(super) fn inspect(hull: &Hull, name: &str) -> Result<Option<Seen>> {
    let outcome = hull.run(["inspect", "--type", "container", name])?;
    if outcome.code() == Some(1) && outcome.stderr().to_lowercase().contains("no such") {
        return Ok(None);
    }
    ensure!(
        outcome.code() == Some(0),
        "inspect {name}: {}",
        outcome.stderr()
    );
    let all: Value = serde_json::from_str(&outcome.stdout()).context("inspect prints JSON")?;
    let state = &all[0]["State"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Some(Seen {
        id: text(&all[0]["Id"]),
        status: text(&state["Status"]),
        code: state["ExitCode"].as_i64().context("an exit code")?,
        error: text(&state["Error"]),
    }))
}

/// Looks at containers of these names, and fails unless everything agrees: `ps`, `inspect`, the sandbox's lock, its
/// processes, and an exec.
pub(super) fn look(hull: &Hull, names: &[String]) -> Result<Vec<Option<Seen>>> {
    let format = "{{.Names}} {{.ID}} {{.State}}";
    let ps = hull.run(["ps", "-a", "--no-trunc", "--format", format])?;
    ensure!(ps.code() == Some(0), "ps: {}", ps.stderr());
    let mut rows: BTreeSet<String> = ps.stdout().lines().map(str::to_owned).collect();
    let mut all = Vec::new();
    let mut living = BTreeSet::new();
    for name in names {
        let seen = inspect(hull, name)?;
        if let Some(seen) = &seen {
            let row = format!("{name} {} {}", seen.id, seen.status);
            ensure!(rows.remove(&row), "inspect says {row:?}, ps says {rows:?}");
            ensure!(seen.status != "restarting", "{name} is restarting");
            let held = is_held(&hull.root().join("sandboxes").join(&seen.id).join("lock"))?;
            ensure!(
                held == seen.is_alive(),
                "{row:?}, and its lock is held: {held}"
            );
            if seen.is_alive() {
                let exec = hull.run(["exec", name, "true"])?;
                ensure!(
                    exec.code() == Some(0),
                    "{row:?}, but exec: {}",
                    exec.stderr()
                );
                living.insert(seen.id.clone());
                living.insert(mark(hull, name));
            }
        }
        all.push(seen);
    }
    ensure!(rows.is_empty(), "ps knows of others: {rows:?}");
    let strays = strays(hull, &living)?;
    ensure!(strays.is_empty(), "processes of no container: {strays:?}");
    Ok(all)
}

/// A word in the command line of a container's first process, by which that is found.
pub(super) fn mark(hull: &Hull, name: &str) -> String {
    format!("{}#{name}", hull.root().display())
}

/// Processes of this store whose command lines have none of the words that belong to `living` containers.
fn strays(hull: &Hull, living: &BTreeSet<String>) -> Result<Vec<String>> {
    let root = hull.root().to_string_lossy().into_owned();
    let stray = |process: &Process| {
        let belongs = living
            .iter()
            .any(|word| process.command.contains(word.as_str()));
        process.command.contains(&root) && !belongs
    };
    let found = processes()?;
    let found = found.iter().filter(|process| stray(process));
    Ok(found
        .map(|process| format!("{} {}", process.pid, process.command))
        .collect())
}

/// Whether a living process holds a lock; one that is not there is free.
fn is_held(path: &Path) -> Result<bool> {
    let Ok(file) = File::open(path) else {
        return Ok(false);
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => bail!("cannot lock {}: {error}", path.display()),
    }
}

/// The process of a sandbox of this store that plays the victim's part; not of the sandboxes in `others`.
pub(super) fn find(hull: &Hull, victim: Victim, others: &[String]) -> Result<Option<Pid>> {
    let folder = format!("{}/sandboxes/", hull.root().display());
    let found = processes()?;
    let is_monitor = |process: &&Process| {
        process.program() == MONITOR
            && process.command.contains(&folder)
            && !others
                .iter()
                .any(|id| process.command.contains(id.as_str()))
    };
    let monitors: Vec<&Process> = found.iter().filter(is_monitor).collect();
    let is_of_monitor = |process: &Process| monitors.iter().any(|m| m.pid == process.parent);
    let pid = match victim {
        Victim::Command => None,
        Victim::Warden => monitors.iter().find(|m| !is_of_monitor(m)).map(|m| m.pid),
        Victim::Speaker => monitors.iter().find(|m| is_of_monitor(m)).map(|m| m.pid),
        Victim::Machine => found
            .iter()
            .find(|process| is_of_monitor(process) && MACHINES.contains(&process.program()))
            .map(|process| process.pid),
    };
    Ok(pid.and_then(Pid::from_raw))
}

/// What a store without containers holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holdings(BTreeSet<String>);

impl Holdings {
    /// Looks. `ids` are the containers that have been: their cgroups and links are looked for by name.
    pub(super) fn of(hull: &Hull, ids: &BTreeSet<String>) -> Result<Holdings> {
        let root = hull.root().to_string_lossy().into_owned();
        let mut all = BTreeSet::new();
        for path in paths(hull.root()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !OTHER_FILES.contains(&&*name) {
                all.insert(format!("file {}", path.display()));
            }
        }
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            if line.contains(&root) {
                all.insert(format!("mount {line}"));
            }
        }
        for path in paths(Path::new("/sys/fs/cgroup")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && ids.contains(&*name) {
                all.insert(format!("cgroup {}", path.display()));
            }
        }
        for entry in fs::read_dir("/sys/block")?.flatten() {
            let backing = entry.path().join("loop/backing_file");
            let backing = fs::read_to_string(backing).unwrap_or_default();
            if backing.contains(&root) {
                all.insert(format!("loop device of {}", backing.trim_end()));
            }
        }
        for folder in ["/sys/class/net", "/run/hull/network/leases"] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                all.insert(format!("{folder}: {}", entry.file_name().display()));
            }
        }
        for process in processes()? {
            if process.command.contains(&root) {
                all.insert(format!("process {}", process.command));
            }
        }
        Ok(Holdings(all))
    }

    /// What is there that was not there `before`.
    pub(super) fn beyond(&self, before: &Holdings) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// Everything below a folder.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}
