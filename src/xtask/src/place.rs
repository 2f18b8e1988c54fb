//! Where hull's VMs can run: on this machine, or in a test host.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::mem;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{self, Host};
use crate::paths;
use crate::step::succeeds;

/// A command that prints nothing for this long hangs; compiling everything on a busy machine takes less.
const SILENCE: Duration = Duration::from_secs(20 * 60);
/// The exit code of a command that was killed for its silence, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

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

    /// The state of a test host that hangs: the last `count` lines of its console, and what QEMU does.
    pub(crate) fn last_lines(&mut self, count: usize) -> Option<Vec<String>> {
        match self {
            Place::Here => None,
            Place::TestHost(host) => {
                let watch = host.watch();
                Some([watch.last_lines(count), watch.state()].concat())
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

/// Runs a command, shows both its outputs, and lets `see` look at each line. One that prints nothing for [`SILENCE`] is
/// killed with everything that it has started.
pub(crate) fn seen(command: &mut Command, see: &mut dyn FnMut(&str)) -> Result<u8> {
    seen_within(command, SILENCE, see)
}

fn seen_within(command: &mut Command, silence: Duration, see: &mut dyn FnMut(&str)) -> Result<u8> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    let (lines, receiver) = mpsc::channel();
    forward(stdout, false, lines.clone());
    forward(stderr, true, lines);
    loop {
        let (is_error, line) = match receiver.recv_timeout(silence) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Ok(code(child.wait()?)),
            Err(RecvTimeoutError::Timeout) => {
                let program = command.get_program().to_string_lossy().into_owned();
                eprintln!(
                    "error: {program} has printed nothing for {} s: it is killed",
                    silence.as_secs()
                );
                for process in below(Pid::from_child(&child)) {
                    // One that is gone already is not an error.
                    kill_process(process, Signal::KILL).ok();
                }
                child.wait()?;
                return Ok(TIMED_OUT);
            }
        };
        if is_error {
            io::stderr().write_all(&line)?;
        } else {
            io::stdout().write_all(&line)?;
            io::stdout().flush()?;
        }
        see(String::from_utf8_lossy(&line).trim_end());
    }
}

/// Sends each line of a stream with `is_error`, until the stream ends.
fn forward(
    from: impl io::Read + Send + 'static,
    is_error: bool,
    to: mpsc::Sender<(bool, Vec<u8>)>,
) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            if to.send((is_error, mem::take(&mut line))).is_err() {
                return;
            }
        }
    });
}

/// A process and all of its descendants.
pub(crate) fn below(pid: Pid) -> Vec<Pid> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        let number = pid.as_raw_pid();
        let path = format!("/proc/{number}/task/{number}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace();
        found.extend(children.filter_map(|child| Pid::from_raw(child.parse().ok()?)));
    }
    found
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
    fn a_command_that_falls_silent_is_killed_with_what_it_started() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; sleep 1000 & sleep 1000"]);
        let mut see = |line: &str| lines.push(line.to_owned());
        let code = seen_within(&mut command, Duration::from_millis(300), &mut see).unwrap();
        assert_eq!(code, TIMED_OUT);
        assert_eq!(lines, ["begun"]);
    }

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
