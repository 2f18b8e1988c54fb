//! A cgroup with those below it, which a container may have made. How deep they go is bounded by the length of a path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// Removes a cgroup and those below it. Their files go with the directories.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for below in children(path)? {
        ignore_missing(remove(&below))?;
    }
    fs::remove_dir(path)
}

/// The processes of a cgroup and of those below it.
pub(super) fn processes(path: &Path, pids: &mut Vec<Pid>) -> io::Result<()> {
    pids.extend(own_processes(path)?);
    for below in children(path)? {
        ignore_missing(processes(&below, pids))?;
    }
    Ok(())
}

/// The cgroup that holds a process: this one or one below it.
pub(super) fn holder(path: &Path, process: Pid) -> Option<PathBuf> {
    if own_processes(path).is_ok_and(|pids| pids.contains(&process)) {
        return Some(path.to_owned());
    }
    let below = children(path).ok()?;
    below.iter().find_map(|below| holder(below, process))
}

fn own_processes(path: &Path) -> io::Result<Vec<Pid>> {
    let text = match fs::read_to_string(path.join("cgroup.procs")) {
        // A threaded cgroup, whose processes are listed by the domain that it belongs to; or one that is being removed.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV)) => {
            return Ok(Vec::new());
        }
        text => text?,
    };
    let pids = text
        .lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?));
    Ok(pids.collect())
}

fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// The container may remove its cgroups at any time.
fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
