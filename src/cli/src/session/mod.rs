//! `hull run`'s side of a running sandbox: streams, signals, the terminal, the end.
//!
//! ```text
//! stdin --thread--> container's stdin      container's stdout, stderr --threads--> ours
//! signals, sizes --loop--> monitor --loop--> started, failed, exited
//! ```
//!
//! Invariants: every signal that would end the client is read here, so that the terminal is restored and the monitor
//! has ended before the client does; the container's output is written to its end before its code is returned.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use protocol::monitor::{FromMonitor, Measured, ToMonitor};
use protocol::vmm::MAX_PACKET_LEN;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio;
use rustix::termios::isatty;
use sys::signalfd::SignalFd;

mod end;
mod pump;
pub mod terminal;

pub use end::{End, Error};
use pump::{Failed, FirstOutput, Output};
use terminal::RawMode;

/// Signals passed on to the container, as Docker's sig-proxy does, and the two that are only the client's.
const SIGNALS: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
];
/// So many requests to end that the container ignores end it by force, as in Docker.
const FORCED_AFTER: u32 = 3;
/// How long a container may go on after its terminal was closed.
const HANGUP_GRACE: Duration = Duration::from_secs(2);
/// How long output of a broken sandbox may take to come to its end.
const BROKEN_GRACE: Duration = Duration::from_secs(1);
/// When an idle container's memory is measured, counted from its first output.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// Which streams the client gives.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    /// Pass standard input on.
    pub input: bool,
    /// The container has a terminal.
    pub terminal: bool,
}

/// Blocks the signals that the session will read. Called before the sandbox exists, so that none kills the client
/// between its making and its end.
pub fn take_signals() -> io::Result<SignalFd> {
    // A signal that we were started with ignored, as nohup does, stays ignored.
    let ignored = ignored_signals();
    let wanted: Vec<i32> = SIGNALS
        .into_iter()
        .filter(|signal| ignored >> (signal - 1) & 1 == 0)
        .collect();
    SignalFd::new(&wanted)
}

/// Attaches to the sandbox, starts its container and stays until its end.
pub fn run(
    socket: OwnedFd,
    monitor: &mut Child,
    signals: SignalFd,
    streams: Streams,
    measure: bool,
) -> Result<End, Error> {
    let (done, pump_end) = io::pipe().map_err(Error::Wait)?;
    let mut session = Session {
        socket,
        signals,
        streams,
        measure,
        done: Some(done),
        pump_end: Some(pump_end),
        first_output: FirstOutput::default(),
        output_failed: Failed::default(),
        started: false,
        attached: false,
        ends_asked: 0,
        hung_up: None,
        idle_asked: false,
        idle: None,
        end: None,
        ended: None,
        // Set before anything can be typed for the container.
        raw: None,
    };
    if streams.input && streams.terminal {
        session.raw = Some(RawMode::enter().map_err(Error::Terminal)?);
    }
    session.send(&ToMonitor::Attach)?;
    session.send(&ToMonitor::Start)?;
    session.serve(monitor)
}

#[derive(Debug)]
struct Woken {
    signalled: bool,
    pump_spoke: bool,
    spoken_to: bool,
    hung_up: bool,
}

#[derive(Debug)]
struct Session {
    socket: OwnedFd,
    signals: SignalFd,
    streams: Streams,
    measure: bool,
    /// Hangs up when every output has been pumped to its end; a byte says that one had no reader any more. `None` once
    /// it has hung up.
    done: Option<PipeReader>,
    /// Given to the pumps; ours goes when the streams are there or will never be.
    pump_end: Option<PipeWriter>,
    first_output: FirstOutput,
    output_failed: Failed,
    started: bool,
    attached: bool,
    ends_asked: u32,
    hung_up: Option<Instant>,
    idle_asked: bool,
    idle: Option<Box<Measured>>,
    end: Option<End>,
    ended: Option<Instant>,
    raw: Option<RawMode>,
}

impl Session {
    fn serve(mut self, monitor: &mut Child) -> Result<End, Error> {
        let watched_terminal = isatty(stdio::stdin());
        loop {
            let woken = self.wait(watched_terminal)?;
            if woken.signalled {
                while let Some(signal) = self.signals.take().map_err(Error::Wait)? {
                    if let Some(end) = self.signal(signal)? {
                        return Ok(end);
                    }
                }
            }
            if woken.hung_up {
                self.hang_up()?;
            }
            if woken.pump_spoke && self.pump_failed()? {
                if let Some(error) = self.output_failed.take() {
                    return Err(Error::Output(error));
                }
                // As for any program in a pipe whose reader has gone.
                return Ok(End::Interrupted(libc::SIGPIPE));
            }
            if woken.spoken_to {
                self.listen(monitor)?;
            }
            if self.hung_up.is_some_and(|at| at.elapsed() >= HANGUP_GRACE) {
                return Ok(End::Interrupted(libc::SIGHUP));
            }
            self.ask_idle()?;
            let finished = match &self.end {
                None => false,
                // All that it wrote is still to be passed on.
                Some(End::Exited { .. }) => self.done.is_none() || !self.attached,
                Some(End::Broken { .. }) => {
                    self.done.is_none()
                        || !self.attached
                        || self.ended.is_some_and(|at| at.elapsed() >= BROKEN_GRACE)
                }
                Some(End::Failed(_) | End::Interrupted(_)) => true,
            };
            if finished {
                break;
            }
        }
        drop(self.raw.take());
        let end = self.end.take().expect("the loop ends with an end");
        Ok(self.complete(end))
    }

    fn wait(&self, watched_terminal: bool) -> Result<Woken, Error> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        // Hangs up when the last pump has ended.
        let done = self.done.as_ref();
        if let Some(done) = done {
            fds.push(PollFd::new(done, PollFlags::IN));
        }
        let socket = fds.len();
        if self.end.is_none() {
            fds.push(PollFd::new(&self.socket, PollFlags::IN));
        }
        let terminal = fds.len();
        if watched_terminal && self.hung_up.is_none() {
            fds.push(PollFd::from_borrowed_fd(stdio::stdin(), PollFlags::empty()));
        }
        wait(&mut fds, self.timeout())?;
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Woken {
            signalled: ready(0),
            pump_spoke: done.is_some() && ready(1),
            spoken_to: self.end.is_none() && ready(socket),
            hung_up: ready(terminal),
        })
    }

    /// Whether a pump could not go on; otherwise all have come to their ends.
    fn pump_failed(&mut self) -> Result<bool, Error> {
        let Some(done) = &mut self.done else {
            return Ok(false);
        };
        let mut byte = [0];
        let found = done.read(&mut byte).map_err(Error::Wait)? > 0;
        if !found {
            self.done = None;
        }
        Ok(found)
    }

    fn complete(&mut self, end: End) -> End {
        match end {
            End::Exited {
                status,
                oom_killed,
                measured,
                ..
            } => End::Exited {
                status,
                oom_killed,
                measured,
                idle: self.idle.take(),
                first_output: self.first_output.at(),
            },
            other => other,
        }
    }

    fn listen(&mut self, monitor: &mut Child) -> Result<(), Error> {
        let mut buffer = vec![0; MAX_PACKET_LEN];
        let packet = match sys::packet::receive(&self.socket, &mut buffer) {
            Ok(packet) if packet.len > 0 => packet,
            Ok(_) => return Err(gone(monitor)),
            Err(error) => return Err(Error::Monitor(io::Error::other(error))),
        };
        let message = serde_json::from_slice(&buffer[..packet.len])
            .map_err(|error| Error::Monitor(error.into()))?;
        match message {
            FromMonitor::Attached { terminal, pipes } => {
                self.attach(terminal, pipes, packet.descriptors)?
            }
            FromMonitor::Started => self.started = true,
            FromMonitor::Failed(failure) => self.end = Some(End::Failed(failure)),
            FromMonitor::Exited {
                status,
                oom_killed,
                measured,
            } => {
                self.end = Some(End::Exited {
                    status,
                    oom_killed,
                    measured,
                    idle: None,
                    first_output: None,
                });
            }
            FromMonitor::Measured(measured) => self.idle = Some(measured),
            FromMonitor::Broken { message, console } => {
                self.end = Some(End::Broken { message, console })
            }
            FromMonitor::Console { text } => show_console(&text, self.raw.is_some()),
            FromMonitor::Notice { text } => {
                let text = text.replace(|c: char| c.is_control(), " ");
                show_console(&format!("hull: {text}\n"), self.raw.is_some());
            }
        }
        if self.end.is_some() {
            self.ended = Some(Instant::now());
            // Streams that are not there by now never will be.
            self.pump_end = None;
        }
        Ok(())
    }

    fn attach(
        &mut self,
        terminal: bool,
        pipes: [bool; 3],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Error> {
        let mut descriptors = descriptors.into_iter();
        let mut outputs = Vec::new();
        let input = if terminal {
            let Some(stream) = descriptors.next() else {
                return Ok(());
            };
            let input = stream.try_clone().map_err(Error::Streams)?;
            outputs.push(Output {
                name: "terminal",
                from: stream,
                to: stdio::stdout(),
            });
            Some(input)
        } else {
            let input = if pipes[0] { descriptors.next() } else { None };
            let targets = [("stdout", stdio::stdout()), ("stderr", stdio::stderr())];
            for (there, (name, to)) in pipes[1..].iter().zip(targets) {
                if let (true, Some(from)) = (*there, descriptors.next()) {
                    outputs.push(Output { name, from, to });
                }
            }
            input
        };
        let done = self.pump_end.take();
        for output in outputs {
            let Some(done) = &done else { break };
            let done = done.try_clone().map_err(Error::Streams)?;
            let (first, failed) = (self.first_output.clone(), self.output_failed.clone());
            pump::output(output, first, failed, done).map_err(Error::Streams)?;
        }
        if let (Some(input), true) = (input, self.streams.input) {
            pump::input(input).map_err(Error::Streams)?;
        }
        self.attached = true;
        Ok(())
    }

    /// Passes a signal on. Returns an end when the container is to end now.
    fn signal(&mut self, signal: i32) -> Result<Option<End>, Error> {
        if signal == libc::SIGWINCH {
            if self.streams.terminal
                && let Some(size) = terminal::size()
            {
                self.send(&ToMonitor::Resize { size })?;
            }
            return Ok(None);
        }
        let asks_end = matches!(
            signal,
            libc::SIGINT | libc::SIGTERM | libc::SIGQUIT | libc::SIGHUP
        );
        if asks_end {
            self.ends_asked += 1;
            // Nothing runs yet that could mind, or it has had its chance, or only our own output is stuck.
            if !self.started || self.ends_asked >= FORCED_AFTER || self.end.is_some() {
                return Ok(Some(End::Interrupted(signal)));
            }
        }
        self.send(&ToMonitor::Signal { signal })?;
        Ok(None)
    }

    /// The terminal was closed: the container is told, and ends soon.
    fn hang_up(&mut self) -> Result<(), Error> {
        self.hung_up = Some(Instant::now());
        self.send(&ToMonitor::Signal {
            signal: libc::SIGHUP,
        })
    }

    fn ask_idle(&mut self) -> Result<(), Error> {
        if self.idle_due() == Some(Duration::ZERO) {
            self.idle_asked = true;
            self.send(&ToMonitor::Measure)?;
        }
        Ok(())
    }

    /// Until the idle container is to be measured.
    fn idle_due(&self) -> Option<Duration> {
        if !self.measure || self.idle_asked || !self.started || self.end.is_some() {
            return None;
        }
        // Until it says something, it is looked after from time to time.
        let Some(at) = self.first_output.at() else {
            return Some(IDLE_AFTER);
        };
        let since = Duration::from_nanos(sys::clock::monotonic_ns().saturating_sub(at));
        Some(IDLE_AFTER.saturating_sub(since))
    }

    fn timeout(&self) -> Option<Duration> {
        let hangup = self
            .hung_up
            .map(|at| HANGUP_GRACE.saturating_sub(at.elapsed()));
        let broken = match (&self.end, self.ended) {
            (Some(End::Broken { .. }), Some(at)) => Some(BROKEN_GRACE.saturating_sub(at.elapsed())),
            _ => None,
        };
        [hangup, broken, self.idle_due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn send(&self, message: &ToMonitor) -> Result<(), Error> {
        let bytes = serde_json::to_vec(message).map_err(|error| Error::Monitor(error.into()))?;
        match sys::packet::send(&self.socket, &bytes, &[]) {
            // It has ended: what it said last is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            other => other.map_err(Error::Monitor),
        }
    }
}

fn gone(monitor: &mut Child) -> Error {
    Error::MonitorGone(match monitor.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    })
}

fn show_console(text: &str, raw: bool) {
    use std::io::Write;
    let text = if raw {
        text.replace('\n', "\r\n")
    } else {
        text.to_owned()
    };
    // A standard error that is closed shows nothing, which is what its owner wants.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The signals that this process was started with ignored: signal n is bit n - 1 (proc(5)).
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Error> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Error::Wait(error.into())),
    }
}
