//! One container of the sandbox, from its mounted root to its end.
//!
//! ```text
//! Mounted --create--> Created --start--> Running --exit--> Exited --drained--> Ended --delete--> (gone)
//!    ^                   |
//!    '-- start failed ---'
//! ```

use std::os::fd::OwnedFd;

use container::{Created, EtcFiles, Interface, Request, Running, Spec, Which, cgroup::Cgroup};
use protocol::agent::{Create, ExitStatus, Stdio, Stream};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use sys::nonblocking::set_nonblocking;

use crate::Surroundings;
use crate::failure::Refusal;
use crate::pump::{Direction, Pump};
use crate::roots::RootFs;

/// A container.
pub(crate) struct Container {
    pub(crate) root: RootFs,
    pub(crate) state: State,
}

/// How far a container has come.
pub(crate) enum State {
    Mounted,
    Created(Box<Waiting>),
    Running(Process),
    /// Its process has ended; its output has not yet been sent to its end.
    Exited {
        status: ExitStatus,
        oom_killed: bool,
    },
    /// The monitor knows.
    Ended,
}

/// A container that waits for its start.
pub(crate) struct Waiting {
    pub(crate) created: Created,
    pub(crate) streams: Streams,
    /// It ended while it waited: somebody killed it.
    pub(crate) has_died: bool,
}

/// A container whose process executes.
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) cgroup: Cgroup,
    pub(crate) terminal: Option<OwnedFd>,
}

/// A container's connections to the host.
pub(crate) enum Streams {
    /// To be joined with the terminal's master.
    Terminal(OwnedFd),
    /// Joined with pipes.
    Pipes(Vec<Pump>),
}

impl State {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            State::Mounted => "mounted",
            State::Created(_) => "created",
            State::Running(_) => "running",
            State::Exited { .. } | State::Ended => "exited",
        }
    }
}

/// What names a container, its cgroup and its directory.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if (1..=128).contains(&name.len())
        && name.chars().all(is_plain)
        && !name.starts_with(['.', '-'])
    {
        Ok(())
    } else {
        Err(Refusal::BadName(name.to_owned()))
    }
}

/// Makes a container's process, and opens its streams.
pub(crate) fn create(
    request: Create,
    root: &RootFs,
    place: &Surroundings,
) -> Result<Waiting, Refusal> {
    let mut spec = Spec::from_json(request.spec.get().as_bytes())?;
    spec.root.readonly |= root.is_read_only();
    // The agent's own score must not be inherited: nothing in the container could be killed for want of memory.
    spec.process.oom_score_adj.get_or_insert(0);
    let (stdio, streams) = open_streams(&request.stdio, place)?;
    let created = container::create(Request {
        spec,
        rootfs: root.rootfs(),
        user: request.user,
        seccomp: request.seccomp,
        init: request.init,
        stdio,
        etc: EtcFiles {
            hosts: request.etc.hosts,
            hostname: request.etc.hostname,
            resolv_conf: request.etc.resolv_conf,
        },
        interface: request.interface.map(|interface| Interface {
            which: Which::OnlyDevice,
            mac: interface.mac,
            address: interface.address,
            prefix_len: interface.prefix_len,
            gateway: interface.gateway,
            mtu: interface.mtu,
        }),
        cgroup: place.cgroup.join(&request.container),
        run_dir: root.files(),
    })?;
    Ok(Waiting {
        created,
        streams,
        has_died: false,
    })
}

fn open_streams(
    stdio: &Stdio,
    place: &Surroundings,
) -> Result<(container::Stdio, Streams), Refusal> {
    match stdio {
        Stdio::Terminal { stream, size } => {
            let stream = open(stream, place)?;
            let stdio = container::Stdio::Terminal {
                rows: size.rows,
                columns: size.columns,
            };
            Ok((stdio, Streams::Terminal(stream)))
        }
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let mut pumps = Vec::new();
            let mut join =
                |stream: &Option<Stream>, direction| -> Result<Option<OwnedFd>, Refusal> {
                    let Some(stream) = stream else {
                        return Ok(None);
                    };
                    let stream = open(stream, place)?;
                    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)
                        .map_err(|errno| Refusal::Pipe(errno.into()))?;
                    let (pump, theirs) = match direction {
                        Direction::Input => (Pump::splicing(stream, writing, direction), reading),
                        Direction::Output => (Pump::splicing(reading, stream, direction), writing),
                    };
                    pumps.push(pump);
                    Ok(Some(theirs))
                };
            let stdio = container::Stdio::Pipes {
                stdin: join(stdin, Direction::Input)?,
                stdout: join(stdout, Direction::Output)?,
                stderr: join(stderr, Direction::Output)?,
            };
            Ok((stdio, Streams::Pipes(pumps)))
        }
    }
}

/// Opens a stream to the host and says which one it is.
fn open(stream: &Stream, place: &Surroundings) -> Result<OwnedFd, Refusal> {
    let open = || {
        let opened = (place.dial)(stream.port)?;
        // A fresh connection takes the few bytes of a token at once.
        let written = rustix::io::write(&opened, &stream.token)?;
        if written != stream.token.len() {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        set_nonblocking(&opened)?;
        Ok(opened)
    };
    open().map_err(|source| Refusal::Stream {
        port: stream.port,
        source,
    })
}

impl Streams {
    /// The pumps of a container whose process executes.
    pub(crate) fn into_pumps(self, terminal: Option<&OwnedFd>) -> std::io::Result<Vec<Pump>> {
        match (self, terminal) {
            (Streams::Pipes(pumps), _) => Ok(pumps),
            (Streams::Terminal(stream), Some(master)) => {
                set_nonblocking(master)?;
                let (stream_out, master_out) = (stream.try_clone()?, master.try_clone()?);
                Ok(vec![
                    Pump::copying(stream, master.try_clone()?, Direction::Input),
                    Pump::copying(master_out, stream_out, Direction::Output),
                ])
            }
            (Streams::Terminal(_), None) => Ok(Vec::new()),
        }
    }
}

impl Waiting {
    /// Lets the process execute.
    pub(crate) fn start(self, name: &str) -> Result<(Process, Vec<Pump>), Refusal> {
        if self.has_died {
            return Err(Refusal::EndedBeforeStart(name.to_owned()));
        }
        let Running {
            pid,
            terminal,
            cgroup,
            ..
        } = self.created.start()?;
        let pumps = self
            .streams
            .into_pumps(terminal.as_ref())
            .map_err(Refusal::Pipe)?;
        Ok((
            Process {
                pid,
                cgroup,
                terminal,
            },
            pumps,
        ))
    }
}
