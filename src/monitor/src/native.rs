//! A container in namespaces of the host: the same spawning code that the agent uses, for comparison and for trusted
//! workloads.
//!
//! Its mounts are the monitor's own and end with it; its writable layer is in the sandbox's folder, or in memory where
//! that folder's file system cannot hold one. Its cgroup is `hull/<id>` of the host's cgroup v2 hierarchy.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use container::{Created, Running, Spec};
use protocol::agent::{ExitStatus, Failure, FailureKind, TerminalSize};
use protocol::monitor::Measured;
use rustix::event::PollFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::config::{self, Config};
use crate::machine::{Broken, Event, Source, Watched};
use crate::streams::Ready;
use crate::{chain, measure};

mod cgroup;
mod mounts;
mod older;

use cgroup::cgroup_path;
pub(crate) use cgroup::remove_parent;
use mounts::mount_layers;

pub use cgroup::{cgroup2_mount, sweep};
pub(crate) use mounts::unmount_below;

/// Why a container cannot be made on the host.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("--isolation native needs root")]
    NotRoot,
    #[error("cannot make mounts of the monitor's own")]
    Mounts(#[source] io::Error),
    #[error("cannot put the container's root file system together")]
    Rootfs(#[from] container::Error),
    #[error("cannot make a loop device of {image}, which Linux before 6.12 needs to mount it")]
    LoopDevice {
        image: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot mount an overlay on {target}")]
    Overlay {
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "this host has no cgroup v2 hierarchy, which --isolation native needs; mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`)"
    )]
    NoCgroup2,
    #[error("the container's document is not one")]
    Spec(#[from] container::Unreadable),
    #[error("cannot make a pipe")]
    Pipe(#[source] io::Error),
    #[error("cannot set up the container's network")]
    Network(#[from] network::Error),
}

/// A container on the host.
#[derive(Debug)]
pub(crate) struct Native {
    state: State,
    streams: Option<Ready>,
    network: Option<crate::bridge::Attached>,
}

#[derive(Debug)]
enum State {
    Made(Box<Created>),
    Running(Box<Running>),
    Over,
    /// Why it could not be made, until the client has been told.
    Failed(Failure),
}

impl Native {
    /// Makes the container up to the point where its process would execute.
    pub(crate) fn new(config: &Config, folder: &Path) -> Result<Native, Broken> {
        Self::try_new(config, folder).map_err(|fault| Broken {
            message: chain(&fault),
            console: Vec::new(),
        })
    }

    fn try_new(config: &Config, folder: &Path) -> Result<Native, Fault> {
        if !rustix::process::geteuid().is_root() {
            return Err(Fault::NotRoot);
        }
        let cgroup = cgroup_path(&config.id)?;
        sys::private_mounts::enter().map_err(Fault::Mounts)?;
        let rootfs = mount_layers(&config.container.layers, folder)?;
        let network = if config.container.bridge {
            Some(crate::bridge::Attached::new_native(&config.id)?)
        } else {
            None
        };
        let interface = network.as_ref().map(|network| network.interface());
        let (stdio, mut sockets) = stdio(config.container.stdio)?;
        let terminal = matches!(stdio, container::Stdio::Terminal { .. });
        let address = interface.as_ref().map(|interface| interface.address);
        let etc = &config.container.etc;
        let request = container::Request {
            spec: Spec::from_json(config.container.spec.get().as_bytes())?,
            rootfs,
            user: config.container.user.clone(),
            seccomp: Some(config.container.seccomp.clone()),
            init: config.container.init,
            stdio,
            etc: container::EtcFiles {
                hosts: crate::bridge::hosts(etc, address),
                hostname: etc.hostname.clone(),
                resolv_conf: etc.resolv_conf.clone(),
            },
            interface: interface.map(|interface| container::Interface {
                // The host's side has given it already.
                which: container::Which::WithMac(interface.mac),
                mac: interface.mac,
                address: interface.address,
                prefix_len: interface.prefix_len,
                gateway: interface.gateway,
                mtu: interface.mtu,
            }),
            cgroup,
            run_dir: folder.join("run"),
        };
        let state = match container::create(request) {
            Ok(created) => State::Made(Box::new(created)),
            Err(error) => State::Failed(failure(&error)),
        };
        if terminal {
            sockets = [None, None, None];
        }
        Ok(Native {
            state,
            streams: (!terminal).then_some(Ready { terminal, sockets }),
            network,
        })
    }

    /// What to poll.
    pub(crate) fn watched(&self) -> Vec<Watched<'_>> {
        match &self.state {
            State::Running(running) => {
                vec![(running.pidfd.as_fd(), PollFlags::IN, Source::Process)]
            }
            _ => Vec::new(),
        }
    }

    /// Handles the end of the process.
    pub(crate) fn ready(&mut self, source: Source, events: &mut Vec<Event>) -> Result<(), Broken> {
        if source != Source::Process {
            return Ok(());
        }
        let State::Running(running) = &self.state else {
            return Ok(());
        };
        let status = match waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => status,
            Ok(None) => return Ok(()),
            Err(error) => {
                return Err(Broken {
                    message: format!("cannot wait for the container's process: {error}"),
                    console: Vec::new(),
                });
            }
        };
        let byte = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(byte(code)),
            (None, signal) => ExitStatus::Signal(byte(signal.unwrap_or(libc::SIGKILL))),
        };
        let oom_killed = running.cgroup.usage().oom_kills > 0;
        if let State::Running(running) = std::mem::replace(&mut self.state, State::Over) {
            remove_cgroup(running.cgroup);
        }
        events.push(Event::Exited { status, oom_killed });
        Ok(())
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, events: &mut Vec<Event>) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Made(created) => match created.start() {
                Ok(running) => {
                    let streams = match &running.terminal {
                        Some(master) => master.try_clone().map(|master| Ready {
                            terminal: true,
                            sockets: [Some(master), None, None],
                        }),
                        None => Ok(self.streams.take().unwrap_or(Ready {
                            terminal: false,
                            sockets: [None, None, None],
                        })),
                    };
                    match streams {
                        Ok(streams) => events.extend([Event::Streams(streams), Event::Started]),
                        Err(error) => events.push(Event::Failed(Failure {
                            kind: FailureKind::Other,
                            message: format!("cannot share the terminal: {error}"),
                        })),
                    }
                    self.state = State::Running(Box::new(running));
                }
                Err(error) => events.push(Event::Failed(failure(&error))),
            },
            State::Failed(failure) => events.push(Event::Failed(failure)),
            other => self.state = other,
        }
    }

    /// Signals the process.
    pub(crate) fn signal(&mut self, signal: i32) -> Result<(), Broken> {
        if let State::Running(running) = &self.state {
            // Only a process that has just ended cannot be signalled by its parent.
            if let Err(error) = sys::sigset::kill(running.pid, signal) {
                tracing::debug!(%error, signal, "the container's process was not signalled");
            }
        }
        Ok(())
    }

    /// Sets the terminal's size.
    pub(crate) fn resize(&mut self, size: TerminalSize) -> Result<(), Broken> {
        let State::Running(running) = &self.state else {
            return Ok(());
        };
        if let Some(terminal) = &running.terminal
            && let Err(error) = container::set_terminal_size(terminal, size.rows, size.columns)
        {
            tracing::debug!(%error, "the terminal's size was not set");
        }
        Ok(())
    }

    /// Only the monitor itself can be measured: there is no VM.
    pub(crate) fn measure(&mut self, events: &mut Vec<Event>) -> Result<(), Broken> {
        let monitor_rss_bytes = measure::own_rss().map_err(|error| Broken {
            message: format!("cannot read /proc/self/statm: {error}"),
            console: Vec::new(),
        })?;
        events.push(Event::Measured(Box::new(Measured {
            monitor_rss_bytes,
            ..Measured::default()
        })));
        Ok(())
    }

    /// Kills what is left. Mounts end with this process.
    pub(crate) fn end(self) {
        if let State::Running(running) = self.state {
            if let Err(error) = running.cgroup.signal(libc::SIGKILL) {
                tracing::warn!(%error, "the container's processes could not be killed");
            }
            // Fails only if there is no such child any more.
            if let Err(error) = waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED)
            {
                tracing::debug!(%error, "the container's process had ended before");
            }
            remove_cgroup(running.cgroup);
        }
        if let Some(network) = self.network {
            network.detach();
        }
    }
}

fn remove_cgroup(cgroup: container::cgroup::Cgroup) {
    if let Err(error) = cgroup.remove() {
        tracing::warn!(%error, "the container's cgroup was not removed; the next command tries again");
    }
    remove_parent();
}

fn failure(error: &container::Error) -> Failure {
    let kind = match error.kind {
        container::Kind::CommandNotFound => FailureKind::CommandNotFound,
        container::Kind::CommandNotExecutable => FailureKind::CommandNotExecutable,
        container::Kind::UnknownUser => FailureKind::UnknownUser,
        container::Kind::Invalid => FailureKind::Invalid,
        container::Kind::Other => FailureKind::Other,
    };
    Failure {
        kind,
        message: chain(error),
    }
}

/// The container's ends of its streams, and the client's.
fn stdio(stdio: config::Stdio) -> Result<(container::Stdio, [Option<OwnedFd>; 3]), Fault> {
    let stdin_open = match stdio {
        config::Stdio::Terminal { size } => {
            let terminal = container::Stdio::Terminal {
                rows: size.rows,
                columns: size.columns,
            };
            return Ok((terminal, [None, None, None]));
        }
        config::Stdio::Pipes { stdin } => stdin,
    };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| Fault::Pipe(error.into()));
    let (stdin, input) = if stdin_open {
        let (read, write) = pipe()?;
        (Some(read), Some(write))
    } else {
        (None, None)
    };
    let (output, stdout) = pipe()?;
    let (errors, stderr) = pipe()?;
    let pipes = container::Stdio::Pipes {
        stdin,
        stdout: Some(stdout),
        stderr: Some(stderr),
    };
    Ok((pipes, [input, Some(output), Some(errors)]))
}
