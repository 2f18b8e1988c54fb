//! Bodies of answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::call::Sink;

/// Chunks that may wait for a slow client.
const CHUNKS: usize = 16;

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// All of it.
    Whole(Option<Bytes>),
    /// As it comes. Dropped with its connection, which hangs the pipe up.
    Parts {
        chunks: mpsc::Receiver<io::Result<Bytes>>,
        _there: Option<io::PipeWriter>,
    },
}

impl ReplyBody {
    pub(crate) fn whole(bytes: Vec<u8>) -> ReplyBody {
        ReplyBody::Whole(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()))
    }

    /// A body and where it is written.
    pub(crate) fn parts() -> io::Result<(ReplyBody, Sink)> {
        let (there, here) = io::pipe()?;
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let sink = Sink {
            chunks: sender,
            there,
        };
        let body = ReplyBody::Parts {
            chunks,
            _there: Some(here),
        };
        Ok((body, sink))
    }

    /// A body that an asynchronous task writes.
    pub(crate) fn channel() -> (ReplyBody, mpsc::Sender<io::Result<Bytes>>) {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let body = ReplyBody::Parts {
            chunks,
            _there: None,
        };
        (body, sender)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            ReplyBody::Whole(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            ReplyBody::Parts { chunks, .. } => chunks
                .poll_recv(context)
                .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            ReplyBody::Parts { .. } => SizeHint::default(),
        }
    }
}
