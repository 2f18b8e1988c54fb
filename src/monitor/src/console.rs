//! The guest's console: read as it comes, the last of it kept.
//!
//! Invariants: at most [`KEPT_BYTES`] are kept, whatever the guest prints; what goes out has no control characters, so
//! that a guest cannot drive the user's terminal.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Enough for the longest of kernel panics, small beside the monitor's 3 MiB.
const KEPT_BYTES: usize = 64 << 10;
/// Lines that an error shows.
const SHOWN_LINES: usize = 20;
/// Read at once.
const CHUNK_BYTES: usize = 4096;

/// The guest's console.
#[derive(Debug)]
pub(crate) struct Console {
    pipe: File,
    kept: VecDeque<u8>,
    ended: bool,
}

impl Console {
    /// Makes the pipe; the other end is for hull-vmm.
    pub(crate) fn new() -> io::Result<(Console, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller pipe than asked for, where the user's quota is used up, only drops more.
        if let Err(error) = fcntl_setpipe_size(&write, KEPT_BYTES) {
            tracing::debug!(%error, "the console's pipe keeps its size");
        }
        Ok((
            Console {
                pipe: read.into(),
                kept: VecDeque::new(),
                ended: false,
            },
            write,
        ))
    }

    /// Its writers are gone.
    pub(crate) fn is_over(&self) -> bool {
        self.ended
    }

    /// The pipe, whether its writers are gone or not.
    pub(crate) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// To be polled, until its writers are gone.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then(|| self.pipe.as_fd())
    }

    /// Takes what there is and returns it for showing.
    pub(crate) fn read(&mut self) -> io::Result<String> {
        let mut text = String::new();
        let mut chunk = [0; CHUNK_BYTES];
        // Bounded, so that a guest that never stops printing cannot hold the monitor here.
        for _ in 0..KEPT_BYTES / CHUNK_BYTES {
            match self.pipe.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(len) => {
                    self.kept.extend(&chunk[..len]);
                    let excess = self.kept.len().saturating_sub(KEPT_BYTES);
                    self.kept.drain(..excess);
                    text.push_str(&printable(&chunk[..len]));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(text)
    }

    /// The last lines, for an error.
    pub(crate) fn last_lines(&mut self) -> Vec<String> {
        let text = printable(self.kept.make_contiguous());
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let first = lines.len().saturating_sub(SHOWN_LINES);
        lines[first..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect()
    }

    /// What the kernel said when it panicked, if it did.
    pub(crate) fn panic(&mut self) -> Option<String> {
        const MARK: &str = "Kernel panic - not syncing: ";
        let text = printable(self.kept.make_contiguous());
        let at = text.find(MARK)? + MARK.len();
        text[at..].lines().next().map(str::to_owned)
    }
}

/// Text without control characters but for line ends and tabs.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn said(bytes: &[u8]) -> Console {
        let (mut console, write) = Console::new().unwrap();
        let mut write = File::from(write);
        for part in bytes.chunks(CHUNK_BYTES) {
            write.write_all(part).unwrap();
            console.read().unwrap();
        }
        drop(write);
        console.read().unwrap();
        assert!(console.descriptor().is_none());
        console
    }

    #[test]
    fn a_panic_is_found_and_the_last_lines_are_shown() {
        let mut console =
            said(b"one\r\n[ 0.1] Kernel panic - not syncing: No init found\r\n[ 0.2] ---\r\n\r\n");
        assert_eq!(console.panic().unwrap(), "No init found");
        assert_eq!(console.last_lines().len(), 3);
    }

    #[test]
    fn a_flood_keeps_only_its_end() {
        let mut flood = vec![b'x'; 1 << 20];
        flood.extend(b"\nthe end\n");
        let mut console = said(&flood);
        assert!(console.kept.len() <= KEPT_BYTES);
        assert_eq!(console.last_lines().last().unwrap(), "the end");
    }

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(said(b"a\x1b[2Jb\x07\n").last_lines(), ["a[2Jb"]);
    }
}
