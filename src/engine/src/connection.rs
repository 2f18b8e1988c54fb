//! A conversation with a sandbox's monitor: numbered requests, answers in any order, streams as descriptors.
//!
//! Invariants: used from one thread; its descriptor is readable when [`Connection::try_receive`] has something or the
//! monitor has closed it; what arrives while an answer is waited for is kept and given out later, in its order.
//! Deliberately absent: what a request means.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::agent::Failure;
use protocol::monitor::{Answer, FromMonitor, MAX_PACKET_LEN, Request, ToMonitor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The monitor has closed it.
    #[error("the monitor closed the connection")]
    Closed,
    /// A request is larger than a packet may be.
    #[error("the request has {len} bytes; at most {MAX_PACKET_LEN} can be sent")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// A packet does not make sense.
    #[error("the monitor sent a message that this hull does not understand")]
    Malformed(#[from] serde_json::Error),
    /// The monitor is of another version.
    #[error(
        "it was started by another version of hull (it speaks version {monitor} of the protocol, this hull {hull}); use that \
         version, or end its container"
    )]
    Version {
        /// The monitor's.
        monitor: u32,
        /// Ours.
        hull: u32,
    },
    /// The monitor does not serve this client.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The answer does not fit the request.
    #[error("the monitor gave an answer that does not fit the request")]
    Unexpected,
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Standard streams of a process, or the one stream of an archive.
#[derive(Debug, Default)]
pub struct Streams {
    /// The terminal, or the archive: one descriptor, both ways.
    pub terminal: Option<OwnedFd>,
    /// To the process.
    pub stdin: Option<OwnedFd>,
    /// From the process.
    pub stdout: Option<OwnedFd>,
    /// From the process.
    pub stderr: Option<OwnedFd>,
}

impl Streams {
    fn of(terminal: bool, pipes: [bool; 3], descriptors: Vec<OwnedFd>) -> Option<Streams> {
        let expected = usize::from(terminal) + pipes.iter().filter(|there| **there).count();
        if descriptors.len() != expected {
            return None;
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = |there: bool| if there { descriptors.next() } else { None };
        Some(Streams {
            terminal: next(terminal),
            stdin: next(pipes[0]),
            stdout: next(pipes[1]),
            stderr: next(pipes[2]),
        })
    }
}

/// What a monitor says.
#[derive(Debug)]
pub enum Message {
    /// The streams that a request asked for; its answer follows.
    Streams {
        /// Of the request.
        seq: u64,
        /// The descriptors.
        streams: Streams,
    },
    /// The answer to a request.
    Answer {
        /// Of the request.
        seq: u64,
        /// What came of it.
        result: Result<Answer, Failure>,
    },
    /// Some of the guest's console.
    Console(String),
    /// Something that the user should know.
    Notice(String),
}

/// A connection to a monitor.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    last_seq: u64,
    buffer: Vec<u8>,
    kept: VecDeque<Message>,
}

impl Connection {
    /// Over a connected SOCK_SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> Connection {
        Connection {
            socket,
            last_seq: 0,
            buffer: vec![0; MAX_PACKET_LEN],
            kept: VecDeque::new(),
        }
    }

    /// Sends a request, and returns its number. A monitor that is gone is an error of the next [`Self::receive`] only: what
    /// it said last is still to be read.
    pub fn send(&mut self, request: Request) -> Result<u64, Error> {
        self.send_with(request, &[])
    }

    /// The same, with descriptors.
    pub fn send_with(
        &mut self,
        request: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<u64, Error> {
        let seq = self.last_seq + 1;
        let bytes = serde_json::to_vec(&ToMonitor { seq, request })?;
        if bytes.len() > MAX_PACKET_LEN {
            return Err(Error::TooLong { len: bytes.len() });
        }
        match sys::packet::send(&self.socket, &bytes, descriptors) {
            Ok(()) => {}
            Err(error) if is_hang_up(&error) => {}
            Err(error) => return Err(error.into()),
        }
        self.last_seq = seq;
        Ok(seq)
    }

    /// The next message, waiting for it. [`Error::Closed`] when the monitor has closed the connection.
    pub fn receive(&mut self) -> Result<Message, Error> {
        match self.kept.pop_front() {
            Some(message) => Ok(message),
            None => self.read(),
        }
    }

    /// The next message, if it is there.
    pub fn try_receive(&mut self) -> Result<Option<Message>, Error> {
        if let Some(message) = self.kept.pop_front() {
            return Ok(Some(message));
        }
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(_) => self.read().map(Some),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// The answer to the request of this number, waiting for it.
    pub fn answer(&mut self, seq: u64) -> Result<Result<Answer, Failure>, Error> {
        self.wait_for(|message| match message {
            Message::Answer { seq: of, result } if of == seq => Ok(result),
            other => Err(other),
        })
    }

    /// The streams of the request of this number, or the failure that it was answered with in their place.
    pub fn streams(&mut self, seq: u64) -> Result<Result<Streams, Failure>, Error> {
        let found = self.wait_for(|message| match message {
            Message::Streams { seq: of, streams } if of == seq => Ok(Ok(streams)),
            Message::Answer { seq: of, result } if of == seq => Ok(Err(result)),
            other => Err(other),
        })?;
        match found {
            Ok(streams) => Ok(Ok(streams)),
            Err(Err(failure)) => Ok(Err(failure)),
            Err(Ok(_)) => Err(Error::Unexpected),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, request: Request) -> Result<Result<Answer, Failure>, Error> {
        let seq = self.send(request)?;
        self.answer(seq)
    }

    fn wait_for<T>(&mut self, pick: impl Fn(Message) -> Result<T, Message>) -> Result<T, Error> {
        let mut passed = VecDeque::with_capacity(self.kept.len());
        let found = loop {
            let message = match self.receive() {
                Ok(message) => message,
                Err(error) => break Err(error),
            };
            match pick(message) {
                Ok(found) => break Ok(found),
                Err(other) => passed.push_back(other),
            }
        };
        passed.append(&mut self.kept);
        self.kept = passed;
        found
    }

    fn read(&mut self) -> Result<Message, Error> {
        loop {
            let packet = match sys::packet::receive(&self.socket, &mut self.buffer) {
                Ok(packet) if packet.len > 0 => packet,
                Ok(_) => return Err(Error::Closed),
                Err(sys::packet::Error::Io(error)) if is_hang_up(&error) => {
                    return Err(Error::Closed);
                }
                Err(error) => return Err(io::Error::other(error).into()),
            };
            // A later monitor may say what this client does not know; it says nothing then that must be known.
            match serde_json::from_slice(&self.buffer[..packet.len]) {
                Ok(message) => return understand(message, packet.descriptors),
                Err(error) if error.is_data() => {
                    tracing::debug!(%error, "a message of the monitor was passed over");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn understand(message: FromMonitor, descriptors: Vec<OwnedFd>) -> Result<Message, Error> {
    Ok(match message {
        FromMonitor::Streams {
            seq,
            terminal,
            pipes,
        } => Message::Streams {
            seq,
            streams: Streams::of(terminal, pipes, descriptors).ok_or(Error::Unexpected)?,
        },
        FromMonitor::Answer { seq, result } => Message::Answer { seq, result },
        FromMonitor::Console { text } => Message::Console(text),
        FromMonitor::Notice { text } => Message::Notice(text),
    })
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use protocol::agent::{FailureKind, ProcessId};

    use super::*;

    /// A client, and the monitor's end of its connection.
    fn pair() -> (Connection, OwnedFd) {
        let (client, monitor) = sys::packet::pair().unwrap();
        (Connection::new(client), monitor)
    }

    fn say(monitor: &OwnedFd, message: &FromMonitor, descriptors: &[BorrowedFd<'_>]) {
        let bytes = serde_json::to_vec(message).unwrap();
        sys::packet::send(monitor, &bytes, descriptors).unwrap();
    }

    fn done(seq: u64) -> FromMonitor {
        FromMonitor::Answer {
            seq,
            result: Ok(Answer::Done),
        }
    }

    #[test]
    fn answers_may_come_in_any_order_and_none_is_lost() {
        let (mut client, monitor) = pair();
        let first = client.send(Request::Measure).unwrap();
        let second = client.send(Request::Measure).unwrap();
        let text = "hello".to_owned();
        say(&monitor, &FromMonitor::Notice { text }, &[]);
        say(&monitor, &done(second), &[]);
        say(&monitor, &done(first), &[]);
        assert!(matches!(client.answer(first), Ok(Ok(Answer::Done))));
        assert!(matches!(client.try_receive(), Ok(Some(Message::Notice(_)))));
        assert!(matches!(client.answer(second), Ok(Ok(Answer::Done))));
        assert!(matches!(client.try_receive(), Ok(None)));
    }

    #[test]
    fn streams_are_told_apart_by_what_is_said_of_them() {
        let (mut client, monitor) = pair();
        let process = ProcessId::first("a");
        let streams = [false, true, true];
        let seq = client.send(Request::Attach { process, streams }).unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let message = FromMonitor::Streams {
            seq,
            terminal: false,
            pipes: [false, false, true],
        };
        say(&monitor, &message, &[write.as_fd()]);
        drop(write);
        let streams = client.streams(seq).unwrap().unwrap();
        assert!(streams.stdin.is_none() && streams.stdout.is_none());
        let mut stderr = std::fs::File::from(streams.stderr.unwrap());
        stderr.write_all(b"x").unwrap();
        drop(stderr);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_failure_takes_the_place_of_streams() {
        let (mut client, monitor) = pair();
        let container = "a".to_owned();
        let seq = client.send(Request::Diff { container }).unwrap();
        let result = Err(Failure::new(FailureKind::NotFound, "gone"));
        say(&monitor, &FromMonitor::Answer { seq, result }, &[]);
        let failure = client.streams(seq).unwrap().unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound);
    }

    #[test]
    fn descriptors_that_do_not_fit_their_message_are_refused() {
        let (mut client, monitor) = pair();
        let message = FromMonitor::Streams {
            seq: 1,
            terminal: false,
            pipes: [true, true, true],
        };
        say(&monitor, &message, &[]);
        assert!(matches!(client.receive(), Err(Error::Unexpected)));
    }

    #[test]
    fn messages_of_a_later_monitor_are_passed_over() {
        let (mut client, monitor) = pair();
        sys::packet::send(&monitor, br#"{"tomorrow":{"x":1}}"#, &[]).unwrap();
        say(&monitor, &done(1), &[]);
        assert!(matches!(client.answer(1), Ok(Ok(Answer::Done))));
        sys::packet::send(&monitor, b"\xff{", &[]).unwrap();
        assert!(matches!(client.receive(), Err(Error::Malformed(_))));
    }

    #[test]
    fn what_a_monitor_said_last_is_read_before_its_end() {
        let (mut client, monitor) = pair();
        say(&monitor, &done(1), &[]);
        drop(monitor);
        let seq = client.send(Request::Measure).unwrap();
        assert_eq!(seq, 1);
        assert!(matches!(client.answer(seq), Ok(Ok(Answer::Done))));
        assert!(matches!(client.receive(), Err(Error::Closed)));
    }

    #[test]
    fn a_request_that_no_packet_holds_is_refused_before_it_is_sent() {
        let (mut client, _monitor) = pair();
        let path = "x".repeat(MAX_PACKET_LEN);
        let request = Request::Archive {
            container: "a".into(),
            path,
            follow: false,
        };
        assert!(matches!(client.send(request), Err(Error::TooLong { .. })));
    }
}
