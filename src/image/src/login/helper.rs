//! Programs that keep credentials: `docker-credential-NAME store|erase|list` (docker-credential-helpers, README.md,
//! "Development"). `get` is docker_credential's work.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use serde_json::json;

/// How much of what a helper says is repeated.
const MAX_MESSAGE_CHARS: usize = 300;

/// Why a helper did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// A name that would be a path.
    #[error("{name:?} cannot be the name of a credential helper")]
    Name {
        /// The name.
        name: String,
    },
    /// It could not be executed.
    #[error("cannot execute the credential helper {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("the credential helper {program} failed to {action}: {message}")]
    Failed {
        /// Its name.
        program: String,
        /// What it was to do.
        action: &'static str,
        /// What it said, fit for a terminal.
        message: String,
    },
    /// Its answer is malformed.
    #[error("the credential helper {program} gave a list that is malformed")]
    List {
        /// Its name.
        program: String,
        /// Where.
        source: serde_json::Error,
    },
}

/// A credential helper.
pub(super) struct Helper {
    name: String,
}

impl Helper {
    pub(super) fn new(name: &str) -> Result<Helper, HelperError> {
        let name = name.to_owned();
        match name.is_empty() || name.contains(['/', '\0']) {
            true => Err(HelperError::Name { name }),
            false => Ok(Helper { name }),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn store(&self, key: &str, user: &str, secret: &str) -> Result<(), HelperError> {
        let input = json!({ "ServerURL": key, "Username": user, "Secret": secret });
        self.run("store", &input.to_string()).map(drop)
    }

    /// `false` if it had nothing for the server.
    pub(super) fn erase(&self, key: &str) -> Result<bool, HelperError> {
        match self.run("erase", key) {
            Ok(_) => Ok(true),
            Err(HelperError::Failed { message, .. }) if message.contains("not found") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Servers and users.
    pub(super) fn list(&self) -> Result<BTreeMap<String, String>, HelperError> {
        let answer = self.run("list", "")?;
        serde_json::from_slice(&answer).map_err(|source| HelperError::List {
            program: self.program(),
            source,
        })
    }

    fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    fn run(&self, action: &'static str, input: &str) -> Result<Vec<u8>, HelperError> {
        let start = |source| HelperError::Start {
            program: self.program(),
            source,
        };
        let mut child = Command::new(self.program())
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper may end without reading; its exit status tells whether that was right.
            match stdin.write_all(input.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(start(error));
                }
                _ => {}
            }
        }
        let output = child.wait_with_output().map_err(start)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let said: String = said.trim().chars().take(MAX_MESSAGE_CHARS).collect();
        Err(HelperError::Failed {
            program: self.program(),
            action,
            message: match said.is_empty() {
                true => output.status.to_string(),
                false => said.escape_debug().to_string(),
            },
        })
    }
}
