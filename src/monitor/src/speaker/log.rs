//! A container's log, in Docker's json-file format: one JSON object a line with `log`, `stream` and `time`.
//!
//! Invariants: a line of the container's is written when it is whole or [`MAX_LINE_LEN`] long, its last words when the
//! stream ends; what the disk does not take is dropped and counted, and holds nothing up. Opening and rotating files is
//! the warden's.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use serde::Serialize;
use sys::reserve::Reserve;

use crate::text;

/// A longer line is cut into pieces of this length, in bytes, of which all but the last have no line end: Docker's figure.
const MAX_LINE_LEN: usize = 16 << 10;
/// Memory that is kept between two writes: what a read's worth of lines of usual length takes.
const KEPT_BYTES: usize = 128 << 10;

/// The file and what is to go into it.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    len_bytes: u64,
    max_bytes: Option<u64>,
    rotating: bool,
    /// Of stdout and stderr, lines that are not whole.
    partial: [Vec<u8>; 2],
    /// Lines as they are written, empty between two writes.
    out: Vec<u8>,
    /// Lines that the disk did not take.
    dropped: u64,
    reserve: Reserve,
}

#[derive(Serialize)]
struct Line<'a> {
    log: &'a str,
    stream: &'static str,
    time: &'a str,
}

impl Log {
    /// A log in this file, which is open for appending.
    pub(crate) fn new(file: OwnedFd, max_bytes: Option<u64>) -> Log {
        let mut log = Log {
            file: None,
            len_bytes: 0,
            max_bytes,
            rotating: false,
            partial: Default::default(),
            out: Vec::new(),
            dropped: 0,
            reserve: Reserve::of_logs(),
        };
        log.replace(Some(file));
        log
    }

    /// Goes on in another file; without one in the old one.
    pub(crate) fn replace(&mut self, file: Option<OwnedFd>) {
        self.rotating = false;
        let Some(file) = file else {
            // Asked for again when as much has been written once more.
            self.len_bytes = 0;
            return;
        };
        let mut file = File::from(file);
        self.len_bytes = file.seek(SeekFrom::End(0)).unwrap_or(0);
        self.file = Some(file);
    }

    /// Takes what a stream has said at this time, in nanoseconds since the epoch. True if the file is to be rotated, once.
    pub(crate) fn write(&mut self, is_stderr: bool, bytes: &[u8], now_ns: u64) -> bool {
        let time = text::rfc3339(now_ns);
        let mut out = std::mem::take(&mut self.out);
        let partial = &mut self.partial[usize::from(is_stderr)];
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_LINE_LEN - partial.len();
            let end = rest.iter().take(room).position(|b| *b == b'\n');
            let (taken, left) = rest.split_at(end.map_or(room.min(rest.len()), |at| at + 1));
            rest = left;
            if end.is_some() && partial.is_empty() {
                // Most lines come whole: they are not copied first.
                push_line(&mut out, taken, is_stderr, &time);
                continue;
            }
            partial.extend_from_slice(taken);
            if end.is_some() || partial.len() >= MAX_LINE_LEN {
                // A character that is cut stays whole.
                let whole = match end {
                    Some(_) => partial.len(),
                    None => whole_characters(partial),
                };
                push_line(&mut out, &partial[..whole], is_stderr, &time);
                partial.drain(..whole);
            }
        }
        let is_full = self.append(&out);
        out.clear();
        out.shrink_to(KEPT_BYTES);
        self.out = out;
        is_full
    }

    /// A stream has ended: its last words are written.
    pub(crate) fn end(&mut self, is_stderr: bool, now_ns: u64) {
        let partial = std::mem::take(&mut self.partial[usize::from(is_stderr)]);
        if !partial.is_empty() {
            let mut out = Vec::new();
            push_line(&mut out, &partial, is_stderr, &text::rfc3339(now_ns));
            self.append(&out);
        }
    }

    fn append(&mut self, lines: &[u8]) -> bool {
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else {
            return false;
        };
        // Not only when the disk is full: the last of it is for records.
        match self.reserve.allows(&*file, lines.len() as u64) {
            Ok(true) => {}
            outcome => {
                tracing::debug!(?outcome, "there is no room for the log");
                self.dropped += count_lines(lines);
                return false;
            }
        }
        if self.dropped > 0 {
            let mut word = Vec::new();
            let text = format!("hull: {} lines of output were not logged\n", self.dropped);
            let time = text::rfc3339(sys::clock::realtime_ns());
            push_line(&mut word, text.as_bytes(), true, &time);
            if file.write_all(&word).is_ok() {
                self.dropped = 0;
                self.len_bytes += word.len() as u64;
            }
        }
        let before = self.len_bytes;
        if let Err(error) = file.write_all(lines) {
            tracing::debug!(%error, "the log does not take what the container says");
            self.dropped += count_lines(lines);
            // What part of a line was written is taken back; if that fails, readers skip it.
            if file.set_len(before).is_err() {
                tracing::debug!("half a line stays in the log");
            }
            return false;
        }
        self.len_bytes += lines.len() as u64;
        let full = self.max_bytes.is_some_and(|max| self.len_bytes >= max);
        full && !std::mem::replace(&mut self.rotating, true)
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

fn push_line(out: &mut Vec<u8>, bytes: &[u8], is_stderr: bool, time: &str) {
    let line = Line {
        log: &String::from_utf8_lossy(bytes),
        stream: if is_stderr { "stderr" } else { "stdout" },
        time,
    };
    // Text always can be written as JSON.
    if serde_json::to_writer(&mut *out, &line).is_ok() {
        out.push(b'\n');
    }
}

/// Length of the bytes without a character that is cut at their end.
fn whole_characters(bytes: &[u8]) -> usize {
    let cut = (1..=3.min(bytes.len())).find(|back| {
        let lead = bytes[bytes.len() - back];
        let len = match lead {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 0,
        };
        len > *back
    });
    bytes.len() - cut.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn log(max_bytes: Option<u64>) -> (Log, File) {
        let file = tempfile::tempfile().unwrap();
        let reader = file.try_clone().unwrap();
        (Log::new(file.into(), max_bytes), reader)
    }

    fn lines(mut reader: File) -> Vec<serde_json::Value> {
        let mut text = String::new();
        reader.seek(SeekFrom::Start(0)).unwrap();
        reader.read_to_string(&mut text).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_written_when_they_are_whole_and_last_words_at_the_end() {
        let (mut log, reader) = log(None);
        log.write(false, b"one\ntw", 0);
        log.write(true, b"error\n", 1);
        log.write(false, b"o\nlast", 1_500_000_000);
        log.end(false, 2_000_000_000);
        log.end(true, 0);
        let lines = lines(reader);
        let said: Vec<_> = lines
            .iter()
            .map(|line| line["log"].as_str().unwrap())
            .collect();
        assert_eq!(said, ["one\n", "error\n", "two\n", "last"]);
        assert_eq!(lines[1]["stream"], "stderr");
        assert_eq!(lines[2]["time"], "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn long_lines_are_cut_between_characters_and_nothing_is_lost() {
        let (mut log, reader) = log(None);
        let text = format!("x{}\n", "€".repeat(20_000));
        for chunk in text.as_bytes().chunks(777) {
            log.write(false, chunk, 0);
        }
        let said: String = lines(reader)
            .iter()
            .map(|line| line["log"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(said, text);
    }

    #[test]
    fn a_full_file_asks_to_be_rotated_once() {
        let (mut log, _) = log(Some(200));
        let asked: Vec<bool> = (0..5)
            .map(|_| log.write(false, b"some words\n", 0))
            .collect();
        assert_eq!(asked.iter().filter(|asked| **asked).count(), 1);
        log.replace(Some(tempfile::tempfile().unwrap().into()));
        let again: Vec<bool> = (0..5)
            .map(|_| log.write(false, b"some words\n", 0))
            .collect();
        assert_eq!(again.iter().filter(|asked| **asked).count(), 1);
    }

    #[test]
    fn what_the_disk_does_not_take_is_counted_and_told() {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (mut log, reader) = log(None);
        let good = log.file.replace(full);
        log.write(false, b"one\ntwo\n", 0);
        assert_eq!(log.dropped, 2);
        log.file = good;
        log.write(false, b"three\n", 0);
        let said: Vec<_> = lines(reader)
            .iter()
            .map(|line| line["log"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            said,
            ["hull: 2 lines of output were not logged\n", "three\n"]
        );
    }
}
