//! A container of busybox, run by the crate's own `run-bundle`: what a test needs to say what it means.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// A bundle in a temporary directory.
pub(crate) struct Bundle {
    dir: tempfile::TempDir,
    /// config.json, to be changed at will.
    pub(crate) config: Value,
    options: Vec<String>,
    cgroup: PathBuf,
}

/// What a run printed and how it ended.
pub(crate) struct Run {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Bundle {
    /// Docker's default document with a shell script as command.
    pub(crate) fn new(script: &str) -> Bundle {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hull-container-test-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle {
            cgroup: cgroup2().join(name),
            dir,
            config: docker(script),
            options: Vec::new(),
        };
        for path in ["bin", "etc", "tmp", "home", "proc", "sys", "dev"] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(bundle.root().join(path))
                .unwrap();
        }
        std::fs::copy("/bin/busybox", bundle.root().join("bin/busybox")).unwrap();
        for name in "sh cat ls id stat mount grep sleep kill ps hostname readlink mkdir touch echo test ip nslookup \
                     awk sed wc chown tty stty true false dd head tail mknod umount env sysctl ping df cut"
            .split_whitespace()
        {
            symlink("busybox", bundle.root().join("bin").join(name)).unwrap();
        }
        bundle.write(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n",
        );
        bundle.write("etc/group", "root:x:0:\nweb:x:34:\nvideo:x:44:web\n");
        bundle
    }

    /// Puts the container into another cgroup.
    pub(crate) fn in_cgroup(mut self, path: &str) -> Bundle {
        self.cgroup = path.into();
        self
    }

    /// Gives the whole image to a user outside, and lets that user pass to it.
    pub(crate) fn give_to(&self, uid: u32) {
        let status = Command::new("chown")
            .args(["-hR", &format!("{uid}:{uid}")])
            .arg(self.root())
            .status();
        assert!(status.unwrap().success());
        std::fs::set_permissions(self.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes a directory of a user.
    pub(crate) fn own_directory(&self, path: &str, uid: u32, mode: u32) {
        let path = self.root().join(path);
        std::fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(uid), None).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Writes a program.
    pub(crate) fn executable(&self, path: &str, text: &str) {
        self.write(path, text);
        std::fs::set_permissions(
            self.root().join(path),
            std::fs::Permissions::from_mode(0o755),
        )
        .unwrap();
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::write(self.root().join(path), text).unwrap();
    }

    /// An option of run-bundle.
    pub(crate) fn option(mut self, option: &str, value: &str) -> Bundle {
        self.options.push(option.into());
        if !value.is_empty() {
            self.options.push(value.into());
        }
        self
    }

    /// Changes the document at a JSON pointer.
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Bundle {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = self.config.pointer_mut(parent).unwrap();
        match parent.as_array_mut() {
            Some(array) => array.push(value),
            None => parent[key] = value,
        }
        self
    }

    pub(crate) fn command(&self) -> Command {
        std::fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_run-bundle"));
        command
            .args(&self.options)
            .arg(&self.cgroup)
            .arg(self.dir.path());
        command
    }

    /// Runs to the end, without input.
    pub(crate) fn run(&self) -> Run {
        let run = Run::from(self.command().stdin(Stdio::null()).output().unwrap());
        assert!(!self.cgroup.exists(), "the cgroup was left behind");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.dir.path().to_str().unwrap()),
            "a mount was left behind"
        );
        run
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Run {
            out: text(output.stdout),
            err: text(output.stderr),
            code: output.status.code().unwrap_or(-1),
        }
    }
}

impl Run {
    /// The output of a run that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }
}

/// Where the version 2 hierarchy is mounted.
pub(crate) fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .expect("a cgroup2 mount");
    line.split(' ').nth(4).unwrap().into()
}

/// What Docker 24 writes for `docker run IMAGE sh -c SCRIPT`, device rules included.
fn docker(script: &str) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE"
    ]);
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh", "-c", script],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [],
            "oomScoreAdj": 0,
        },
        "root": { "path": "rootfs" },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["ro", "nosuid", "noexec", "nodev"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"] },
        ],
        "linux": {
            "sysctl": {},
            "resources": {},
            "namespaces": [{ "type": "mount" }, { "type": "network" }, { "type": "uts" }, { "type": "pid" },
                           { "type": "ipc" }, { "type": "cgroup" }],
            "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
                "/sys/devices/virtual/powercap"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        }
    })
}
