//! The asynchronous edge: connections, bodies, upgrades. One thread; handlers run on others.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use engine::Engine;
use engine::options::Isolation;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

use crate::body::ReplyBody;
use crate::call::{Call, Reply, Speaker, Upload};
use crate::error::Failure;
use crate::listen::Listener;
use crate::query::Query;
use crate::router::{self, Body as Kind, Matched};
use crate::threads;

/// Calls that are carried out at once; others wait for their turn. What may last has a thread of its own.
const MAX_CALLS: usize = 128;
/// Connections at once; others wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// The largest document of a client's: environments and commands of 2 MiB, written six times as long, fit.
const MAX_BODY_BYTES: usize = 16 << 20;
/// In which a request's head, and a document, must have come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls in flight may take so long to end once this process is to end.
const GRACE: Duration = Duration::from_secs(10);
/// What is moved at once.
const CHUNK_BYTES: usize = 32 << 10;

/// Why the service has ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime.
    #[error("cannot serve the Docker API")]
    Io(#[from] io::Error),
}

/// How to serve.
#[derive(Debug)]
pub struct Settings {
    /// Isolation of containers that ask for none.
    pub isolation: Isolation,
}

#[derive(Clone)]
struct Server {
    engine: &'static Engine,
    isolation: Isolation,
}

/// Serves Docker's API at these sockets until SIGTERM or SIGINT, which removes them.
pub fn serve(engine: Engine, listeners: Vec<Listener>, settings: Settings) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_CALLS)
        .build()?;
    let server = Server {
        // For as long as the process: threads of its own may outlast the runtime by a moment.
        engine: Box::leak(Box::new(engine)),
        isolation: settings.isolation,
    };
    let served = runtime.block_on(server.listen(&listeners));
    drop(listeners);
    runtime.shutdown_timeout(GRACE);
    Ok(served?)
}

impl Server {
    async fn listen(&self, listeners: &[Listener]) -> io::Result<()> {
        let (mut terminated, mut interrupted) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let connections = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for listener in listeners {
            let socket = listener.socket.try_clone()?;
            socket.set_nonblocking(true)?;
            let socket = UnixListener::from_std(socket)?;
            let (server, connections) = (self.clone(), connections.clone());
            tokio::spawn(async move { server.accept(socket, connections).await });
        }
        std::future::poll_fn(|context| {
            let (first, second) = (
                terminated.poll_recv(context),
                interrupted.poll_recv(context),
            );
            match first.is_ready() || second.is_ready() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        Ok(())
    }

    async fn accept(self, socket: UnixListener, connections: std::sync::Arc<Semaphore>) {
        /// Until descriptors or memory may be there again.
        const PAUSE: Duration = Duration::from_millis(100);
        loop {
            let permit = connections.clone().acquire_owned().await;
            match socket.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        server.converse(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn converse(self, stream: UnixStream) {
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Response<ReplyBody> {
        let mut response = match self.try_answer(request).await {
            Ok(response) => response,
            Err(failure) => {
                tracing::debug!(failure.status, failure.message, "a request failed");
                let mut response = Response::new(ReplyBody::whole(failure.body()));
                *response.status_mut() = StatusCode::from_u16(failure.status)
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                set(response.headers_mut(), "content-type", crate::call::JSON);
                response
            }
        };
        let headers = response.headers_mut();
        for (name, value) in [
            ("api-version", crate::API_VERSION),
            ("docker-experimental", "false"),
            ("ostype", "linux"),
            (
                "server",
                concat!("Docker/28.2.2 (hull ", env!("CARGO_PKG_VERSION"), ")"),
            ),
        ] {
            set(headers, name, value);
        }
        response
    }

    async fn try_answer(
        self,
        mut request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Failure> {
        let matched = router::find(request.method(), request.uri().path())?;
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let upgrades = upgrades(request.headers());
        let upgraded = upgrades.then(|| hyper::upgrade::on(&mut request));
        let Matched {
            version,
            target,
            handler,
            body: kind,
        } = matched;
        let mut call = Call {
            engine: self.engine,
            isolation: self.isolation,
            target,
            query,
            version,
            body: Vec::new(),
            upload: None,
        };
        let mut input = None;
        match kind {
            Kind::Document => call.body = document(request.into_body()).await?,
            Kind::Archive => call.upload = Some(upload(request.into_body())),
            Kind::Streams => input = Some(request.into_body()),
        }
        let answered = tokio::task::spawn_blocking(move || handler(call)).await;
        let reply = answered
            .map_err(|_| Failure::new(500, "hull serve has a fault: the request ended early"))??;
        Ok(match reply {
            Reply::Whole {
                status,
                kind,
                headers,
                body,
            } => {
                let mut response = Response::new(ReplyBody::whole(body));
                *response.status_mut() =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                describe(&mut response, kind, headers);
                response
            }
            Reply::Parts {
                kind,
                headers,
                write,
            } => {
                let (body, sink) = ReplyBody::parts().map_err(no_stream)?;
                threads::spawn("parts", move || write(sink))?;
                let mut response = Response::new(body);
                describe(&mut response, kind, headers);
                response
            }
            Reply::TakeOver { kind, speak } => match upgraded {
                Some(upgraded) => {
                    tokio::spawn(async move {
                        match upgraded.await {
                            Ok(upgraded) => take_over(upgraded, speak),
                            Err(error) => tracing::debug!(%error, "a client left early"),
                        }
                    });
                    let mut response = Response::new(ReplyBody::Whole(None));
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                    set(response.headers_mut(), "connection", "Upgrade");
                    set(response.headers_mut(), "upgrade", "tcp");
                    describe(&mut response, kind, Vec::new());
                    response
                }
                None => {
                    let mut response = Response::new(bridge(input, speak)?);
                    describe(&mut response, kind, Vec::new());
                    response
                }
            },
        })
    }
}

fn no_stream(error: io::Error) -> Failure {
    Failure::new(
        503,
        format!("hull serve cannot take another stream: {error}"),
    )
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn describe(response: &mut Response<ReplyBody>, kind: &str, headers: Vec<(&'static str, String)>) {
    if !kind.is_empty() {
        set(response.headers_mut(), "content-type", kind);
    }
    for (name, value) in headers {
        set(response.headers_mut(), name, &value);
    }
}

/// Whether the client asks to take the connection over, as `Upgrade: tcp`.
fn upgrades(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "tcp")
}

async fn document(body: Incoming) -> Result<Vec<u8>, Failure> {
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY_BYTES).collect());
    match collected.await {
        Err(_) => Err(Failure::new(408, "the request's body has not come in time")),
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Failure::new(
            413,
            format!("the request's body is longer than {MAX_BODY_BYTES} bytes"),
        )),
        Ok(Err(error)) => Err(Failure::invalid(format!(
            "the request's body is damaged: {error}"
        ))),
    }
}

/// Passes a body on to a thread that reads it.
fn upload(mut body: Incoming) -> Upload {
    let (sender, chunks) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            let chunk = match frame {
                Ok(frame) => frame.into_data().map(Ok).ok(),
                Err(error) => Some(Err(io::Error::other(error))),
            };
            if let Some(chunk) = chunk
                && sender.send(chunk).await.is_err()
            {
                return;
            }
        }
    });
    Upload {
        chunks,
        current: Bytes::new(),
    }
}

/// Hands the connection itself to a thread.
fn take_over(upgraded: Upgraded, speak: Speaker) {
    let Ok(parts) = upgraded.downcast::<TokioIo<UnixStream>>() else {
        tracing::warn!("a connection of another kind cannot be taken over");
        return;
    };
    let blocking = || -> io::Result<std::os::unix::net::UnixStream> {
        let stream = parts.io.into_inner().into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    };
    let early = parts.read_buf.to_vec();
    match blocking() {
        Ok(stream) => {
            if let Err(failure) = threads::spawn("streams", move || speak(stream, early)) {
                tracing::warn!(failure.message, "an attached client is turned away");
            }
        }
        Err(error) => tracing::warn!(%error, "a connection cannot be taken over"),
    }
}

/// For clients that do not take the connection over: the answer's body is the output, the request's the input.
fn bridge(input: Option<Incoming>, speak: Speaker) -> Result<ReplyBody, Failure> {
    let (ours, theirs) = UnixStream::pair().map_err(no_stream)?;
    let theirs = theirs.into_std().map_err(no_stream)?;
    theirs.set_nonblocking(false).map_err(no_stream)?;
    threads::spawn("streams", move || speak(theirs, Vec::new()))?;
    let (mut from, mut to) = ours.into_split();
    let writer = tokio::spawn(async move {
        let mut input = input;
        while let Some(body) = &mut input
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Ok(bytes) = frame.into_data()
                && to.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
        // It fails if the process has ended, which needs no telling.
        let _ = to.shutdown().await;
    });
    let (body, sender) = ReplyBody::channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Some(len) = read_for(&mut from, &mut buffer, &sender).await {
            let chunk = Bytes::copy_from_slice(&buffer[..len]);
            if sender.send(Ok(chunk)).await.is_err() {
                break;
            }
        }
        writer.abort();
    });
    Ok(body)
}

/// Reads something for a client; `None` at the end, and when the client has gone.
async fn read_for(
    from: &mut OwnedReadHalf,
    buffer: &mut [u8],
    client: &mpsc::Sender<io::Result<Bytes>>,
) -> Option<usize> {
    let (mut read, mut gone) = (pin!(from.read(buffer)), pin!(client.closed()));
    std::future::poll_fn(|context| {
        if gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let read = read.as_mut().poll(context);
        read.map(|read| read.ok().filter(|len| *len > 0))
    })
    .await
}
