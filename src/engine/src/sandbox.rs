//! Reaching a sandbox's monitor: connecting to the one that lives, or spawning one.
//!
//! ```text
//! folder locked -> lock free?  yes: repair what a killed monitor left -> listen -> spawn, with listener and lock
//!                              no:  connect; refused: it is ending -> wait for its lock, and again
//! ```
//!
//! Invariants (lifecycle H9, H10): the sandbox's lock is taken and the socket made under the lock of the folder, so that of
//! two commands one spawns and the other connects; a monitor that is ending closes connections unanswered, and its lock is
//! waited for, with a limit and without a sleep.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use protocol::agent::Failure;
use protocol::monitor::{Answer, LISTENER_FD, LOCK_FD, Request, VERSION};
use protocol::record::{self, Machine};

use crate::connection::{self, Connection};
use crate::engine::Engine;
use crate::error::{Error, Subject};
use crate::watch::Watch;
use crate::{files, lock, template};

/// How long a monitor that is ending may take: its guest's file systems are unmounted within it.
const ENDING_LIMIT: Duration = Duration::from_secs(60);
/// A monitor that has closed a connection has ended within this, as a rule, or goes on by a restart policy.
const CLOSED_LIMIT: Duration = Duration::from_secs(2);
/// The name of a monitor's socket in its sandbox's folder.
const SOCKET: &str = "socket";
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A connection to a monitor, which was greeted and has not answered yet.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    hello: u64,
    /// The monitor, if it was spawned for this link.
    spawned: Option<Child>,
}

impl Link {
    fn new(sandbox: &str, socket: OwnedFd, spawned: Option<Child>) -> Result<Link, Error> {
        let mut connection = Connection::new(socket);
        let hello = Request::Hello {
            version: VERSION,
            build: protocol::BUILD.into(),
        };
        let hello = connection.send(hello).map_err(conversation(sandbox))?;
        Ok(Link {
            connection,
            hello,
            spawned,
        })
    }

    /// Looks at an answer to see whether it is the one to the greeting. `None`: it is not.
    pub(crate) fn greeting(
        &self,
        seq: u64,
        result: &Result<Answer, Failure>,
    ) -> Option<Result<(), connection::Error>> {
        (seq == self.hello).then(|| check_hello(result).map(drop))
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(
        &mut self,
        request: Request,
    ) -> Result<Result<Answer, Failure>, connection::Error> {
        let seq = self.connection.send(request)?;
        self.greet()?;
        self.connection.answer(seq)
    }

    /// Waits for the answer to the greeting: the monitor's build.
    pub(crate) fn greet(&mut self) -> Result<String, connection::Error> {
        let answer = self.connection.answer(self.hello)?;
        check_hello(&answer).map(str::to_owned)
    }

    /// The monitor, if it was spawned for this link.
    pub(crate) fn take_spawned(&mut self) -> Option<Child> {
        self.spawned.take()
    }
}

/// The build of a monitor that speaks our version.
fn check_hello(result: &Result<Answer, Failure>) -> Result<&str, connection::Error> {
    match result {
        Ok(Answer::Hello { version, build }) if *version == VERSION => Ok(build),
        Ok(Answer::Hello { version, .. }) => Err(connection::Error::Version {
            monitor: *version,
            hull: VERSION,
        }),
        Ok(_) => Err(connection::Error::Unexpected),
        Err(failure) => Err(connection::Error::Refused(failure.clone())),
    }
}

/// For `map_err`: a conversation that failed.
pub(crate) fn conversation(sandbox: &str) -> impl FnOnce(connection::Error) -> Error {
    move |source| Error::Conversation {
        sandbox: sandbox.to_owned(),
        source,
    }
}

impl Engine {
    /// Connects to the sandbox's monitor, spawning it if none lives.
    pub(crate) fn reach(&self, sandbox: &str) -> Result<Link, Error> {
        let folder = self.layout().sandbox(sandbox);
        loop {
            let Some(_making) = files::lock_folder(&folder)? else {
                return Err(Error::not_found(Subject::Container, sandbox));
            };
            let path = self.layout().sandbox_lock(sandbox);
            let taken = match lock::try_take(&path) {
                // It was removed after its folder was locked.
                Err(error) if files::is_absent(&error) => {
                    return Err(Error::not_found(Subject::Container, sandbox));
                }
                other => other.map_err(Error::file("lock", &path))?,
            };
            let Some(held) = taken else {
                match self.dial(sandbox)? {
                    Some(socket) => return Link::new(sandbox, socket, None),
                    None => self.await_end(sandbox)?,
                }
                continue;
            };
            if self.repair_held(sandbox)? {
                // A container that goes with its end is gone.
                continue;
            }
            let listener = sys::packet::listen_in(&folder, SOCKET, BACKLOG)
                .map_err(Error::file("listen at", folder.join(SOCKET)))?;
            let socket = sys::packet::connect_in(&folder, SOCKET)
                .map_err(Error::file("connect to", folder.join(SOCKET)))?;
            let monitor = self.spawn(sandbox, &listener, &held)?;
            return Link::new(sandbox, socket, Some(monitor));
        }
    }

    /// Reaches the sandbox's monitor and talks to it; again, with another monitor, when it was ending and has closed the
    /// connection without an answer (lifecycle H10).
    pub(crate) fn converse<T>(
        &self,
        sandbox: &str,
        talk: impl Fn(&mut Link) -> Result<T, connection::Error>,
    ) -> Result<(T, Link), Error> {
        loop {
            let mut link = self.reach(sandbox)?;
            match talk(&mut link) {
                Ok(said) => return Ok((said, link)),
                Err(connection::Error::Closed) => match link.take_spawned() {
                    None => self.await_end(sandbox)?,
                    Some(mut monitor) => {
                        let status = monitor
                            .wait()
                            .map_or_else(|error| error.to_string(), |status| status.to_string());
                        return Err(Error::MonitorGone {
                            sandbox: sandbox.to_owned(),
                            status,
                        });
                    }
                },
                Err(error) => return Err(conversation(sandbox)(error)),
            }
        }
    }

    /// Connects to the sandbox's monitor; `None` if none lives.
    pub(crate) fn connect(&self, sandbox: &str) -> Result<Option<Link>, Error> {
        loop {
            if !self.is_alive(sandbox)? {
                return Ok(None);
            }
            // The process that spawns it holds the folder's lock until it listens.
            let making = files::lock_folder(&self.layout().sandbox(sandbox))?;
            if making.is_none() {
                return Ok(None);
            }
            match self.dial(sandbox)? {
                Some(socket) => return Link::new(sandbox, socket, None).map(Some),
                None => self.await_end(sandbox)?,
            }
        }
    }

    /// Asks the sandbox's monitor; `None` if none lives, or if it closed the connection without an answer: it has ended, or lost
    /// its speaker and goes on by a restart policy (lifecycle H23). What is recorded then is to be looked at again.
    pub(crate) fn ask(&self, sandbox: &str, request: Request) -> Result<Option<Answer>, Error> {
        let Some(mut link) = self.connect(sandbox)? else {
            return Ok(None);
        };
        match link.ask(request) {
            Ok(result) => result.map(Some).map_err(Error::Failure),
            Err(connection::Error::Closed) => {
                self.has_ended(sandbox)?;
                Ok(None)
            }
            Err(error) => Err(conversation(sandbox)(error)),
        }
    }

    /// Whether a monitor that has closed a connection has ended, waiting a moment for that.
    pub(crate) fn has_ended(&self, sandbox: &str) -> Result<bool, Error> {
        let path = self.layout().sandbox_lock(sandbox);
        lock::is_free_within(&path, CLOSED_LIMIT).map_err(Error::file("lock", path))
    }

    /// Whether the sandbox has a monitor.
    pub(crate) fn is_alive(&self, sandbox: &str) -> Result<bool, Error> {
        let path = self.layout().sandbox_lock(sandbox);
        lock::is_held(&path).map_err(Error::file("look at", path))
    }

    /// Waits until the sandbox has no monitor.
    pub(crate) fn await_end(&self, sandbox: &str) -> Result<(), Error> {
        let path = self.layout().sandbox_lock(sandbox);
        match lock::is_free_within(&path, ENDING_LIMIT).map_err(Error::file("lock", path))? {
            true => Ok(()),
            false => Err(Error::StillEnding {
                sandbox: sandbox.to_owned(),
                seconds: ENDING_LIMIT.as_secs(),
            }),
        }
    }

    /// Waits until a container that is removed at its end is gone: with its sandbox, or out of a pod.
    pub(crate) fn await_removal(&self, container: &str, sandbox: &str) -> Result<(), Error> {
        if container == sandbox {
            return self.await_end(sandbox);
        }
        let folder = self.layout().container(container);
        let watch = Watch::new().map_err(Error::file("watch", &folder))?;
        let until = Instant::now() + ENDING_LIMIT;
        // A folder that is gone cannot be watched.
        while watch.folder(&folder).is_ok() && self.exists(container) {
            let left = until.saturating_duration_since(Instant::now());
            let changed = watch
                .wait(Some(left))
                .map_err(Error::file("watch", &folder))?;
            if !changed {
                return Err(Error::StillEnding {
                    sandbox: sandbox.to_owned(),
                    seconds: ENDING_LIMIT.as_secs(),
                });
            }
        }
        Ok(())
    }

    /// Takes the lock of a sandbox that runs no more, waiting for its monitor's end. `None` if there is no such sandbox.
    pub(crate) fn take_lock(&self, sandbox: &str) -> Result<Option<File>, Error> {
        let path = self.layout().sandbox_lock(sandbox);
        match lock::take_within(&path, ENDING_LIMIT) {
            Ok(Some(held)) => Ok(Some(held)),
            Ok(None) => Err(Error::StillEnding {
                sandbox: sandbox.to_owned(),
                seconds: ENDING_LIMIT.as_secs(),
            }),
            Err(error) if files::is_absent(&error) => Ok(None),
            Err(error) => Err(Error::file("lock", path)(error)),
        }
    }

    /// `None` when nothing listens.
    fn dial(&self, sandbox: &str) -> Result<Option<OwnedFd>, Error> {
        let folder = self.layout().sandbox(sandbox);
        match sys::packet::connect_in(&folder, SOCKET) {
            Ok(socket) => Ok(Some(socket)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::file("connect to", folder.join(SOCKET))(error)),
        }
    }

    /// Spawns the sandbox's monitor, whose end is the end of the lock: our copy goes with `held`.
    fn spawn(&self, sandbox: &str, listener: &OwnedFd, held: &File) -> Result<Child, Error> {
        let program = self.installation().monitor()?;
        self.refresh_template(sandbox, &program)?;
        let mut command = Command::new(&program);
        command
            .arg(self.layout().sandbox(sandbox))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for name in ["HULL_LOG", "PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if std::env::var_os("HULL_LOG").is_some() {
            command.stderr(Stdio::inherit());
        }
        let inherit = sys::spawn::Inherit {
            descriptors: &[(listener.as_fd(), LISTENER_FD), (held.as_fd(), LOCK_FD)],
            new_session: true,
            dies_with_parent: false,
            ..Default::default()
        };
        sys::spawn::spawn(&mut command, &inherit).map_err(|source| Error::Spawn {
            sandbox: sandbox.to_owned(),
            source,
        })
    }

    /// A VM begins from a template of this boot of the host and of this build, or boots its kernel, with as many network cards
    /// as its networks need: what was recorded when the sandbox was made may be of another.
    fn refresh_template(&self, sandbox: &str, monitor: &Path) -> Result<(), Error> {
        let Some(mut config) = self.sandbox_config(sandbox)? else {
            return Err(Error::not_found(Subject::Container, sandbox));
        };
        let Machine::Vm(vm) = &mut config.machine else {
            return Ok(());
        };
        let cards = record::cards(&config.networks);
        let is_same = std::mem::replace(&mut vm.cards, cards) == cards;
        if vm.template.is_none() {
            return match is_same {
                true => Ok(()),
                false => files::write(&self.layout().sandbox_config(sandbox), &config),
            };
        }
        let current = template::path(self.root(), monitor, vm);
        let current = current.inspect_err(|error| {
            tracing::warn!(%error, "the VM's template has no name: it boots its kernel");
        });
        let current = current.ok();
        if is_same && vm.template == current {
            return Ok(());
        }
        vm.template = current;
        files::write(&self.layout().sandbox_config(sandbox), &config)
    }
}
