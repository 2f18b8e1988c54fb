//! Where a guest's console output goes: a pipe or a file, written without blocking.
//!
//! A reader that is slow or gone loses output; the guest is not slowed down. Serial port and virtio console share one
//! output, which keeps their lines whole: bytes are gathered until a line ends. Lines that come together go out together: a
//! guest that sends nothing but line ends costs no more system calls than one that sends text.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest part of a line that is kept back, in bytes: what one write carries without being cut (PIPE_BUF).
const MAX_HELD: usize = 4096;

/// A console's output; clones share it.
#[derive(Debug, Clone)]
pub struct Output(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    to: Option<File>,
    line: Vec<u8>,
}

impl Output {
    /// Output to `to`, which becomes non-blocking, or to nowhere.
    pub fn new(to: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(to) = &to {
            sys::nonblocking::set_nonblocking(to)?;
        }
        Ok(Self(Arc::new(Mutex::new(Held {
            to: to.map(File::from),
            line: Vec::new(),
        }))))
    }

    /// Adds bytes; whole lines go out at once, up to [`MAX_HELD`] bytes with one write.
    pub fn write(&self, bytes: &[u8]) {
        let mut held = self.lock();
        for part in bytes.chunks(MAX_HELD) {
            // The lines that end in this part, if any do, and the beginning of the next.
            let lines = part
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            let (lines, rest) = part.split_at(lines);
            if !lines.is_empty() {
                held.add(lines);
                held.flush();
            }
            held.add(rest);
        }
    }

    /// Sends what is left of a line that has not ended.
    pub fn flush(&self) {
        self.lock().flush();
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing below panics with the lock held, and half a line breaks no invariant.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Adds at most [`MAX_HELD`] bytes.
    fn add(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > MAX_HELD {
            self.flush();
        }
        self.line.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        if let Some(to) = &mut self.to
            && !self.line.is_empty()
        {
            // A full pipe, a full disk and a reader that is gone all mean that this part is lost, as documented.
            let _ = to.write(&self.line);
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn lines_arrive_whole_and_the_rest_with_a_flush() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::new(Some(writer.into())).unwrap();
        output.write(b"one\ntw");
        let mut seen = [0; 16];
        assert_eq!(reader.read(&mut seen).unwrap(), 4);
        output.write(b"o");
        output.flush();
        assert_eq!(reader.read(&mut seen).unwrap(), 3);
        assert_eq!(&seen[..3], b"two");
    }

    #[test]
    fn lines_that_come_together_go_out_together() {
        let (reader, writer) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let output = Output::new(Some(writer.into())).unwrap();
        output.write(b"begun ");
        output.write(&[b'\n'; 10_000]);
        let mut bytes = [0; 2 * MAX_HELD];
        let mut written = || reader.recv(&mut bytes).unwrap();
        assert_eq!(written(), 6);
        assert_eq!([written(), written(), written()], [4096, 4096, 1808]);
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up() {
        let (_reader, writer) = io::pipe().unwrap();
        let output = Output::new(Some(writer.into())).unwrap();
        for _ in 0..100 {
            output.write(&[b'x'; 10_000]);
        }
        assert!(output.lock().line.capacity() <= 2 * MAX_HELD);
    }
}
