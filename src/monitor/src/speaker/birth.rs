//! What a speaker begins with, and what it gives up.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::time::Instant;

use protocol::agent::{Failure, FailureKind};
use protocol::record::{ContainerConfig, LogConfig, SandboxConfig, SandboxKind};
use rustix::process::{Pid, Resource, Rlimit, getppid, setrlimit};
use sys::refusal;

use super::log::Log;
use super::session::{Setting, Writes};
use crate::agent;
use crate::warden::members::Member;

/// What the warden knows when it makes a speaker.
pub(crate) struct Birth {
    pub(super) config: SandboxConfig,
    pub(super) single: Option<(ContainerConfig, Option<OwnedFd>, OwnedFd)>,
    pub(super) start: Vec<String>,
    pub(crate) notices: Vec<String>,
    pub(crate) failed: Option<Failure>,
}

impl Birth {
    /// Of this sandbox, with its only container if it has one; `start` is started without being asked.
    pub(crate) fn new(
        config: &SandboxConfig,
        single: Option<&mut Member>,
        start: Vec<String>,
    ) -> Result<Birth, crate::Error> {
        let single = match single {
            Some(member) => {
                let (log, health) = (member.open_log()?, member.open_health()?);
                Some((member.config.clone(), log, health))
            }
            None => None,
        };
        Ok(Birth {
            config: config.clone(),
            single,
            start,
            notices: Vec::new(),
            failed: None,
        })
    }

    /// The layers that are on the layer device from the start.
    pub(crate) fn layers(&self) -> Vec<protocol::record::LayerFile> {
        self.single
            .as_ref()
            .map(|(config, ..)| config.run.layers.clone())
            .unwrap_or_default()
    }

    /// What of the host's is mounted in it.
    pub(crate) fn mounts(&self) -> Vec<protocol::record::Mount> {
        let single = self.single.as_ref();
        single.map_or_else(Vec::new, |(config, ..)| config.run.shared_mounts())
    }
}

/// The log of a container in this file.
pub(super) fn new_log(config: &ContainerConfig, file: Option<OwnedFd>) -> Option<Log> {
    let max_bytes = match config.log {
        LogConfig::JsonFile { max_size_bytes, .. } => max_size_bytes,
        LogConfig::None => return None,
    };
    Some(Log::new(file?, max_bytes))
}

pub(super) fn setting(
    config: &SandboxConfig,
    single: Option<ContainerConfig>,
    start: Vec<String>,
    failed: Option<Failure>,
    interfaces: Vec<protocol::agent::Interface>,
) -> Setting {
    let writes = match &config.machine {
        protocol::record::Machine::Native { .. } => {
            let folder = config.root.join("sandboxes").join(&config.id);
            Writes::Folder(folder.join("writable").to_string_lossy().into_owned())
        }
        protocol::record::Machine::Vm(vm) => Writes::Disk {
            bytes: vm.scratch_bytes,
        },
    };
    let no_random = |error: io::Error| {
        let message = format!("cannot get random bytes for the sandbox: {error}");
        Failure::new(FailureKind::Other, message)
    };
    Setting {
        pod: config.kind != SandboxKind::Single,
        shared_pid: matches!(
            config.kind,
            SandboxKind::Pod {
                shared_pid: true,
                ..
            }
        ),
        keeps_disk: !single.as_ref().is_some_and(|single| single.auto_remove),
        writes,
        single,
        interfaces,
        measure: config.measure,
        start,
        failed,
        wake: Box::new(move || agent::wake().map_err(no_random)),
        token: Box::new(move || {
            let mut token = [0; protocol::agent::TOKEN_LEN];
            sys::random::fill(&mut token).map_err(no_random)?;
            Ok(token)
        }),
    }
}

/// Takes from this process what the speaker does not need: all but talking.
pub(super) fn confine(user: Option<u32>, warden: Pid, words: OwnedFd) -> io::Result<()> {
    // Their first use asks the kernel where the vDSO is, by a call that is refused from here on.
    let _ = (
        sys::clock::monotonic_ns(),
        sys::clock::realtime_ns(),
        rustix::param::page_size(),
        Instant::now(),
    );
    // Open as long as the process lives: a signal handler writes to it.
    refusal::report_to(words.into_raw_fd())?;
    refusal::name_thread("monitor");
    for resource in [Resource::Core, Resource::Memlock, Resource::Msgqueue] {
        let nothing = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(resource, nothing)?;
    }
    sys::jail::renounce(user.map(|user| (user, user)))?;
    if getppid() != Some(warden) {
        return Err(io::Error::other("its parent has died"));
    }
    sys::seccomp::install(filters::program(&filters::MONITOR))
}
