//! `hull run`: an image and options to a container and its end.
//!
//! ```text
//! sweep -> image, lease -> prepare -> folder, lock, socket -> name -> monitor -> session -> name given back
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use monitor::config::FILE_NAME;
use monitor::{LEASE_FD, LISTENER_FD, LOCK_FD};
use protocol::agent::{Failure, FailureKind};
use protocol::monitor::Measured;
use protocol::timeline::{Nanos, Timeline};

use crate::client::{self, End, Streams};
use crate::install::{self, Installation};
use crate::names::{self, Names};
use crate::options::{Isolation, Network, Options};
use crate::sandbox::Sandbox;
use crate::sealed::Sealed;
use crate::{id, images, prepare, sandbox};

/// Why a container did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Hull does not know where it is.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// What a dead command left could not be removed.
    #[error("cannot clean up after an earlier command")]
    Sweep(#[source] sandbox::Error),
    /// There is no image.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// The options cannot be met.
    #[error(transparent)]
    Prepare(#[from] prepare::Error),
    /// A terminal was asked for where there is none.
    #[error("the input device is not a TTY")]
    NotATty,
    /// A name that is none.
    #[error(
        "{0:?} is not a container's name: letters, digits, and then also _ . and -, two characters at least"
    )]
    Name(String),
    /// The name cannot be had.
    #[error(transparent)]
    Names(#[from] names::Error),
    /// The sandbox cannot be made.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The configuration cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The monitor cannot be spawned.
    #[error("cannot start the sandbox's monitor")]
    Monitor(#[source] std::io::Error),
    /// The session failed.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The container could not be made or started.
    #[error("{}", .0.message)]
    Container(Failure),
    /// The sandbox broke.
    #[error("{message}{}", console_lines(.console))]
    Broken {
        /// What happened.
        message: String,
        /// The guest's last lines.
        console: Vec<String>,
    },
}

fn console_lines(console: &[String]) -> String {
    if console.is_empty() {
        return String::new();
    }
    format!("\nthe guest's last words were:\n  {}", console.join("\n  "))
}

impl Error {
    /// Docker's: 126 and 127 for commands that cannot be executed or found, 125 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Container(Failure {
                kind: FailureKind::CommandNotFound,
                ..
            }) => 127,
            Error::Container(Failure {
                kind: FailureKind::CommandNotExecutable,
                ..
            }) => 126,
            _ => 125,
        }
    }

    /// What a person can do about it, where the message does not say so.
    pub fn help(&self) -> Option<String> {
        match self {
            Error::Image(error) => error.help(),
            _ => None,
        }
    }
}

/// What a run tells its caller while it goes on.
pub struct Hooks<'a> {
    /// Something that the user should know, once.
    pub notice: &'a dyn Fn(&str),
    /// The progress of a pull or an import.
    pub progress: &'a dyn image::Progress,
    /// T0.
    pub started: Nanos,
}

/// How a container ended.
#[derive(Debug)]
pub struct Outcome {
    /// The code that hull exits with.
    pub code: u8,
    /// It was killed for want of memory.
    pub oom_killed: bool,
    /// What was measured, if it was asked for.
    pub timing: Option<Timing>,
}

/// What `--timing` prints.
#[derive(Debug)]
pub struct Timing {
    /// T0 to T6.
    pub timeline: Timeline,
    /// At the container's end.
    pub at_end: Measured,
    /// Two seconds after its first output, if it ran so long.
    pub idle: Option<Measured>,
}

/// Runs a container to its end.
pub fn run(options: &Options, hooks: &Hooks<'_>) -> Result<Outcome, Error> {
    if options.terminal && options.interactive && !client::terminal::input_is_terminal() {
        return Err(Error::NotATty);
    }
    if let Some(name) = options
        .name
        .as_ref()
        .filter(|name| !id::is_valid_name(name))
    {
        return Err(Error::Name(name.clone()));
    }
    let installation = Installation::find()?;
    let root = install::state_root()?;
    sweep(&root)?;
    let store = images::open_store(&root)?;
    let image = images::resolve(
        &store,
        &installation,
        &options.image,
        options.pull,
        hooks.progress,
    )?;
    let lease = store.lease(&image).map_err(images::Error::from)?;
    drop(store);
    let monitor = installation.monitor()?;
    let id = id::new_id();
    let config = prepare::prepare(options, &image, &id, &root, &installation)?;
    say_default_network(options, &root, hooks);
    // From here on a signal is read by the session, which knows what to take down.
    let signals = client::take_signals().map_err(Error::Monitor)?;
    let sandbox = sandbox::create(&root, &id)?;
    let folder = sandbox.path.clone();
    let end = with_name(options, &root, &id, &folder, || {
        let path = folder.join(FILE_NAME);
        let text = serde_json::to_vec(&config).map_err(prepare::Error::from)?;
        std::fs::write(&path, text).map_err(|source| Error::Write { path, source })?;
        let socket = sandbox::dial(&folder)?;
        let mut monitor =
            spawn_monitor(&monitor, options, sandbox, lease.into()).map_err(Error::Monitor)?;
        let streams = Streams {
            input: options.interactive,
            terminal: options.terminal,
        };
        let end = client::run(socket, &mut monitor, signals, streams, options.measure);
        // The session's end hung up: the monitor takes everything down and ends.
        monitor.wait().map_err(Error::Monitor)?;
        Ok(end?)
    })?;
    outcome(end, options, hooks.started)
}

/// Removes what dead commands left behind.
pub fn sweep(root: &Path) -> Result<(), Error> {
    for id in sandbox::sweep(root).map_err(Error::Sweep)? {
        tracing::info!(%id, "removed what was left of a sandbox");
        monitor::sweep_cgroup(&id);
    }
    // What is left of a template only takes room.
    if let Err(error) = monitor::template::sweep(root) {
        tracing::warn!(%error, "what dead commands left of templates was not removed");
    }
    if rustix::process::geteuid().is_root() {
        let network = network::Network::new(Path::new(monitor::NETWORK_STATE));
        // What is left of a network harms nobody but those who want one, and they are told.
        if let Err(error) = network.sweep() {
            tracing::warn!(%error, "what dead containers left of the network was not removed");
        }
    }
    Ok(())
}

/// Runs `body` while the container has its name, if it was given one; if it fails before the monitor could, the folder goes too.
fn with_name(
    options: &Options,
    root: &Path,
    id: &str,
    folder: &Path,
    body: impl FnOnce() -> Result<End, Error>,
) -> Result<End, Error> {
    let claimed = options.name.as_ref().map(|name| {
        let mut names = Names::open(root)?;
        names.claim(root, name, id)?;
        Ok(names)
    });
    let result = match claimed.transpose() {
        Ok(names) => {
            let end = body();
            let released = names.map_or(Ok(()), |names| names.release(id));
            end.and_then(|end| Ok(released.map(|()| end)?))
        }
        Err(error) => Err(Error::Names(error)),
    };
    // Both are usually gone already: the monitor has removed them, unless it was killed.
    monitor::sweep_cgroup(id);
    sandbox::remove(folder)?;
    result
}

fn spawn_monitor(
    program: &Path,
    options: &Options,
    sandbox: Sandbox,
    lease: OwnedFd,
) -> std::io::Result<Child> {
    // In a VM's guest there is nothing of the monitor's.
    let sealed = match options.isolation {
        Isolation::Native => Some(Sealed::copy(program)?),
        Isolation::Vm => None,
    };
    let mut command = match &sealed {
        Some(sealed) => Command::new(sealed.path()),
        None => Command::new(program),
    };
    command
        .arg0(program)
        .arg(&sandbox.path)
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
        descriptors: &[
            (sandbox.listener.as_fd(), LISTENER_FD),
            (sandbox.lock.as_fd(), LOCK_FD),
            (lease.as_fd(), LEASE_FD),
        ],
        new_session: true,
        dies_with_parent: false,
        ..Default::default()
    };
    // Our own copies close with `sandbox` and `lease`, so that the monitor's end is the lock's.
    sys::spawn::spawn(&mut command, &inherit)
}

/// An ordinary user's containers have no network by default: said at the first one.
fn say_default_network(options: &Options, root: &Path, hooks: &Hooks<'_>) {
    let is_root = rustix::process::geteuid().is_root();
    if is_root || options.network.is_some() || prepare::network(options, is_root) != Network::None {
        return;
    }
    let marker = root.join("said-no-network");
    match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&marker)
    {
        Ok(_) => (hooks.notice)(
            "containers of ordinary users have no network yet (--network none); --network bridge needs root. \
             This is said once.",
        ),
        Err(error) => tracing::debug!(%error, "already said, or the mark cannot be made"),
    }
}

fn outcome(end: End, options: &Options, started: Nanos) -> Result<Outcome, Error> {
    match end {
        End::Exited {
            status,
            oom_killed,
            measured,
            idle,
            first_output,
        } => {
            let timing = options.measure.then(|| Timing {
                timeline: Timeline {
                    hull_started: Some(started),
                    first_output,
                    ..measured.timeline
                },
                at_end: *measured,
                idle: idle.map(|idle| *idle),
            });
            Ok(Outcome {
                code: status.code(),
                oom_killed,
                timing,
            })
        }
        End::Failed(failure) => Err(Error::Container(failure)),
        End::Broken { message, console } => {
            // With --console the lines have been shown as they came.
            let console = if options.console { Vec::new() } else { console };
            Err(Error::Broken {
                message: with_advice(message, options),
                console,
            })
        }
        End::Interrupted(signal) => Ok(Outcome {
            code: 128 + u8::try_from(signal).unwrap_or(0),
            oom_killed: false,
            timing: None,
        }),
    }
}

/// The commonest cause of a guest that dies young is that it is too small.
fn with_advice(message: String, options: &Options) -> String {
    const SMALL_BYTES: u64 = 64 << 20;
    let small = options.isolation == Isolation::Vm
        && options
            .memory_bytes
            .is_some_and(|bytes| bytes < SMALL_BYTES);
    if small && message.starts_with("the guest") {
        format!("{message}; perhaps its memory is too little: try a larger -m")
    } else {
        message
    }
}
