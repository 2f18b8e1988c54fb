//! A process's standard streams over a connection that was taken over.
//!
//! ```text
//! client --thread "input"--> stdin          stdout, stderr --this thread, in frames unless a terminal--> client
//! ```
//!
//! Invariants: the connection is closed only when everything that the process wrote has been sent and its end is known, so that
//! a client that asks for the code then gets it; the end of the client's side is the end of the process's input and of nothing
//! else; a client that has gone ends this thread.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use engine::Streams;
use engine::session::{Event, Session};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use values::lifecycle::DetachKeys;

use crate::frames;
use crate::keys::Filter;
use crate::threads;

/// What is moved at once.
const CHUNK_BYTES: usize = 32 << 10;
/// How long output of a broken sandbox may take to come to its end.
const BROKEN_GRACE: Duration = Duration::from_secs(1);

/// A process and its streams.
pub(crate) struct Attachment {
    pub(crate) session: Session<'static>,
    pub(crate) streams: Streams,
    /// What detaches from a terminal.
    pub(crate) keys: DetachKeys,
    /// What is sent before: earlier output, in frames if there are any.
    pub(crate) earlier: Vec<u8>,
}

/// An output, and its number in frames; `None` is a terminal's.
struct Output {
    number: Option<u8>,
    from: File,
}

/// How the process's end stands.
#[derive(Clone, Copy)]
enum End {
    Running,
    Ended { at: Instant, broken: bool },
}

/// Carries everything until the process's end, or until the client goes.
pub(crate) fn carry(attachment: Attachment, client: UnixStream, early: Vec<u8>) {
    let Attachment {
        mut session,
        streams,
        keys,
        earlier,
    } = attachment;
    let detached = match begin(streams, keys, &client, early) {
        Ok((mut outputs, left)) => {
            let sent = (&client).write_all(&earlier);
            sent.and_then(|()| pump(&mut session, &mut outputs, left, &client))
        }
        Err(error) => Err(error),
    };
    match detached {
        Ok(true) => {
            if let Err(error) = session.detach() {
                tracing::debug!(%error, "the process has ended");
            }
        }
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "an attached client has gone"),
    }
    // Also the end of the thread that reads the input. It fails if the client has gone.
    let _ = client.shutdown(Shutdown::Both);
    session.leave();
}

/// Begins to read the client's input. Returns the outputs, and what says that the client detaches.
fn begin(
    streams: Streams,
    keys: DetachKeys,
    client: &UnixStream,
    early: Vec<u8>,
) -> io::Result<(Vec<Output>, Option<PipeReader>)> {
    let terminal = streams.terminal.as_ref();
    let is_terminal = terminal.is_some();
    let typed = terminal.map(OwnedFd::try_clone).transpose()?;
    let input = typed.or(streams.stdin);
    let all = [
        (None, streams.terminal),
        (Some(frames::STDOUT), streams.stdout),
        (Some(frames::STDERR), streams.stderr),
    ];
    let outputs = all.into_iter().filter_map(|(number, from)| {
        let from = File::from(from?);
        Some(Output { number, from })
    });
    let outputs = outputs.collect();
    let Some(to) = input else {
        return Ok((outputs, None));
    };
    let (left, leaving) = io::pipe()?;
    let from = client.try_clone()?;
    let keys = if is_terminal {
        keys
    } else {
        DetachKeys(Vec::new())
    };
    let started = threads::spawn("input", move || {
        type_in(from, early, File::from(to), keys, leaving)
    });
    started.map_err(|failure| io::Error::other(failure.message))?;
    Ok((outputs, Some(left)))
}

/// Passes the client's input on until it ends, which the process then sees, or until the client detaches.
fn type_in(
    mut from: UnixStream,
    early: Vec<u8>,
    mut to: File,
    keys: DetachKeys,
    mut leaving: PipeWriter,
) {
    let mut filter = Filter::new(keys);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut typed = early;
    loop {
        let (bytes, leaves) = filter.pass(&typed);
        if to.write_all(&bytes).is_err() {
            return;
        }
        if leaves {
            // Fails only when the attachment has ended.
            let _ = leaving.write_all(b"!");
            return;
        }
        typed = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => buffer[..len].to_vec(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Vec::new(),
            Err(_) => break,
        };
    }
    let is_socket =
        fstat(&to).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    if is_socket {
        // It may be closed already, by the other side. A native container's pipe ends with its last descriptor.
        let _ = rustix::net::shutdown(to.as_fd(), rustix::net::Shutdown::Write);
    }
}

/// Sends output until everything was sent and the end is known. Whether the client detaches.
fn pump(
    session: &mut Session<'static>,
    outputs: &mut Vec<Output>,
    mut left: Option<PipeReader>,
    client: &UnixStream,
) -> io::Result<bool> {
    let mut end = End::Running;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let mut timeout = None;
        if let End::Ended { at, broken } = end {
            if outputs.is_empty() || (broken && at.elapsed() >= BROKEN_GRACE) {
                return Ok(false);
            }
            timeout = broken.then(|| BROKEN_GRACE.saturating_sub(at.elapsed()));
        }
        let mut fds = vec![PollFd::new(client, PollFlags::empty())];
        let session_at = match end {
            End::Running => {
                fds.push(PollFd::new(&*session, PollFlags::IN));
                Some(1)
            }
            End::Ended { .. } => None,
        };
        let left_at = left.as_ref().map(|left| {
            fds.push(PollFd::new(left, PollFlags::IN));
            fds.len() - 1
        });
        let first = fds.len();
        fds.extend(
            outputs
                .iter()
                .map(|output| PollFd::new(&output.from, PollFlags::IN)),
        );
        wait(&mut fds, timeout)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // What was written to both is sent in this order.
        let mut over = Vec::new();
        for (index, output) in outputs.iter_mut().enumerate() {
            if ready[first + index] && !send(output, client, &mut buffer)? {
                over.push(index);
            }
        }
        for index in over.into_iter().rev() {
            outputs.remove(index);
        }
        if let (Some(at), Some(reader)) = (left_at, &mut left)
            && ready[at]
        {
            if reader.read(&mut [0])? > 0 {
                return Ok(true);
            }
            left = None;
        }
        if session_at.is_some_and(|at| ready[at]) {
            end = hear(session);
        }
    }
}

/// Sends some of an output; false at its end.
fn send(output: &mut Output, mut client: &UnixStream, buffer: &mut [u8]) -> io::Result<bool> {
    let len = match output.from.read(buffer) {
        Ok(0) => return Ok(false),
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
        // A pty's master fails with EIO when its last slave is closed.
        Err(_) => return Ok(false),
    };
    if let Some(number) = output.number {
        client.write_all(&frames::head(number, len))?;
    }
    client.write_all(&buffer[..len])?;
    Ok(true)
}

fn hear(session: &mut Session<'static>) -> End {
    let ended = |broken| End::Ended {
        at: Instant::now(),
        broken,
    };
    loop {
        match session.next_ready() {
            Ok(None) => return End::Running,
            Ok(Some(Event::Exited(exit))) => return ended(exit.error.is_some()),
            Ok(Some(Event::Failed(_))) | Err(_) => return ended(true),
            Ok(Some(_)) => {}
        }
    }
}

/// Waits until one of the descriptors has something, or for `timeout`.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
