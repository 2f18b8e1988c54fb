//! A process of the document, checked: all of an [`Execution`] but the user, which only the container's files can name.

use std::path::PathBuf;

use rustix::fs::Mode;

use crate::capabilities::Capabilities;
use crate::command::Command;
use crate::error::{Attempt, Error, Refusal, Step};
use crate::execute::Execution;
use crate::limits::Limit;
use crate::spec;
use crate::user::Identity;

/// The largest file mode creation mask.
const MAX_UMASK: u32 = 0o777;

/// What is known of a process before its user is.
#[derive(Debug)]
pub(crate) struct Draft {
    capabilities: Capabilities,
    limits: Vec<Limit>,
    command: Command,
    cwd: PathBuf,
    umask: Mode,
    no_new_privileges: bool,
    seccomp: Option<Vec<u8>>,
    init: bool,
}

impl Draft {
    pub(crate) fn new(
        process: &spec::Process,
        seccomp: Option<Vec<u8>>,
        init: bool,
    ) -> Result<Draft, Error> {
        if !process.cwd.is_absolute() {
            return Err(Refusal::NotAnAbsolutePath)
                .at(Step::WorkingDirectory, process.cwd.display());
        }
        let umask = process.user.umask.unwrap_or(0o022);
        if umask > MAX_UMASK {
            return Err(Refusal::OutOfRange).at(Step::Document, format_args!("(umask {umask:#o})"));
        }
        if let Some(score) = process.oom_score_adj
            && !(-1000..=1000).contains(&score)
        {
            return Err(Refusal::OutOfRange).at(Step::OomScore, score);
        }
        let limits = process.rlimits.iter().map(Limit::parse);
        Ok(Draft {
            capabilities: Capabilities::parse(&process.capabilities)?,
            limits: limits.collect::<Result<_, _>>()?,
            command: Command::new(&process.args, &process.env)?,
            cwd: process.cwd.clone(),
            umask: Mode::from_raw_mode(umask),
            no_new_privileges: process.no_new_privileges,
            seccomp,
            init,
        })
    }

    /// Its resource limits.
    pub(crate) fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The process, now that its user is known.
    pub(crate) fn finish(self, identity: Identity) -> Result<Execution, Error> {
        Ok(Execution {
            command: self.command.with_home(identity.home.as_deref())?,
            identity,
            capabilities: self.capabilities,
            limits: self.limits,
            cwd: self.cwd,
            umask: self.umask,
            no_new_privileges: self.no_new_privileges,
            seccomp: self.seccomp,
            init: self.init,
        })
    }
}
