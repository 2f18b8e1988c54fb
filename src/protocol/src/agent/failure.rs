//! Why a request failed.

use serde::{Deserialize, Serialize};

/// Why a request failed, for a person and for the exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What was attempted, on what, and why it failed: the whole chain, joined with ": ".
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
        }
    }
}

/// Kinds of failure that the host treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command does not exist in the container (exit code 127).
    CommandNotFound,
    /// The command exists and cannot be executed (exit code 126).
    CommandNotExecutable,
    /// The user or group is not known inside the image (exit code 125).
    UnknownUser,
    /// There is no such container, exec or path (exit code 125; HTTP 404).
    NotFound,
    /// The request does not fit the state that its subject is in (exit code 125; HTTP 409).
    WrongState,
    /// The request itself is not valid (exit code 125; HTTP 400).
    Invalid,
    /// This sandbox, or this version of hull, cannot do that (exit code 125; HTTP 501).
    Unsupported,
    /// Anything else (exit code 125; HTTP 500).
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_failure_from_a_later_version_is_some_other() {
        let kind: FailureKind = serde_json::from_str(r#""of_tomorrow""#).unwrap();
        assert_eq!(kind, FailureKind::Other);
    }
}
