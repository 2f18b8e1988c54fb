//! What the commands work on, and what must hold after each of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tests::inject::{self, Fault, Traced};
use tests::registry::{Image, Registry};

use super::Store;

/// Longer than any of these commands takes, with every call of it stopped twice.
const LIMIT: Duration = Duration::from_secs(60);

/// The world of one test: an image, where it comes from, and a store that has it.
pub(crate) struct Ground {
    folder: TempDir,
    pub(crate) registry: Registry,
    /// The layers' files of a right store, with their digests.
    layers: BTreeMap<String, Vec<u8>>,
    /// Those that were there before, or have been reported.
    cgroups: RefCell<BTreeSet<PathBuf>>,
}

/// What a command did.
pub(crate) struct Outcome {
    pub(crate) traced: Traced,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ground {
    pub(crate) fn new() -> Result<Ground> {
        let folder = tempfile::tempdir()?;
        let noise: Vec<u8> = (0..300_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let image = Image::new(&[&noise[..], b"small", &noise[..70_000]])?;
        fs::write(folder.path().join("app.tar"), image.archive()?)?;
        fs::write(folder.path().join("payload"), payload())?;
        let mut ground = Ground {
            registry: Registry::serve(&image)?,
            folder,
            layers: BTreeMap::new(),
            cgroups: cgroups().into(),
        };
        let full = ground.path("full");
        for arguments in [
            vec!["import".to_owned(), ground.archive(), "app".to_owned()],
            // The built-in image, which the first run of it imports.
            vec![
                "run".to_owned(),
                "--kernel=/nonexistent".to_owned(),
                "demo".to_owned(),
            ],
        ] {
            ground.run(&full, &arguments, None)?;
        }
        ground.layers = layers(&full)?;
        ensure!(ground.layers.len() == 4, "{:?}", ground.layers.keys());
        Ok(ground)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn archive(&self) -> String {
        self.path("app.tar").display().to_string()
    }

    pub(crate) fn kernel(&self) -> String {
        self.path("payload").display().to_string()
    }

    /// Runs a command on the store with the images, which keeps what it leaves.
    pub(crate) fn use_images(&self, arguments: &[String]) -> Result<Outcome> {
        self.run(&self.path("full"), arguments, None)
    }

    /// A store for one command.
    pub(crate) fn store(&self, store: Store) -> Result<PathBuf> {
        let root = self.path("store");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        if store == Store::Empty {
            fs::create_dir(&root)?;
        } else {
            let copied = Command::new("cp")
                .args(["-a", "--sparse=always"])
                .args([&self.path("full"), &root])
                .status()?;
            ensure!(copied.success(), "cp: {copied}");
        }
        Ok(root)
    }

    /// Runs hull, with a fault or without.
    pub(crate) fn run(
        &self,
        root: &Path,
        arguments: &[String],
        fault: Option<&Fault>,
    ) -> Result<Outcome> {
        self.run_under(&[], root, arguments, fault)
    }

    /// The same, started by another command.
    pub(crate) fn run_under(
        &self,
        wrapper: &[&str],
        root: &Path,
        arguments: &[String],
        fault: Option<&Fault>,
    ) -> Result<Outcome> {
        // Files, not pipes: they need no reader while the command is traced.
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        let mut words = wrapper.iter().chain([&"hull"]);
        let mut command = Command::new(words.next().context("a word")?);
        command
            .args(words)
            .args(arguments)
            .env("HULL_ROOT", root)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(&err)?);
        let traced = inject::run(&mut command, fault, LIMIT)?;
        Ok(Outcome {
            traced,
            stdout: String::from_utf8_lossy(&fs::read(out)?).into_owned(),
            stderr: String::from_utf8_lossy(&fs::read(err)?).into_owned(),
        })
    }

    /// Fails unless the store is whole and nothing of a container is left.
    pub(crate) fn expect_sound(&self, root: &Path) -> Result<()> {
        for (name, digest) in layers(root)? {
            let right = self.layers.get(&name);
            ensure!(right.is_some(), "an unknown layer {name}");
            ensure!(right == Some(&digest), "{name} is not what it should be");
        }
        for folder in ["images/tmp", "images/locks", "sandboxes"] {
            let left: Vec<_> = names(&root.join(folder))
                .into_iter()
                .filter(|name| !name.starts_with('.'))
                .collect();
            ensure!(left.is_empty(), "left in {folder}: {left:?}");
        }
        let unfinished: Vec<_> = names(&root.join("templates"))
            .into_iter()
            .filter(|name| name.starts_with('.') && name != ".lock")
            .collect();
        ensure!(unfinished.is_empty(), "left of templates: {unfinished:?}");
        let mounts = fs::read("/proc/self/mountinfo")?;
        let needle = root.as_os_str().as_bytes();
        let mounted = mounts.windows(needle.len()).any(|part| part == needle);
        ensure!(!mounted, "something is mounted below {}", root.display());
        // Others may be those of a container of the user's beside us: they go by themselves.
        let mut left: BTreeSet<_> = cgroups()
            .difference(&self.cgroups.borrow())
            .cloned()
            .collect();
        for _ in 0..100 {
            left.retain(|cgroup| cgroup.exists());
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.cgroups.borrow_mut().extend(left.iter().cloned());
        ensure!(left.is_empty(), "cgroups are left: {left:?}");
        let links: Vec<_> = names(Path::new("/sys/class/net"))
            .into_iter()
            .filter(|name| name.starts_with("hull"))
            .collect();
        ensure!(links.is_empty(), "interfaces are left: {links:?}");
        let leases: Vec<_> = names(Path::new("/run/hull/network/leases"))
            .into_iter()
            .filter(|name| name != "last")
            .collect();
        ensure!(leases.is_empty(), "leases are left: {leases:?}");
        let tables = Command::new("nft").args(["list", "tables"]).output()?;
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        ensure!(!tables.contains("hull"), "the firewall has {tables}");
        Ok(())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The layers' files of a store and their digests.
fn layers(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = root.join("images/layers");
    let digest = |name: String| -> Result<(String, Vec<u8>)> {
        let bytes = fs::read(folder.join(&name))?;
        Ok((name, Sha256::digest(bytes).to_vec()))
    };
    names(&folder).into_iter().map(digest).collect()
}

/// Cgroups of native containers.
fn cgroups() -> BTreeSet<PathBuf> {
    ["/sys/fs/cgroup/unified/hull", "/sys/fs/cgroup/hull"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|metadata| metadata.mode() & 0o40000 != 0)
        })
        .map(|entry| entry.path())
        .collect()
}

/// A kernel of a few instructions: it writes 42 to the control device as its exit code and resets the machine. See
/// src/vmm/tests/fixture/payload.rs.
fn payload() -> Vec<u8> {
    const START: u64 = 0x20_0000;
    const CODE: [u8; 15] = [
        0xb8, 42, 0, 0, 0, // mov eax, 42
        0x66, 0xba, 0x08, 0x0d, // mov dx, 0xd08
        0xef, // out dx, eax
        0xb0, 0xfe, // mov al, 0xfe
        0xe6, 0x64, // out 0x64, al
        0xf4, // hlt
    ];
    let mut elf = vec![0; 0x2000];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0]);
    put(24, &START.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &[56, 0, 1, 0]);
    put(64, &1u32.to_le_bytes());
    put(72, &0x1000u64.to_le_bytes());
    put(88, &START.to_le_bytes());
    put(96, &0x1000u64.to_le_bytes());
    put(104, &0x1000u64.to_le_bytes());
    put(0x1000, &CODE);
    elf
}

/// Runs this test program's `test` again in network and mount namespaces of its own, where there is no other bridge.
pub(crate) fn apart(test: &str) -> Result<()> {
    // A sysfs of the namespace's own shows its interfaces; what is mounted in it goes along.
    const SCRIPT: &str = "mkdir -p /run/hull && mount -t tmpfs tmpfs /run/hull && mkdir /run/hull/cgroup && \
        mount --rbind /sys/fs/cgroup /run/hull/cgroup && mount -t sysfs sysfs /sys && \
        mount --rbind /run/hull/cgroup /sys/fs/cgroup && ip link set lo up && exec \"$@\"";
    let own = std::env::current_exe()?;
    let status = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", SCRIPT, "-"])
        .arg(own)
        .args([
            "--exact",
            test,
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(super::APART, "1")
        .status()
        .context("cannot run unshare")?;
    if !status.success() {
        bail!("{test}: {status}");
    }
    Ok(())
}
