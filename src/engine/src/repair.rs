//! Putting right what killed processes left (lifecycle H5, H6).
//!
//! Invariant: a state is only written by the holder of its sandbox's lock. What is repaired is reported as an event.

use std::process::{Command, Stdio};

use protocol::record::{ContainerConfig, RestartPolicy, SandboxKind, Status};

use crate::container::{as_killed, read_config, read_recorded_state};
use crate::engine::{Engine, chain};
use crate::error::Error;
use crate::{events, files, lock, time};

/// What [`Engine::system_start`] has done.
#[derive(Debug, Default)]
pub struct SystemStart {
    /// The names of those that were started.
    pub started: Vec<String>,
    /// The names of those that could not be, and why.
    pub failed: Vec<(String, Error)>,
}

impl Engine {
    /// Puts right whatever killed commands and monitors left, and removes rubbish. Linear in the number of containers; a
    /// front end calls it once in a command that changes something, after what the user waits for.
    pub fn sweep(&self) -> Result<(), Error> {
        files::sweep(self.layout())?;
        for sandbox in files::names(&self.layout().sandboxes())? {
            // A monitor that ends takes its socket away.
            if self.layout().socket(&sandbox).exists() {
                self.repair(&sandbox)?;
            }
            self.remove_orphan(&sandbox)?;
        }
        for folder in [self.layout().containers(), self.layout().sandboxes()] {
            self.remove_hidden(&folder)?;
        }
        self.reap_volumes()
    }

    /// Repairs a container's sandbox, if its monitor was killed, and what it left on the host.
    pub(crate) fn repair_if_dead(&self, id: &str) -> Result<(), Error> {
        let Some(config) = read_config(self.layout(), id)? else {
            return Ok(());
        };
        if read_recorded_state(self.layout(), id)?.status.is_alive() {
            self.repair(&config.sandbox)?;
        }
        Ok(())
    }

    /// Repairs a sandbox, unless it has a monitor. Whether there was something to repair.
    pub(crate) fn repair(&self, sandbox: &str) -> Result<bool, Error> {
        let path = self.layout().sandbox_lock(sandbox);
        match lock::try_take(&path) {
            Ok(Some(_held)) => self.repair_held(sandbox),
            Ok(None) => Ok(false),
            Err(error) if files::is_absent(&error) => Ok(false),
            Err(error) => Err(Error::file("lock", path)(error)),
        }
    }

    /// The same, for the holder of the sandbox's lock. What the monitor left on the host is removed, whatever the records
    /// say: it may have been killed before it wrote one (lifecycle H24).
    pub(crate) fn repair_held(&self, sandbox: &str) -> Result<bool, Error> {
        let socket = self.layout().socket(sandbox);
        let (mut claims, mut ended) = (Vec::new(), Vec::new());
        for config in self.members(sandbox)? {
            let state = read_recorded_state(self.layout(), &config.id)?;
            if state.status.is_alive() {
                claims.push((config, state));
            } else if config.auto_remove && state.finished_ns != 0 {
                ended.push(config);
            }
        }
        let was_killed = socket.exists() || !claims.is_empty();
        for config in ended {
            // Its monitor was killed between the end and the removal.
            self.remove_files(&config)?;
        }
        if was_killed {
            self.sweep_host_of(Some(sandbox));
        }
        for (config, state) in claims {
            let mut state = as_killed(state);
            state.finished_ns = time::now_ns();
            let code = state.exit_code.to_string();
            files::write(&self.layout().state(&config.id), &state)?;
            self.tell(events::container(&config, "die").with("exitCode", code));
            if config.auto_remove {
                self.remove_files(&config)?;
            }
        }
        // Last: a repair that is cut short is begun again.
        match std::fs::remove_file(&socket) {
            Err(error) if !files::is_absent(&error) => Err(Error::file("remove", socket)(error)),
            _ => Ok(was_killed),
        }
    }

    /// The containers of a sandbox.
    pub(crate) fn members(&self, sandbox: &str) -> Result<Vec<ContainerConfig>, Error> {
        let is_pod = self
            .sandbox_config(sandbox)?
            .is_some_and(|config| config.kind != SandboxKind::Single);
        if !is_pod {
            return Ok(read_config(self.layout(), sandbox)?.into_iter().collect());
        }
        let mut members = Vec::new();
        for summary in self.summaries()? {
            if summary.sandbox == sandbox {
                members.extend(read_config(self.layout(), &summary.id)?);
            }
        }
        Ok(members)
    }

    /// Removes a sandbox of a single container that is not there: its maker or its remover was killed in between.
    fn remove_orphan(&self, sandbox: &str) -> Result<(), Error> {
        let is_orphan = || {
            !files::is_being_made(self.layout(), sandbox)
                && !self.layout().container(sandbox).exists()
        };
        if !is_orphan() {
            return Ok(());
        }
        let Some(config) = self.sandbox_config(sandbox)? else {
            return Ok(());
        };
        if config.kind != SandboxKind::Single {
            return Ok(());
        }
        let path = self.layout().sandbox_lock(sandbox);
        let held = match lock::try_take(&path) {
            // The monitor of a container that goes with its end has removed it in the meantime.
            Err(error) if files::is_absent(&error) => None,
            other => other.map_err(Error::file("lock", &path))?,
        };
        if held.is_some() && is_orphan() {
            self.repair_held(sandbox)?;
            files::discard(self.layout(), &self.layout().sandbox(sandbox))?;
        }
        Ok(())
    }

    /// Removes what a monitor renamed to a hidden name and was killed before it removed that.
    fn remove_hidden(&self, folder: &std::path::Path) -> Result<(), Error> {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".gone.") {
                files::discard(self.layout(), &entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes what dead monitors left of cgroups, network leases and templates. It keeps nothing from going on.
    pub(crate) fn sweep_host(&self) {
        self.sweep_host_of(None);
    }

    /// The same, and what the monitor of this sandbox left, whose lock the caller holds.
    fn sweep_host_of(&self, sandbox: Option<&str>) {
        let program = match self.installation().monitor() {
            Ok(program) => program,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "what dead monitors left stays");
                return;
            }
        };
        let swept = Command::new(program)
            .arg("sweep")
            .arg(self.root())
            .args(sandbox)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match swept {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!(%status, "what dead monitors left was not removed"),
            Err(error) => tracing::warn!(%error, "what dead monitors left was not removed"),
        }
    }

    /// Starts every container whose policy says so, as Docker does when its daemon starts: those that the user has not
    /// stopped and whose policy is to be always there, and those that a power cut or a kill ended while they ran.
    pub fn system_start(&self) -> Result<SystemStart, Error> {
        self.sweep()?;
        self.sweep_host();
        let mut outcome = SystemStart::default();
        let mut summaries = self.summaries()?;
        // In the order in which they were made: later ones may rely on earlier ones.
        summaries.sort_by(|a, b| (a.created_ns, &a.id).cmp(&(b.created_ns, &b.id)));
        for summary in summaries {
            match self.start_if_due(&summary.id) {
                Ok(true) => outcome.started.push(summary.name),
                Ok(false) => {}
                Err(error) => outcome.failed.push((summary.name, error)),
            }
        }
        Ok(outcome)
    }

    /// Whether it was due.
    fn start_if_due(&self, id: &str) -> Result<bool, Error> {
        let Some(config) = read_config(self.layout(), id)? else {
            return Ok(false);
        };
        let state = read_recorded_state(self.layout(), id)?;
        let due = is_due(config.restart, &state);
        if due {
            self.start(id)?;
        }
        Ok(due)
    }
}

/// Whether a container that does not run is started when hull starts.
fn is_due(policy: RestartPolicy, state: &protocol::record::State) -> bool {
    if state.status.is_alive() || state.status == Status::Created {
        return false;
    }
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !state.stopped_by_user,
        RestartPolicy::OnFailure { max_retries } => {
            let may = max_retries == 0 || state.restarts < max_retries;
            !state.stopped_by_user && state.exit_code != 0 && may
        }
    }
}

#[cfg(test)]
mod tests;
