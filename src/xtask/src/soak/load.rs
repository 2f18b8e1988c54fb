//! The load: actions after which hull holds nothing, whichever process was killed in between.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tests::registry::{Image, Registry};

use crate::place::below;

/// Longer than any action takes in an emulated machine with much to do.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a killed process may take to be gone.
const FAREWELL: Duration = Duration::from_secs(30);

/// An action and its name.
type Action = (&'static str, fn(&mut Load, &State) -> Result<()>);

/// All of them; each is chosen as often as the others.
pub(crate) const ALL: [Action; 10] = [
    ("echo", echo),
    ("input", input),
    ("disk", disk),
    ("network", network),
    ("signal", signal),
    ("kill hull", |load, state| killed(load, state, "hull")),
    ("kill hull-monitor", |load, state| {
        killed(load, state, "hull-monitor")
    }),
    ("kill hull-vmm", |load, state| {
        killed(load, state, "hull-vmm")
    }),
    ("import", import),
    ("pull", pull),
];

/// What all workers use.
pub(crate) struct State {
    hull: PathBuf,
    folder: TempDir,
    next: AtomicU64,
}

/// One worker's choices.
pub(crate) struct Load {
    random: u64,
}

impl State {
    pub(crate) fn new(hull: PathBuf) -> Result<State> {
        let state = State {
            hull,
            folder: tempfile::tempdir()?,
            next: AtomicU64::new(0),
        };
        // The built-in image is imported once.
        expect(
            state.run(&["run", "--rm", "--network", "none", "demo", "true"])?,
            0,
        )?;
        Ok(state)
    }

    /// HULL_ROOT.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Has hull remove what killed processes have left.
    pub(crate) fn sweep(&self) -> Result<()> {
        expect(
            self.run(&["run", "--rm", "--network", "none", "demo", "true"])?,
            0,
        )?;
        expect(self.run(&["images"])?, 0)?;
        // A monitor takes its VM down a moment after its client was killed.
        let start = Instant::now();
        while start.elapsed() < FAREWELL && any_process("hull-monitor", "hull-vmm")? {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.hull);
        command
            .args(arguments)
            .env("HULL_ROOT", self.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().context("cannot run hull")
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Load {
    pub(crate) fn new(worker: u64) -> Load {
        Load {
            random: 0x9e37_79b9_7f4a_7c15 ^ (worker + 1),
        }
    }

    /// Which action is next.
    pub(crate) fn choose(&mut self) -> usize {
        self.below(ALL.len() as u64) as usize
    }

    /// A number below `bound` (xorshift64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

fn expect(output: Output, code: i32) -> Result<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "it ended with {}: {}",
        output.status,
        stderr.trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

fn echo(load: &mut Load, state: &State) -> Result<()> {
    let code = load.below(100) as i32;
    let script = format!("echo hello; echo error >&2; exit {code}");
    let said = expect(
        state.run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "demo",
            "sh",
            "-c",
            &script,
        ])?,
        code,
    )?;
    ensure!(said == "hello", "it said {said:?}");
    Ok(())
}

fn input(load: &mut Load, state: &State) -> Result<()> {
    let bytes = load.bytes(1 << 20);
    let mut command = state.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-i",
        "demo",
        "sha256sum",
    ]);
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin is a pipe")?;
    let right = hex(&bytes);
    // sha256sum prints nothing before it has read everything.
    stdin.write_all(&bytes)?;
    drop(stdin);
    let said = expect(child.wait_with_output()?, 0)?;
    ensure!(said.starts_with(&right), "{said} instead of {right}");
    Ok(())
}

fn disk(load: &mut Load, state: &State) -> Result<()> {
    let mebibytes = 1 + load.below(16);
    let script = format!(
        "dd if=/dev/urandom of=/file bs=1M count={mebibytes} 2>/dev/null && sync && sha256sum </file >/sum && \
         sha256sum </file | cmp - /sum && rm /file && echo same"
    );
    let said = expect(
        state.run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "demo",
            "sh",
            "-c",
            &script,
        ])?,
        0,
    )?;
    ensure!(said == "same", "it said {said:?}");
    Ok(())
}

/// A server in one container, a client in another.
fn network(load: &mut Load, state: &State) -> Result<()> {
    let kibibytes = 1 + load.below(2048);
    let script = format!(
        "mkdir /www && head -c {kibibytes}k /dev/urandom >/www/file && sha256sum </www/file && \
         ip -4 -o addr show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/' && exec httpd -f -p 80 -h /www"
    );
    // PID 1 ignores SIGTERM without a handler.
    let mut server = state
        .command(&["run", "--rm", "--init", "demo", "sh", "-c", &script])
        .spawn()?;
    let outcome = (|| {
        let stdout = server.stdout.take().context("stdout is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut line = || {
            lines
                .next()
                .context("the server ended")?
                .context("its output")
        };
        let (sum, address) = (line()?, line()?);
        let fetch = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10; do wget -qO /file http://{address}/file && break; sleep 1; done; \
             sha256sum </file"
        );
        let got = expect(state.run(&["run", "--rm", "demo", "sh", "-c", &fetch])?, 0)?;
        ensure!(got == sum, "{got} instead of {sum}");
        Ok(())
    })();
    kill_process(Pid::from_child(&server), Signal::TERM)?;
    let status = wait(&mut server)?;
    outcome.with_context(|| format!("the server ended with {status}"))
}

/// Each of the signals that stop a container, at any time of its life.
fn signal(load: &mut Load, state: &State) -> Result<()> {
    let signals = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
    let signal = signals[load.below(signals.len() as u64) as usize];
    let mut child = running(load, state)?;
    kill_process(Pid::from_child(&child), signal)?;
    let status = wait(&mut child)?;
    // hull handles signals only once there is something to take down.
    ensure!(
        status.code() == Some(128 + signal.as_raw()) || status.signal() == Some(signal.as_raw()),
        "{signal:?} gave {status}"
    );
    Ok(())
}

/// A container that runs until it gets a signal, at any time of its life.
fn running(load: &mut Load, state: &State) -> Result<Child> {
    let network = ["none", "bridge"][load.below(2) as usize];
    let script = "trap 'exit 143' TERM; trap 'exit 130' INT; trap 'exit 129' HUP; trap 'exit 131' QUIT; \
                  dd if=/dev/zero of=/file bs=64k count=32 2>/dev/null; echo up; while :; do sleep 1; done";
    let child = state
        // A shell as PID 1 ignores a signal that comes before its traps are set; an init passes it on.
        .command(&[
            "run",
            "--rm",
            "--init",
            "--network",
            network,
            "demo",
            "sh",
            "-c",
            script,
        ])
        .spawn()?;
    std::thread::sleep(Duration::from_millis(load.below(6000)));
    Ok(child)
}

/// SIGKILL for one of the processes of a container, at any time of its life.
fn killed(load: &mut Load, state: &State, program: &str) -> Result<()> {
    let mut child = running(load, state)?;
    let own = Pid::from_child(&child);
    let victims: Vec<Pid> = below(own)
        .into_iter()
        .filter(|pid| name(*pid) == program)
        .collect();
    for victim in &victims {
        // It may have ended already.
        let _ = kill_process(*victim, Signal::KILL);
    }
    if victims.is_empty() {
        // It was not there yet.
        kill_process(own, Signal::KILL)?;
    }
    wait(&mut child).map(drop)
}

fn import(load: &mut Load, state: &State) -> Result<()> {
    let number = state.number();
    let name = format!("soak/import{number}");
    let path = state.folder.path().join(format!("{number}.tar"));
    let len = 1 + load.below(1 << 20) as usize;
    let (first, second) = (load.bytes(len), load.bytes(1000));
    fs::write(&path, Image::new(&[&first, &second])?.archive()?)?;
    let outcome = state.run(&["import", &path.display().to_string(), &name]);
    fs::remove_file(&path)?;
    expect(outcome?, 0)?;
    expect(state.run(&["rmi", &name])?, 0).map(drop)
}

/// From a registry that is started for this action and ends with it.
fn pull(load: &mut Load, state: &State) -> Result<()> {
    let len = 1 + load.below(1 << 20) as usize;
    let bytes = load.bytes(len);
    let registry = Registry::serve(&Image::new(&[&bytes])?)?;
    let reference = registry.reference();
    let pulled = state.run(&["pull", &reference]);
    registry.stop();
    expect(pulled?, 0)?;
    expect(state.run(&["rmi", &reference])?, 0).map(drop)
}

/// Waits up to the limit.
fn wait(child: &mut Child) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn name(pid: Pid) -> String {
    let path = fs::read_link(format!("/proc/{}/exe", pid.as_raw_pid())).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_prefix("memfd:").unwrap_or(&name);
    name.split(' ').next().unwrap_or_default().to_owned()
}

/// Whether a process of one of these programs runs.
fn any_process(one: &str, other: &str) -> Result<bool> {
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_string_lossy().parse().ok();
        let name = pid.and_then(Pid::from_raw).map(name).unwrap_or_default();
        if name == one || name == other {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
