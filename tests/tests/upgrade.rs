//! An upgrade of hull under running containers (docs/lifecycle.md, "Upgrades"): their monitors are of the old build, and every
//! command is of the new one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use tests::{Hull, Outcome, wait_until};

/// Says which build it is of when it is run.
const PROGRAMS: [&str; 6] = [
    "hull-monitor",
    "hull-native",
    "hull-vmm",
    "hull-fs",
    "hull-net",
    "initramfs.cpio",
];
/// What is the same in both builds.
const DATA: [&str; 4] = [
    "vmlinux",
    "scratch.ext4",
    "scratch-growing.ext4",
    "demo.tar",
];
const SERVER: &str = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";

/// A copy of the built installation, which is to be replaced by another.
struct Installation {
    folder: TempDir,
    built: PathBuf,
    build: String,
}

impl Installation {
    fn new() -> Result<Installation> {
        let path = std::env::var_os("PATH").context("there is no PATH")?;
        let built = std::env::split_paths(&path)
            .find(|folder| folder.join("hull").exists())
            .context("hull is not on the PATH")?;
        let installation = Installation {
            folder: tempfile::tempdir()?,
            built: built.parent().context("a folder of programs")?.to_owned(),
            build: String::new(),
        };
        let libexec = installation.folder.path().join("libexec/hull");
        fs::create_dir_all(&libexec)?;
        fs::create_dir_all(installation.folder.path().join("bin"))?;
        for name in DATA {
            symlink(
                installation.built.join("libexec/hull").join(name),
                libexec.join(name),
            )?;
        }
        for file in installation.programs() {
            fs::copy(
                installation.built.join(&file),
                installation.folder.path().join(&file),
            )?;
        }
        let version = Command::new(installation.hull())
            .args(["version", "--format", "{{.Client.GitCommit}}"])
            .output()?;
        let build = String::from_utf8(version.stdout)?.trim().to_owned();
        Ok(Installation {
            build,
            ..installation
        })
    }

    fn programs(&self) -> Vec<PathBuf> {
        let parts = PROGRAMS
            .iter()
            .map(|name| Path::new("libexec/hull").join(name));
        parts.chain([PathBuf::from("bin/hull")]).collect()
    }

    fn hull(&self) -> PathBuf {
        self.folder.path().join("bin/hull")
    }

    /// Puts programs of another build in the place of these, as a package manager does: each is renamed to its name.
    ///
    /// Only the end of the build is another. Where a compiler compares 22 bytes, it makes constants of the first 16 and of
    /// the last 8 of them: those are looked for, and what they have in common with the first stays.
    fn upgrade(&self) -> Result<String> {
        const LAST: usize = 8;
        const CHANGED: usize = 6;
        let len = self.build.len();
        ensure!(len == 22, "{} is not VERSION+HASH of 22 bytes", self.build);
        let (kept, changed) = self.build.split_at(len - CHANGED);
        let other: String = kept.chars().chain(changed.chars().rev()).collect();
        ensure!(other != self.build, "an end that is its own mirror image");
        let (hash, last) = (&self.build[len - LAST..], &other[len - LAST..]);
        for file in self.programs() {
            let path = self.folder.path().join(&file);
            let bytes = replaced(&path, hash, last)?;
            let made = path.with_extension("new");
            fs::write(&made, bytes)?;
            fs::set_permissions(&made, fs::Permissions::from_mode(0o755))?;
            fs::rename(&made, &path)?;
        }
        Ok(other)
    }

    fn run<const L: usize>(&self, store: &Hull, words: [&str; L]) -> Result<Outcome> {
        store.run_program(&self.hull(), words)
    }

    fn ok<const L: usize>(&self, store: &Hull, words: [&str; L]) -> Result<String> {
        Ok(self.run(store, words)?.expect_code(0).stdout())
    }
}

/// The file with `to` in each place of `from`, which is as long; by sed, which is quick in an emulated machine.
fn replaced(path: &Path, from: &str, to: &str) -> Result<Vec<u8>> {
    let sed = Command::new("sed")
        .env("LC_ALL", "C")
        .arg(format!("s/{from}/{to}/g"))
        .arg(path)
        .output()?;
    ensure!(sed.status.success(), "sed failed: {}", sed.status);
    let before = fs::read(path)?;
    ensure!(
        sed.stdout.len() == before.len(),
        "sed changed more than that"
    );
    ensure!(sed.stdout != before, "{} has no build", path.display());
    Ok(sed.stdout)
}

/// Everything that a user does with a running container.
fn manageable(new: &Installation, store: &Hull) -> Result<()> {
    let listed = new.ok(store, ["ps", "--format", "{{.Names}} {{.State}}"])?;
    assert_eq!(listed, "web running");
    assert_eq!(new.ok(store, ["exec", "web", "echo", "alive"])?, "alive");
    assert!(new.ok(store, ["logs", "web"])?.starts_with("up"));
    assert!(new.ok(store, ["top", "web"])?.contains("sleep"));
    new.ok(store, ["stats", "--no-stream"])?;
    new.ok(store, ["pause", "web"])?;
    new.ok(store, ["unpause", "web"])?;
    new.ok(
        store,
        ["exec", "web", "sh", "-c", "echo kept > /kept; sync"],
    )?;
    assert_eq!(
        new.ok(store, ["inspect", "--format", "{{.State.Status}}", "web"])?,
        "running"
    );
    Ok(())
}

fn across_an_upgrade(isolation: &str, machine: &str) -> Result<()> {
    let store = Hull::new()?;
    let installation = Installation::new()?;
    let run = [
        "run",
        "-d",
        "--network",
        "none",
        "--isolation",
        isolation,
        "--restart",
        "always",
        "--name",
        "web",
        "demo",
        "sh",
        "-c",
        SERVER,
    ];
    installation.ok(&store, run)?;
    let build = installation.upgrade()?;
    let version = ["version", "--format", "{{.Client.GitCommit}}"];
    assert_eq!(installation.ok(&store, version)?, build);
    manageable(&installation, &store)?;
    // What its policy starts again is of the build that its monitor is of.
    kill_process(store.process(machine)?, Signal::KILL)?;
    wait_until("it runs again", || {
        let look = [
            "inspect",
            "--format",
            "{{.State.Status}} {{.RestartCount}}",
            "web",
        ];
        Ok(installation.ok(&store, look)? == "running 1")
    })?;
    manageable(&installation, &store)?;
    // A new container, and this one from its next start on, are of the new build.
    let other = [
        "run",
        "--rm",
        "--network",
        "none",
        "--isolation",
        isolation,
        "demo",
        "echo",
        "new",
    ];
    assert_eq!(installation.ok(&store, other)?, "new");
    installation.ok(&store, ["stop", "web"])?;
    assert_eq!(installation.ok(&store, ["wait", "web"])?, "3");
    installation.ok(&store, ["start", "web"])?;
    assert_eq!(
        installation.ok(&store, ["exec", "web", "cat", "/kept"])?,
        "kept"
    );
    installation.ok(&store, ["rm", "-f", "web"])?;
    store.expect_nothing_left()
}

#[test]
fn a_container_runs_on_and_is_manageable_across_an_upgrade() -> Result<()> {
    across_an_upgrade("vm", "hull-vmm")
}

#[test]
fn a_native_container_runs_on_across_an_upgrade() -> Result<()> {
    across_an_upgrade("native", "hull-native")
}
