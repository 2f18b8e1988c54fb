//! A process's standard streams: connections to the host, joined with pipes or with a terminal's master.

use std::io;
use std::os::fd::OwnedFd;

use protocol::agent::{Stdio, Stream};
use rustix::pipe::{PipeFlags, pipe_with};
use sys::nonblocking::set_nonblocking;

use crate::Surroundings;
use crate::failure::Refusal;
use crate::pump::{Direction, Pump};

/// What is joined before the process is made, and what only when its terminal is there.
pub(crate) struct Streams {
    /// For the process.
    pub(crate) stdio: container::Stdio,
    /// Between pipes and the host.
    pub(crate) pumps: Vec<Pump>,
    /// To be joined with the terminal's master.
    pub(crate) terminal: Option<OwnedFd>,
}

impl Streams {
    /// Opens a process's streams.
    pub(crate) fn open(stdio: &Stdio, place: &Surroundings) -> Result<Streams, Refusal> {
        match stdio {
            Stdio::Terminal { stream, size } => Ok(Streams {
                stdio: container::Stdio::Terminal {
                    rows: size.rows,
                    columns: size.columns,
                },
                pumps: Vec::new(),
                terminal: Some(open_nonblocking(stream, place)?),
            }),
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                let mut pumps = Vec::new();
                let mut join = |stream: &Option<Stream>, direction| {
                    let stream = stream.as_ref();
                    stream
                        .map(|stream| join(stream, direction, place, &mut pumps))
                        .transpose()
                };
                let stdio = container::Stdio::Pipes {
                    stdin: join(stdin, Direction::Input)?,
                    stdout: join(stdout, Direction::Output)?,
                    stderr: join(stderr, Direction::Output)?,
                };
                Ok(Streams {
                    stdio,
                    pumps,
                    terminal: None,
                })
            }
        }
    }
}

/// Joins a stream with a pipe; the process's end of it.
fn join(
    stream: &Stream,
    direction: Direction,
    place: &Surroundings,
    pumps: &mut Vec<Pump>,
) -> Result<OwnedFd, Refusal> {
    let stream = open_nonblocking(stream, place)?;
    let (reading, writing) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Refusal::Pipe(errno.into()))?;
    let (pump, theirs) = match direction {
        Direction::Input => (Pump::splicing(stream, writing, direction), reading),
        Direction::Output => (Pump::splicing(reading, stream, direction), writing),
    };
    pumps.push(pump);
    Ok(theirs)
}

/// Pumps between a terminal's master and its stream.
pub(crate) fn join_terminal(master: &OwnedFd, stream: OwnedFd) -> io::Result<[Pump; 2]> {
    set_nonblocking(master)?;
    let (from_stream, to_master) = (stream.try_clone()?, master.try_clone()?);
    Ok([
        Pump::copying(from_stream, to_master, Direction::Input),
        Pump::copying(master.try_clone()?, stream, Direction::Output),
    ])
}

/// Opens a stream to the host and sends its token.
pub(crate) fn open(stream: &Stream, place: &Surroundings) -> Result<OwnedFd, Refusal> {
    let open = || {
        let opened = (place.dial)(stream.port)?;
        // A fresh connection takes the few bytes of a token at once.
        let written = rustix::io::write(&opened, &stream.token)?;
        if written != stream.token.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(opened)
    };
    open().map_err(|source| Refusal::Stream {
        port: stream.port,
        source,
    })
}

fn open_nonblocking(stream: &Stream, place: &Surroundings) -> Result<OwnedFd, Refusal> {
    let opened = open(stream, place)?;
    set_nonblocking(&opened).map_err(|source| Refusal::Stream {
        port: stream.port,
        source,
    })?;
    Ok(opened)
}
