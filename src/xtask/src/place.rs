//! Where hull's VMs can run: on this machine, or in a test host.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::paths;
use crate::step::succeeds;

/// Where commands that start VMs are run.
pub(crate) enum Place {
    /// This machine's KVM boots a stock kernel.
    Here,
    /// It does not.
    TestHost(Box<Host>),
}

impl Place {
    /// Asks the built `hull` whether this machine's KVM boots a stock kernel, and says so when it does not.
    pub(crate) fn find() -> Result<Place> {
        let hull = paths::dist().join("bin/hull");
        if succeeds(Command::new(hull).args(["doctor", "--boots"])) {
            return Ok(Place::Here);
        }
        eprintln!(
            "==> this machine's KVM cannot boot a stock kernel, or there is none: using the test host"
        );
        Ok(Place::TestHost(Box::new(Host::reach(false)?)))
    }

    /// Runs a command with our own streams, and gives back its exit code.
    pub(crate) fn run(&self, argv: &[String]) -> Result<u8> {
        match self {
            Place::Here => Ok(code(command(argv)?.status().context("cannot run it")?)),
            Place::TestHost(host) => host.run(argv),
        }
    }

    /// Runs a command without input, shows its output line by line, and lets `see` look at each line.
    pub(crate) fn run_seen(&self, argv: &[String], see: &mut dyn FnMut(&str)) -> Result<u8> {
        match self {
            Place::Here => seen(&mut command(argv)?, see),
            Place::TestHost(host) => host.run_seen(argv, see),
        }
    }
}

fn command(argv: &[String]) -> Result<Command> {
    let (program, arguments) = argv.split_first().context("no command")?;
    let mut path = paths::dist().join("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path);
    Ok(command)
}

/// Runs a command, shows both its outputs, and lets `see` look at each line.
pub(crate) fn seen(command: &mut Command, see: &mut dyn FnMut(&str)) -> Result<u8> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    show(stdout, stderr, see)?;
    Ok(code(child.wait()?))
}

/// Shows two outputs until both have ended, line by line.
pub(crate) fn show(
    stdout: impl io::Read + Send + 'static,
    stderr: impl io::Read + Send + 'static,
    see: &mut dyn FnMut(&str),
) -> Result<()> {
    let (lines, receiver) = std::sync::mpsc::channel();
    let errors = lines.clone();
    let forward = |from: Box<dyn io::Read + Send>, to: std::sync::mpsc::Sender<_>, error| {
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                if to.send((error, std::mem::take(&mut line))).is_err() {
                    return;
                }
            }
        })
    };
    forward(Box::new(stdout), lines, false);
    forward(Box::new(stderr), errors, true);
    for (error, line) in receiver {
        if error {
            io::stderr().write_all(&line)?;
        } else {
            io::stdout().write_all(&line)?;
            io::stdout().flush()?;
        }
        see(String::from_utf8_lossy(&line).trim_end());
    }
    Ok(())
}

/// As a shell has it: 128 + n for signal n.
pub(crate) fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(255) as u8
}
