//! The monitor's end of its client's connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::monitor::{FromMonitor, ToMonitor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The largest message of a client, in bytes: all are small.
const MAX_MESSAGE_LEN: usize = 4096;

/// The connection. A client that is gone is noticed when it is read from; what is sent to it until then is lost.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Takes an accepted connection.
    pub(crate) fn new(socket: OwnedFd) -> Client {
        Client { socket }
    }

    /// The next message, or `None` when the client is gone or speaks gibberish, which only a foreign one would.
    pub(crate) fn receive(&mut self) -> Option<ToMonitor> {
        let mut buffer = [0; MAX_MESSAGE_LEN];
        let packet = match sys::packet::receive(&self.socket, &mut buffer) {
            Ok(packet) if packet.len > 0 => packet,
            Ok(_) => return None,
            Err(error) => {
                tracing::debug!(%error, "the client is gone");
                return None;
            }
        };
        match serde_json::from_slice(&buffer[..packet.len]) {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::warn!(%error, "the client sent something unintelligible");
                None
            }
        }
    }

    /// Sends a message with descriptors.
    pub(crate) fn send(&self, message: &FromMonitor, descriptors: &[BorrowedFd<'_>]) {
        let sent = serde_json::to_vec(message)
            .map_err(std::io::Error::from)
            .and_then(|bytes| sys::packet::send(&self.socket, &bytes, descriptors));
        if let Err(error) = sent {
            tracing::debug!(%error, "the client is gone, or cannot be told");
            // A client that is there would wait for ever for what did not get through. That it cannot be hung up on
            // means that it has gone.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }

    /// Sends the last message, after which there is nothing more to say.
    pub(crate) fn send_last(&self, message: &FromMonitor) {
        self.send(message, &[]);
    }

    /// Sends a message that may be lost, if the client has room for it.
    pub(crate) fn send_if_room(&self, message: &FromMonitor) {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::OUT)
        {
            self.send(message, &[]);
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
