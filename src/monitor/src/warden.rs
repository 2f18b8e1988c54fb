//! The warden: owns everything of a sandbox that takes rights on the host, and reads nothing that a guest wrote.
//!
//! ```text
//!            .--------------------- a life -----------------------.
//! records -> machine started -> speaker forked -> watch            |
//!            (hull-vmm or         |                |  speaker, machine, clients, signals
//!             hull-native)        |                v
//!            '<-- a restart is due --- both have ended -> folders removed, lock free
//! ```
//!
//! Each life has a new machine and a new speaker. The warden accepts clients and passes their sockets on; it writes what
//! the speaker reports (see [`link`](crate::link)) before the speaker may tell it; it decides by the container's policy
//! what follows an end. docs/lifecycle.md is the contract.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::record::{SandboxConfig, SandboxKind};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Signal, getpid, pidfd_send_signal};
use sys::fork::{self, Child};
use sys::signalfd::SignalFd;

use crate::link::{self, Link, ToSpeaker, ToWarden};
use crate::machine::{HostSide, Machine};
use crate::programs::{self, Held};
use crate::speaker::{self, Birth};
use crate::{Error, jail, wait_for};

mod ends;
mod life;
pub(crate) mod members;
mod policy;

use life::Life;
use members::Members;

/// How long a speaker that was asked to end may take: its containers get their time to stop, and its clients theirs to
/// read what is left.
const QUIT_TIMEOUT: Duration = Duration::from_secs(20);

/// What remains from one life to the next.
pub(crate) struct Warden {
    config: SandboxConfig,
    folder: PathBuf,
    listener: OwnedFd,
    quit: SignalFd,
    /// hull was asked to end: nothing is started again by its policy.
    is_quitting: bool,
    members: Members,
    programs: Held,
}

/// What follows a life.
enum After {
    /// The sandbox ends.
    End,
    /// Another life, in which these containers are started.
    Again { pause: Duration, start: Vec<String> },
}

impl Warden {
    /// A warden of the sandbox in `folder`.
    pub(crate) fn new(
        folder: &Path,
        mut config: SandboxConfig,
        listener: OwnedFd,
        quit: SignalFd,
    ) -> Result<Warden, Error> {
        let programs = programs::hold(&mut config.machine, &mut config.net).map_err(Error::Part)?;
        let mut members = Members::new(&config.root, &config.id);
        if config.kind == SandboxKind::Single {
            members.load(&config.id)?;
        }
        Ok(Warden {
            config,
            folder: folder.to_owned(),
            listener,
            quit,
            is_quitting: false,
            members,
            programs,
        })
    }

    /// Lives until nothing is to be started again, and removes what goes with the sandbox.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut start = Vec::new();
        let outcome = loop {
            match self.live(std::mem::take(&mut start)) {
                Ok(After::End) => break Ok(()),
                Ok(After::Again { pause, start: next }) => {
                    if self.pause(pause)? {
                        break Ok(());
                    }
                    start = next;
                }
                Err(error) => break Err(error),
            }
        };
        self.clean_up();
        outcome
    }

    /// Reads again which networks the sandbox is to be on.
    fn reload_networks(&mut self) -> Result<(), members::Error> {
        let config = members::read_sandbox(&self.folder)?;
        (self.config.version, self.config.networks) = (config.version, config.networks);
        // A network with a name is served by hull-net, which one on the default network did not need.
        if self.config.net.is_none() {
            self.config.net = config.net;
        }
        Ok(())
    }

    /// One life: a machine, a speaker, and what they report.
    fn live(&mut self, start: Vec<String>) -> Result<After, Error> {
        if let Err(error) = self.reload_networks() {
            tracing::warn!(error = %crate::chain(&error), "the sandbox's networks are as they were");
        }
        let (ours, theirs) = Link::pair().map_err(Error::Part)?;
        let (their_status, our_status) = io::pipe().map_err(Error::Part)?;
        let (our_words, their_words) = io::pipe().map_err(Error::Part)?;
        let single = match self.config.kind {
            SandboxKind::Single => self.members.get_mut(&self.config.id),
            SandboxKind::Pod { .. } => None,
        };
        let mut birth = Birth::new(&self.config, single, start)?;
        let started = Machine::start(
            &self.config,
            &self.folder,
            &birth.layers(),
            &birth.mounts(),
            &self.quit,
        );
        let (mut machine, notices) = match started {
            Ok((machine, notices)) => (Some(machine), notices),
            Err(failure) => {
                birth.failed = Some(failure);
                (None, Vec::new())
            }
        };
        birth.notices = notices;
        let user = machine.as_ref().and_then(Machine::speaker_user);
        let warden = getpid();
        let (listener, programs) = (self.listener.as_fd(), &self.programs);
        // Taken in the child; what is left of them in the parent is the parent's.
        let mut parts = Some((theirs, their_status, their_words, birth));
        let forked = fork::fork(0, None, |in_child| {
            let Some((link, status, words, birth)) = parts.take() else {
                return 1;
            };
            let lock = protocol::monitor::LOCK_FD;
            let closed = in_child
                .close(listener)
                .and_then(|()| in_child.close_numbers(lock, lock))
                .and_then(|()| programs.close_in(&in_child));
            if let Err(error) = closed {
                tracing::error!(%error, "the speaker cannot close what is not its own");
                return 1;
            }
            speaker::run(speaker::Parts {
                link,
                machine: machine.take(),
                status: status.into(),
                words: words.into(),
                birth,
                user,
                warden,
            })
        });
        drop(parts);
        let host = machine.take().map(Machine::into_host);
        let speaker = forked.map_err(Error::Part)?;
        ours.never_block().map_err(Error::Part)?;
        let life = Life::new(speaker, ours, host, our_status.into(), our_words.into());
        life.watch(self)
    }

    /// Waits before the next life; true if hull is to end instead.
    fn pause(&mut self, pause: Duration) -> Result<bool, Error> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut fds = [PollFd::new(&self.quit, PollFlags::IN)];
            wait_for(&mut fds, Some(left))?;
            if !fds[0].revents().is_empty() {
                return Ok(true);
            }
        }
    }

    /// Removes what does not outlive the sandbox's processes. The lock is held until this process has ended.
    fn clean_up(&mut self) {
        self.remove_what_goes_with_it();
        // Its absence says that nothing is left to be swept (lifecycle H24).
        let socket = self.folder.join("socket");
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %socket.display(), "the next command sweeps in vain");
            }
            _ => {}
        }
    }

    fn remove_what_goes_with_it(&mut self) {
        for member in self.members.iter_mut() {
            if let Err(error) = member.save() {
                tracing::error!(%error, "a container's last state is lost");
            }
        }
        let ids: Vec<String> = self
            .members
            .iter_mut()
            .map(|member| member.config.id.clone())
            .collect();
        for id in ids {
            let is_removed = self.remove_ended(&id);
            if is_removed
                && self.config.kind == SandboxKind::Single
                && let Err(error) = members::remove_folder(&self.folder)
            {
                tracing::warn!(%error, "the sandbox was not removed; the next command tries again");
            }
        }
    }
}
