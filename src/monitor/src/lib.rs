//! The monitor (hull-monitor): one small process for each sandbox, which owns the VM and answers the client.
//!
//! ```text
//! client --Attach, Start, Signal, Resize, Measure--> monitor --> hull-vmm, agent
//!        <--Attached (streams as descriptors), Started, Failed, Exited, Broken--
//! ```
//!
//! For a VM it is two processes once the guest runs: one that talks to the guest and can do nothing else, and its parent,
//! which waits and takes everything down (see `warden`).
//!
//! Invariants: each is single-threaded, and never blocks on the guest; the sandbox's lock is held for as long as the
//! parent lives, and its end takes the VM with it (a closed socket and a death signal). When its client vanishes, or has
//! read everything and hung up, the sandbox ends.
//!
//! It is a static program of its own, since its memory counts in every figure and its start in every boot: as a
//! subcommand of `hull`, with that program's databases, TLS and libraries, it held 6.1 MiB. Deliberately absent:
//! databases, TLS, an async runtime.

use std::error::Error as StdError;
use std::io::{self, Read};
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::agent::ExitStatus;
use protocol::monitor::{FromMonitor, Measured, ToMonitor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sys::signalfd::SignalFd;

pub mod config;

mod agent;
mod bridge;
mod cgroup;
mod client;
mod console;
mod devices;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod jail;
mod machine;
mod measure;
mod microvm;
mod native;
mod process;
mod scratch;
mod streams;
pub mod template;
pub mod users;
mod vmm;
mod warden;

use client::Client;
use config::Config;
use machine::{Broken, Event, Machine, Source};
use streams::Ready;

pub use bridge::STATE as NETWORK_STATE;
pub use cgroup::try_out as try_cgroup;
pub use native::{cgroup2_mount, sweep as sweep_cgroup};
pub use vmm::{Error as KvmError, open_kvm};

/// The number of the listening socket in the monitor.
pub const LISTENER_FD: RawFd = 3;
/// The number of the sandbox's lock.
pub const LOCK_FD: RawFd = 4;
/// The number of the image's lease, which is only held.
pub const LEASE_FD: RawFd = 5;
/// How long the last measurement may take before the exit is reported without it.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a monitor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not started by hull.
    #[error("the monitor is started by hull itself, not by hand")]
    NotInherited(#[source] io::Error),
    /// Its configuration cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its configuration is not one.
    #[error("{path} is not a sandbox's configuration")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It could not wait.
    #[error("cannot wait for events")]
    Poll(#[source] io::Error),
    /// Its client could not be accepted.
    #[error("cannot accept the client")]
    Accept(#[source] io::Error),
    /// The process that talks to the guest could not be made.
    #[error("cannot make the process that talks to the guest")]
    Part(#[source] io::Error),
    /// The sandbox's folder could not be removed.
    #[error("cannot remove {path}")]
    Remove {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs the monitor of the sandbox in `folder` until the sandbox is gone.
pub fn run(folder: &Path) -> Result<(), Error> {
    let listener = sys::spawn::inherited(LISTENER_FD).map_err(Error::NotInherited)?;
    let _lock = sys::spawn::inherited(LOCK_FD).map_err(Error::NotInherited)?;
    let quit = SignalFd::new(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT])
        .map_err(Error::Poll)?;
    let config = read_config(folder)?;
    // The client connected before it spawned us: this does not wait.
    let socket = rustix::net::accept_with(&listener, rustix::net::SocketFlags::CLOEXEC)
        .map_err(|error| Error::Accept(error.into()))?;
    let mut monitor = Monitor {
        client: Client::new(socket),
        machine: None,
        quit,
        state: State::default(),
    };
    let outcome = match start(&config, folder, &monitor) {
        Ok(Machine::Vm(vm)) => warden::run(monitor, *vm, config.measure),
        Ok(machine) => {
            monitor.machine = Some(machine);
            let outcome = monitor.serve(config.measure);
            if let Some(machine) = monitor.machine.take() {
                machine.end();
            }
            outcome
        }
        Err(broken) => {
            monitor.client.send_last(&broken.into());
            monitor.wait_for_client()
        }
    };
    if matches!(config.machine, config::Machine::Native) {
        // What is mounted there is not ours to remove.
        native::unmount_below(folder).map_err(|source| Error::Remove {
            path: folder.to_owned(),
            source,
        })?;
    }
    remove(folder)?;
    outcome
}

/// Removes the sandbox's folder, unless somebody has.
fn remove(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Remove {
            path: folder.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

fn read_config(folder: &Path) -> Result<Config, Error> {
    let path = folder.join(config::FILE_NAME);
    let mut text = Vec::new();
    sys::trusted::read(&path)
        .and_then(|mut file| file.read_to_end(&mut text))
        .map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
    serde_json::from_slice(&text).map_err(|source| Error::Malformed { path, source })
}

fn start(config: &Config, folder: &Path, monitor: &Monitor) -> Result<Machine, Broken> {
    let outside = template::Outside {
        client: &monitor.client,
        quit: &monitor.quit,
    };
    match &config.machine {
        config::Machine::Vm(vm) => Ok(Machine::Vm(Box::new(microvm::MicroVm::new(
            config, vm, folder, outside,
        )?))),
        config::Machine::Native => Ok(Machine::Native(Box::new(native::Native::new(
            config, folder,
        )?))),
    }
}

#[derive(Debug)]
struct Monitor {
    client: Client,
    machine: Option<Machine>,
    quit: SignalFd,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    attach_wanted: bool,
    streams: Option<Ready>,
    /// The container's end, while it is measured, and until when.
    ending: Option<(ExitStatus, bool, Instant)>,
    /// The client has been told the end: all that is left is for it to hang up.
    over: bool,
}

#[derive(Debug, Clone, Copy)]
enum Wake {
    Quit,
    Client,
    Machine(Source),
}

impl Monitor {
    /// Serves until the client is gone.
    fn serve(&mut self, measure: bool) -> Result<(), Error> {
        loop {
            let mut events = Vec::new();
            for wake in self.wait()? {
                let result = match wake {
                    Wake::Quit => return Ok(()),
                    Wake::Client => match self.client.receive() {
                        Some(message) => self.obey(message, &mut events),
                        None => return Ok(()),
                    },
                    Wake::Machine(source) => match &mut self.machine {
                        Some(machine) => machine.ready(source, &mut events),
                        None => Ok(()),
                    },
                };
                if let Err(broken) = result {
                    self.tell_end(&broken.into());
                    return self.wait_for_client();
                }
            }
            for event in events {
                self.report(event, measure);
            }
            if let Some((status, oom_killed, until)) = self.state.ending
                && Instant::now() >= until
            {
                self.tell_exit(status, oom_killed, Box::default());
            }
        }
    }

    fn obey(&mut self, message: ToMonitor, events: &mut Vec<Event>) -> Result<(), Broken> {
        let Some(machine) = &mut self.machine else {
            return Ok(());
        };
        match message {
            ToMonitor::Attach => {
                self.state.attach_wanted = true;
                self.attach();
                Ok(())
            }
            ToMonitor::Start => machine.start(events),
            ToMonitor::Signal { signal } => machine.signal(signal),
            ToMonitor::Resize { size } => machine.resize(size),
            ToMonitor::Measure => machine.measure(events),
        }
    }

    fn report(&mut self, event: Event, measure: bool) {
        match event {
            Event::Streams(ready) => {
                self.state.streams = Some(ready);
                self.attach();
            }
            Event::Started => self.client.send(&FromMonitor::Started, &[]),
            Event::Failed(failure) => self.tell_end(&FromMonitor::Failed(failure)),
            Event::Exited { status, oom_killed } if measure => {
                self.state.ending = Some((status, oom_killed, Instant::now() + MEASURE_TIMEOUT));
                let mut events = Vec::new();
                let asked = self
                    .machine
                    .as_mut()
                    .map(|machine| machine.measure(&mut events));
                if !matches!(asked, Some(Ok(()))) {
                    self.tell_exit(status, oom_killed, Box::default());
                }
                for event in events {
                    self.report(event, measure);
                }
            }
            Event::Exited { status, oom_killed } => {
                self.tell_exit(status, oom_killed, Box::default())
            }
            Event::Measured(measured) => match self.state.ending {
                Some((status, oom_killed, _)) => self.tell_exit(status, oom_killed, measured),
                None => self.client.send(&FromMonitor::Measured(measured), &[]),
            },
            Event::Console(text) => self.client.send_if_room(&FromMonitor::Console { text }),
        }
    }

    /// Gives the client the container's streams, when it has asked and they are there.
    fn attach(&mut self) {
        if !self.state.attach_wanted {
            return;
        }
        let Some(ready) = self.state.streams.take() else {
            return;
        };
        let [first, second, third] = &ready.sockets;
        let message = FromMonitor::Attached {
            terminal: ready.terminal,
            pipes: if ready.terminal {
                [false; 3]
            } else {
                [first.is_some(), second.is_some(), third.is_some()]
            },
        };
        let sockets: Vec<_> = [first, second, third]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect();
        self.client.send(&message, &sockets);
    }

    fn tell_exit(&mut self, status: ExitStatus, oom_killed: bool, measured: Box<Measured>) {
        self.state.ending = None;
        self.tell_end(&FromMonitor::Exited {
            status,
            oom_killed,
            measured,
        });
    }

    fn tell_end(&mut self, message: &FromMonitor) {
        if !self.state.over {
            self.state.over = true;
            self.client.send_last(message);
        }
    }

    /// Waits until the client hangs up. The VM stays meanwhile: it may hold output that the client has yet to read.
    fn wait_for_client(&mut self) -> Result<(), Error> {
        loop {
            let mut fds = [
                PollFd::new(&self.client, PollFlags::IN),
                PollFd::new(&self.quit, PollFlags::IN),
            ];
            wait_for(&mut fds, None)?;
            let quit = !fds[1].revents().is_empty();
            if quit || (!fds[0].revents().is_empty() && self.client.receive().is_none()) {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Result<Vec<Wake>, Error> {
        let machine = self
            .machine
            .as_ref()
            .map(Machine::watched)
            .unwrap_or_default();
        let mut wakes = vec![Wake::Quit, Wake::Client];
        let mut fds = vec![
            PollFd::new(&self.quit, PollFlags::IN),
            PollFd::new(&self.client, PollFlags::IN),
        ];
        for (fd, flags, source) in machine {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            wakes.push(Wake::Machine(source));
        }
        let timeout = self
            .state
            .ending
            .map(|(.., until)| until.saturating_duration_since(Instant::now()));
        wait_for(&mut fds, timeout)?;
        Ok(wakes
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(wake, _)| wake)
            .collect())
    }
}

fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Error> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Error::Poll(error.into())),
    }
}

impl From<Broken> for FromMonitor {
    fn from(broken: Broken) -> FromMonitor {
        FromMonitor::Broken {
            message: broken.message,
            console: broken.console,
        }
    }
}

/// An error and what caused it, as one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
