//! Running a command in a test host with our own streams.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail};
use protocol::frame;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sys::signalfd::SignalFd;

use super::copy;
use super::machine::Endpoint;
use super::wire::{FromClient, Hello, Outcome, Part, Size, Task};
use crate::kernel::hex;
use crate::paths;

/// A shell's exit code for a command that cannot be run.
const NOT_RUN: u8 = 127;

/// Runs a command with our own streams, and gives back its exit code: 128 + n when signal n ended it.
pub(crate) fn run(endpoint: &Endpoint, argv: &[String], cwd: &Path) -> Result<u8> {
    let terminal = if io::stdin().is_terminal() && io::stdout().is_terminal() {
        Some(size()?)
    } else {
        None
    };
    let mut session = Session::open(endpoint, argv, cwd, terminal, true)?;
    if terminal.is_some() {
        on_terminal(
            session.connect(Part::Terminal)?,
            session.control.try_clone()?,
        )?;
    } else {
        on_pipes(
            session.connect(Part::Stdin)?,
            session.connect(Part::Stdout)?,
            session.connect(Part::Stderr)?,
        )?;
    }
    outcome(&mut session.control)
}

/// A command that was started with [`start`].
pub(crate) struct Started {
    stdout: TcpStream,
    stderr: TcpStream,
    control: TcpStream,
}

impl Started {
    /// Its output and its error output.
    pub(crate) fn outputs(&self) -> io::Result<(TcpStream, TcpStream)> {
        Ok((self.stdout.try_clone()?, self.stderr.try_clone()?))
    }

    /// Waits for the command's exit code, as [`run`] has it. Both outputs are to be read meanwhile.
    pub(crate) fn outcome(mut self) -> Result<u8> {
        outcome(&mut self.control)
    }
}

/// Starts a command without input. It is interrupted, then killed, when what this returns is dropped. Without `refresh`
/// the host sees the files that it has seen, as they were.
pub(crate) fn start(
    endpoint: &Endpoint,
    argv: &[String],
    cwd: &Path,
    refresh: bool,
) -> Result<Started> {
    let session = Session::open(endpoint, argv, cwd, None, refresh)?;
    session.connect(Part::Stdin)?.shutdown(Shutdown::Write)?;
    Ok(Started {
        stdout: session.connect(Part::Stdout)?,
        stderr: session.connect(Part::Stderr)?,
        control: session.control,
    })
}

/// A command in a host; all of its connections share the session's name.
struct Session<'a> {
    endpoint: &'a Endpoint,
    name: String,
    control: TcpStream,
}

impl Session<'_> {
    fn open<'a>(
        endpoint: &'a Endpoint,
        argv: &[String],
        cwd: &Path,
        terminal: Option<Size>,
        refresh: bool,
    ) -> Result<Session<'a>> {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let name = hex(&random);
        let task = Task {
            argv: argv.to_vec(),
            env: environment()?,
            cwd: cwd.to_path_buf(),
            refresh,
            terminal,
        };
        let control = connect(endpoint, &name, Part::Control(Box::new(task)))?;
        Ok(Session {
            endpoint,
            name,
            control,
        })
    }

    fn connect(&self, part: Part) -> Result<TcpStream> {
        connect(self.endpoint, &self.name, part)
    }
}

fn outcome(control: &mut TcpStream) -> Result<u8> {
    match frame::read(control).context("the test host has ended")? {
        Outcome::Ended(code) => Ok(code),
        Outcome::Failed(message) => {
            eprintln!("error: in the test host: {message}");
            Ok(NOT_RUN)
        }
    }
}

/// Ends a host.
pub(crate) fn power_off(endpoint: &Endpoint) -> Result<()> {
    connect(endpoint, "", Part::PowerOff)?;
    Ok(())
}

pub(super) fn connect(endpoint: &Endpoint, session: &str, part: Part) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, endpoint.port))
        .context("cannot reach the test host")?;
    stream.set_nodelay(true)?;
    let hello = Hello {
        token: endpoint.token.clone(),
        session: session.to_string(),
        part,
    };
    stream.write_all(&frame::encode(&hello)?)?;
    Ok(stream)
}

/// Our environment, with the installation's programs first on the path.
fn environment() -> Result<Vec<(String, String)>> {
    let mut path = paths::dist().join("bin").into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    path.push(":/root/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin");
    let mut variables: Vec<(String, String)> = Vec::new();
    // cargo sets LD_LIBRARY_PATH for the programs that it runs: in the host, every library would be looked up there first.
    let left_out = ["PATH", "TMPDIR", "LD_LIBRARY_PATH"];
    for (name, value) in env::vars_os().filter(|(name, _)| !left_out.iter().any(|out| name == out))
    {
        // The protocol carries UTF-8 alone; no variable that matters here is anything else.
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
            variables.push((name, value));
        }
    }
    let path = path.into_string().ok().context("PATH is not UTF-8")?;
    variables.push(("PATH".to_string(), path));
    variables.push(("HULL_TEST_HOST".to_string(), "1".to_string()));
    Ok(variables)
}

/// Returns when both outputs have come to their ends.
fn on_pipes(mut stdin: TcpStream, stdout: TcpStream, stderr: TcpStream) -> Result<()> {
    thread::spawn(move || {
        // A command that has read enough closes its end: not an error.
        copy::until_the_end(&mut io::stdin(), &mut stdin);
        stdin.shutdown(Shutdown::Write).ok();
    });
    let errors = thread::spawn(move || copy_out(stderr, io::stderr()));
    copy_out(stdout, io::stdout());
    if errors.join().is_err() {
        bail!("the copy of the error output has failed");
    }
    Ok(())
}

/// Copies until either end is gone; if it is our end, the connection closes and the command is ended.
fn copy_out(mut from: TcpStream, mut to: impl Write) {
    copy::until_the_end(&mut from, &mut to);
    from.shutdown(Shutdown::Both).ok();
}

/// Blocks SIGWINCH first: no thread has been spawned yet.
fn on_terminal(stream: TcpStream, mut control: TcpStream) -> Result<()> {
    let mut resized = SignalFd::new(&[Signal::WINCH.as_raw()])?;
    let _raw = Raw::enter()?;
    let mut input = stream.try_clone()?;
    thread::spawn(move || {
        // A command that has ended closes its end: not an error.
        copy::until_the_end(&mut io::stdin(), &mut input);
        input.shutdown(Shutdown::Write).ok();
    });
    thread::spawn(move || {
        // Until the command, and with it the connection, is gone.
        while tell_size(&mut resized, &mut control).is_ok() {}
    });
    copy_out(stream, io::stdout());
    Ok(())
}

/// Waits until our terminal has a new size, and sends it.
fn tell_size(resized: &mut SignalFd, control: &mut TcpStream) -> Result<()> {
    poll(&mut [PollFd::new(resized, PollFlags::IN)], None)?;
    while resized.take()?.is_some() {}
    control.write_all(&frame::encode(&FromClient::Resize(size()?))?)?;
    Ok(())
}

fn size() -> Result<Size> {
    let size = tcgetwinsize(io::stdout())?;
    Ok(Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Keeps our terminal in raw mode until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Raw> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing better can be done with a terminal that refuses.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}
