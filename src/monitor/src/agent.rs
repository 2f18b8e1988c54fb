//! The monitor's end of the agent's control connection.
//!
//! Invariants: nothing here blocks; what the guest sends is bounded by the frame's limit, what it does not read by
//! [`MAX_UNSENT_BYTES`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::agent::{FromAgent, Hello, Request, ToAgent, Wake};
use protocol::frame::{self, Assembler};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Two of the largest frames: a container's document and whatever follows while the agent is busy with it.
const MAX_UNSENT_BYTES: usize = 2 * frame::MAX_LEN;
/// The most characters of a guest's words that a person is shown.
const MAX_SHOWN: usize = 4096;
/// Received at once.
const CHUNK_BYTES: usize = 8 << 10;

/// Why the conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The agent closed the connection, which it never does while it lives.
    #[error("the guest agent is gone")]
    Closed,
    /// The agent is not of this build.
    #[error(
        "the guest agent is of build {agent}, hull of {ours}; build both with `cargo xtask build`"
    )]
    Build {
        /// The agent's.
        agent: String,
        /// The monitor's.
        ours: &'static str,
    },
    /// The agent no longer reads.
    #[error("the guest agent does not take requests any more")]
    Stuck,
    /// The agent sent something that is no message.
    #[error("the guest agent sent something unintelligible")]
    Frame(#[from] frame::Error),
    /// The connection failed.
    #[error("the connection to the guest agent failed")]
    Io(#[from] io::Error),
}

/// What the agent said.
#[derive(Debug)]
pub(crate) enum Said {
    /// Its first words: it is of the right build.
    Hello,
    /// Anything later.
    Message(FromAgent),
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: OwnedFd,
    received: Assembler,
    unsent: Vec<u8>,
    greeted: bool,
}

impl Agent {
    /// Takes the host's end of the control connection, which the guest may not have dialled yet.
    pub(crate) fn new(socket: OwnedFd) -> Agent {
        Agent {
            socket,
            received: Assembler::new(frame::MAX_REPLY_LEN),
            unsent: Vec::new(),
            greeted: false,
        }
    }

    /// The connection, to be waited for.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Something waits for the agent to read.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends a request whose reply will carry `seq`, or keeps it until the agent reads.
    pub(crate) fn request(&mut self, seq: u64, request: Request) -> Result<(), Error> {
        let bytes = frame::encode(&ToAgent { seq, request })?;
        if self.unsent.len() + bytes.len() > MAX_UNSENT_BYTES {
            return Err(Error::Stuck);
        }
        self.unsent.extend_from_slice(&bytes);
        self.flush()
    }

    /// Sends what the agent has room for.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        while !self.unsent.is_empty() {
            match send(
                &self.socket,
                &self.unsent,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::Closed),
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
        Ok(())
    }

    /// Takes what the agent has sent and returns the whole messages in it.
    pub(crate) fn receive(&mut self) -> Result<Vec<Said>, Error> {
        let mut chunk = [0; CHUNK_BYTES];
        match recv(&self.socket, &mut chunk, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Err(Error::Closed),
            Ok((len, _)) => self.received.push(&chunk[..len]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(Error::Io(error.into())),
        }
        let mut said = Vec::new();
        loop {
            if !self.greeted {
                let Some(hello) = self.received.next::<Hello>()? else {
                    break;
                };
                if hello.build != protocol::BUILD {
                    return Err(Error::Build {
                        agent: shown(&hello.build),
                        ours: protocol::BUILD,
                    });
                }
                self.greeted = true;
                tracing::debug!(kernel = hello.kernel_release, "the agent is there");
                said.push(Said::Hello);
            } else {
                let Some(mut message) = self.received.next()? else {
                    break;
                };
                if let FromAgent::Reply {
                    result: Err(failure),
                    ..
                } = &mut message
                {
                    failure.message = shown(&failure.message);
                }
                said.push(Said::Message(message));
            }
        }
        Ok(said)
    }
}

/// What a guest is to wake with: the time, and random bytes that no other guest gets.
pub(crate) fn wake() -> io::Result<Wake> {
    let mut entropy = [0; 32];
    sys::random::fill(&mut entropy)?;
    Ok(Wake {
        realtime_ns: sys::clock::realtime_ns(),
        entropy,
    })
}

/// A guest's words as a person may see them.
fn shown(text: &str) -> String {
    crate::text::printable(text, MAX_SHOWN)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn hello(build: &str) -> Vec<u8> {
        frame::encode(&Hello {
            build: build.into(),
            kernel_release: "6.12".into(),
        })
        .unwrap()
    }

    #[test]
    fn an_agent_of_another_build_is_refused() {
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        let mut agent = Agent::new(ours);
        File::from(theirs).write_all(&hello("other")).unwrap();
        assert!(matches!(agent.receive(), Err(Error::Build { .. })));
    }

    #[test]
    fn no_two_guests_wake_with_the_same_bytes() {
        let before = std::time::SystemTime::now();
        let (one, other) = (wake().unwrap(), wake().unwrap());
        assert_ne!(one.entropy, other.entropy);
        let told = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(one.realtime_ns);
        assert!(before <= told && told <= std::time::SystemTime::now());
    }

    #[test]
    fn a_guests_words_cannot_drive_a_terminal_or_fill_it() {
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        let mut agent = Agent::new(ours);
        let mut theirs = File::from(theirs);
        let reply = FromAgent::Reply {
            seq: 1,
            result: Err(protocol::agent::Failure {
                kind: protocol::agent::FailureKind::Other,
                message: format!("\x1b]0;owned\x07no\r\n{}", "x".repeat(10_000)),
            }),
        };
        let mut sent = hello(protocol::BUILD);
        sent.extend(frame::encode(&reply).unwrap());
        let writer = std::thread::spawn(move || theirs.write_all(&sent));
        let mut said = Vec::new();
        while said.len() < 2 {
            said.extend(agent.receive().unwrap());
        }
        writer.join().unwrap().unwrap();
        let Said::Message(FromAgent::Reply {
            result: Err(failure),
            ..
        }) = &said[1]
        else {
            panic!("{said:?}");
        };
        assert!(failure.message.starts_with("]0;ownedno\nxxx"));
        assert_eq!(failure.message.len(), MAX_SHOWN);
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        File::from(theirs).write_all(&hello("\x1bc")).unwrap();
        let refused = Agent::new(ours).receive().unwrap_err();
        assert!(!refused.to_string().contains('\x1b'));
    }

    #[test]
    fn requests_wait_for_an_agent_that_is_busy_up_to_a_bound() {
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        let mut agent = Agent::new(ours);
        let mut theirs = File::from(theirs);
        theirs.write_all(&hello(protocol::BUILD)).unwrap();
        assert!(matches!(agent.receive().unwrap()[..], [Said::Hello]));
        let big = || Request::Start {
            container: "x".repeat(900_000),
        };
        agent.request(1, big()).unwrap();
        assert!(agent.has_unsent());
        let refused = (2..100).find_map(|seq| agent.request(seq, big()).err());
        assert!(matches!(refused, Some(Error::Stuck)));
    }
}
