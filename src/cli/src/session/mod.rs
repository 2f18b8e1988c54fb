//! The command's side of a process that it stays with: streams, signals, the terminal, the end.
//!
//! ```text
//! stdin --thread--> the process's stdin      its stdout, stderr --threads--> ours
//! signals, sizes --loop--> engine --loop--> attached, started, exited, failed
//! ```
//!
//! Invariants: every signal that would end the command is read here, so that the terminal is restored; the process's
//! output is written to its end before its code is returned.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use engine::protocol::monitor::Measured;
use engine::session::{Event, Session};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio;
use rustix::termios::isatty;
use sys::signalfd::SignalFd;

use values::lifecycle::DetachKeys;

mod end;
mod pump;
pub(crate) mod terminal;

pub(crate) use end::{End, Error, code};
use pump::{Failed, FirstOutput, Input, Output};
use terminal::RawMode;

/// Signals of the command's own: the terminal's size, what a child's end and a closed pipe mean to this process, and those
/// that no process can read.
const OWN_SIGNALS: [i32; 5] = [
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGURG,
    libc::SIGKILL,
    libc::SIGSTOP,
];
/// Signals of faults of this process itself.
const FAULTS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];
/// So many requests to end that the process ignores end the session by force, as in Docker.
const FORCED_AFTER: u32 = 3;
/// How long a process may go on after its terminal was closed.
const HANGUP_GRACE: Duration = Duration::from_secs(2);
/// How long output of a broken sandbox may take to come to its end.
const BROKEN_GRACE: Duration = Duration::from_secs(1);
/// When an idle container's memory is measured, counted from its first output.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// How to stay with a process.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// Pass standard input on.
    pub(crate) input: bool,
    /// The process has a terminal.
    pub(crate) terminal: bool,
    /// Pass signals on.
    pub(crate) sig_proxy: bool,
    /// What detaches from a terminal.
    pub(crate) detach_keys: DetachKeys,
    /// Measure two seconds after the first output.
    pub(crate) measure: bool,
    /// The process executes already.
    pub(crate) started: bool,
}

/// Blocks the signals that the session will read. Called before the container exists, so that none kills the command
/// between its making and its end.
pub(crate) fn take_signals() -> io::Result<SignalFd> {
    // A signal that we were started with ignored, as nohup does, stays ignored.
    let ignored = ignored_signals();
    let wanted: Vec<i32> = (1..=sys::sigset::MAX)
        .filter(|signal| !OWN_SIGNALS.contains(signal) && !FAULTS.contains(signal))
        // The two that the C library keeps for itself (nptl(7)).
        .filter(|signal| !(32..34).contains(signal))
        .filter(|signal| ignored >> (signal - 1) & 1 == 0)
        .collect();
    SignalFd::new(&wanted)
}

/// Stays with a process until its end, or until the user leaves.
pub(crate) fn stay(
    session: &mut Session<'_>,
    signals: SignalFd,
    manner: Manner,
) -> Result<End, Error> {
    let (done, pump_end) = io::pipe().map_err(Error::Wait)?;
    let (left, leaving) = io::pipe().map_err(Error::Wait)?;
    // Set before anything can be typed for the process.
    let raw = match manner.input && manner.terminal && terminal::input_is_terminal() {
        true => Some(RawMode::enter().map_err(Error::Terminal)?),
        false => None,
    };
    let stay = Stay {
        session,
        signals,
        started: manner.started,
        manner,
        done: Some(done),
        pump_end: Some(pump_end),
        first_output: FirstOutput::default(),
        output_failed: Failed::default(),
        left: Some(left),
        leaving: Some(leaving),
        attached: false,
        ends_asked: 0,
        hung_up: None,
        idle_asked: false,
        idle: None,
        end: None,
        ended: None,
        raw,
    };
    stay.serve()
}

#[derive(Debug)]
struct Woken {
    signalled: bool,
    pump_spoke: bool,
    spoken_to: bool,
    hung_up: bool,
    left: bool,
}

struct Stay<'s, 'e> {
    session: &'s mut Session<'e>,
    signals: SignalFd,
    manner: Manner,
    /// Hangs up when every output has been pumped to its end; a byte says that one could not be. `None` once it has hung
    /// up.
    done: Option<PipeReader>,
    /// Given to the pumps; ours goes when the streams are there or will never be.
    pump_end: Option<PipeWriter>,
    first_output: FirstOutput,
    output_failed: Failed,
    /// A byte here says that the user leaves. `None` once the input is over.
    left: Option<PipeReader>,
    /// Given to the pump of the input.
    leaving: Option<PipeWriter>,
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

impl Stay<'_, '_> {
    fn serve(mut self) -> Result<End, Error> {
        let watched_terminal = isatty(stdio::stdin());
        if self.manner.started {
            self.resize()?;
        }
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
            if woken.left && self.leaves()? {
                self.session.detach()?;
                drop(self.raw.take());
                return Ok(End::Detached);
            }
            if woken.pump_spoke && self.pump_failed()? {
                if let Some(error) = self.output_failed.take() {
                    return Err(Error::Output(error));
                }
                // As for any program in a pipe whose reader has gone.
                return Ok(End::Interrupted(libc::SIGPIPE));
            }
            if woken.spoken_to {
                // Behind the end comes nothing but the end of the connection.
                while self.end.is_none()
                    && let Some(event) = self.session.next_ready()?
                {
                    self.hear(event)?;
                }
            }
            if self.hung_up.is_some_and(|at| at.elapsed() >= HANGUP_GRACE) {
                return Ok(End::Interrupted(libc::SIGHUP));
            }
            self.ask_idle()?;
            if self.is_finished() {
                break;
            }
        }
        drop(self.raw.take());
        let end = self.end.take().expect("the loop ends with an end");
        Ok(self.complete(end))
    }

    /// The end is known, and all that the process wrote has been passed on.
    fn is_finished(&self) -> bool {
        let drained = self.done.is_none() || !self.attached;
        match &self.end {
            None => false,
            Some(End::Exited { exit, .. }) => {
                let late = self.ended.is_some_and(|at| at.elapsed() >= BROKEN_GRACE);
                drained || (exit.error.is_some() && late)
            }
            Some(_) => true,
        }
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
            fds.push(PollFd::new(&*self.session, PollFlags::IN));
        }
        let terminal = fds.len();
        if watched_terminal && self.hung_up.is_none() {
            fds.push(PollFd::from_borrowed_fd(stdio::stdin(), PollFlags::empty()));
        }
        let leaving = fds.len();
        if let Some(left) = &self.left {
            fds.push(PollFd::new(left, PollFlags::IN));
        }
        wait(&mut fds, self.timeout())?;
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Woken {
            signalled: ready(0),
            pump_spoke: done.is_some() && ready(1),
            spoken_to: self.end.is_none() && ready(socket),
            hung_up: terminal < leaving && ready(terminal),
            left: self.left.is_some() && ready(leaving),
        })
    }

    /// Whether the user leaves; otherwise the input is over.
    fn leaves(&mut self) -> Result<bool, Error> {
        let Some(left) = &mut self.left else {
            return Ok(false);
        };
        let leaves = left.read(&mut [0]).map_err(Error::Wait)? > 0;
        if !leaves {
            self.left = None;
        }
        Ok(leaves)
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
            End::Exited { exit, .. } => End::Exited {
                exit,
                idle: self.idle.take(),
                first_output: self.first_output.at(),
            },
            other => other,
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Attached(streams) => self.attach(streams)?,
            Event::Started { .. } => {
                self.started = true;
                // It may have changed since the container was created.
                self.resize()?;
            }
            Event::Failed(failure) => self.end = Some(End::Failed(failure)),
            Event::Exited(exit) => {
                self.end = Some(End::Exited {
                    exit,
                    idle: None,
                    first_output: None,
                });
            }
            Event::Measured(measured) => self.idle = Some(measured),
            Event::Console(text) => show(&text, self.raw.is_some()),
            Event::Notice(text) => {
                let text = text.replace(|c: char| c.is_control(), " ");
                show(&format!("hull: {text}\n"), self.raw.is_some());
            }
        }
        if self.end.is_some() {
            self.ended = Some(Instant::now());
            // Streams that are not there by now never will be.
            self.pump_end = None;
        }
        Ok(())
    }

    fn attach(&mut self, streams: engine::Streams) -> Result<(), Error> {
        let mut outputs = Vec::new();
        let terminal = streams.terminal.as_ref();
        let typed = terminal.map(OwnedFd::try_clone).transpose();
        let input = typed.map_err(Error::Streams)?.or(streams.stdin);
        let named = [
            ("terminal", streams.terminal, stdio::stdout()),
            ("stdout", streams.stdout, stdio::stdout()),
            ("stderr", streams.stderr, stdio::stderr()),
        ];
        for (name, from, to) in named {
            outputs.extend(from.map(|from| Output { name, from, to }));
        }
        let done = self.pump_end.take();
        for output in outputs {
            let Some(done) = &done else { break };
            let done = done.try_clone().map_err(Error::Streams)?;
            let (first, failed) = (self.first_output.clone(), self.output_failed.clone());
            pump::output(output, first, failed, done).map_err(Error::Streams)?;
        }
        if let (Some(to), true) = (input, self.manner.input) {
            let keys = match self.manner.terminal {
                true => self.manner.detach_keys.clone(),
                false => DetachKeys(Vec::new()),
            };
            if let Some(left) = self.leaving.take() {
                pump::input(Input { to, keys, left }).map_err(Error::Streams)?;
            }
        }
        // Without an input there are no keys to leave by.
        self.leaving = None;
        self.attached = true;
        Ok(())
    }

    /// Passes a signal on. Returns an end when the session is to end now.
    fn signal(&mut self, signal: i32) -> Result<Option<End>, Error> {
        if signal == libc::SIGWINCH && self.manner.terminal {
            self.resize()?;
            return Ok(None);
        }
        let asks_end = matches!(
            signal,
            libc::SIGINT | libc::SIGTERM | libc::SIGQUIT | libc::SIGHUP
        );
        if asks_end {
            self.ends_asked += 1;
            // Nothing runs yet that could mind, or it has had its chance, or only our own output is stuck.
            let forced = self.ends_asked >= FORCED_AFTER || !self.manner.sig_proxy;
            if !self.started || forced || self.end.is_some() {
                return Ok(Some(End::Interrupted(signal)));
            }
        }
        if self.manner.sig_proxy && self.started {
            self.session.signal(signal)?;
        }
        Ok(None)
    }

    fn resize(&mut self) -> Result<(), Error> {
        if self.manner.terminal
            && let Some(size) = terminal::size()
        {
            self.session.resize(size)?;
        }
        Ok(())
    }

    /// The terminal was closed: the process is told, and ends soon.
    fn hang_up(&mut self) -> Result<(), Error> {
        self.hung_up = Some(Instant::now());
        Ok(self.session.signal(libc::SIGHUP)?)
    }

    fn ask_idle(&mut self) -> Result<(), Error> {
        if self.idle_due() == Some(Duration::ZERO) {
            self.idle_asked = true;
            self.session.measure()?;
        }
        Ok(())
    }

    /// Until the idle container is to be measured.
    fn idle_due(&self) -> Option<Duration> {
        if !self.manner.measure || self.idle_asked || !self.started || self.end.is_some() {
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
            (Some(End::Exited { exit, .. }), Some(at)) if exit.error.is_some() => {
                Some(BROKEN_GRACE.saturating_sub(at.elapsed()))
            }
            _ => None,
        };
        [hangup, broken, self.idle_due()]
            .into_iter()
            .flatten()
            .min()
    }
}

fn show(text: &str, raw: bool) {
    use std::io::Write;
    let text = match raw {
        true => text.replace('\n', "\r\n"),
        false => text.to_owned(),
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
