//! `xtask host-serve`, inside the test host: PID 1 that reaps, and a server that runs commands.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::frame;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::copy;
use super::machine::{SERVER_PORT, State};
use super::wire::{FromClient, Hello, Outcome, Part, Size, Task};
use crate::step::run;

/// A client sends its hello as soon as it has connected.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// After its client is gone, a command has this long to end before it is killed.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long to wait for output from processes that a command left behind with its streams open.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Connections of sessions that are not complete yet.
type Sessions = Mutex<HashMap<String, Vec<(Part, TcpStream)>>>;

/// PID 1: starts the server as a child and reaps everything. Returns only when something fails.
pub(crate) fn init(state: &Path) -> Result<ExitCode> {
    let server = Command::new(std::env::current_exe()?)
        .arg("host-serve")
        .arg("--server")
        .arg(state)
        .spawn()
        .context("cannot start the server")?;
    let server = Pid::from_child(&server);
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == server => {
                eprintln!("test host: the server has ended: {status:?}");
                power_off()?;
            }
            Ok(_) => {}
            Err(error) => return Err(error).context("cannot wait for processes"),
        }
    }
}

/// The server.
pub(crate) fn serve(state: &Path) -> Result<ExitCode> {
    let state: State = serde_json::from_str(&fs::read_to_string(state)?)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
    TcpStream::connect((Ipv4Addr::new(10, 0, 2, 2), state.ready_port))
        .and_then(|mut stream| stream.write_all(state.token.as_bytes()))
        .context("cannot tell the starter that we listen")?;
    let state = Arc::new(state);
    let sessions = Arc::new(Sessions::default());
    for stream in listener.incoming() {
        let stream = stream?;
        let (state, sessions) = (state.clone(), sessions.clone());
        thread::spawn(move || {
            if let Err(error) = accept(stream, &state, &sessions) {
                eprintln!("test host: {error:#}");
            }
        });
    }
    bail!("the listener has ended")
}

/// Files a connection under its session, and runs the session when that was its last.
fn accept(mut stream: TcpStream, state: &State, sessions: &Sessions) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HELLO_LIMIT))?;
    let hello: Hello = frame::read(&mut stream).context("a client's hello is not one")?;
    stream.set_read_timeout(None)?;
    if hello.token != state.token {
        bail!("a client does not know the secret");
    }
    match hello.part {
        Part::PowerOff => return power_off(),
        Part::Beats => return beat(stream),
        _ => {}
    }
    let mut waiting = sessions.lock().expect("no holder panics");
    let parts = waiting.entry(hello.session.clone()).or_default();
    parts.push((hello.part, stream));
    if !complete(parts) {
        return Ok(());
    }
    let parts = waiting.remove(&hello.session).unwrap_or_default();
    drop(waiting);
    session(Session::of(parts)?, state)
}

fn complete(parts: &[(Part, TcpStream)]) -> bool {
    let wanted = parts.iter().find_map(|(part, _)| match part {
        Part::Control(task) => Some(if task.terminal.is_some() { 2 } else { 4 }),
        _ => None,
    });
    wanted == Some(parts.len())
}

struct Session {
    task: Task,
    control: TcpStream,
    streams: Streams,
}

enum Streams {
    Terminal(TcpStream),
    Pipes([TcpStream; 3]),
}

impl Session {
    fn of(parts: Vec<(Part, TcpStream)>) -> Result<Session> {
        let (mut control, mut terminal, mut pipes) = (None, None, [None, None, None]);
        for (part, stream) in parts {
            match part {
                Part::Control(task) => control = Some((*task, stream)),
                Part::Terminal => terminal = Some(stream),
                Part::Stdin => pipes[0] = Some(stream),
                Part::Stdout => pipes[1] = Some(stream),
                Part::Stderr => pipes[2] = Some(stream),
                Part::PowerOff | Part::Beats => {}
            }
        }
        let (task, control) = control.context("a session without control")?;
        let streams = match (terminal, pipes) {
            (Some(stream), _) => Streams::Terminal(stream),
            (None, [Some(stdin), Some(stdout), Some(stderr)]) => {
                Streams::Pipes([stdin, stdout, stderr])
            }
            _ => bail!("a session without its streams"),
        };
        Ok(Session {
            task,
            control,
            streams,
        })
    }
}

fn session(session: Session, state: &State) -> Result<()> {
    let Session {
        task,
        mut control,
        streams,
    } = session;
    let ready = if task.refresh { refresh(state) } else { Ok(()) };
    let outcome = match ready.and_then(|()| perform(&task, &control, &streams)) {
        Ok(status) => {
            let signal = status.signal().map(|signal| 128 + signal);
            Outcome::Ended(status.code().or(signal).unwrap_or(255) as u8)
        }
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    match &streams {
        Streams::Terminal(stream) => end(stream),
        Streams::Pipes(streams) => streams.iter().for_each(end),
    }
    control.write_all(&frame::encode(&outcome)?)?;
    Ok(())
}

/// Shuts a stream down, which may be closed already.
fn end(stream: &TcpStream) {
    stream.shutdown(Shutdown::Both).ok();
}

/// Answers a watcher's beats until it is gone: each answer tells that the host's processes run.
fn beat(mut stream: TcpStream) -> Result<()> {
    let mut beat = [0];
    while stream.read_exact(&mut beat).is_ok() && stream.write_all(&beat).is_ok() {}
    Ok(())
}

/// Drops what virtio-fs has cached of the machine's files, which it never does itself, and copies the installation.
fn refresh(state: &State) -> Result<()> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().expect("no holder panics");
    fs::write("/proc/sys/vm/drop_caches", "3\n")?;
    let target = Path::new("/").join(state.dist.strip_prefix("/run/lower")?);
    if state.dist.join("bin").exists() {
        run(Command::new("cp")
            .args(["-a", "--update", "--sparse=always"])
            .arg(state.dist.join("."))
            .arg(&target))?;
    }
    Ok(())
}

fn perform(task: &Task, control: &TcpStream, streams: &Streams) -> Result<ExitStatus> {
    let (child, pumps) = match streams {
        Streams::Terminal(stream) => on_terminal(task, control, stream)?,
        Streams::Pipes(streams) => on_pipes(task, streams)?,
    };
    let pid = Pid::from_child(&child);
    let (ended, has_ended) = mpsc::channel::<()>();
    if !pumps.terminal {
        watch(control.try_clone()?, None, pid, has_ended);
    } else {
        let main = pumps.main.as_ref().map(OwnedFd::try_clone).transpose()?;
        watch(control.try_clone()?, main, pid, has_ended);
    }
    let mut child = child;
    let status = child.wait()?;
    drop(ended);
    for done in pumps.outputs {
        if done.recv_timeout(LEFTOVERS) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("test host: a command left processes behind that hold its output open");
        }
    }
    Ok(status)
}

/// The threads that copy a command's streams.
struct Pumps {
    terminal: bool,
    /// The main side of the terminal.
    main: Option<OwnedFd>,
    /// Each is closed when an output has come to its end.
    outputs: Vec<mpsc::Receiver<()>>,
}

fn command(task: &Task, wrapper: &[&str]) -> Result<Command> {
    let mut argv = wrapper
        .iter()
        .copied()
        .chain(task.argv.iter().map(String::as_str));
    let mut command = Command::new(argv.next().context("no command")?);
    command
        .args(argv)
        .env_clear()
        .envs(task.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&task.cwd);
    Ok(command)
}

fn on_pipes(task: &Task, [stdin, stdout, stderr]: &[TcpStream; 3]) -> Result<(Child, Pumps)> {
    let mut child = command(task, &[])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", task.argv.join(" ")))?;
    let (Some(child_in), Some(child_out), Some(child_err)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        bail!("the command has no pipes");
    };
    pump(stdin.try_clone()?, child_in, |_| ());
    let outputs = vec![
        pump(child_out, stdout.try_clone()?, |stream| end(&stream)),
        pump(child_err, stderr.try_clone()?, |stream| end(&stream)),
    ];
    let pumps = Pumps {
        terminal: false,
        main: None,
        outputs,
    };
    Ok((child, pumps))
}

fn on_terminal(task: &Task, _control: &TcpStream, stream: &TcpStream) -> Result<(Child, Pumps)> {
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&main)?;
    unlockpt(&main)?;
    let name = ptsname(&main, Vec::new())?;
    let name = name.to_str().context("a terminal's name is not UTF-8")?;
    let side = File::options().read(true).write(true).open(name)?;
    resize(&main, task.terminal.context("no terminal asked for")?)?;
    // setsid --ctty makes our end of the terminal the controlling one.
    let child = command(task, &["setsid", "--ctty", "--"])?
        .stdin(side.try_clone()?)
        .stdout(side.try_clone()?)
        .stderr(side)
        .spawn()
        .context("cannot run setsid")?;
    let main_file = File::from(main.try_clone()?);
    pump(stream.try_clone()?, main_file.try_clone()?, |_| ());
    let outputs = vec![pump(main_file, stream.try_clone()?, |stream| end(&stream))];
    let pumps = Pumps {
        terminal: true,
        main: Some(main),
        outputs,
    };
    Ok((child, pumps))
}

/// Copies in a thread until either end is gone, then calls `after` and closes the channel.
fn pump<R, W>(mut from: R, mut to: W, after: fn(W)) -> mpsc::Receiver<()>
where
    R: io::Read + Send + 'static,
    W: io::Write + Send + 'static,
{
    let (open, closed) = mpsc::channel();
    thread::spawn(move || {
        copy::until_the_end(&mut from, &mut to);
        after(to);
        drop(open);
    });
    closed
}

fn resize(main: &OwnedFd, size: Size) -> Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(main, size)?)
}

/// Follows the control connection: sizes of the terminal, and the client's end.
fn watch(mut control: TcpStream, main: Option<OwnedFd>, pid: Pid, ended: mpsc::Receiver<()>) {
    thread::spawn(move || {
        while let Ok(FromClient::Resize(size)) = frame::read(&mut control) {
            if let Some(main) = &main {
                resize(main, size).ok();
            }
        }
        if ended.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
            return;
        }
        // The client is gone. A group that is gone already is not an error.
        kill_process_group(pid, Signal::INT).ok();
        ended.recv_timeout(FAREWELL).ok();
        kill_process_group(pid, Signal::KILL).ok();
    });
}

fn power_off() -> Result<()> {
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server's and the client's end of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    fn task(script: &str) -> Task {
        Task {
            argv: ["sh", "-c", script].map(str::to_string).to_vec(),
            env: vec![("PATH".to_string(), "/usr/bin:/bin".to_string())],
            cwd: "/".into(),
            refresh: false,
            terminal: None,
        }
    }

    #[test]
    fn a_commands_streams_stay_apart_and_its_code_comes_back() {
        let (control, _client) = pair();
        let ((stdin, mut input), (stdout, mut output), (stderr, mut errors)) =
            (pair(), pair(), pair());
        input.write_all(b"word").unwrap();
        input.shutdown(Shutdown::Write).unwrap();
        let streams = Streams::Pipes([stdin, stdout, stderr]);
        let status = perform(&task("cat; echo error >&2; exit 3"), &control, &streams).unwrap();
        assert_eq!(status.code(), Some(3));
        let (mut text, mut error) = (String::new(), String::new());
        output.read_to_string(&mut text).unwrap();
        errors.read_to_string(&mut error).unwrap();
        assert_eq!((text.as_str(), error.as_str()), ("word", "error\n"));
    }

    #[test]
    fn a_command_whose_client_goes_away_is_ended() {
        let (control, client) = pair();
        let ((stdin, _input), (stdout, _output), (stderr, _errors)) = (pair(), pair(), pair());
        drop(client);
        let streams = Streams::Pipes([stdin, stdout, stderr]);
        let status = perform(&task("exec sleep 60"), &control, &streams).unwrap();
        assert_eq!(status.code(), None);
    }

    #[test]
    fn a_session_is_complete_with_control_and_all_its_streams() {
        let mut parts = vec![
            (Part::Stdin, pair().0),
            (Part::Stdout, pair().0),
            (Part::Control(Box::new(task("true"))), pair().0),
        ];
        assert!(!complete(&parts));
        parts.push((Part::Stderr, pair().0));
        assert!(complete(&parts));
        assert!(Session::of(parts).is_ok());
    }
}
