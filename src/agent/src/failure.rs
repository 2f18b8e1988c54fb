//! Errors of the crate and of `container` as the protocol's failures.

use std::error::Error as _;

use protocol::agent::{Failure, FailureKind};

/// Why a request cannot be carried out, where it is not the container that fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the machine has not woken: the first request must be a wake that succeeds")]
    Asleep,
    #[error("the machine is awake already")]
    AwakeAlready,
    #[error(transparent)]
    NotAwake(#[from] crate::NotAwake),
    #[error("no container is called {0:?}")]
    UnknownContainer(String),
    #[error("a container's name is 1 to 128 letters, digits, '_', '.' or '-', not {0:?}")]
    BadName(String),
    #[error("container {0} exists already")]
    Exists(String),
    #[error("container {name} is {state}, and the request needs one that is {wanted}")]
    WrongState {
        name: String,
        state: &'static str,
        wanted: &'static str,
    },
    #[error("the process of container {0} ended before it could be started")]
    EndedBeforeStart(String),
    #[error("container {0} has no terminal")]
    NoTerminal(String),
    #[error("there is no signal {0}")]
    NoSuchSignal(i32),
    #[error("a stream to port {port} of the host cannot be opened")]
    Stream { port: u32, source: std::io::Error },
    #[error("the pipe of a standard stream cannot be made")]
    Pipe(#[source] std::io::Error),
    #[error("the container's document cannot be used")]
    Document(#[from] container::Unreadable),
    #[error("there is no disk with the serial {0:?}")]
    NoSuchDisk(String),
    #[error("layer at {offset_bytes}, {len_bytes} bytes long, cannot be a partition of {}", disk.display())]
    Partition {
        disk: std::path::PathBuf,
        offset_bytes: u64,
        len_bytes: u64,
        source: std::io::Error,
    },
    #[error("{} cannot be made", path.display())]
    Directory {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("the writable disk has no directories \"upper\" and \"work\"")]
    NotPrepared,
    #[error("a root file system needs layers")]
    NoLayers,
    #[error("the container's processes cannot be signalled")]
    Signal(#[source] std::io::Error),
    #[error("the terminal's size cannot be set")]
    Resize(#[source] std::io::Error),
    #[error(transparent)]
    Container(#[from] container::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let kind = match &refusal {
            Refusal::Container(error) => match error.kind {
                container::Kind::CommandNotFound => FailureKind::CommandNotFound,
                container::Kind::CommandNotExecutable => FailureKind::CommandNotExecutable,
                container::Kind::UnknownUser => FailureKind::UnknownUser,
                container::Kind::Invalid | container::Kind::Other => FailureKind::Other,
            },
            Refusal::Asleep
            | Refusal::AwakeAlready
            | Refusal::UnknownContainer(_)
            | Refusal::BadName(_)
            | Refusal::Exists(_)
            | Refusal::WrongState { .. }
            | Refusal::NoTerminal(_)
            | Refusal::NoSuchSignal(_) => FailureKind::Invalid,
            _ => FailureKind::Other,
        };
        let mut message = refusal.to_string();
        let mut source = refusal.source();
        while let Some(cause) = source {
            message += &format!(": {cause}");
            source = cause.source();
        }
        Failure { kind, message }
    }
}
