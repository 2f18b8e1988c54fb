//! The guest around the agent: what PID 1 of a machine without anything else has to make for itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use agent::{NotAwake, WakeUp};
use protocol::agent::TO_BE_SAVED;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{Resource, Rlimit, chdir, chroot, setrlimit};

/// File systems of the guest: type, where, options.
const MOUNTS: [(&str, &str, MountFlags, &str); 5] = [
    ("proc", "/proc", NOTHING_RUNS, ""),
    ("sysfs", "/sys", NOTHING_RUNS, ""),
    ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=755"),
    ("tmpfs", "/run", NOTHING_RUNS, "mode=755"),
    ("cgroup2", "/sys/fs/cgroup", NOTHING_RUNS, ""),
];
const NOTHING_RUNS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// What a host that is set up for containers has, and a kernel that was only booted has not: file below /proc/sys, value. Where
/// the kernel reckons a limit from the machine's memory, small machines get too little; what uses these limits up is
/// charged to the container's cgroup, which is the limit that counts.
const SETTINGS: [(&str, &str); 15] = [
    // As distributions set it now, or search engines and JVMs ask for: mappings of a process, 65,530 by default.
    ("vm/max_map_count", "262144"),
    // A fork of a large process (Redis saving itself) must not fail for want of memory that it will not touch.
    ("vm/overcommit_memory", "1"),
    // As systemd sets it: reckoned from memory otherwise.
    ("fs/file-max", "9223372036854775807"),
    // File watchers: 128 instances by default, and watches reckoned from memory.
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_user_watches", "524288"),
    ("fs/epoll/max_user_watches", "1048576"),
    // Databases reserve thousands of events each: 65,536 by default for all.
    ("fs/aio-max-nr", "1048576"),
    // As systemd sets it: 32,768 by default.
    ("kernel/pid_max", "4194304"),
    // What a machine of 16 GiB has; reckoned from memory, 128 MiB give a thousand.
    ("kernel/threads-max", "131072"),
    // The same for what a user may have of namespaces, for programs that put themselves or others into some.
    ("user/max_user_namespaces", "65536"),
    ("user/max_mnt_namespaces", "65536"),
    // Every distribution has these on, and programs are written for that.
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "1"),
];

/// Open files of a container's process, soft and hard, where its document does not say: systemd's defaults for services, and
/// with them Docker's. Programs that use select(2) cannot have more than 1024, others raise it themselves.
pub(crate) const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Resource limits of the agent, which containers inherit where their documents do not say. The kernel reckons the last two
/// from memory. The others are the kernel's own, which services have too: memlock 8 MiB, msgqueue 800 KiB, stack
/// 8 MiB; core is off and may be turned on.
const LIMITS: [(Resource, Option<u64>); 3] = [
    (Resource::Nofile, Some(OPEN_FILES.1)),
    // As Docker's service has it: pids.max of the container's cgroup is the limit.
    (Resource::Nproc, None),
    (Resource::Sigpending, Some(65_536)),
];

/// A step of the agent's own start that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", on.display())]
pub(crate) struct Error {
    step: &'static str,
    on: std::path::PathBuf,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(step: &'static str, on: &str) -> impl FnOnce(E) -> Error {
    let on = on.into();
    move |error| Error {
        step,
        on,
        source: error.into(),
    }
}

/// Makes sure that descriptors 0, 1 and 2 are open: the kernel gives PID 1 none where it has no console, and the
/// next file opened would be taken for one of them.
pub(crate) fn open_standard_streams() {
    let null = Path::new("/dev/null");
    // In the initramfs, before /dev is mounted. If it cannot be made, opening it fails, and that is all.
    let _ = fs::create_dir_all("/dev");
    let _ = mknodat(
        CWD,
        null,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
        makedev(1, 3),
    );
    while let Ok(fd) = open(null, OFlags::RDWR, Mode::empty()) {
        use std::os::fd::{AsRawFd, IntoRawFd};
        if fd.as_raw_fd() > 2 {
            return;
        }
        // Stays open for good.
        let _ = fd.into_raw_fd();
    }
}

/// Mounts what containers need.
pub(crate) fn set_up() -> Result<(), Error> {
    leave_initramfs()?;
    for (kind, target, flags, options) in MOUNTS {
        fs::create_dir_all(target).map_err(failed("make", target))?;
        let options = std::ffi::CString::new(options).unwrap_or_default();
        mount(kind, target, kind, flags, Some(options.as_c_str()))
            .map_err(failed("mount", target))?;
    }
    let score = "/proc/self/oom_score_adj";
    fs::write(score, "-1000").map_err(failed("write to", score))?;
    set_limits();
    Ok(())
}

/// Sets the machine's limits. One that a foreign kernel does not have or not allow is no reason not to run.
fn set_limits() {
    for (file, value) in SETTINGS {
        let path = Path::new("/proc/sys").join(file);
        match fs::write(&path, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                complain(&format!(
                    "cannot set {} to {value}: {error}",
                    path.display()
                ));
            }
            _ => {}
        }
    }
    for (resource, limit) in LIMITS {
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        if let Err(error) = setrlimit(resource, limit) {
            complain(&format!("cannot set the limit {resource:?}: {error}"));
        }
    }
}

/// Whether the host says that this VM will be saved.
pub(crate) fn is_to_be_saved() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == TO_BE_SAVED)
}

/// What wakes the guest: its clock, and its kernel's generator of random numbers, which then has nothing in common with that
/// of another VM from the same snapshot but what was drawn from it before.
pub(crate) fn waker() -> Result<WakeUp, Error> {
    let path = "/dev/urandom";
    let generator = File::open(path).map_err(failed("open", path))?;
    Ok(Box::new(move |wake| {
        let failed = |step| move |source| NotAwake { step, source };
        sys::clock::set_realtime_ns(wake.realtime_ns).map_err(failed("set the clock"))?;
        sys::random::add_entropy(&generator, &wake.entropy)
            .map_err(failed("give the kernel entropy (RNDADDENTROPY)"))?;
        sys::random::reseed(&generator)
            .map_err(failed("reseed the kernel's generator (RNDRESEEDCRNG)"))
    }))
}

/// The kernel does not let anyone pivot away from the initramfs itself; from a second mount of it, it does.
fn leave_initramfs() -> Result<(), Error> {
    let root = "/root";
    fs::create_dir_all(root).map_err(failed("make", root))?;
    mount_bind("/", root).map_err(failed("mount the root on", root))?;
    chdir(root).map_err(failed("enter", root))?;
    mount_move(".", "/").map_err(failed("move to the root", root))?;
    chroot(".").map_err(failed("change the root to", root))?;
    chdir("/").map_err(failed("enter", "/"))
}

/// Says something on the console, where there is one.
pub(crate) fn complain(message: &str) {
    // <2> is "critical": it is shown even on a quiet console.
    let line = format!("<2>hull-agent: {message}\n");
    let kmsg = fs::OpenOptions::new().write(true).open("/dev/kmsg");
    let written = kmsg.and_then(|mut kmsg| kmsg.write_all(line.as_bytes()));
    if written.is_err() {
        eprintln!("hull-agent: {message}");
    }
}
