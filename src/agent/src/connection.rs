//! The control connection: frames in, frames out, never blocking.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::agent::{Failure, FailureKind};
use protocol::agent::{FromAgent, ToAgent};
use protocol::frame::{Assembler, Error, MAX_LEN, MAX_REPLY_LEN, encode};
use sys::nonblocking::set_nonblocking;

/// While this much waits to be sent, no more requests are taken: the host must read its replies.
const MAX_UNSENT_LEN: usize = 1 << 20;
/// Bytes taken from the connection at a time.
const READ_LEN: usize = 16 << 10;

/// The connection to the monitor.
pub(crate) struct Connection {
    stream: File,
    received: Assembler,
    unsent: VecDeque<u8>,
}

impl Connection {
    pub(crate) fn new(stream: OwnedFd) -> std::io::Result<Connection> {
        set_nonblocking(&stream)?;
        let stream = File::from(stream);
        Ok(Connection {
            stream,
            received: Assembler::new(MAX_LEN),
            unsent: VecDeque::new(),
        })
    }

    /// The next request, or `None` until more arrives.
    pub(crate) fn next(&mut self) -> Result<Option<ToAgent>, Error> {
        if self.is_congested() {
            return Ok(None);
        }
        loop {
            if let Some(request) = self.received.next()? {
                return Ok(Some(request));
            }
            let mut bytes = [0; READ_LEN];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(Error::Closed),
                Ok(len) => self.received.push(&bytes[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts a message behind what waits to be sent; [`Connection::flush`] sends it.
    pub(crate) fn send(&mut self, message: &FromAgent) {
        match encode(message) {
            Ok(frame) if frame.len() <= 4 + MAX_REPLY_LEN => self.unsent.extend(frame),
            _ => self.send_too_large(message),
        }
    }

    /// The host takes no frame as large as this message: every request still gets a reply.
    fn send_too_large(&mut self, message: &FromAgent) {
        if let FromAgent::Reply { seq, .. } = message {
            let failure = Failure::new(FailureKind::Other, "the answer is too large for a frame");
            let reply = FromAgent::Reply {
                seq: *seq,
                result: Err(failure),
            };
            self.unsent.extend(encode(&reply).unwrap_or_default());
        }
    }

    /// Sends what waits, as far as the connection takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        while !self.unsent.is_empty() {
            match self.stream.write(self.unsent.as_slices().0) {
                Ok(0) => return Err(Error::Closed),
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Something waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// So much waits that requests must.
    pub(crate) fn is_congested(&self) -> bool {
        self.unsent.len() > MAX_UNSENT_LEN
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use protocol::agent::{Done, ProcessEntry};
    use protocol::frame;

    use super::*;

    #[test]
    fn an_answer_that_no_frame_holds_is_a_failure() {
        let (ours, theirs) = sys::packet::stream_pair().unwrap();
        let mut connection = Connection::new(ours).unwrap();
        let process = ProcessEntry {
            command: "x".repeat(2 * MAX_REPLY_LEN),
            ..ProcessEntry::default()
        };
        let processes = vec![process];
        connection.send(&FromAgent::Reply {
            seq: 7,
            result: Ok(Done::Processes { processes }),
        });
        connection.flush().unwrap();
        match frame::read(File::from(theirs)).unwrap() {
            FromAgent::Reply {
                seq: 7,
                result: Err(failure),
            } => assert_eq!(failure.kind, FailureKind::Other),
            other => panic!("{other:?}"),
        }
    }
}
