//! A client's connection, and the documents that clients and the warden pass as files.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use protocol::monitor::{
    ExecConfig, FromMonitor, MAX_DOCUMENT_LEN, MAX_PACKET_LEN, Request, ToMonitor,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;

/// Messages that a client has not read. One that lets so many wait is cut off (lifecycle H20).
const MAX_UNREAD: usize = 1024;
/// Requests taken from a client before others get their turn.
const REQUESTS_IN_A_TURN: usize = 16;
/// Read of a document at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    unread: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// The client is gone, or is to be.
pub(super) struct Gone;

impl Client {
    /// Everything that was said to it is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.unread.is_empty()
    }

    fn send(&mut self, message: Vec<u8>, descriptors: Vec<OwnedFd>) -> Result<(), Gone> {
        self.unread.push_back((message, descriptors));
        if self.unread.len() > MAX_UNREAD {
            tracing::warn!("a client does not read its answers");
            return Err(Gone);
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Gone> {
        while let Some((message, descriptors)) = self.unread.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match sys::packet::send(&self.socket, message, &borrowed) {
                Ok(()) => drop(self.unread.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "a client is gone");
                    return Err(Gone);
                }
            }
        }
        Ok(())
    }
}

/// A request as far as it must be understood to be refused.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl Speaker {
    /// A client has connected.
    pub(super) fn welcome(&mut self, socket: OwnedFd) -> Result<(), Error> {
        let id = self.next_client;
        self.next_client += 1;
        self.poller.add(&socket, Source::Client(id), Ready::READ)?;
        let client = Client {
            socket,
            unread: VecDeque::new(),
        };
        self.clients.insert(id, client);
        self.session.client_came(id);
        while let Some(text) = self.notices.pop_front() {
            self.send(id, &FromMonitor::Notice { text }, Vec::new());
        }
        Ok(())
    }

    /// A client's connection is ready.
    pub(super) fn client_ready(&mut self, id: ClientId, ready: Ready) -> Result<(), Error> {
        if ready.write
            && let Some(client) = self.clients.get_mut(&id)
            && client.flush().is_err()
        {
            return self.part(id);
        }
        if ready.read || ready.gone {
            for _ in 0..REQUESTS_IN_A_TURN {
                match self.receive(id) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(Gone) => return self.part(id),
                }
            }
        }
        self.watch_client(id)
    }

    /// Takes one request. False if there is none.
    fn receive(&mut self, id: ClientId) -> Result<bool, Gone> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(false);
        };
        let mut buffer = vec![0; MAX_PACKET_LEN];
        let packet = match sys::packet::receive(&client.socket, &mut buffer) {
            Ok(packet) if packet.len > 0 => packet,
            Ok(_) => return Err(Gone),
            Err(sys::packet::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(false);
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "a client is gone");
                return Err(Gone);
            }
        };
        let text = &buffer[..packet.len];
        let Ok(Numbered { seq }) = serde_json::from_slice(text) else {
            tracing::warn!("a client sent something unintelligible");
            return Err(Gone);
        };
        let ask = Ask { client: id, seq };
        let refused = match serde_json::from_slice::<ToMonitor>(text) {
            Ok(message) => match document_of(&message.request, packet.descriptors) {
                Ok(exec) => {
                    self.session.client_said(ask, message.request, exec);
                    return Ok(true);
                }
                Err(error) => Failure::new(FailureKind::Invalid, chain(&error)),
            },
            Err(error) => Failure::new(
                FailureKind::Unsupported,
                format!("hull {} cannot do that: {error}", protocol::BUILD),
            ),
        };
        let result = Err(refused);
        self.send(id, &FromMonitor::Answer { seq, result }, Vec::new());
        Ok(true)
    }

    /// Sends a client something, with descriptors.
    pub(super) fn send(&mut self, id: ClientId, message: &FromMonitor, descriptors: Vec<OwnedFd>) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let sent = match serde_json::to_vec(message) {
            Ok(bytes) if bytes.len() <= MAX_PACKET_LEN => client.send(bytes, descriptors),
            Ok(_) => client.send(too_long(message), Vec::new()),
            Err(error) => {
                tracing::error!(%error, "a message cannot be written");
                Ok(())
            }
        };
        // One that is gone is noticed when it is read from, too.
        if sent.is_err() {
            let _ = rustix::net::shutdown(&client.socket, rustix::net::Shutdown::Both);
        }
        if let Err(error) = self.watch_client(id) {
            tracing::warn!(error = %chain(&error), "a client cannot be waited for");
        }
    }

    fn watch_client(&mut self, id: ClientId) -> Result<(), Error> {
        let Some(client) = self.clients.get(&id) else {
            return Ok(());
        };
        let wanted = Ready::read_and(!client.unread.is_empty());
        Ok(self
            .poller
            .change(&client.socket, Source::Client(id), wanted)?)
    }

    fn part(&mut self, id: ClientId) -> Result<(), Error> {
        if let Some(client) = self.clients.remove(&id) {
            self.poller.remove(&client.socket);
        }
        self.streams.client_gone(&self.poller, id)?;
        self.session.client_gone(id);
        Ok(())
    }
}

/// What is said in the place of a message that does not fit a packet.
fn too_long(message: &FromMonitor) -> Vec<u8> {
    let failure = Failure::new(FailureKind::Other, "the answer is too long for a packet");
    let instead = match message {
        FromMonitor::Answer { seq, .. } => FromMonitor::Answer {
            seq: *seq,
            result: Err(failure),
        },
        _ => FromMonitor::Notice {
            text: failure.message,
        },
    };
    serde_json::to_vec(&instead).unwrap_or_default()
}

/// The document of an exec, which comes as a file.
fn document_of(
    request: &Request,
    descriptors: Vec<OwnedFd>,
) -> Result<Option<ExecConfig>, DocumentError> {
    match request {
        Request::Exec { .. } => {
            let file = descriptors.into_iter().next();
            read_document(file.ok_or(DocumentError::Missing)?).map(Some)
        }
        _ => Ok(None),
    }
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("the request's document did not come")]
    Missing,
    #[error("the document is longer than {MAX_DOCUMENT_LEN} bytes")]
    TooLong,
    #[error("cannot read the document")]
    Read(#[from] io::Error),
    #[error("the document is not one")]
    Malformed(#[from] serde_json::Error),
}

/// Reads a document from the start of a file.
pub(super) fn read_document<T: DeserializeOwned>(file: OwnedFd) -> Result<T, DocumentError> {
    let file = File::from(file);
    let mut text = Vec::new();
    loop {
        let start = text.len();
        if start as u64 > MAX_DOCUMENT_LEN {
            return Err(DocumentError::TooLong);
        }
        text.resize(start + CHUNK_BYTES, 0);
        let len = file.read_at(&mut text[start..], start as u64)?;
        text.truncate(start + len);
        if len == 0 {
            return Ok(serde_json::from_slice(&text)?);
        }
    }
}
