//! One test's process, here or in a test host, followed without waiting for it.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::place::{self, Place};

/// The most output of a test that is kept, in bytes, from its beginning.
const MOST_OUTPUT: usize = 1 << 20;
/// How long to wait for output from processes that a test left behind with its streams open.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// A process that runs.
pub(crate) struct Process {
    output: Arc<Mutex<Vec<u8>>>,
    outcome: Receiver<Result<u8>>,
    /// Here, its process group.
    group: Option<Pid>,
}

impl Process {
    /// Starts a command without input. With `refresh`, a test host looks at this machine's files anew.
    ///
    /// # Errors
    /// It cannot be started, or the test host cannot be reached.
    pub(crate) fn start(place: &Place, argv: &[String], refresh: bool) -> Result<Process> {
        match place {
            Place::TestHost(host) => {
                let started = host.start_command(argv, refresh)?;
                let (stdout, stderr) = started.outputs()?;
                Ok(follow(stdout, stderr, None, move || started.outcome()))
            }
            Place::Here => {
                let mut child = place::command(argv)?
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .process_group(0)
                    .spawn()
                    .with_context(|| format!("cannot run {}", argv.join(" ")))?;
                let group = Some(Pid::from_child(&child));
                let stdout = child.stdout.take().context("stdout is a pipe")?;
                let stderr = child.stderr.take().context("stderr is a pipe")?;
                let wait = move || Ok(place::code(child.wait()?));
                Ok(follow(stdout, stderr, group, wait))
            }
        }
    }

    /// Its exit code if it ends within `patience`, as [`Place::run`] has it.
    ///
    /// # Errors
    /// The test host has ended.
    pub(crate) fn wait(&self, patience: Duration) -> Result<Option<u8>> {
        match self.outcome.recv_timeout(patience) {
            Ok(code) => code.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that follows it has ended"),
        }
    }

    /// Both outputs so far, as they came.
    pub(crate) fn output(&self) -> String {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Kills a process on this machine. One in a test host ends with the host.
    pub(crate) fn kill(&self) {
        if let Some(group) = self.group {
            // A group that is gone already is not an error.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

fn follow(
    stdout: impl Read + Send + 'static,
    stderr: impl Read + Send + 'static,
    group: Option<Pid>,
    wait: impl FnOnce() -> Result<u8> + Send + 'static,
) -> Process {
    let output = Arc::<Mutex<Vec<u8>>>::default();
    let (open, closed) = mpsc::channel();
    collect(stdout, output.clone(), open.clone());
    collect(stderr, output.clone(), open);
    let (tell, outcome) = mpsc::channel();
    thread::spawn(move || {
        let code = wait();
        // Nothing is ever sent: this ends when both outputs have, or at the limit.
        closed.recv_timeout(LEFTOVERS).ok();
        // The receiver is gone if the process was given up.
        tell.send(code).ok();
    });
    Process {
        output,
        outcome,
        group,
    }
}

/// Appends a stream to `output` in a thread, and drops `open` at the stream's end.
fn collect(mut stream: impl Read + Send + 'static, output: Arc<Mutex<Vec<u8>>>, open: Sender<()>) {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        // An error is an end: the host is gone.
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MOST_OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&buffer[..count.min(room)]);
        }
        drop(open);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Process {
        let argv = ["sh", "-c", script].map(str::to_owned);
        Process::start(&Place::Here, &argv, false).unwrap()
    }

    #[test]
    fn a_process_here_gives_its_code_and_both_outputs() {
        let process = start("echo out; echo err >&2; exit 3");
        assert_eq!(process.wait(Duration::from_secs(60)).unwrap(), Some(3));
        let output = process.output();
        assert!(output.contains("out\n") && output.contains("err\n"));
    }

    #[test]
    fn a_process_here_is_killed_with_what_it_started() {
        let process = start("sleep 1000 & sleep 1000");
        assert_eq!(process.wait(Duration::from_millis(50)).unwrap(), None);
        process.kill();
        let killed = 128 + Signal::KILL.as_raw() as u8;
        assert_eq!(process.wait(Duration::from_secs(60)).unwrap(), Some(killed));
    }
}
