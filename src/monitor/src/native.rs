//! A container in namespaces of the host: the same spawning code that the agent uses, for comparison and for trusted
//! workloads.
//!
//! Its mounts are the monitor's own and end with it; its writable layer is in the sandbox's folder, or in memory where
//! that folder's file system cannot hold one. Its cgroup is `hull/<id>` of the host's cgroup v2 hierarchy.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use container::rootfs::{self, Upper};
use container::{Created, Running, Spec};
use protocol::agent::{ExitStatus, Failure, FailureKind, TerminalSize};
use protocol::monitor::Measured;
use rustix::event::PollFlags;
use rustix::mount::UnmountFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::config::{self, Config};
use crate::machine::{Broken, Event, Source, Watched};
use crate::streams::Ready;
use crate::{chain, measure};

/// Why a container cannot be made on the host.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("--isolation native needs root")]
    NotRoot,
    #[error("cannot make mounts of the monitor's own")]
    Mounts(#[source] io::Error),
    #[error("cannot put the container's root file system together")]
    Rootfs(#[from] container::Error),
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

/// Mounts each layer and an overlay over them, below `folder`; returns the root.
fn mount_layers(layers: &[config::Layer], folder: &Path) -> Result<PathBuf, Fault> {
    let mut lowers = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let target = folder.join("layers").join(number.to_string());
        make_folder(&target)?;
        rootfs::mount_erofs(&layer.path, &target)?;
        lowers.push(target);
    }
    let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    let root = folder.join("rootfs");
    make_folder(&root)?;
    let writable = folder.join("writable");
    make_folder(&writable)?;
    let over = |writable: &Path| -> Result<(), Fault> {
        let (upper, work) = (writable.join("upper"), writable.join("work"));
        make_folder(&upper)?;
        make_folder(&work)?;
        Ok(rootfs::overlay(
            &lowers,
            Some(Upper {
                upper: &upper,
                work: &work,
            }),
            &root,
        )?)
    };
    if let Err(error) = over(&writable) {
        tracing::debug!(%error, "the sandbox's folder cannot hold a writable layer: memory does");
        rootfs::mount(
            "tmpfs",
            Path::new("tmpfs"),
            false,
            &[("mode", "0755")],
            &writable,
        )?;
        over(&writable)?;
    }
    Ok(root)
}

fn make_folder(path: &Path) -> Result<(), Fault> {
    fs::create_dir_all(path).map_err(|source| Fault::Folder {
        path: path.to_owned(),
        source,
    })
}

/// Unmounts everything below `folder`, last mounted first, so that removing the folder removes nothing but the folder:
/// whoever cannot unmount must not remove.
pub(crate) fn unmount_below(folder: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescaped)
        .filter(|point| point.starts_with(folder))
        .collect();
    while let Some(point) = points.pop() {
        rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// A path of mountinfo, in which spaces and the like are written as three octal digits (proc(5)).
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Where the cgroup of a native container is.
fn cgroup_path(id: &str) -> Result<PathBuf, Fault> {
    Ok(cgroup2_mount()
        .ok_or(Fault::NoCgroup2)?
        .join("hull")
        .join(id))
}

/// The mount point of the cgroup v2 hierarchy.
pub fn cgroup2_mount() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system
            .starts_with("cgroup2 ")
            .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Kills and removes the cgroup that a dead monitor left behind.
pub fn sweep(id: &str) {
    let Some(path) = cgroup2_mount().map(|mount| mount.join("hull").join(id)) else {
        return;
    };
    if !path.exists() {
        return;
    }
    if let Err(error) = fs::write(path.join("cgroup.kill"), "1") {
        tracing::warn!(%error, path = %path.display(), "what a dead monitor left running could not be killed");
    }
    remove_tree(&path);
    remove_parent();
}

/// Removes hull's own cgroup once nobody is in it; while somebody is, the kernel refuses.
fn remove_parent() {
    if let Some(parent) = cgroup2_mount().map(|mount| mount.join("hull"))
        && let Err(error) = fs::remove_dir(parent)
    {
        tracing::debug!(%error, "other containers are there");
    }
}

/// Removes a cgroup with those below it; they empty a moment after their processes were killed.
fn remove_tree(path: &Path) {
    const TRIES: u32 = 100;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..TRIES {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(PAUSE),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "a cgroup was not removed");
                return;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mountinfo_are_unescaped() {
        assert_eq!(unescaped("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescaped("/a\\9"), Path::new("/a\\9"));
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        let folder = tempfile::tempdir().unwrap();
        unmount_below(folder.path()).unwrap();
    }
}
