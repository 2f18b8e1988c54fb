//! One life of a sandbox: from the fork of the speaker to the end of speaker and machine.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use protocol::agent::{ExitStatus as Exit, Failure, FailureKind};
use protocol::record::{Machine, Status};

use super::members::Member;
use super::*;
use crate::link::{MAX_ERROR_LEN, Next};
use crate::process::wait_for_end;
use crate::{chain, events, shares, sockets};

mod ended;
mod networks;
mod unsaved;

/// Why a speaker is ended: it broke the protocol.
#[derive(Debug, thiserror::Error)]
enum Breach {
    #[error(transparent)]
    Link(#[from] link::Error),
    #[error("the speaker reported {0}, which is none of its containers")]
    Unknown(String),
}

/// Why a container cannot enter the sandbox.
#[derive(Debug, thiserror::Error)]
enum Unloaded {
    #[error(transparent)]
    Member(#[from] members::Error),
    #[error(transparent)]
    Shares(#[from] shares::Error),
}

pub(super) struct Life {
    speaker: Child,
    link: Link,
    host: Option<HostSide>,
    /// Where the speaker reads how hull-vmm ended.
    status: OwnedFd,
    /// The speaker's last words.
    words: OwnedFd,
    /// When the speaker is killed, if it was asked to end.
    quit_by: Option<Instant>,
    /// The speaker was killed on purpose.
    killed: bool,
    /// What the speaker is told of containers once their records are on disk, in this order.
    unsaved: BTreeMap<String, Vec<Next>>,
}

/// What is ready.
#[derive(Debug, Default)]
struct Ready {
    speaker: bool,
    quit: bool,
    link: bool,
    client: bool,
    machine: bool,
    shares: bool,
    /// Slots of networks whose hull-net has ended.
    networks: Vec<u8>,
}

impl Life {
    pub(super) fn new(
        speaker: Child,
        link: Link,
        host: Option<HostSide>,
        status: OwnedFd,
        words: OwnedFd,
    ) -> Life {
        Life {
            speaker,
            link,
            host,
            status,
            words,
            quit_by: None,
            killed: false,
            unsaved: BTreeMap::new(),
        }
    }

    /// Serves the speaker to its end, takes the machine down, and decides what follows.
    pub(super) fn watch(mut self, warden: &mut Warden) -> Result<After, Error> {
        let ended = loop {
            let ready = self.wait(warden)?;
            if let Some(host) = &mut self.host {
                if ready.shares {
                    host.shares_ended();
                }
                for slot in ready.networks {
                    host.network_ended(slot);
                }
                host.renew();
            }
            if ready.machine {
                self.machine_ended();
            }
            // Before the end of the speaker: what it said last is still there.
            if ready.link
                && let Err(breach) = self.listen(warden)
            {
                tracing::warn!(error = %chain(&breach), "the speaker is ended");
                self.kill_speaker();
            }
            if ready.speaker {
                while !self.killed && self.listen(warden).is_ok() {}
                break wait_for_end(&self.speaker);
            }
            if ready.quit {
                warden.quit.take().map_err(Error::Poll)?;
                warden.is_quitting = true;
                self.quit();
            }
            if ready.client {
                self.accept(warden);
            }
            self.retry_unsaved(warden);
            if self.quit_by.is_some_and(|by| Instant::now() >= by) {
                self.kill_speaker();
            }
        };
        let reason = self.reason(ended);
        drop(self.host.take());
        if matches!(warden.config.machine, Machine::Native { .. }) {
            // What a hull-native that was killed has left running.
            for member in warden.members.iter_mut() {
                crate::sweep::cgroup(&member.config.id);
            }
        }
        Ok(warden.aftermath(reason))
    }

    fn wait(&self, warden: &Warden) -> Result<Ready, Error> {
        let mut fds = vec![
            PollFd::new(&self.speaker.pidfd, PollFlags::IN),
            PollFd::new(&warden.quit, PollFlags::IN),
            PollFd::new(&self.link, PollFlags::IN),
            PollFd::new(&warden.listener, PollFlags::IN),
        ];
        let host = self.host.as_ref();
        let ends = [HostSide::end_descriptor, HostSide::shares_descriptor];
        let [machine, shares] = ends.map(|end| {
            let fd = end(host?)?;
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            Some(fds.len() - 1)
        });
        let mut networks = Vec::new();
        for (slot, fd) in host.into_iter().flat_map(HostSide::network_descriptors) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            networks.push((slot, fds.len() - 1));
        }
        let retry = (!self.unsaved.is_empty()).then_some(Duration::from_millis(500));
        let quit = self
            .quit_by
            .map(|by| by.saturating_duration_since(Instant::now()));
        let waits = [retry, quit, host.and_then(HostSide::next_renewal)];
        wait_for(&mut fds, waits.into_iter().flatten().min())?;
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            speaker: ready(0),
            quit: ready(1),
            link: ready(2),
            client: ready(3),
            machine: machine.is_some_and(ready),
            shares: shares.is_some_and(ready),
            networks: networks
                .into_iter()
                .filter_map(|(slot, at)| ready(at).then_some(slot))
                .collect(),
        })
    }

    /// hull-vmm or hull-native has ended: the speaker, which is not its parent, is told how.
    fn machine_ended(&mut self) {
        if let Some(ended) = self.host.as_mut().and_then(HostSide::wait) {
            // A speaker that has ended need not know.
            if let Err(error) = rustix::io::write(&self.status, &ended.bytes()) {
                tracing::debug!(%error, "the speaker is not told how the machine ended");
            }
        }
    }

    fn kill_speaker(&mut self) {
        self.killed = true;
        if let Err(error) = pidfd_send_signal(&self.speaker.pidfd, Signal::KILL) {
            tracing::debug!(%error, "the speaker has ended in the meantime");
        }
    }

    fn quit(&mut self) {
        if self.quit_by.is_some() {
            // Asked twice.
            return self.kill_speaker();
        }
        self.quit_by = Some(Instant::now() + QUIT_TIMEOUT);
        if self.link.send(&ToSpeaker::Quit, &[]).is_err() {
            self.kill_speaker();
        }
    }

    fn accept(&mut self, warden: &Warden) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let sent = accept_with(&warden.listener, flags)
            .map_err(|error| link::Error::Io(error.into()))
            .and_then(|client| self.link.send(&ToSpeaker::Client, &[client.as_fd()]));
        if let Err(error) = sent {
            tracing::debug!(error = %chain(&error), "a client was not taken");
        }
    }

    /// Carries out one message of the speaker's.
    fn listen(&mut self, warden: &mut Warden) -> Result<(), Breach> {
        let (message, _) = self.link.receive::<ToWarden>()?;
        tracing::debug!(?message, "from the speaker");
        match message {
            ToWarden::Load { container } => self.load(warden, &container),
            ToWarden::Started {
                container,
                pid,
                stopping,
            } => {
                let now = sys::clock::realtime_ns();
                let has_network = member(warden, &container)?.config.run.network;
                let host = self.host.as_ref().filter(|_| has_network);
                let interfaces = host.map_or_else(Vec::new, HostSide::attachments);
                let ports = host.map_or_else(Vec::new, HostSide::ports);
                self.record(warden, &container, "start", &[], |state| {
                    (state.interfaces, state.ports) = (interfaces, ports);
                    let restarted = state.status == Status::Restarting;
                    state.restarts = if restarted { state.restarts + 1 } else { 0 };
                    state.status = Status::Running;
                    state.pid = pid;
                    state.started_ns = now;
                    (state.exit, state.exit_code, state.oom_killed) = (None, 0, false);
                    state.error.clear();
                    state.stopped_by_user = stopping;
                })
            }
            ToWarden::StartFailed {
                container,
                code,
                error,
            } => self.start_failed(warden, &container, code, error),
            ToWarden::Stopping { container } => self.record(warden, &container, "", &[], |state| {
                state.stopped_by_user = true;
                if state.status == Status::Restarting {
                    state.status = Status::Exited;
                }
            }),
            ToWarden::Exited {
                container,
                status,
                oom_killed,
                error,
            } => self.exited(warden, &container, status, oom_killed, error),
            ToWarden::Paused { container, paused } => {
                let action = if paused { "pause" } else { "unpause" };
                self.write_record(warden, &container, action, &[], |state| {
                    state.status = if paused {
                        Status::Paused
                    } else {
                        Status::Running
                    };
                })?;
                self.recorded_or_not(warden, &container)
            }
            ToWarden::Reload { container } => {
                if let Err(error) = member(warden, &container)?.reload() {
                    tracing::warn!(error = %chain(&error), "the old policy stays");
                }
                Ok(())
            }
            ToWarden::Networks { container } => self.change_networks(warden, container),
            ToWarden::Rotate { container } => {
                let log = member(warden, &container)?.rotate_log();
                let log = log.unwrap_or_else(|error| {
                    tracing::warn!(error = %chain(&error), "the log was not rotated");
                    None
                });
                self.tell(&ToSpeaker::Log { container }, log.as_ref().map(AsFd::as_fd))
            }
            ToWarden::Health {
                container,
                status,
                changed,
            } => {
                let root = warden.config.root.clone();
                let member = member(warden, &container)?;
                if let Err(error) = member.save_health() {
                    tracing::warn!(error = %chain(&error), "the health is not on disk");
                }
                if changed {
                    let action = format!("health_status: {}", health(status));
                    events::write(&root, member, &action, &[]);
                }
                Ok(())
            }
            ToWarden::ExecEnded {
                container,
                exec,
                code,
            } => {
                let root = warden.config.root.clone();
                let ended = [("execID", cut(exec)), ("exitCode", code.to_string())];
                events::write(&root, member(warden, &container)?, "exec_die", &ended);
                Ok(())
            }
            ToWarden::Connect { socket, connection } => {
                let reached = sockets::reach(&warden.members.mounts(), &socket);
                if let Err(error) = &reached {
                    tracing::debug!(%error, "a socket of the host's is not reached");
                }
                let descriptor = reached.ok();
                self.tell(
                    &ToSpeaker::Connected { connection },
                    descriptor.as_ref().map(AsFd::as_fd),
                )
            }
            ToWarden::Forget { container } => {
                if warden.config.kind != SandboxKind::Single {
                    member(warden, &container)?;
                    warden.remove_ended(&container);
                    warden.members.forget(&container);
                    if let Some(host) = &mut self.host {
                        host.keep_shares(&warden.members.mounts());
                    }
                }
                Ok(())
            }
            ToWarden::MachineDone => {
                if let Some(host) = &mut self.host {
                    host.kill();
                }
                Ok(())
            }
        }
    }

    fn load(&mut self, warden: &mut Warden, container: &str) -> Result<(), Breach> {
        let host = &mut self.host;
        let (machine, root) = (&warden.config.machine, &warden.config.root);
        let opened = warden.members.load(container);
        let opened = opened.map_err(Unloaded::Member).and_then(|member| {
            let mut files = vec![member.open_config()?, member.open_health()?];
            let log = member.open_log()?;
            let shares = match (machine, host) {
                (Machine::Vm(vm), Some(host)) => {
                    host.share(vm, root, &member.config.run.shared_mounts())?
                }
                _ => None,
            };
            let has = (log.is_some(), shares.is_some());
            files.extend(log.into_iter().chain(shares));
            files.extend(member.open_layers()?);
            Ok((files, has))
        });
        let (files, (log, shares), result) = match opened {
            Ok((files, has)) => (files, has, Ok(())),
            Err(error) => {
                let kind = match error {
                    Unloaded::Member(members::Error::Absent(_) | members::Error::Id(_)) => {
                        FailureKind::NotFound
                    }
                    _ => FailureKind::Other,
                };
                let failure = Failure::new(kind, chain(&error));
                (Vec::new(), (false, false), Err(failure))
            }
        };
        let container = container.to_owned();
        let message = ToSpeaker::Loaded {
            container,
            log,
            shares,
            result,
        };
        self.tell(&message, files.iter().map(AsFd::as_fd))
    }

    fn start_failed(
        &mut self,
        warden: &mut Warden,
        container: &str,
        code: u8,
        error: String,
    ) -> Result<(), Breach> {
        let now = sys::clock::realtime_ns();
        let error = cut(error);
        self.record(warden, container, "", &[], |state| {
            // A restart that fails ends the container; a first start leaves it as it was made.
            state.status = match state.started_ns {
                0 => Status::Created,
                _ => Status::Exited,
            };
            state.pid = 0;
            state.interfaces.clear();
            state.ports.clear();
            state.exit_code = code;
            state.error = error;
            state.finished_ns = now;
        })
    }

    fn exited(
        &mut self,
        warden: &mut Warden,
        container: &str,
        status: Exit,
        oom_killed: bool,
        error: Option<String>,
    ) -> Result<(), Breach> {
        let next = warden.end_container(container, status, oom_killed, error);
        let Some(next) = next else {
            return Err(Breach::Unknown(container.to_owned()));
        };
        self.recorded(warden, container, next)
    }

    /// Changes a container's state, writes it and tells the speaker.
    fn record(
        &mut self,
        warden: &mut Warden,
        container: &str,
        action: &str,
        attributes: &[(&str, String)],
        change: impl FnOnce(&mut protocol::record::State),
    ) -> Result<(), Breach> {
        self.write_record(warden, container, action, attributes, change)?;
        self.recorded(warden, container, Next::Stay)
    }

    /// Changes a container's state and writes it.
    fn write_record(
        &self,
        warden: &mut Warden,
        container: &str,
        action: &str,
        attributes: &[(&str, String)],
        change: impl FnOnce(&mut protocol::record::State),
    ) -> Result<(), Breach> {
        let root = warden.config.root.clone();
        let member = member(warden, container)?;
        if let Err(error) = member.record(change) {
            tracing::warn!(error = %chain(&error), "the state is not on disk yet");
        }
        if !action.is_empty() {
            events::write(&root, member, action, attributes);
        }
        Ok(())
    }

    fn tell<'a>(
        &self,
        message: &ToSpeaker,
        descriptors: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) -> Result<(), Breach> {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.into_iter().collect();
        Ok(self.link.send(message, &descriptors)?)
    }
}

fn member<'a>(warden: &'a mut Warden, container: &str) -> Result<&'a mut Member, Breach> {
    warden
        .members
        .get_mut(container)
        .ok_or_else(|| Breach::Unknown(container.to_owned()))
}

/// An error's text, bounded and without what drives a terminal.
pub(super) fn cut(text: String) -> String {
    crate::text::printable(&text, MAX_ERROR_LEN)
}

fn health(status: protocol::record::HealthStatus) -> &'static str {
    use protocol::record::HealthStatus;
    match status {
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}
