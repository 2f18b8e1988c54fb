//! A connection's way from the guest to the descriptor: what the descriptor has not taken waits in a bounded buffer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use memory::Segments;
use rustix::net::Shutdown;

use super::{Connection, uninterrupted};
use crate::virtio::vsock::StreamError;

impl Connection {
    /// Sends what waits in the buffer, as much as the descriptor takes.
    pub(super) fn flush(&mut self) {
        while self.writable && self.host_receives && !self.unsent.is_empty() {
            let (first, second) = self.unsent.as_slices();
            let parts = [IoSlice::new(first), IoSlice::new(second)];
            let done = uninterrupted(|| Ok(rustix::io::writev(&self.fd, &parts)?));
            let count = done.as_ref().ok().copied().unwrap_or(0);
            self.unsent.drain(..count);
            let asked = count + self.unsent.len();
            self.wrote(asked, done);
        }
        if self.unsent.is_empty() && self.unsent.capacity() > 0 {
            // Most connections never fill their descriptor: an empty buffer is freed.
            self.unsent = VecDeque::new();
        }
        self.consider_credit_update();
        self.end_writing_when_flushed();
    }

    /// Accounts for a write of `asked` bytes. One that fails for another reason than that the host has closed its end
    /// (ENOBUFS, ENOMEM) is a failure to report: a reader would take the end of the stream for the end of the output.
    pub(super) fn wrote(&mut self, asked: usize, done: io::Result<usize>) {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, WouldBlock};
        match done.map_err(|error| (error.kind(), error)) {
            Ok(count) => {
                self.forwarded += count as u32;
                // The rest did not fit; an edge will say when it does.
                self.writable = count == asked;
            }
            Err((WouldBlock, _)) => self.writable = false,
            Err((BrokenPipe | ConnectionReset, _)) => self.host_gone(),
            Err((_, error)) => self.fail(StreamError::Write(error)),
        }
    }

    pub(super) fn fail(&mut self, error: StreamError) {
        self.host_gone();
        self.host_sends = false;
        self.failure = Some(error);
    }

    /// The host has closed its end: what it did not read is dropped.
    pub(super) fn host_gone(&mut self) {
        self.host_receives = false;
        self.unsent = VecDeque::new();
        self.forwarded = self.received;
    }

    /// A descriptor that has hung up takes nothing after its end of file: the guest is told before it writes.
    pub(super) fn consider_hang_up(&mut self) {
        if self.hung_up && !self.host_sends {
            self.host_gone();
        }
    }

    pub(super) fn end_writing_when_flushed(&mut self) {
        if !self.guest_sends && self.unsent.is_empty() && self.host_receives && !self.lingering {
            self.shut_fd(Shutdown::Write);
        }
    }

    pub(super) fn shut_fd(&self, how: Shutdown) {
        // Fails when the other end is gone, and then there is nothing left to shut.
        let _ = rustix::net::shutdown(&self.fd, how);
    }

    /// Tells the guest of freed space before it runs out: when it knows of less than half of the buffer.
    pub(super) fn consider_credit_update(&mut self) {
        let known_used = (self.received - self.told_forwarded).0;
        if self.guest_sends
            && self.forwarded != self.told_forwarded
            && known_used > self.buf_alloc / 2
        {
            self.credit_update_due = true;
        }
    }
}

/// Appends what is left of a packet to a connection's buffer, which has room for it and never grows beyond `most` bytes.
pub(super) fn buffer(unsent: &mut VecDeque<u8>, data: &mut Segments<'_>, most: usize) {
    let mut chunk = [0; 4096];
    let wanted = unsent.len() + data.len();
    if wanted > unsent.capacity() {
        // Doubled as a rule, so that many small packets do not copy it each time.
        let capacity = wanted.max(2 * unsent.capacity()).min(most);
        unsent.reserve_exact(capacity - unsent.len());
    }
    while !data.is_empty() {
        let count = data.take(&mut chunk);
        unsent.extend(&chunk[..count]);
    }
}
