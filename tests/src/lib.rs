//! The fixture of the end-to-end tests: runs `hull` and gives access to its output.
//!
//! `cargo xtask test` runs them where VMs can run, with the built `hull` first on the PATH. Each [`Hull`] has a store of
//! its own, so that tests do not see each other.

pub mod initramfs;
pub mod inject;
pub mod kills;
pub mod output;
mod process;
pub mod registry;
pub mod serve;
mod terminal;

pub use process::{Running, is_alive, wait_until};
pub use terminal::Terminal;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// What containers run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A VM each.
    Vm,
    /// The host's kernel.
    Native,
}

impl Isolation {
    /// Options of a small container without a network.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Isolation::Vm => &["-m", "128m", "--network", "none"],
            Isolation::Native => &["--isolation", "native", "--network", "none"],
        }
    }
}

/// An ordinary user of the test host's, and their group.
pub const USER: u32 = 54321;

/// An installation of hull with a store of its own.
pub struct Hull {
    root: TempDir,
    /// Who uses it, if not this process's user.
    user: Option<u32>,
    /// Below the store, for one that may run full.
    disk: Option<Disk>,
}

/// A small file system, unmounted when it is dropped.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what a failed test has left there goes with it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Hull {
    /// An empty store; the demo image is built in.
    pub fn new() -> Result<Hull> {
        Ok(Hull {
            root: tempfile::tempdir().context("no room for a store")?,
            user: None,
            disk: None,
        })
    }

    /// An empty store of an ordinary user's, [`USER`], who may use KVM as the members of its group may.
    pub fn of_user() -> Result<Hull> {
        let mut hull = Hull::new()?;
        chown(hull.root(), Some(USER), Some(USER))?;
        std::fs::set_permissions("/dev/kvm", Permissions::from_mode(0o666))?;
        hull.user = Some(USER);
        Ok(hull)
    }

    /// An empty store on a file system of its own, of so many bytes.
    pub fn on_disk_of(bytes: usize) -> Result<Hull> {
        let mut hull = Hull::new()?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=700,size={bytes}")])
            .arg("store")
            .arg(hull.root())
            .status()?;
        ensure!(status.success(), "no small file system: mount: {status}");
        hull.disk = Some(Disk(hull.root().to_path_buf()));
        Ok(hull)
    }

    /// Imports an image `name` of a program of this machine and the libraries that it needs.
    pub fn import_program(&self, program: &Path, name: &str) -> Result<()> {
        let libraries = Command::new("ldd").arg(program).output()?;
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &Path, from: &Path| -> Result<()> {
            let bytes =
                std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            archive.append_data(&mut header, path, &bytes[..])?;
            Ok(())
        };
        add(
            program.file_name().context("a program's name")?.as_ref(),
            program,
        )?;
        for path in String::from_utf8(libraries.stdout)?.split_whitespace() {
            if let Some(inside) = path.strip_prefix('/') {
                add(inside.as_ref(), Path::new(path))?;
            }
        }
        let file = self.root().join("program.tar");
        std::fs::write(&file, archive.into_inner()?)?;
        let file = file.to_str().context("a path is not UTF-8")?;
        self.run(["import", file, name])?.expect_code(0);
        Ok(())
    }

    /// The store's folder, HULL_ROOT.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `hull ARGS…`, not run yet.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.command_of(Path::new("hull"), arguments)
    }

    fn command_of<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("HULL_ROOT", self.root.path());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs `PROGRAM ARGS…`, another hull, on this store, without input.
    pub fn run_program<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Outcome> {
        let mut command = self.command_of(program, arguments);
        let output = command.stdin(Stdio::null()).output();
        Ok(Outcome(output.with_context(|| {
            format!("cannot run {}", program.display())
        })?))
    }

    /// Runs `hull ARGS…` without input.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Outcome> {
        self.run_with_input(arguments, b"")
    }

    /// Runs a script without a network, with these options.
    pub fn run_script(&self, options: &[&str], script: &str) -> Result<Outcome> {
        self.run(words(options, script))
    }

    /// Runs `hull ARGS…` with this input.
    pub fn run_with_input<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Result<Outcome> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run hull: is it on the PATH?")?;
        let mut stdin = child.stdin.take().context("stdin is a pipe")?;
        let input = input.to_vec();
        // A command that does not read all of its input closes it: not an error.
        let writer = thread::spawn(move || _ = stdin.write_all(&input));
        let output = child.wait_with_output()?;
        writer.join().expect("the writer does not panic");
        Ok(Outcome(output))
    }
}

impl Drop for Hull {
    /// Containers outlive the commands that started them: those that are left go with their store.
    fn drop(&mut self) {
        let entries = std::fs::read_dir(self.root().join("containers"));
        let names = entries.into_iter().flatten().flatten();
        let left: Vec<_> = names
            .map(|entry| entry.file_name())
            .filter(|name| !name.to_string_lossy().starts_with('.'))
            .collect();
        if !left.is_empty() {
            let arguments = ["rm", "-f"].map(Into::into).into_iter().chain(left);
            // A test that has failed already is not to fail twice.
            let _ = self.command::<std::ffi::OsString>(arguments).output();
        }
        self.disk = None;
    }
}

/// `run --rm --network none OPTIONS… demo sh -c SCRIPT`.
fn words<'a>(options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let mut words = vec!["run", "--rm", "--network", "none"];
    words.extend(options);
    words.extend(["demo", "sh", "-c", script]);
    words
}

/// The result of a command.
#[derive(Debug)]
pub struct Outcome(Output);

impl Outcome {
    /// The exit code; a signal's is `None`.
    pub fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// Standard output, as bytes.
    pub fn stdout_bytes(&self) -> &[u8] {
        &self.0.stdout
    }

    /// Standard output, as text without the line end.
    pub fn stdout(&self) -> String {
        text(&self.0.stdout)
    }

    /// Error output, as text without the line end.
    pub fn stderr(&self) -> String {
        text(&self.0.stderr)
    }

    /// Fails, showing both outputs, unless the exit code is this.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Outcome {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        assert_eq!(
            self.code(),
            Some(code),
            "\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        );
        self
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_string()
}

/// The folder of real images that tests/images/build.sh has made: HULL_TEST_IMAGES names another than the cache's.
pub fn images() -> Result<PathBuf> {
    let folder = match std::env::var_os("HULL_TEST_IMAGES") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set")?;
            let cache = std::env::var_os("HULL_CACHE").map(PathBuf::from);
            cache
                .unwrap_or_else(|| Path::new(&home).join(".cache/hull"))
                .join("images")
        }
    };
    ensure!(
        folder.join("done").exists(),
        "{} has no images: tests/images/build.sh makes them",
        folder.display()
    );
    Ok(folder)
}
