//! The protocol between client and server of the test host, in frames of `protocol::frame`.
//!
//! A command is a session of several connections, each of which opens with a [`Hello`]: one for control and one for
//! each standard stream, so that none holds up another and an end of input is an end of a connection.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Between two beats of [`Part::Beats`].
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// The first frame of every connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The host's secret.
    pub(crate) token: String,
    /// The same for all connections of one command.
    pub(crate) session: String,
    /// What this connection carries.
    pub(crate) part: Part,
}

/// What a connection carries.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    /// [`FromClient`] one way and one [`Outcome`] the other.
    Control(Box<Task>),
    /// The command's input.
    Stdin,
    /// The command's output.
    Stdout,
    /// The command's error output.
    Stderr,
    /// A terminal, both ways; instead of the three.
    Terminal,
    /// Power the host off; a session of its own.
    PowerOff,
    /// A byte from the client every [`BEAT`], and each back from the server; a session of its own.
    Beats,
}

/// A command to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) argv: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    /// Look at the machine's files anew and copy the installation first; not needed when nothing has changed since the
    /// last command.
    pub(crate) refresh: bool,
    /// The size of the client's terminal, when the command is to have one.
    pub(crate) terminal: Option<Size>,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// What the client sends on the control connection. When that closes, the command is interrupted, then killed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromClient {
    /// The client's terminal has a new size.
    Resize(Size),
}

/// How a command ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Its exit code, or 128 + the number of the signal that ended it.
    Ended(u8),
    /// It could not be run.
    Failed(String),
}
