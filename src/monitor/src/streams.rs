//! A container's standard streams on their way from the guest to the client.
//!
//! ```text
//! offered --the agent dials and sends bytes--> token half read --16 bytes, equal--> verified --> the client's
//!                                                     |
//!                                                     +-- not equal: the sandbox is broken
//! ```
//!
//! Invariants: no byte that came before a stream's token, or without it, reaches the client; the data itself never
//! passes through the monitor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::agent::{Stdio, Stream, TOKEN_LEN, TerminalSize};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::config;

/// The first port of a stream: those below are the control connection's.
const FIRST_PORT: u32 = protocol::agent::CONTROL_PORT + 1;

/// A stream that the agent has not opened yet, or just did.
#[derive(Debug)]
struct Pending {
    stream: Stream,
    socket: OwnedFd,
    read: usize,
}

/// Why a stream was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The guest opened it with another token than it was given.
    #[error("the guest opened a stream with a wrong token")]
    WrongToken,
    /// It ended before its token.
    #[error("the guest closed a stream before it was opened")]
    Closed,
    /// It failed.
    #[error("a stream failed")]
    Io(#[from] io::Error),
}

/// The streams of a container, of which each slot is stdin, stdout, stderr; a terminal has the first alone.
#[derive(Debug)]
pub(crate) struct Streams {
    terminal: Option<TerminalSize>,
    pending: [Option<Pending>; 3],
}

/// The streams that a client gets.
#[derive(Debug)]
pub(crate) struct Ready {
    /// One for all, both ways.
    pub terminal: bool,
    /// stdin, stdout, stderr; or the terminal as the first.
    pub sockets: [Option<OwnedFd>; 3],
}

/// A stream's secret.
fn token() -> io::Result<[u8; TOKEN_LEN]> {
    let mut token = [0; TOKEN_LEN];
    sys::random::fill(&mut token)?;
    Ok(token)
}

impl Streams {
    /// Makes the streams for `stdio` and gives the guest's end of each to `offer`, with its port.
    pub(crate) fn new<E>(
        stdio: config::Stdio,
        mut offer: impl FnMut(u32, OwnedFd) -> Result<(), E>,
    ) -> Result<Streams, E>
    where
        E: From<io::Error>,
    {
        let (terminal, wanted) = match stdio {
            config::Stdio::Terminal { size } => (Some(size), [true, false, false]),
            config::Stdio::Pipes { stdin } => (None, [stdin, true, true]),
        };
        let mut pending = [None, None, None];
        for (port, slot) in (FIRST_PORT..).zip(0..3) {
            if wanted[slot] {
                let (ours, theirs) = sys::packet::stream_pair().map_err(E::from)?;
                offer(port, theirs)?;
                let stream = Stream {
                    port,
                    token: token().map_err(E::from)?,
                };
                pending[slot] = Some(Pending {
                    stream,
                    socket: ours,
                    read: 0,
                });
            }
        }
        Ok(Streams { terminal, pending })
    }

    /// What the agent is told of them.
    pub(crate) fn stdio(&self) -> Stdio {
        let stream = |slot: usize| {
            self.pending[slot]
                .as_ref()
                .map(|pending| pending.stream.clone())
        };
        match (self.terminal, stream(0)) {
            (Some(size), Some(stream)) => Stdio::Terminal { stream, size },
            (_, stdin) => Stdio::Pipes {
                stdin,
                stdout: stream(1),
                stderr: stream(2),
            },
        }
    }

    /// Sockets to be polled for their tokens, with their slots.
    pub(crate) fn unverified(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.pending
            .iter()
            .enumerate()
            .filter_map(|(slot, pending)| Some((slot, pending.as_ref()?)))
            .filter(|(_, pending)| pending.read < TOKEN_LEN)
            .map(|(slot, pending)| (slot, pending.socket.as_fd()))
    }

    /// Reads what there is of a stream's token, and not a byte more.
    pub(crate) fn read_token(&mut self, slot: usize) -> Result<(), Error> {
        let Some(pending) = self.pending.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(());
        };
        let expected = &pending.stream.token[pending.read..];
        let mut bytes = [0; TOKEN_LEN];
        let buffer = &mut bytes[..expected.len()];
        match recv(&pending.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Error::Closed),
            Ok((len, _)) if bytes[..len] == expected[..len] => {
                pending.read += len;
                Ok(())
            }
            Ok(_) => Err(Error::WrongToken),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(Error::Io(error.into())),
        }
    }

    /// The streams, once all are verified.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        let verified = self.unverified().next().is_none();
        let any = self.pending.iter().any(Option::is_some);
        (verified && any).then(|| Ready {
            terminal: self.terminal.is_some(),
            sockets: std::mem::take(&mut self.pending).map(|pending| Some(pending?.socket)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    fn streams() -> (Streams, Vec<File>) {
        let mut ends = Vec::new();
        let streams = Streams::new(config::Stdio::Pipes { stdin: false }, |_, end| {
            ends.push(File::from(end));
            io::Result::Ok(())
        });
        (streams.unwrap(), ends)
    }

    #[test]
    fn data_behind_the_token_is_left_for_the_client() {
        let (mut streams, mut ends) = streams();
        let Stdio::Pipes {
            stdin: None,
            stdout: Some(stdout),
            stderr: Some(stderr),
        } = streams.stdio()
        else {
            panic!("pipes without stdin");
        };
        assert_ne!(stdout.token, stderr.token);
        ends[0].write_all(&stdout.token[..5]).unwrap();
        streams.read_token(1).unwrap();
        ends[0].write_all(&stdout.token[5..]).unwrap();
        ends[0].write_all(b"data").unwrap();
        streams.read_token(1).unwrap();
        assert!(streams.take_ready().is_none());
        ends[1].write_all(&stderr.token).unwrap();
        streams.read_token(2).unwrap();
        let ready = streams.take_ready().unwrap();
        drop(ends);
        let mut text = String::new();
        let [None, Some(stdout), Some(_)] = ready.sockets else {
            panic!("stdout and stderr")
        };
        File::from(stdout).read_to_string(&mut text).unwrap();
        assert_eq!(text, "data");
    }

    #[test]
    fn a_wrong_token_is_refused_at_its_first_wrong_byte() {
        let (mut streams, mut ends) = streams();
        let Stdio::Pipes {
            stdout: Some(stdout),
            ..
        } = streams.stdio()
        else {
            panic!("stdout")
        };
        ends[0].write_all(&[!stdout.token[0]]).unwrap();
        assert!(matches!(streams.read_token(1), Err(Error::WrongToken)));
    }
}
