//! Why the engine could not do what it was asked to.
//!
//! Invariant: every error has a [`Kind`], from which a front end takes its exit code or HTTP status; messages that Docker's
//! clients parse are in Docker's words.

use std::io;
use std::path::{Path, PathBuf};

use image::store::DeleteError;
use protocol::agent::{Failure, FailureKind};

use crate::{connection, images, index, install, list, mounts, networks, volumes};

/// What sort of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The subject does not exist (HTTP 404).
    NotFound,
    /// The subject is in a state that does not allow it, or a name is taken (HTTP 409).
    Conflict,
    /// The request makes no sense (HTTP 400).
    Invalid,
    /// This hull, or this sandbox, cannot do it (HTTP 501).
    Unsupported,
    /// The command does not exist in the container (exit code 127, HTTP 400).
    CommandNotFound,
    /// The command cannot be executed (exit code 126, HTTP 400).
    CommandNotExecutable,
    /// Anything else (HTTP 500).
    Internal,
}

impl Kind {
    /// The code that a foreground run exits with, Docker's.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::CommandNotFound => 127,
            Kind::CommandNotExecutable => 126,
            _ => 125,
        }
    }

    /// The status of an HTTP answer.
    pub fn http_status(self) -> u16 {
        match self {
            Kind::NotFound => 404,
            Kind::Conflict => 409,
            Kind::Invalid | Kind::CommandNotFound | Kind::CommandNotExecutable => 400,
            Kind::Unsupported => 501,
            Kind::Internal => 500,
        }
    }
}

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A container.
    Container,
    /// A pod.
    Pod,
    /// A process that was executed in a container.
    Exec,
    /// An image.
    Image,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Subject::Container => "container",
            Subject::Pod => "pod",
            Subject::Exec => "exec instance",
            Subject::Image => "image",
        })
    }
}

/// Why a container's state does not allow what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It does not run.
    NotRunning,
    /// It is not running, and so cannot be killed.
    Kill,
    /// It is paused, and an exec would wait for ever.
    ExecPaused,
    /// It is paused, and so cannot be started.
    StartPaused,
    /// It is paused already.
    AlreadyPaused,
    /// It is not paused.
    NotPaused,
    /// It runs, and is not to be removed by force.
    RemoveRunning,
    /// It is paused, and is not to be removed by force.
    RemovePaused,
    /// It does not run, and so has no streams.
    AttachStopped,
    /// It is paused.
    AttachPaused,
    /// It has this name already.
    SameName,
    /// Its pod still has containers.
    PodNotEmpty,
    /// Its log driver keeps nothing.
    NoLogs,
}

impl Refusal {
    fn sentence(self, id: &str) -> String {
        match self {
            Refusal::NotRunning => format!("container {id} is not running"),
            Refusal::Kill => {
                format!("cannot kill container: {id}: container {id} is not running")
            }
            Refusal::ExecPaused => {
                format!("container {id} is paused, unpause the container before exec")
            }
            Refusal::StartPaused => {
                "cannot start a paused container, try unpause instead".to_owned()
            }
            Refusal::AlreadyPaused => format!("container {id} is already paused"),
            Refusal::NotPaused => format!("container {id} is not paused"),
            Refusal::RemoveRunning => format!(
                "cannot remove container {id:?}: container is running: stop the container before removing or force remove"
            ),
            Refusal::RemovePaused => format!(
                "cannot remove container {id:?}: container is paused and must be unpaused first or force remove"
            ),
            Refusal::AttachStopped => {
                "You cannot attach to a stopped container, start it first".to_owned()
            }
            Refusal::AttachPaused => {
                "You cannot attach to a paused container, unpause it first".to_owned()
            }
            Refusal::SameName => {
                "Renaming a container with the same name as its current name".to_owned()
            }
            Refusal::PodNotEmpty => {
                format!("pod {id} has containers: remove them before, or remove the pod by force")
            }
            Refusal::NoLogs => "configured logging driver does not support reading".to_owned(),
        }
    }
}

/// Why the engine could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing of that name or identifier.
    #[error("No such {subject}: {name}")]
    NotFound {
        /// What was looked for.
        subject: Subject,
        /// As the user named it.
        name: String,
    },
    /// Several identifiers begin so.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// A name is taken.
    #[error(
        "Conflict. The {subject} name \"/{name}\" is already in use by {subject} \"{id}\". You have to remove (or rename) \
         that {subject} to be able to reuse that name."
    )]
    NameInUse {
        /// A container or a pod.
        subject: Subject,
        /// The name.
        name: String,
        /// The identifier of its owner.
        id: String,
    },
    /// It cannot be a name.
    #[error("Invalid {subject} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName {
        /// A container or a pod.
        subject: Subject,
        /// What was given.
        name: String,
    },
    /// The container's (or pod's) state does not allow it.
    #[error("{}", .why.sentence(.id))]
    Refused {
        /// The container or pod, as the user named it, or its identifier.
        id: String,
        /// Why.
        why: Refusal,
    },
    /// A filter that is not known, or a value that it cannot have.
    #[error(transparent)]
    Filter(#[from] list::FilterError),
    /// The monitor or the agent could not do it.
    #[error("{}", .0.message)]
    Failure(Failure),
    /// The monitor cannot be talked to.
    #[error("cannot talk to the monitor of sandbox {sandbox}")]
    Conversation {
        /// The sandbox.
        sandbox: String,
        /// Why.
        #[source]
        source: connection::Error,
    },
    /// The monitor cannot be spawned.
    #[error("cannot start the monitor of sandbox {sandbox}")]
    Spawn {
        /// The sandbox.
        sandbox: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A monitor that was just spawned has ended without an answer.
    #[error(
        "the monitor of sandbox {sandbox} ended before it answered ({status}); HULL_LOG=debug shows what it says"
    )]
    MonitorGone {
        /// The sandbox.
        sandbox: String,
        /// How it ended.
        status: String,
    },
    /// A monitor that is ending takes too long.
    #[error(
        "the monitor of sandbox {sandbox} has been ending for {seconds} s; try again, or look at what it waits for"
    )]
    StillEnding {
        /// The sandbox.
        sandbox: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A file of hull's state cannot be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record does not make sense.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A record was written by a later version.
    #[error(
        "{path} was written by a later hull (its version is {found}, and this hull knows {known}); use that hull"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// A value cannot be written as JSON.
    #[error("cannot write a record")]
    Encode(#[from] serde_json::Error),
    /// The index.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// The installation.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// Images.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// What of the host's is to be mounted.
    #[error(transparent)]
    Mount(#[from] mounts::Error),
    /// Volumes.
    #[error(transparent)]
    Volume(#[from] volumes::Error),
    /// Networks.
    #[error(transparent)]
    Network(#[from] networks::Error),
}

impl Error {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NotFound { .. } | Error::Ambiguous(_) => Kind::NotFound,
            Error::Refused {
                why: Refusal::NoLogs,
                ..
            } => Kind::Unsupported,
            Error::NameInUse { .. } | Error::Refused { .. } => Kind::Conflict,
            Error::InvalidName { .. } | Error::Filter(_) => Kind::Invalid,
            Error::Failure(failure) => kind_of(failure.kind),
            Error::Image(images::Error::Absent(_)) | Error::Volume(volumes::Error::Absent(_)) => {
                Kind::NotFound
            }
            Error::Volume(volumes::Error::InUse { .. }) => Kind::Conflict,
            Error::Network(networks::Error::Absent(_) | networks::Error::Ambiguous(_)) => {
                Kind::NotFound
            }
            Error::Network(networks::Error::InUse { .. } | networks::Error::Exists(_)) => {
                Kind::Conflict
            }
            Error::Network(networks::Error::Engine(error)) => error.kind(),
            Error::Network(_) => Kind::Invalid,
            Error::Volume(_) | Error::Mount(_) => Kind::Invalid,
            Error::Image(images::Error::Name { .. } | images::Error::Change(_)) => Kind::Invalid,
            Error::Image(images::Error::Delete(error)) => match error {
                DeleteError::Store(image::store::Error::NotFound { .. }) => Kind::NotFound,
                DeleteError::Store(image::store::Error::SeveralNames { .. })
                | DeleteError::NameInUse { .. }
                | DeleteError::InUse { .. } => Kind::Conflict,
                DeleteError::Store(_) => Kind::Internal,
            },
            _ => Kind::Internal,
        }
    }

    /// What a person can do about it, where the message does not say so.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Image(error) => error.help(),
            _ => None,
        }
    }

    pub(crate) fn not_found(subject: Subject, name: &str) -> Error {
        Error::NotFound {
            subject,
            name: name.to_owned(),
        }
    }

    pub(crate) fn refused(id: &str, why: Refusal) -> Error {
        Error::Refused {
            id: id.to_owned(),
            why,
        }
    }

    /// For `map_err`: what was attempted, on which file.
    pub(crate) fn file<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Error {
        move |source| Error::File {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}

fn kind_of(kind: FailureKind) -> Kind {
    match kind {
        FailureKind::CommandNotFound => Kind::CommandNotFound,
        FailureKind::CommandNotExecutable => Kind::CommandNotExecutable,
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::WrongState => Kind::Conflict,
        FailureKind::Invalid | FailureKind::UnknownUser => Kind::Invalid,
        FailureKind::Unsupported => Kind::Unsupported,
        FailureKind::Other => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_clients_parse_are_in_dockers_words() {
        let missing = Error::not_found(Subject::Container, "web");
        assert_eq!(missing.to_string(), "No such container: web");
        assert_eq!(missing.kind().http_status(), 404);
        let taken = Error::NameInUse {
            subject: Subject::Container,
            name: "web".into(),
            id: "abc".into(),
        };
        assert!(taken.to_string().starts_with(
            "Conflict. The container name \"/web\" is already in use by container \"abc\"."
        ));
        assert_eq!(taken.kind().http_status(), 409);
    }

    #[test]
    fn only_commands_that_cannot_be_executed_have_codes_of_their_own() {
        let code = |kind| Error::Failure(Failure::new(kind, "x")).kind().exit_code();
        assert_eq!(code(FailureKind::CommandNotFound), 127);
        assert_eq!(code(FailureKind::CommandNotExecutable), 126);
        assert_eq!(code(FailureKind::UnknownUser), 125);
        assert_eq!(code(FailureKind::Other), 125);
    }
}
