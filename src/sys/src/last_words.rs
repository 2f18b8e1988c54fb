//! What a jailed process says when it has no other way left: one small record, written to a pipe that it inherited.
//!
//! Three things are said so: that the jail could not be made, that seccomp refused a system call, and that the program
//! panicked. A record is written by one write(2) with no allocation and no lock, so that a signal handler can do it.
//! The reader believes nothing: an attacker that has taken the process over may write anything, and no more than
//! [`RECORD_LEN`] bytes of it are looked at.

#![expect(unsafe_code, reason = "writes in a signal handler")]

use std::io;
use std::os::fd::{AsFd, RawFd};

/// Length of a record.
pub const RECORD_LEN: usize = 256;
/// Where the text begins.
const TEXT: usize = 12;
/// The longest text.
pub const TEXT_LEN: usize = RECORD_LEN - TEXT;

const SET_UP: u32 = 1;
const REFUSED: u32 = 2;
const PANICKED: u32 = 3;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastWords {
    /// The jail could not be made.
    SetUp {
        /// Which of [`crate::jail::STEPS`].
        step: u32,
        /// Why.
        errno: i32,
    },
    /// seccomp refused a system call.
    Refused {
        /// Its number.
        call: u32,
        /// The thread that made it.
        thread: String,
    },
    /// The program panicked.
    Panicked {
        /// Where, and what it said.
        text: String,
    },
}

/// Writes a record; a failure is ignored, since the process ends.
pub fn write(pipe: RawFd, words: &LastWords) {
    match words {
        LastWords::SetUp { step, errno } => write_record(pipe, SET_UP, *step, *errno, b""),
        LastWords::Refused { call, thread } => {
            write_record(pipe, REFUSED, *call, 0, thread.as_bytes());
        }
        LastWords::Panicked { text } => write_record(pipe, PANICKED, 0, 0, text.as_bytes()),
    }
}

/// As [`write`], of a refused call: fit for a signal handler.
pub(crate) fn write_refused(pipe: RawFd, call: u32, thread: &[u8]) {
    write_record(pipe, REFUSED, call, 0, thread);
}

fn write_record(pipe: RawFd, kind: u32, number: u32, errno: i32, text: &[u8]) {
    let mut record = [0; RECORD_LEN];
    record[..4].copy_from_slice(&kind.to_ne_bytes());
    record[4..8].copy_from_slice(&number.to_ne_bytes());
    record[8..12].copy_from_slice(&errno.to_ne_bytes());
    let len = text.len().min(TEXT_LEN);
    record[TEXT..TEXT + len].copy_from_slice(&text[..len]);
    // SAFETY: the buffer lives to the end of the call; write(2) may be called in a signal handler.
    unsafe { libc::write(pipe, record.as_ptr().cast(), RECORD_LEN) };
}

/// Reads the first record of a pipe, or `None` if there is no whole one; waits for its writers to write or end.
pub fn read(pipe: impl AsFd) -> io::Result<Option<LastWords>> {
    let mut record = [0; RECORD_LEN];
    let mut have = 0;
    while have < RECORD_LEN {
        match rustix::io::retry_on_intr(|| rustix::io::read(&pipe, &mut record[have..]))? {
            0 => return Ok(None),
            len => have += len,
        }
    }
    Ok(parse(&record))
}

fn parse(record: &[u8; RECORD_LEN]) -> Option<LastWords> {
    let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| record[at + byte]));
    let text = || {
        let text = String::from_utf8_lossy(&record[TEXT..]);
        text.chars()
            .take_while(|&c| c != '\0')
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    };
    match word(0) {
        SET_UP => Some(LastWords::SetUp {
            step: word(4),
            errno: word(8) as i32,
        }),
        REFUSED => Some(LastWords::Refused {
            call: word(4),
            thread: text(),
        }),
        PANICKED => Some(LastWords::Panicked { text: text() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn through_a_pipe(words: &LastWords) -> Option<LastWords> {
        let (reader, writer) = io::pipe().unwrap();
        write(writer.as_raw_fd(), words);
        drop(writer);
        read(&reader).unwrap()
    }

    #[test]
    fn words_arrive_as_they_were_said() {
        for words in [
            LastWords::SetUp { step: 2, errno: 1 },
            LastWords::Refused {
                call: 257,
                thread: "vcpu0".into(),
            },
            LastWords::Panicked {
                text: "at x.rs:1".into(),
            },
        ] {
            assert_eq!(through_a_pipe(&words), Some(words));
        }
    }

    #[test]
    fn long_words_are_cut_and_terminals_left_alone() {
        let text = format!("\x1b[2J{}", "x".repeat(1000));
        let Some(LastWords::Panicked { text }) = through_a_pipe(&LastWords::Panicked { text })
        else {
            panic!("a panic")
        };
        assert!(text.starts_with(" [2Jxx") && text.len() == TEXT_LEN);
    }

    #[test]
    fn silence_and_gibberish_say_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(read(&reader).unwrap(), None);
        assert_eq!(parse(&[0xff; RECORD_LEN]), None);
    }
}
