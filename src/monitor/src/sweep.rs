//! What dead monitors left on the host: cgroups, network leases, templates in the making.

use std::fs;
use std::io;
use std::path::Path;

use crate::template;

/// Removes what dead monitors of the state `root` left. A sandbox is dead if its lock is free, or the caller's:
/// `held`.
pub(crate) fn all(root: &Path, held: Option<&str>) {
    if let Err(error) = template::sweep(root) {
        tracing::warn!(%error, "what dead monitors left of templates was not removed");
    }
    let dead = dead(root);
    for id in dead.iter().map(String::as_str).chain(held) {
        cgroup(id);
    }
    let networks = network::Network::all(&network::Home::of(root));
    let swept = networks.and_then(|all| all.iter().try_for_each(network::Network::sweep));
    if let Err(error) = swept {
        tracing::warn!(%error, "what dead containers left of their networks was not removed");
    }
}

/// The sandboxes whose lock is free.
fn dead(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("sandboxes")).into_iter().flatten();
    let dead = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let lock = fs::File::open(entry.path().join("lock")).ok()?;
        let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
        let free = rustix::fs::flock(&lock, shared).is_ok();
        (free && !name.starts_with('.')).then_some(name)
    };
    entries.flatten().filter_map(dead).collect()
}

/// Kills and removes the cgroup, of a native container or around a VM, that a dead monitor left behind.
pub(crate) fn cgroup(id: &str) {
    let Ok(path) = crate::cgroup::place(id) else {
        return;
    };
    if !path.exists() {
        return;
    }
    if let Err(error) = fs::write(path.join("cgroup.kill"), "1") {
        tracing::warn!(%error, path = %path.display(), "what a dead monitor left running could not be killed");
    }
    remove_tree(&path);
    remove_parent();
}

/// Removes hull's own cgroup once it is empty; until then the kernel refuses.
pub(crate) fn remove_parent() {
    if let Some(parent) = sys::cgroup2::mount_point().map(|mount| mount.join("hull"))
        && let Err(error) = fs::remove_dir(parent)
    {
        tracing::debug!(%error, "other containers are there");
    }
}

/// Removes a cgroup with those below it; they empty a moment after their processes were killed.
fn remove_tree(path: &Path) {
    const TRIES: u32 = 100;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..TRIES {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(PAUSE),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "a cgroup was not removed");
                return;
            }
            _ => return,
        }
    }
}
