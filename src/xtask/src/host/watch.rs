//! Following a test host from outside: whether its server answers, and its console.
//!
//! The beats are for the host as well. By its source, QEMU's emulator can lose an interrupt: `vmrun` marks a virtual
//! interrupt as pending with a plain read and write of the word in which another thread marks a device's (`helper_vmrun`
//! in QEMU 7.2's target/i386/tcg/sysemu/svm_helper.c). The local APIC then holds an interrupt that the processor does not
//! see until the next one comes from anywhere; a packet is one. docs/design.md says what was seen.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::machine::Endpoint;
use super::wire::{BEAT, Part};
use super::{client, monitor};

/// What is read of a console at once; more comes at the next look.
const MOST_CONSOLE_BYTES: u64 = 1 << 20;

/// Follows one host.
pub(crate) struct Watch {
    heard: Heard,
    console: PathBuf,
    /// How much of the console has been read, and a line of it without its end.
    read: u64,
    begun: String,
}

/// When the server was last heard; clones are the same.
#[derive(Clone)]
struct Heard {
    since: Instant,
    /// Milliseconds after `since`.
    last: Arc<AtomicU64>,
}

impl Heard {
    fn now(&self) {
        let passed = self.since.elapsed().as_millis() as u64;
        self.last.store(passed, Ordering::Relaxed);
    }
}

impl Watch {
    /// Begins to send beats to the host's server; its console is the file at `console`. A server that does not answer is found
    /// silent.
    pub(super) fn new(endpoint: &Endpoint, console: &Path) -> Watch {
        let heard = Heard {
            since: Instant::now(),
            last: Arc::default(),
        };
        let stream = client::connect(endpoint, "", Part::Beats);
        if let Ok((mut to, from)) = stream.and_then(|stream| Ok((stream.try_clone()?, stream))) {
            let heard = heard.clone();
            thread::spawn(move || listen(from, &heard));
            // Until the host is gone.
            thread::spawn(move || {
                while to.write_all(&[0]).is_ok() {
                    thread::sleep(BEAT);
                }
            });
        }
        Watch {
            heard,
            console: console.to_path_buf(),
            read: 0,
            begun: String::new(),
        }
    }

    /// How long ago the server was heard.
    pub(crate) fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.heard.last.load(Ordering::Relaxed));
        self.heard.since.elapsed().saturating_sub(last)
    }

    /// The lines that the host's kernel has printed since the last call.
    ///
    /// # Errors
    /// The console's file cannot be read.
    pub(crate) fn new_lines(&mut self) -> Result<Vec<String>> {
        let mut file = File::open(&self.console)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        self.read += file.take(MOST_CONSOLE_BYTES).read_to_end(&mut bytes)? as u64;
        self.begun.push_str(&String::from_utf8_lossy(&bytes));
        let mut lines: Vec<String> = self.begun.split('\n').map(str::to_owned).collect();
        self.begun = lines.pop().unwrap_or_default();
        Ok(lines)
    }

    /// What QEMU and its emulated processor do, in a few lines; empty if QEMU does not answer.
    pub(crate) fn state(&self) -> Vec<String> {
        let folder = self.console.parent().unwrap_or(Path::new("/"));
        monitor::state(folder).unwrap_or_default()
    }

    /// The last `count` lines of the console.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        // Shown beside a failure: a console that is gone does not replace it.
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(count)..];
        last.iter().map(|line| line.trim_end().to_owned()).collect()
    }
}

/// Until the host is gone.
fn listen(mut stream: TcpStream, heard: &Heard) {
    while stream.read_exact(&mut [0]).is_ok() {
        heard.now();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_line_of_the_console_is_seen_once_and_whole() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = Endpoint {
            port: listener.local_addr().unwrap().port(),
            token: "token".into(),
        };
        let folder = tempfile::tempdir().unwrap();
        let console = folder.path().join("console");
        fs::write(&console, "one\ntw").unwrap();
        let mut watch = Watch::new(&endpoint, &console);
        assert_eq!(watch.new_lines().unwrap(), ["one"]);
        let mut file = OpenOptions::new().append(true).open(&console).unwrap();
        file.write_all(b"o\nthree\n").unwrap();
        assert_eq!(watch.new_lines().unwrap(), ["two", "three"]);
        assert!(watch.new_lines().unwrap().is_empty());
        assert_eq!(watch.last_lines(2), ["two", "three"]);
    }
}
