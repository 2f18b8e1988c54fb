//! What the agent knows of a container and of a process in it.
//!
//! ```text
//! container   (absent) --Mount--> mounted --Create--> building -> created --Start--> starting -> running
//!                ^                 | ^                                                              | exit
//!                '---- Delete -----' '--------------- output delivered, Exited sent ---------- exited
//!
//! exec                                        (absent) --Exec--> starting -> running -> exited -> (absent)
//! ```
//!
//! A container is in the state of its first process; without one it is mounted.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use container::cgroup::Events;
use container::{Building, Created, Joinable, Starting};
use protocol::agent::{ExitStatus, Interface, ProcessId, Request};
use rustix::process::Pid;

use crate::failure::Refusal;
use crate::poll::Number;
use crate::remains::Remains;
use crate::roots::RootFs;

/// Requests that a container's queue holds: a monitor that sends more has lost its way.
pub(crate) const MAX_QUEUED: usize = 1024;

/// A container.
pub(crate) struct Container {
    pub(crate) root: RootFs,
    /// Requests that are not begun yet, each with the number of its reply.
    pub(crate) queue: VecDeque<(u64, Request)>,
    /// A request is being carried out that the next one must wait for.
    pub(crate) is_held: bool,
    /// What further processes need, while its first process runs.
    pub(crate) running: Option<Joinable>,
    /// Its own network namespace, with the interfaces that are in it: kept for the next run, since they come back to the
    /// machine only some time after the namespace has gone.
    pub(crate) network: Option<(Vec<Interface>, OwnedFd)>,
    pub(crate) freeze: Freeze,
    /// The cgroup of the last run, until it is empty and removed.
    pub(crate) remains: Option<(Number, Remains)>,
    /// A Delete that waits for the remains, and whether it removes the writable directory.
    pub(crate) removal: Option<(u64, bool)>,
}

/// Whether a container's processes are frozen.
pub(crate) enum Freeze {
    Thawed,
    /// Not all are yet: the reply to this request waits.
    Freezing {
        seq: u64,
        number: Number,
        events: Events,
    },
    Frozen,
}

/// A process: a container's first, or an exec.
pub(crate) struct Process {
    pub(crate) phase: Phase,
    pub(crate) pid: Pid,
    /// How it ended, if it was reaped before it was known to execute.
    pub(crate) reaped: Option<ExitStatus>,
    /// The host's side of its terminal, until the terminal is there.
    pub(crate) stream: Option<OwnedFd>,
    /// The interfaces in the network namespace that is made with it, if one is.
    pub(crate) interfaces: Option<Vec<Interface>>,
    /// Its terminal's master.
    pub(crate) terminal: Option<OwnedFd>,
    /// Its streams.
    pub(crate) pumps: Vec<Number>,
    /// Requests for it that came while it was starting.
    pub(crate) deferred: Vec<(u64, Request)>,
}

/// How far a process has come.
pub(crate) enum Phase {
    Building {
        seq: u64,
        number: Number,
        building: Building,
    },
    Created(Created),
    /// It ended before it was started: it was killed.
    Died,
    Starting {
        seq: u64,
        number: Number,
        starting: Starting,
    },
    Running {
        pidfd: OwnedFd,
    },
    /// Its output has not been sent to its end.
    Exited {
        status: ExitStatus,
        oom_killed: bool,
    },
}

impl Phase {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Phase::Building { .. } => "being created",
            Phase::Created(_) | Phase::Died => "created",
            Phase::Starting { .. } => "starting",
            Phase::Running { .. } => "running",
            Phase::Exited { .. } => "exited",
        }
    }
}

impl Process {
    /// A process of which nothing is known but its number and how far it has come.
    pub(crate) fn new(pid: Pid, phase: Phase) -> Process {
        Process {
            phase,
            pid,
            reaped: None,
            stream: None,
            interfaces: None,
            terminal: None,
            pumps: Vec::new(),
            deferred: Vec::new(),
        }
    }

    /// Its descriptor, while it runs.
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        match &self.phase {
            Phase::Running { pidfd } => Some(pidfd),
            _ => None,
        }
    }
}

impl Container {
    /// A container of which nothing runs.
    pub(crate) fn mounted(root: RootFs) -> Container {
        Container {
            root,
            queue: VecDeque::new(),
            is_held: false,
            running: None,
            network: None,
            freeze: Freeze::Thawed,
            remains: None,
            removal: None,
        }
    }

    /// Whether the first request of the queue may be begun.
    pub(crate) fn may_begin(&self) -> bool {
        if self.is_held {
            return false;
        }
        // The name of the last run's cgroup is needed again.
        let needs_cgroup = matches!(self.queue.front(), Some((_, Request::Create(_))));
        !needs_cgroup || self.remains.is_none()
    }
}

/// The container that a request is for.
pub(crate) fn subject(request: &Request) -> Option<&str> {
    Some(match request {
        Request::Wake(_)
        | Request::Network(_)
        | Request::Forward { .. }
        | Request::Shutdown { .. } => return None,
        Request::Mount(mount) => &mount.container,
        Request::Create(create) => &create.container,
        Request::Networks(networks) => &networks.container,
        Request::Exec(exec) => &exec.process.container,
        Request::Signal { process, .. } | Request::Resize { process, .. } => &process.container,
        Request::Start { container }
        | Request::Pause { container }
        | Request::Resume { container }
        | Request::Update { container, .. }
        | Request::Stats { container }
        | Request::Processes { container }
        | Request::Stat { container, .. }
        | Request::Archive { container, .. }
        | Request::Extract { container, .. }
        | Request::Diff { container, .. }
        | Request::Changes { container, .. }
        | Request::Delete { container, .. } => container,
    })
}

/// Refuses a name that cannot be that of a directory and a cgroup of its own. `subject` says what is named.
pub(crate) fn check_name(subject: &'static str, name: &str) -> Result<(), Refusal> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if (1..=128).contains(&name.len())
        && name.chars().all(is_plain)
        && !name.starts_with(['.', '-'])
    {
        Ok(())
    } else {
        Err(Refusal::BadName {
            subject,
            name: name.to_owned(),
        })
    }
}

/// The refusal of a request for a process that is not known.
pub(crate) fn unknown(id: &ProcessId, state: &'static str) -> Refusal {
    match &id.exec {
        Some(exec) => Refusal::UnknownExec {
            container: id.container.clone(),
            exec: exec.clone(),
        },
        None => Refusal::WrongState {
            name: id.container.clone(),
            state,
            wanted: "running",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_directories_of_their_own() {
        for name in ["a", "0123456789abcdef", "web_1.x-y"] {
            assert!(check_name("a name", name).is_ok(), "{name}");
        }
        let long = "x".repeat(129);
        for name in ["", ".", "..", "a/b", "-rf", "a b", "\0", "\u{e9}", &long] {
            assert!(check_name("a name", name).is_err(), "{name:?}");
        }
    }
}
