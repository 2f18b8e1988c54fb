//! What the speaker and the warden say to each other: a few enumerated messages over a packet socket.
//!
//! The speaker may be in a guest's hands. The warden bounds each message by [`MAX_LEN`], takes nothing in it for true but
//! what it says of the speaker's own containers, and ends a speaker that does not keep to the protocol.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::agent::{ExitStatus, Failure, Interface};
use protocol::record::HealthStatus;
use protocol::vmm::Wire;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The largest message, in bytes: an error's text is the longest part of one.
pub(crate) const MAX_LEN: usize = 32 << 10;
/// The most characters of an error's text that the warden records.
pub(crate) const MAX_ERROR_LEN: usize = 4096;

/// From the speaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToWarden {
    /// A client asks for a container that this sandbox does not have yet: answered by [`ToSpeaker::Loaded`].
    Load { container: String },
    /// A container's process executes: answered by [`ToSpeaker::Recorded`].
    Started {
        container: String,
        pid: i32,
        /// A user has stopped it while it was being started: no policy applies to its end.
        stopping: bool,
    },
    /// A start has failed, with the code that is reported for it: answered by [`ToSpeaker::Recorded`].
    StartFailed {
        container: String,
        code: u8,
        error: String,
    },
    /// A user stops a container, which is about to be signalled: answered by [`ToSpeaker::Recorded`].
    Stopping { container: String },
    /// A container's process has ended and its output has been delivered: answered by [`ToSpeaker::Recorded`].
    Exited {
        container: String,
        status: ExitStatus,
        oom_killed: bool,
        /// Why, if it was not its own end.
        error: Option<String>,
    },
    /// A container's processes are frozen, or go on: answered by [`ToSpeaker::Recorded`].
    Paused { container: String, paused: bool },
    /// Its record was rewritten: its policies are to be read again. Not answered.
    Reload { container: String },
    /// The sandbox's record and the container's were rewritten: the sandbox is to be on the networks that it names now.
    /// Answered by [`ToSpeaker::Networks`].
    Networks { container: String },
    /// Its log is full: answered by [`ToSpeaker::Log`].
    Rotate { container: String },
    /// A check of its health has a result, which the speaker has written to the container's health file. Not answered.
    Health {
        container: String,
        status: HealthStatus,
        /// The status is another than before.
        changed: bool,
    },
    /// A process that was executed in a container has ended. Not answered.
    ExecEnded {
        container: String,
        exec: String,
        code: u8,
    },
    /// A container has connected to a socket of the host's: answered by [`ToSpeaker::Connected`].
    Connect {
        /// The share's name.
        socket: String,
        /// The agent's number.
        connection: u64,
    },
    /// It has left the sandbox. Not answered.
    Forget { container: String },
    /// Nothing runs any more and nothing will: the machine may go while the speaker serves its last clients. Not answered.
    MachineDone,
}

/// From the warden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToSpeaker {
    /// A client has connected; its socket, which does not block, comes along.
    Client,
    /// The container's config.json, its health file, its log (if `log`), hull-vmm's end of the socket of a hull-fs that was
    /// started for it (if `shares`) and its layers' files come along, in this order.
    Loaded {
        container: String,
        log: bool,
        shares: bool,
        result: Result<(), Failure>,
    },
    /// What was said of the container is on disk.
    Recorded { container: String, next: Next },
    /// The networks of the sandbox are these, or are as they were. The container's config.json comes along, if it could be
    /// read, and then the wires that were `plugged`.
    Networks {
        container: String,
        result: Result<NewNetworks, Failure>,
    },
    /// A new log file comes along, or none where it could not be made.
    Log { container: String },
    /// A connection to the host's socket comes along, or none where that cannot be reached.
    Connected { connection: u64 },
    /// Stop every container and end: hull itself is asked to end.
    Quit,
}

/// The networks of a sandbox that runs, after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewNetworks {
    /// All of its interfaces.
    pub(crate) interfaces: Vec<Interface>,
    /// Network cards of a VM that lead nowhere any more.
    pub(crate) unplugged: Vec<u8>,
    /// Network cards of a VM that lead somewhere now, and what to.
    pub(crate) plugged: Vec<(u8, Wire)>,
}

/// What becomes of a container after what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Next {
    /// Nothing more.
    Stay,
    /// It is started again after this time.
    Restart { after_ms: u64 },
}

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

/// Why a message could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The other side is gone.
    #[error("the monitor's other process is gone")]
    Closed,
    /// The socket failed, or is full.
    #[error("cannot talk to the monitor's other process")]
    Io(#[from] io::Error),
    /// A message is too long.
    #[error("the monitor's other process sent too much")]
    Packet(#[from] sys::packet::Error),
    /// A message is none.
    #[error("the monitor's other process sent something unintelligible")]
    Malformed(#[from] serde_json::Error),
}

impl Link {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Link, Link)> {
        let (a, b) = sys::packet::pair()?;
        Ok((Link(a), Link(b)))
    }

    /// Makes sends that would block fail instead: the warden does not wait for a speaker.
    pub(crate) fn never_block(&self) -> io::Result<()> {
        sys::nonblocking::set_nonblocking(&self.0)
    }

    /// Sends a message with descriptors.
    pub(crate) fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        Ok(sys::packet::send(
            &self.0,
            &serde_json::to_vec(message)?,
            descriptors,
        )?)
    }

    /// The next message, with its descriptors.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), Error> {
        let mut buffer = vec![0; MAX_LEN];
        let packet = sys::packet::receive(&self.0, &mut buffer)?;
        match packet.len {
            0 => Err(Error::Closed),
            len => Ok((serde_json::from_slice(&buffer[..len])?, packet.descriptors)),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
