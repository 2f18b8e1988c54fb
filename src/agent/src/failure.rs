//! Errors of the crate and of `container` as the protocol's failures.

use std::io;
use std::path::PathBuf;

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
    #[error("container {container} has no process {exec:?}")]
    UnknownExec { container: String, exec: String },
    #[error("{subject} is 1 to 128 letters, digits, '_', '.' or '-', not {name:?}")]
    BadName { subject: &'static str, name: String },
    #[error("container {0} exists already")]
    Exists(String),
    #[error("container {container} has a process {exec} already")]
    ExecExists { container: String, exec: String },
    #[error("container {name} is {state}, and the request needs one that is {wanted}")]
    WrongState {
        name: String,
        state: &'static str,
        wanted: &'static str,
    },
    #[error("too many requests for container {0} are in flight")]
    TooManyRequests(String),
    #[error("the process of container {0} ended before it could be started")]
    EndedBeforeStart(String),
    #[error("the process has ended")]
    ProcessEnded,
    #[error("the process has no terminal")]
    NoTerminal,
    #[error("there is no signal {0}")]
    NoSuchSignal(i32),
    #[error("a stream to port {port} of the host cannot be opened")]
    Stream { port: u32, source: io::Error },
    #[error("the pipe of a standard stream cannot be made")]
    Pipe(#[source] io::Error),
    #[error("the agent cannot wait for {what}")]
    Wait {
        what: &'static str,
        source: io::Error,
    },
    #[error("the container's document cannot be used")]
    Document(#[from] container::Unreadable),
    #[error("there is no disk with the serial {0:?}")]
    NoSuchDisk(String),
    #[error("the writable disk cannot be grown to {bytes} bytes")]
    Grow { bytes: u64, source: io::Error },
    #[error("layer at {offset_bytes}, {len_bytes} bytes long, cannot be a partition of {}", disk.display())]
    Partition {
        disk: PathBuf,
        offset_bytes: u64,
        len_bytes: u64,
        source: io::Error,
    },
    #[error("{0} layers are in use, as many as a machine can have")]
    TooManyLayers(usize),
    #[error("cannot make a loop device of {}, which Linux before 6.12 needs to mount it", image.display())]
    LoopDevice { image: PathBuf, source: io::Error },
    #[error("cannot put the layers together at {}", target.display())]
    Overlay { target: PathBuf, source: io::Error },
    #[error("{} cannot be made", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{} cannot be removed", path.display())]
    Removal { path: PathBuf, source: io::Error },
    #[error("{} is not a directory of this machine", .0.display())]
    NoSuchDirectory(PathBuf),
    #[error("a root file system needs layers")]
    NoLayers,
    #[error("the container's processes cannot be signalled")]
    Signal(#[source] io::Error),
    #[error("the terminal's size cannot be set")]
    Resize(#[source] io::Error),
    #[error("cannot listen at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("no connection {0} waits for an answer")]
    UnknownConnection(u64),
    #[error("what the host shares cannot be mounted")]
    Shares(#[source] io::Error),
    #[error("cannot share a namespace")]
    Namespace(#[source] io::Error),
    #[error("the sandbox has a network already")]
    NetworkExists,
    #[error("the container's network namespace is not known, or not its own")]
    NoNetwork,
    #[error("a process for the request cannot be made")]
    Worker(#[source] io::Error),
    #[error("the process that carried the request out ended without an answer")]
    WorkerDied,
    #[error("{}", .0.message)]
    Reported(Failure),
    #[error("container {0} is being removed")]
    Removed(String),
    #[error("container {0} was resumed before all of its processes were frozen")]
    Resumed(String),
    #[error("container {0} ended before all of its processes were frozen")]
    EndedBeforeFrozen(String),
    #[error(
        "the root of container {0} is a directory of the machine: there is no image to compare it with"
    )]
    NoImage(String),
    #[error(transparent)]
    Files(#[from] crate::files::Error),
    #[error(transparent)]
    Container(#[from] container::Error),
}

impl Refusal {
    fn kind(&self) -> FailureKind {
        match self {
            Refusal::Container(error) => match error.kind {
                container::Kind::CommandNotFound => FailureKind::CommandNotFound,
                container::Kind::CommandNotExecutable => FailureKind::CommandNotExecutable,
                container::Kind::UnknownUser => FailureKind::UnknownUser,
                container::Kind::NotRunning => FailureKind::WrongState,
                container::Kind::Invalid => FailureKind::Invalid,
                container::Kind::Other => FailureKind::Other,
            },
            Refusal::Files(error) => error.kind(),
            Refusal::UnknownContainer(_)
            | Refusal::UnknownExec { .. }
            | Refusal::NoSuchDirectory(_) => FailureKind::NotFound,
            Refusal::Asleep
            | Refusal::AwakeAlready
            | Refusal::Exists(_)
            | Refusal::ExecExists { .. }
            | Refusal::WrongState { .. }
            | Refusal::EndedBeforeStart(_)
            | Refusal::ProcessEnded
            | Refusal::NetworkExists
            | Refusal::NoNetwork
            | Refusal::Removed(_)
            | Refusal::Resumed(_)
            | Refusal::EndedBeforeFrozen(_) => FailureKind::WrongState,
            Refusal::BadName { .. }
            | Refusal::NoTerminal
            | Refusal::NoSuchSignal(_)
            | Refusal::Document(_)
            | Refusal::NoLayers => FailureKind::Invalid,
            Refusal::NoImage(_) => FailureKind::Unsupported,
            _ => FailureKind::Other,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            // It was said in a worker, which has told the whole chain.
            Refusal::Reported(failure) => failure,
            refusal => Failure::new(refusal.kind(), protocol::chain(&refusal)),
        }
    }
}
