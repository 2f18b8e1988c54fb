//! The cgroup (v2) around a hull-vmm, where this user may make one: what a VM takes of the host has a bound that no
//! guest can move.
//!
//! Root's are at `hull/<id>` of the hierarchy. An ordinary user's are beside the cgroup that the monitor is in, which works
//! where the session's manager has delegated its parent (systemd does so for what runs under `user@.service`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocol::record::Vm;
use rustix::fs::{Mode, OFlags};

use crate::sweep::remove_parent;

/// What hull-vmm itself and the page cache of its disks may take besides the guest's memory.
const VMM_MEMORY_BYTES: u64 = 128 << 20;
/// What the host's kernel may hold for a hull-fs: a file that a guest knows keeps its inode, 1.5 KiB on ext4, and a guest
/// knows 524,288 at most.
const SHARES_MEMORY_BYTES: u64 = 2 << 30;
/// Threads of hull-fs.
const SHARES_THREADS: u32 = 12;
/// Threads besides the vCPUs: the first, one for each disk (19 devices at most), KVM's worker.
const OTHER_THREADS: u32 = 24;
/// The period of cpu.max, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// Removal is tried again while killed processes leave.
const TRIES: u32 = 200;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// A cgroup that holds one hull-vmm, and its hull-fs.
#[derive(Debug)]
pub(crate) struct VmCgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl VmCgroup {
    /// Makes the cgroup of the sandbox `id`, in which there may be a hull-fs; `None` where this user cannot, which `hull
    /// doctor` explains.
    pub(crate) fn make(id: &str, vm: &Vm, shares: bool) -> Option<VmCgroup> {
        match Self::try_make(id, vm, shares) {
            Ok(made) => Some(made),
            Err(error) => {
                tracing::info!(%error, "hull-vmm has no cgroup of its own");
                None
            }
        }
    }

    fn try_make(id: &str, vm: &Vm, shares: bool) -> io::Result<VmCgroup> {
        let path = place(id)?;
        match make_directory(&path) {
            // The last to leave has just removed the parent.
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_directory(&path)?,
            other => other?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        let directory = opened.inspect_err(|_| {
            // Nothing is in it. That it stays would hide why it cannot be used.
            let _ = fs::remove_dir(&path);
        })?;
        let made = VmCgroup { path, directory };
        for (file, value) in limits(vm, shares) {
            made.limit(file, &value);
        }
        Ok(made)
    }

    /// Its directory, for clone3.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Sets a limit, if the hierarchy has its controller.
    fn limit(&self, file: &str, value: &str) {
        let written = rustix::fs::openat(
            &self.directory,
            file,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|fd| rustix::io::write(fd, value.as_bytes()));
        if let Err(error) = written {
            tracing::info!(%error, file, "hull-vmm's cgroup does not have this limit");
        }
    }

    /// Why the kernel killed a process in it for want of memory; `None` if it did not.
    pub(crate) fn out_of_memory(&self) -> Option<OutOfMemory> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.directory, "memory.events", flags, Mode::empty());
        // Without the memory controller there is no such file.
        let events = io::read_to_string(fs::File::from(opened.ok()?)).ok()?;
        OutOfMemory::of(&events)
    }

    /// Removes it, once hull-vmm has gone.
    pub(crate) fn remove(self) {
        for _ in 0..TRIES {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %self.path.display(), "a cgroup was not removed");
                    return;
                }
                _ => break,
            }
        }
        if rustix::process::geteuid().is_root() {
            remove_parent();
        }
    }
}

/// Whose memory there was none of when the kernel killed a hull-vmm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfMemory {
    /// What its own cgroup allows.
    Limit,
    /// The host's, or what a cgroup further up allows.
    Host,
}

impl OutOfMemory {
    /// From what `memory.events` says (Documentation/admin-guide/cgroup-v2.rst): `oom_kill` counts the killed whatever the
    /// reason, `oom` how often this cgroup's own limit was met.
    fn of(events: &str) -> Option<Self> {
        let count = |name: &str| {
            let line = events.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|count| count.trim().parse::<u64>().ok())
        };
        match (count("oom_kill ")?, count("oom ")?) {
            (0, _) => None,
            (_, 0) => Some(Self::Host),
            _ => Some(Self::Limit),
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root()
        && let Some(parent) = path.parent()
    {
        fs::create_dir_all(parent)?;
        parent.parent().map(delegate);
        delegate(parent);
    }
    fs::create_dir(path)
}

/// Tries whether this user's VMs get a cgroup, and says which of their limits it would lack.
pub(crate) fn try_out() -> io::Result<Vec<&'static str>> {
    let path = place(&format!("doctor-{}", std::process::id()))?;
    make_directory(&path)?;
    let missing = ["cpu.max", "memory.max", "pids.max"]
        .into_iter()
        .filter(|file| !path.join(file).exists())
        .collect();
    fs::remove_dir(&path)?;
    if rustix::process::geteuid().is_root() {
        remove_parent();
    }
    Ok(missing)
}

/// Where the cgroup of the sandbox `id` is to be.
pub(crate) fn place(id: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::other("no cgroup v2 hierarchy is mounted");
    let mount = sys::cgroup2::mount_point().ok_or_else(missing)?;
    if rustix::process::geteuid().is_root() {
        return Ok(mount.join("hull").join(id));
    }
    let own = fs::read_to_string("/proc/self/cgroup")?;
    beside(&own, id)
        .map(|path| mount.join(path))
        .ok_or_else(|| io::Error::other("this user's cgroup is not delegated"))
}

/// The path, in the hierarchy, of a cgroup beside the one that `/proc/self/cgroup` names.
fn beside(own: &str, id: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let parent = Path::new(path).parent()?;
    Some(parent.join(format!("hull-{id}")))
}

/// Lets the cgroups below have the controllers that VMs are limited by; one that is not there is not missed here, but
/// where its limit is set.
fn delegate(parent: &Path) {
    for controller in ["+cpu", "+memory", "+pids"] {
        if let Err(error) = fs::write(parent.join("cgroup.subtree_control"), controller) {
            tracing::debug!(%error, controller, path = %parent.display(), "not delegated");
        }
    }
}

fn limits(vm: &Vm, shares: bool) -> Vec<(&'static str, String)> {
    let (more_memory, more_threads) = match shares {
        true => (SHARES_MEMORY_BYTES, SHARES_THREADS),
        false => (0, 0),
    };
    let memory = (u64::from(vm.memory_mib) << 20) + VMM_MEMORY_BYTES + more_memory;
    let mut limits = vec![
        ("memory.max", memory.to_string()),
        ("memory.oom.group", "1".to_owned()),
        (
            "pids.max",
            (u32::from(vm.vcpus) + OTHER_THREADS + more_threads).to_string(),
        ),
    ];
    if let Some(milli) = vm.cpu_milli {
        let quota = milli.saturating_mul(PERIOD_US) / 1000;
        // The kernel's least is a millisecond.
        limits.push(("cpu.max", format!("{} {PERIOD_US}", quota.max(1000))));
    }
    if let Some(shares) = vm.cpu_shares {
        limits.push(("cpu.weight", weight(shares).to_string()));
    }
    limits
}

/// cgroup v1's shares, 2 to 262144, as cgroup v2's weight, 1 to 10000: the way of runc and crun.
fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weights_have_the_same_ends() {
        assert_eq!((weight(0), weight(2)), (1, 1));
        assert_eq!((weight(1024), weight(262_144)), (39, 10_000));
    }

    #[test]
    fn a_kill_for_want_of_memory_is_told_apart_by_whose_it_was() {
        let events = |oom, kills| {
            let text =
                format!("low 0\nhigh 0\nmax 7\noom {oom}\noom_kill {kills}\noom_group_kill 0\n");
            OutOfMemory::of(&text)
        };
        assert_eq!(events(0, 0), None);
        // Its limit was met, and another process was killed.
        assert_eq!(events(1, 0), None);
        assert_eq!(events(1, 1), Some(OutOfMemory::Limit));
        assert_eq!(events(0, 1), Some(OutOfMemory::Host));
        assert_eq!(OutOfMemory::of(""), None);
    }

    #[test]
    fn an_ordinary_users_cgroup_lies_beside_its_own() {
        let own =
            "1:cpu:/\n0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n";
        assert_eq!(
            beside(own, "abc").unwrap(),
            Path::new("user.slice/user-1000.slice/user@1000.service/app.slice/hull-abc")
        );
        assert_eq!(beside("1:cpu:/\n", "abc"), None);
        assert_eq!(beside("0::/\n", "abc"), None);
    }
}
