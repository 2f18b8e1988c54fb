//! A container's log: Docker's json-file, read by us and written by its speaker.
//!
//! ```text
//! log/<id>-json.log.2  log/<id>-json.log.1  log/<id>-json.log      oldest to newest
//! {"log":"a line\n","stream":"stdout","time":"2026-11-28T22:19:28.000000001Z"}
//! ```
//!
//! Invariants: a reader that follows misses no line that is still in a file, however often the log is rotated meanwhile, nor
//! one that was rotated away while it read (up to the files that it holds open), and gives none twice; it ends when the container has ended and everything was read. Deliberately absent: how lines are shown.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use protocol::record::LogConfig;
use serde::Deserialize;

use crate::container::read_state;
use crate::engine::Engine;
use crate::error::{Error, Refusal};
use crate::{lock, time};

mod chain;
mod waiting;

use chain::Chain;
use waiting::Waiting;

/// A lock whose holder was seen to close it is free within this, or held by another.
const RELEASE_LIMIT: Duration = Duration::from_millis(200);

/// Which stream a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output, and all of a terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a log, or a part of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, in nanoseconds since the epoch.
    pub time_ns: u64,
    /// Where to.
    pub stream: OutputStream,
    /// The text, with its line feed if it had one.
    pub text: String,
}

/// Which lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before this, in nanoseconds since the epoch.
    pub since_ns: Option<u64>,
    /// Not after this.
    pub until_ns: Option<u64>,
    /// Only so many of the last lines.
    pub tail: Option<u64>,
    /// Go on until the container has ended.
    pub follow: bool,
}

impl Default for LogOptions {
    /// Everything that is there.
    fn default() -> LogOptions {
        LogOptions {
            stdout: true,
            stderr: true,
            since_ns: None,
            until_ns: None,
            tail: None,
            follow: false,
        }
    }
}

/// A line as it is in the file.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    log: String,
    stream: OutputStream,
    time: String,
}

/// Lines of a log, in their order.
#[derive(Debug)]
pub struct LogReader<'a> {
    engine: &'a Engine,
    id: String,
    sandbox: String,
    options: LogOptions,
    chain: Chain,
    waiting: Option<Waiting>,
    /// The container has ended: what is in the files now is all.
    has_ended: bool,
    /// A line was met that is later than what was asked for, and so are all behind it.
    is_late: bool,
}

impl Engine {
    /// Reads a container's log.
    pub fn logs(&self, reference: &str, options: LogOptions) -> Result<LogReader<'_>, Error> {
        let config = self.container(reference)?.config;
        if config.log == LogConfig::None {
            return Err(Error::refused(reference, Refusal::NoLogs));
        }
        let path = self.layout().log(&config.id);
        let failed = |error: io::Error| Error::file("read", &path)(error);
        // Watched first, so that nothing is missed between the two.
        let waiting = match options.follow {
            true => Some(self.waiting(&config.id, &config.sandbox)?),
            false => None,
        };
        Ok(LogReader {
            engine: self,
            chain: Chain::open(&path, options.tail).map_err(failed)?,
            id: config.id,
            sandbox: config.sandbox,
            options,
            waiting,
            has_ended: false,
            is_late: false,
        })
    }

    fn waiting(&self, id: &str, sandbox: &str) -> Result<Waiting, Error> {
        let lock = self.layout().sandbox_lock(sandbox);
        let folder = self.layout().container(id);
        Waiting::new(&folder, &self.layout().logs(id), &lock).map_err(Error::file("watch", folder))
    }
}

impl LogReader<'_> {
    /// The next line that is there already, without waiting; `None` does not mean the end.
    pub fn next_now(&mut self) -> Result<Option<LogLine>, Error> {
        while !self.is_late
            && let Some(line) = self.chain.next().map_err(self.failed())?
        {
            match self.judge(&line) {
                Judged::Wanted(line) => return Ok(Some(line)),
                Judged::Unwanted => {}
                Judged::Late => self.is_late = true,
            }
        }
        Ok(None)
    }

    /// The next line, waiting for it if the log is followed. `None` at the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: every line may be an error"
    )]
    pub fn next(&mut self) -> Result<Option<LogLine>, Error> {
        self.next_for(None)
    }

    /// The same, for a reader that may go meanwhile: `None` as well when this descriptor becomes readable or hangs up.
    pub fn next_while(&mut self, there: BorrowedFd<'_>) -> Result<Option<LogLine>, Error> {
        self.next_for(Some(there))
    }

    fn next_for(&mut self, there: Option<BorrowedFd<'_>>) -> Result<Option<LogLine>, Error> {
        loop {
            if let Some(line) = self.next_now()? {
                return Ok(Some(line));
            }
            if self.is_late || self.has_ended || self.waiting.is_none() || self.is_over() {
                return Ok(None);
            }
            if !self.is_alive()? {
                // What was written before its end is still to be read.
                self.has_ended = true;
                continue;
            }
            if self.wait(there)? {
                return Ok(None);
            }
        }
    }

    /// Whether the reader has gone.
    fn wait(&mut self, there: Option<BorrowedFd<'_>>) -> Result<bool, Error> {
        let left = self
            .options
            .until_ns
            .map(|until| Duration::from_nanos(until.saturating_sub(time::now_ns())));
        let failed = self.failed();
        let Some(waiting) = &self.waiting else {
            return Ok(false);
        };
        let woken = waiting.wait(left, there).map_err(failed)?;
        let lock = self.engine.layout().sandbox_lock(&self.sandbox);
        // The kernel says that a file is closed just before it drops the lock.
        if woken.closed && lock::is_free_within(&lock, RELEASE_LIMIT).map_err(self.failed())? {
            self.has_ended = true;
        }
        Ok(woken.left)
    }

    fn is_alive(&self) -> Result<bool, Error> {
        let layout = self.engine.layout();
        Ok(self.engine.exists(&self.id)
            && read_state(layout, &self.id, &self.sandbox)?
                .status
                .is_alive())
    }

    fn is_over(&self) -> bool {
        let until = self.options.until_ns;
        until.is_some_and(|until| time::now_ns() > until)
    }

    fn judge(&self, line: &[u8]) -> Judged {
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
            // What a full disk has cut short.
            tracing::debug!("a line of the log is damaged");
            return Judged::Unwanted;
        };
        let time_ns = time::parse(&entry.time).unwrap_or(0);
        if self.options.until_ns.is_some_and(|until| time_ns > until) {
            return Judged::Late;
        }
        let wanted = match entry.stream {
            OutputStream::Stdout => self.options.stdout,
            OutputStream::Stderr => self.options.stderr,
        };
        if !wanted || self.options.since_ns.is_some_and(|since| time_ns < since) {
            return Judged::Unwanted;
        }
        Judged::Wanted(LogLine {
            time_ns,
            stream: entry.stream,
            text: entry.log,
        })
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        let path: PathBuf = self.engine.layout().log(&self.id);
        move |error| Error::file("read", path)(error)
    }
}

enum Judged {
    Wanted(LogLine),
    Unwanted,
    /// It and all that follow are later than what was asked for.
    Late,
}

#[cfg(test)]
mod tests;
