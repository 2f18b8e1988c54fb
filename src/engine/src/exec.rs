//! Processes that are executed in a running container.
//!
//! An exec may be created first and started later, by another client (Docker's API): what it is to be lies in the
//! container's folder until the container goes. Deliberately absent: the way from a user's options to the OCI document.

mod document;

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;

use protocol::agent::{ProcessId, TerminalSize};
use protocol::monitor::{Answer, ExecConfig, ExecState, MAX_DOCUMENT_LEN, Request};
use protocol::record::ContainerConfig;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::connection;
use crate::control::unexpected;
use crate::engine::{Engine, in_folder, is_id};
use crate::error::{Error, Refusal, Subject};
use crate::events;
use crate::files;
use crate::id;
use crate::session::Session;

pub use document::{ExecError, ExecOptions, prepare};

/// A process to execute.
#[derive(Debug)]
pub struct NewExec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What is executed, and which of its streams this client is attached to.
    pub config: ExecConfig,
}

/// An exec that was created, as it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreatedExec {
    /// [`protocol::record::VERSION`] of the writer.
    pub version: u32,
    /// The exec.
    pub id: String,
    /// Its container.
    pub container: String,
    /// What is executed.
    pub config: ExecConfig,
    /// What the front end was asked for, for `inspect`: its own document.
    pub asked: Box<RawValue>,
    /// The code that its start failed with; `None` if it did not.
    #[serde(default)]
    pub failed: Option<u8>,
}

/// An exec, for `inspect`.
#[derive(Debug)]
pub struct InspectedExec {
    /// What was created.
    pub created: CreatedExec,
    /// How far it has come; `None` if it was never started or the container has ended since.
    pub state: Option<ExecState>,
}

impl NewExec {
    /// An exec with an identifier of its own.
    pub fn new(config: ExecConfig) -> NewExec {
        NewExec {
            id: id::new_id(),
            config,
        }
    }

    /// Its configuration in a file without a name, to be sent to a monitor of our build or of another: before version 2 of
    /// the records, seccomp programs were read as arrays of numbers alone.
    pub(crate) fn document(&self, of_our_build: bool) -> Result<OwnedFd, connection::Error> {
        let text = if of_our_build {
            serde_json::to_vec(&self.config)?
        } else {
            let mut document = serde_json::to_value(&self.config)?;
            document["seccomp"] = json!(self.config.seccomp);
            serde_json::to_vec(&document)?
        };
        if text.len() as u64 > MAX_DOCUMENT_LEN {
            return Err(connection::Error::TooLong { len: text.len() });
        }
        let memory = memfd_create("exec", MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let mut file = File::from(memory);
        file.write_all(&text)?;
        file.rewind()?;
        Ok(file.into())
    }
}

impl Engine {
    /// Creates an exec in a running container, and returns its identifier. `asked` is kept for `inspect`.
    pub fn exec_create(
        &self,
        reference: &str,
        config: ExecConfig,
        asked: Box<RawValue>,
    ) -> Result<String, Error> {
        let container = self.running(reference, Refusal::NotRunning)?;
        let created = CreatedExec {
            version: protocol::record::VERSION,
            id: id::new_id(),
            container: container.config.id.clone(),
            config,
            asked,
            failed: None,
        };
        let folder = self.layout().execs(&created.container);
        let path = in_folder(&folder, &format!("{}.json", created.id))?;
        files::write(&path, &created)?;
        self.with_index(|index| index.add_exec(&created.id, &created.container))?;
        self.tell_exec(
            "exec_create",
            &container.config,
            &created.id,
            &created.config,
        );
        Ok(created.id)
    }

    /// Starts an exec that was created, attached to these of its streams.
    pub fn exec_start(&self, exec: &str, attach: [bool; 3]) -> Result<Session<'_>, Error> {
        let created = self.created_exec(exec)?;
        let config = ExecConfig {
            attach,
            ..created.config
        };
        let id = created.id;
        let container = self.container(&created.container)?;
        self.begin_exec(&container, NewExec { id, config }, &["exec_start"])
    }

    /// Keeps the code that an exec's start has failed with, for `inspect`.
    pub fn exec_failed(&self, exec: &str, code: u8) -> Result<(), Error> {
        let mut created = self.created_exec(exec)?;
        created.failed = Some(code);
        let folder = self.layout().execs(&created.container);
        files::write(&folder.join(format!("{exec}.json")), &created)
    }

    /// An exec that was created.
    pub fn exec_inspect(&self, exec: &str) -> Result<InspectedExec, Error> {
        let created = self.created_exec(exec)?;
        let process = ProcessId::exec(&created.container, &created.id);
        let container = self.container_with_id(&created.container)?;
        let asked = self.ask(&container.config.sandbox, Request::InspectExec { process });
        let state = match asked {
            Ok(Some(Answer::Exec(state))) => Some(state),
            Ok(Some(other)) => return Err(unexpected(&container.config.sandbox, &other)),
            // It was never started, or is forgotten.
            Ok(None) | Err(Error::Failure(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(InspectedExec { created, state })
    }

    /// Tells an exec the size of its terminal.
    pub fn exec_resize(&self, exec: &str, size: TerminalSize) -> Result<(), Error> {
        let created = self.created_exec(exec)?;
        let container = self.running(&created.container, Refusal::NotRunning)?;
        let process = ProcessId::exec(&created.container, &created.id);
        let request = Request::Resize { process, size };
        self.ask_running(&container, request, Refusal::NotRunning)?;
        Ok(())
    }

    /// Tells of an exec, with its command as Docker does.
    pub(crate) fn tell_exec(
        &self,
        action: &str,
        container: &ContainerConfig,
        exec: &str,
        config: &ExecConfig,
    ) {
        #[derive(Deserialize)]
        struct Command {
            args: Vec<String>,
        }
        let command: Option<Command> = serde_json::from_str(config.document.get()).ok();
        let words = command
            .map(|command| command.args.join(" "))
            .unwrap_or_default();
        let told = events::container(container, &format!("{action}: {words}"));
        self.tell(told.with("execID", exec));
    }

    fn created_exec(&self, exec: &str) -> Result<CreatedExec, Error> {
        let absent = || Error::not_found(Subject::Exec, exec);
        if !is_id(exec) {
            return Err(absent());
        }
        let container = self.with_index(|index| index.exec(exec))?;
        let container = container.ok_or_else(absent)?;
        let path = self.layout().execs(&container).join(format!("{exec}.json"));
        let created: CreatedExec = files::read(&path)?.ok_or_else(absent)?;
        files::check_version(&path, created.version)?;
        Ok(created)
    }
}

#[cfg(test)]
mod tests;
