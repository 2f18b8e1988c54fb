//! What can go wrong between a document and a process, told as: which step, on what, why.
//!
//! The child that becomes the container's process fails in the same words: an [`Error`] is data that crosses a socket.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// The longest subject of an error, in bytes: a path of PATH_MAX. What is longer is cut.
pub(crate) const MAX_SUBJECT_LEN: usize = 4096;

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What kind of failure it is, for exit codes.
    pub kind: Kind,
    /// What was attempted.
    pub step: Step,
    /// On what: a path, a name, an option.
    pub subject: String,
    /// Why it failed.
    pub cause: Cause,
}

/// Kinds of failure that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The command does not exist in the container.
    CommandNotFound,
    /// The command exists and cannot be executed.
    CommandNotExecutable,
    /// The user or group is not known inside the image.
    UnknownUser,
    /// The document asks for something wrong or not built.
    Invalid,
    /// The container does not run (any more).
    NotRunning,
    /// Anything else.
    Other,
}

/// Why a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Cause {
    /// The kernel refused it with this errno.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Os(i32),
    /// We refused it.
    #[error("{0}")]
    Refused(Refusal),
}

/// Why we refused something ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum Refusal {
    #[error("it is not built")]
    NotBuilt,
    #[error("it is missing from the document")]
    Missing,
    #[error("it must be an absolute path inside the container")]
    NotAnAbsolutePath,
    #[error("it contains a zero byte")]
    ZeroByte,
    #[error("it is not a known name")]
    UnknownName,
    #[error("it is out of range")]
    OutOfRange,
    #[error("it is asked for twice")]
    Twice,
    #[error("no such user in the image's /etc/passwd")]
    NoSuchUser,
    #[error("no such group in the image's /etc/group")]
    NoSuchGroup,
    #[error("it is larger than any real one")]
    TooLarge,
    #[error("it is not a regular file")]
    NotARegularFile,
    #[error("it is a directory")]
    IsADirectory,
    #[error("it is not a directory")]
    NotADirectory,
    #[error("it exists and is another file or device")]
    OccupiedByAnother,
    #[error("executable file not found in $PATH")]
    NotInPath,
    #[error("the kernel does not offer this cgroup v2 controller here")]
    ControllerMissing,
    #[error("it is not in a cgroup v2 hierarchy")]
    NotACgroup,
    #[error("only settings of the container's own namespaces can be set")]
    NotNamespaced,
    #[error("no interface has this address")]
    NoSuchInterface,
    #[error("the machine has no free network device for it")]
    NoNetworkDevice,
    #[error("it needs a namespace of its own, which the document does not ask for")]
    NeedsNamespace,
    #[error("the container's process ended before it was ready")]
    ChildDied,
    #[error("the container is not running")]
    NotRunning,
    #[error("the command is empty")]
    EmptyCommand,
    #[error("user and group numbers must be in the range 0-2147483647")]
    IdOutOfRange,
    #[error("only the kernel's own file system of this name can be mounted there")]
    KernelFileSystem,
    #[error("nothing can be mounted over the kernel's files in /proc")]
    InsideProc,
    #[error("it is more than the machine allows (its fs.nr_open)")]
    MoreThanMachine,
    #[error("a container's root cannot be mounted over")]
    OverRoot,
    #[error("a part of this path has become a symbolic link since the container was made")]
    BecameASymlink,
    #[error("one is a directory and the other is not")]
    DirectoryOverFile,
}

/// What was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its message below")]
pub enum Step {
    Document,
    RunDirectory,
    EtcFile,
    Cgroup,
    Limit,
    DeviceFilter,
    User,
    Fork,
    IdMapping,
    OomScore,
    Namespace,
    Enter,
    Propagation,
    Mount,
    BindMount,
    MountOption,
    Overlay,
    Unmount,
    PivotRoot,
    Device,
    Terminal,
    Stdio,
    Sysctl,
    Interface,
    Hostname,
    Volume,
    MaskPath,
    ReadOnlyPath,
    ReadOnlyRoot,
    WorkingDirectory,
    ResourceLimit,
    Capabilities,
    Credentials,
    NoNewPrivileges,
    Seccomp,
    Signals,
    Init,
    Interpreter,
    Exec,
    Start,
    Kill,
    Freeze,
    Usage,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Document => "cannot use the container's document",
            Step::RunDirectory => "cannot make the run directory",
            Step::EtcFile => "cannot provide",
            Step::Cgroup => "cannot set up the cgroup",
            Step::Limit => "cannot set the limit",
            Step::DeviceFilter => "cannot install the device filter on",
            Step::User => "cannot find the user",
            Step::Fork => "cannot make the container's process",
            Step::IdMapping => "cannot map users and groups by",
            Step::OomScore => "cannot set the OOM score to",
            Step::Namespace => "cannot enter the namespace",
            Step::Enter => "cannot enter the container",
            Step::Propagation => "cannot set the mount propagation",
            Step::Mount => "cannot mount",
            Step::BindMount => "cannot bind-mount",
            Step::MountOption => "cannot use the mount option",
            Step::Overlay => "cannot put the layers together at",
            Step::Unmount => "cannot unmount",
            Step::PivotRoot => "cannot make this the root",
            Step::Device => "cannot make the device",
            Step::Terminal => "cannot set up the terminal",
            Step::Stdio => "cannot set up the standard stream",
            Step::Sysctl => "cannot set the kernel parameter",
            Step::Interface => "cannot set up the network interface",
            Step::Hostname => "cannot set the host name",
            Step::Volume => "cannot provide the volume",
            Step::MaskPath => "cannot mask",
            Step::ReadOnlyPath => "cannot make read-only",
            Step::ReadOnlyRoot => "cannot make the root file system read-only",
            Step::WorkingDirectory => "cannot enter the working directory",
            Step::ResourceLimit => "cannot set the resource limit",
            Step::Capabilities => "cannot set the capabilities",
            Step::Credentials => "cannot become the user",
            Step::NoNewPrivileges => "cannot give up new privileges",
            Step::Seccomp => "cannot install the seccomp program",
            Step::Signals => "cannot reset the signals",
            Step::Init => "cannot run the init",
            Step::Interpreter => "cannot find the interpreter",
            Step::Exec => "cannot execute",
            Step::Start => "cannot start",
            Step::Kill => "cannot signal",
            Step::Freeze => "cannot pause or resume",
            Step::Usage => "cannot read",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            write!(f, "{}", self.step)
        } else {
            write!(f, "{} {}", self.step, self.subject)
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Cause {
        // An io::Error without a number is one that std made up (bad input, an early end).
        Cause::Os(error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Cause {
        Cause::Os(errno.raw_os_error())
    }
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Cause {
        Cause::Refused(refusal)
    }
}

impl Error {
    /// An error of the kind that goes with its cause: [`Kind::Invalid`] when we refused something ourselves.
    pub(crate) fn new(step: Step, subject: impl Into<String>, cause: impl Into<Cause>) -> Error {
        let cause = cause.into();
        let kind = match cause {
            Cause::Os(_) | Cause::Refused(Refusal::ChildDied) => Kind::Other,
            Cause::Refused(Refusal::NotRunning) => Kind::NotRunning,
            Cause::Refused(_) => Kind::Invalid,
        };
        let mut subject = subject.into();
        if subject.len() > MAX_SUBJECT_LEN {
            subject.truncate(subject.floor_char_boundary(MAX_SUBJECT_LEN));
            subject.push('…');
        }
        Error {
            kind,
            step,
            subject,
            cause,
        }
    }

    /// The same error with another kind.
    pub(crate) fn of_kind(self, kind: Kind) -> Error {
        Error { kind, ..self }
    }
}

/// Says what was attempted on what, when something failed.
pub(crate) trait Attempt<T> {
    /// Names the step and its subject.
    fn at(self, step: Step, subject: impl fmt::Display) -> Result<T, Error>;
}

impl<T, E: Into<Cause>> Attempt<T> for Result<T, E> {
    fn at(self, step: Step, subject: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|cause| Error::new(step, subject.to_string(), cause))
    }
}
