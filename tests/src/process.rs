//! A running hull: its processes, and what they leave behind.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Hull, words};

/// The most that anything may take in a busy emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A `hull` that has been started.
pub struct Running {
    /// The process.
    pub child: Child,
    /// Its standard output.
    pub stdout: BufReader<ChildStdout>,
}

/// The name of a process's program.
fn comm(pid: Pid) -> Result<String> {
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_pid()))?;
    Ok(name.trim_end().to_owned())
}

impl Hull {
    /// Starts `hull ARGS…` with its standard input and output held.
    pub fn start<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Running> {
        Self::start_command(self.command(arguments))
    }

    /// Starts a script without a network, with these options, and waits until it says that it is ready.
    pub fn start_ready(&self, options: &[&str], script: &str) -> Result<Running> {
        let mut running = self.start(words(options, script))?;
        let line = running.line()?;
        ensure!(line == "ready", "it says {line:?} first");
        Ok(running)
    }

    /// Starts a [`Hull::command`] with its standard input and output held.
    pub fn start_command(mut command: Command) -> Result<Running> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run hull: is it on the PATH?")?;
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        Ok(Running {
            child,
            stdout: BufReader::new(stdout),
        })
    }

    /// The processes of this store's sandboxes: each monitor, and what it has started.
    pub fn sandbox_processes(&self) -> Result<Vec<Pid>> {
        let mut found = Vec::new();
        for process in processes()? {
            let is_monitor = process.command.contains("hull-monitor")
                && process.command.contains(&*self.root().to_string_lossy());
            if is_monitor || found.contains(&process.parent) {
                found.push(process.pid);
            }
        }
        Ok(found.into_iter().filter_map(Pid::from_raw).collect())
    }

    /// The monitors of this store's sandboxes: two processes each.
    pub fn monitors(&self) -> Result<Vec<Pid>> {
        let mut found = self.sandbox_processes()?;
        found.retain(|pid| comm(*pid).is_ok_and(|name| name == "hull-monitor"));
        Ok(found)
    }

    /// The process of this store's sandboxes whose program is this.
    pub fn process(&self, program: &str) -> Result<Pid> {
        for pid in self.sandbox_processes()? {
            if comm(pid)? == program {
                return Ok(pid);
            }
        }
        bail!("no {program} runs")
    }

    /// The monitor's processes of this store's only sandbox: its warden, and the speaker that the warden forked.
    pub fn warden_and_speaker(&self) -> Result<[Pid; 2]> {
        let monitors = self.monitors()?;
        let [one, other] = monitors[..] else {
            bail!("not two but {} processes of monitors run", monitors.len());
        };
        let is_child = |process: &Process| {
            process.pid == other.as_raw_pid() && process.parent == one.as_raw_pid()
        };
        Ok(match processes()?.iter().any(is_child) {
            true => [one, other],
            false => [other, one],
        })
    }

    /// Waits until nothing of this store's sandboxes is left; fails if something stays.
    pub fn expect_nothing_left(&self) -> Result<()> {
        wait_until("the sandbox's processes are gone", || {
            Ok(self.sandbox_processes()?.is_empty())
        })?;
        wait_until("the sandbox's folders are gone", || {
            Ok(self.sandboxes()?.is_empty())
        })
    }

    /// Names of the sandboxes' folders.
    pub fn sandboxes(&self) -> Result<Vec<String>> {
        let folder = self.root().join("sandboxes");
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Running {
    /// Types a line.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is a pipe")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// The next line of its standard output.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Its exit code, once it has ended.
    pub fn code(mut self) -> Result<Option<i32>> {
        drop(self.child.stdin.take());
        let child = &mut self.child;
        let mut code = None;
        wait_until("hull ends", || {
            let status = child.try_wait()?;
            code = status.and_then(|status| status.code());
            Ok(status.is_some())
        })?;
        Ok(code)
    }
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// Waits until `done` returns true, for as long as an emulated machine may need.
pub fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > PATIENCE {
            bail!("not within {PATIENCE:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A living process.
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// Its command line, with spaces between the words.
    pub(crate) command: String,
}

impl Process {
    /// The name of its program, from its command line.
    pub(crate) fn program(&self) -> &str {
        let path = self.command.split(' ').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

/// Every living process, parents before children as long as numbers do not wrap around.
pub(crate) fn processes() -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let folder = Path::new("/proc").join(&name);
        // It may end between these reads.
        let (Ok(stat), Ok(command)) = (
            fs::read_to_string(folder.join("stat")),
            fs::read(folder.join("cmdline")),
        ) else {
            continue;
        };
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split(' ').nth(2)?.parse().ok());
        if let (Some(parent), true) = (parent, is_alive_stat(&stat)) {
            found.push(Process {
                pid,
                parent,
                command: String::from_utf8_lossy(&command).replace('\0', " "),
            });
        }
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

fn is_alive_stat(stat: &str) -> bool {
    let state = stat.rsplit(')').next().unwrap_or_default();
    !state.starts_with(" Z") && !state.starts_with(" X")
}
