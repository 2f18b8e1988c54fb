//! A request as handlers see it, and what they answer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use engine::Engine;
use engine::options::Isolation;
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender};

use crate::error::Failure;
use crate::query::Query;
use crate::router::Version;

/// A request, read by a handler on a blocking thread.
pub(crate) struct Call {
    pub(crate) engine: &'static Engine,
    /// Isolation of containers that ask for none.
    pub(crate) isolation: Isolation,
    /// What the path names: a container, an image, …
    pub(crate) target: String,
    pub(crate) query: Query,
    pub(crate) version: Version,
    pub(crate) body: Vec<u8>,
    /// The body where it is an archive.
    pub(crate) upload: Option<Upload>,
}

/// A body that is read as it comes.
pub(crate) struct Upload {
    pub(crate) chunks: Receiver<io::Result<Bytes>>,
    pub(crate) current: Bytes,
}

impl io::Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let len = buffer.len().min(self.current.len());
        buffer[..len].copy_from_slice(&self.current.split_to(len));
        Ok(len)
    }
}

/// Where a handler writes an answer that comes in parts.
pub(crate) struct Sink {
    pub(crate) chunks: Sender<io::Result<Bytes>>,
    /// Hangs up when the client has gone.
    pub(crate) there: io::PipeReader,
}

/// The client has gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Sink {
    /// Sends some of the answer, waiting while the client is slow.
    pub(crate) fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.chunks
            .blocking_send(Ok(bytes.into()))
            .map_err(|_| Gone)
    }

    /// Sends a document in a line of its own.
    pub(crate) fn line(&self, document: &impl Serialize) -> Result<(), Gone> {
        let mut text = serde_json::to_vec(document).unwrap_or_default();
        text.extend(b"\r\n");
        self.send(text)
    }

    /// Breaks the answer off, so that the client sees that it is not whole.
    pub(crate) fn fail(&self, why: &str) {
        // Fails if the client has gone, which needs no telling.
        let _ = self
            .chunks
            .blocking_send(Err(io::Error::other(why.to_owned())));
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.there.as_fd()
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.send(Bytes::copy_from_slice(bytes)) {
            Ok(()) => Ok(bytes.len()),
            Err(Gone) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What writes an answer in parts.
pub(crate) type Writer = Box<dyn FnOnce(Sink) + Send>;
/// What speaks on a connection that was taken over; with the bytes that have come already.
pub(crate) type Speaker = Box<dyn FnOnce(UnixStream, Vec<u8>) + Send>;

/// An answer.
pub(crate) enum Reply {
    /// Status, content type, headers and body.
    Whole {
        status: u16,
        kind: &'static str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// 200 at once, and a body as it comes.
    Parts {
        kind: &'static str,
        headers: Vec<(&'static str, String)>,
        write: Writer,
    },
    /// The connection becomes the process's streams.
    TakeOver { kind: &'static str, speak: Speaker },
}

/// What a handler answers.
pub(crate) type Answer = Result<Reply, Failure>;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TAR: &str = "application/x-tar";

/// A document.
pub(crate) fn json(status: u16, document: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(document);
    Ok(Reply::Whole {
        status,
        kind: JSON,
        headers: Vec::new(),
        body: body.map_err(|error| Failure::new(500, error.to_string()))?,
    })
}

/// A status alone.
pub(crate) fn empty(status: u16) -> Answer {
    Ok(Reply::Whole {
        status,
        kind: "",
        headers: Vec::new(),
        body: Vec::new(),
    })
}

/// A body as it comes.
pub(crate) fn parts(kind: &'static str, write: impl FnOnce(Sink) + Send + 'static) -> Answer {
    Ok(Reply::Parts {
        kind,
        headers: Vec::new(),
        write: Box::new(write),
    })
}
