//! Where hull's VMs can run: on this machine, or in a test host.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result};

use crate::host::{self, Host};
use crate::paths;
use crate::step::succeeds;

/// Where commands that start VMs are run.
pub(crate) enum Place {
    /// This machine's KVM boots a stock kernel.
    Here,
    /// Otherwise.
    TestHost(Box<Host>),
}

impl Place {
    /// Asks the built `hull` whether this machine's KVM boots a stock kernel, and says so when it does not.
    pub(crate) fn find() -> Result<Place> {
        if Place::is_here() {
            return Ok(Place::Here);
        }
        Ok(Place::TestHost(Box::new(Host::reach(false)?)))
    }

    /// Whether VMs run on this machine, as the built `hull` finds; says so when they do not.
    pub(crate) fn is_here() -> bool {
        let hull = paths::dist().join("bin/hull");
        let is_here = succeeds(Command::new(hull).args(["doctor", "--boots"]));
        if !is_here {
            eprintln!(
                "==> this machine's KVM cannot boot a stock kernel, or there is none: using the test host"
            );
        }
        is_here
    }

    /// Runs a command with our own streams, and gives back its exit code.
    pub(crate) fn run(&self, argv: &[String]) -> Result<u8> {
        match self {
            Place::Here => Ok(code(command(argv)?.status().context("cannot run it")?)),
            Place::TestHost(host) => host.run(argv),
        }
    }

    /// The state of a test host that hangs: the last `count` lines of its console, and the emulated processor's state.
    pub(crate) fn last_lines(&mut self, count: usize) -> Option<Vec<String>> {
        match self {
            Place::Here => None,
            Place::TestHost(host) => {
                let watch = host.watch();
                Some([watch.last_lines(count), watch.processor()].concat())
            }
        }
    }
}

/// Checks early that there will be a place where VMs run: before hull is built, KVM cannot be asked, but a processor
/// without VT-x or AMD-V, or a missing /dev/kvm, means that a test host is needed.
pub(crate) fn foresee() -> Result<Foreseen> {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_kvm = Path::new("/dev/kvm").exists();
    if has_kvm && has_virtualization(&flags) {
        return Ok(Foreseen::PerhapsHere);
    }
    host::start::require()?;
    Ok(Foreseen::TestHost)
}

/// The result of [`foresee`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreseen {
    /// This machine's KVM may boot a stock kernel.
    PerhapsHere,
    /// A test host is needed, and nothing that can be checked now keeps it from starting.
    TestHost,
}

/// Whether a processor has VT-x or AMD-V, by the `flags` lines of /proc/cpuinfo.
fn has_virtualization(cpuinfo: &str) -> bool {
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.any(|line| {
        line.split_whitespace()
            .any(|flag| ["vmx", "svm"].contains(&flag))
    })
}

pub(crate) fn command(argv: &[String]) -> Result<Command> {
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

/// The exit code that a shell would report: 128 + n for signal n.
pub(crate) fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_read_from_the_flags_alone() {
        assert!(has_virtualization(
            "model name : x\nflags\t\t: fpu svm sse\n"
        ));
        assert!(has_virtualization("flags : vmx\nvmx flags : vnmi\n"));
        assert!(!has_virtualization(
            "model name : svm\nflags : fpu\nvmx flags : vmx\n"
        ));
    }
}
