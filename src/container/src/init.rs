//! The small init of `--init`: the first process of the PID namespace runs the command as its child, passes signals on
//! to it and reaps whatever is orphaned. It is this very process, not another program.
//!
//! ```text
//! first process --fork--> command          signals: all blocked, taken one by one
//!      |                                   SIGCHLD: reap; when it was the command, end as it did
//!      '--- everything else ---> command
//! ```

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};
use sys::sigset::{self, Received, Set};

use crate::error::{Attempt, Error, Step};

/// Forks. The child returns from this and goes on to become the command; the parent gets `serve` to run instead.
///
/// A fork must come before the seccomp program, which may not know clone3.
pub(crate) fn fork(command: impl FnOnce() -> i32) -> Result<Pid, Error> {
    // In a PID namespace of its own the init is the reaper by birth; without one it asks.
    set_child_subreaper(Some(getpid())).at(Step::Init, "")?;
    Set::all().block_only().at(Step::Init, "")?;
    let child = sys::fork::fork(0, None, |_| command()).at(Step::Init, "")?;
    Ok(child.pid)
}

/// In the command's process, before it executes: its own process group, in the foreground of the terminal if any.
pub(crate) fn lead_group(has_terminal: bool) -> Result<(), Error> {
    rustix::process::setpgid(None, None).at(Step::Init, "process group")?;
    if has_terminal {
        // SIGTTOU, which this may raise, is still blocked.
        rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp())
            .at(Step::Init, "foreground")?;
    }
    Ok(())
}

/// Runs the init until the command ends, and returns the code to end with.
pub(crate) fn serve(command: Pid) -> i32 {
    loop {
        match Set::all().wait() {
            Ok(Received {
                signal: libc::SIGCHLD,
                ..
            }) => {
                if let Some(code) = reap(command) {
                    return code;
                }
            }
            // The terminal's warnings are about the init's own background place, not for the command.
            Ok(Received {
                signal: libc::SIGTTIN | libc::SIGTTOU,
                is_from_a_process: false,
            })
            | Err(_) => {}
            Ok(Received { signal, .. }) => {
                // By its number, which is the command's until it is reaped here. It may just have ended: then SIGCHLD
                // is on its way.
                let _ = sigset::kill(command, signal);
            }
        }
    }
}

/// Reaps everything that has ended; the code to end with if the command was among it.
fn reap(command: Pid) -> Option<i32> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => return Some(code(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// As a shell does: a first process cannot end itself by a signal.
fn code(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0))
}

/// Reaps every process that has ended, after waiting for a child's end or another signal.
pub(crate) fn wait_for_child() {
    // An interruption is as good as a signal.
    let _ = Set::all().wait();
    while let Ok(Some(_)) | Err(Errno::INTR) = wait(WaitOptions::NOHANG) {}
}
