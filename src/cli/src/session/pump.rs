//! Bytes between the client's standard streams and the container's, a thread for each, so that a slow reader of one
//! holds up no other. Blocking reads and writes are the back pressure.

use std::fs::File;
use std::io::{self, ErrorKind, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use api::keys::Filter;
use rustix::fs::{FileType, fstat};
use rustix::net::{Shutdown, shutdown};
use values::lifecycle::DetachKeys;

/// Moved at once.
const CHUNK_BYTES: usize = 64 << 10;

/// When the container's first byte of output was written to the client's own output; 0 until then.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstOutput(Arc<AtomicU64>);

impl FirstOutput {
    /// The moment, once there is one.
    pub(super) fn at(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|at| *at != 0)
    }

    fn stamp(&self) {
        let now = sys::clock::monotonic_ns();
        // Only the first stays; that it lost the race means that there was one.
        let _ = self
            .0
            .compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Why output could not be passed on, other than a closed reader: the first reason.
#[derive(Debug, Clone, Default)]
pub(super) struct Failed(Arc<Mutex<Option<io::Error>>>);

impl Failed {
    /// The reason, once.
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: io::Error) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
    }
}

/// What an input pump is given.
pub(super) struct Input {
    /// The process's end.
    pub(super) to: OwnedFd,
    /// What the user leaves by.
    pub(super) keys: DetachKeys,
    /// A byte here says that the user has left.
    pub(super) left: PipeWriter,
}

/// What an output pump is given.
pub(super) struct Output {
    /// Its thread's name: `terminal` for a terminal's.
    pub(super) name: &'static str,
    /// The container's end.
    pub(super) from: OwnedFd,
    /// Ours.
    pub(super) to: BorrowedFd<'static>,
}

/// Pumps the container's output to `to` until it ends; then `done` is closed. When that fails, a byte is written to
/// `done` first, and the reason is in `failed`, unless `to` is closed by its reader.
pub(super) fn output(
    output: Output,
    first: FirstOutput,
    failed: Failed,
    mut done: PipeWriter,
) -> io::Result<()> {
    let Output { name, from, to } = output;
    let to = to.try_clone_to_owned()?;
    sys::thread::spawn(name, move || {
        let mut from = File::from(from);
        if let Err(error) = copy_out(&mut from, &mut File::from(to), &first, name == "terminal") {
            tracing::debug!(%error, "output ended early");
            if error.kind() != ErrorKind::BrokenPipe {
                failed.set(error);
            }
            // Fails only when the session has ended, which needs no telling.
            let _ = done.write_all(b"!");
            stop_reading(&from);
        }
        drop(done);
    })?;
    Ok(())
}

/// Pumps standard input to the process until it ends, which the process then sees, or until the user leaves.
pub(super) fn input(input: Input) -> io::Result<()> {
    let Input { to, keys, mut left } = input;
    let from = rustix::stdio::stdin().try_clone_to_owned()?;
    // Never waited for: it may block on a terminal for ever.
    sys::thread::spawn("stdin", move || {
        let mut to = File::from(to);
        match copy(&mut File::from(from), &mut to, &mut Filter::new(keys)) {
            Ok(false) => stop_writing(&to),
            // Fails only when the session has ended, which needs no telling.
            Ok(true) => drop(left.write_all(b"!")),
            Err(error) => {
                tracing::debug!(%error, "input ended early");
                stop_writing(&to);
            }
        }
    })?;
    Ok(())
}

/// True if the user has left, false at the end of the input.
fn copy(from: &mut File, to: &mut File, keys: &mut Filter) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(len) => {
                let (typed, left) = keys.pass(&buffer[..len]);
                to.write_all(&typed)?;
                if left {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_readable(from)?,
            Err(error) => return Err(error),
        }
    }
}

fn copy_out(
    from: &mut File,
    to: &mut File,
    first: &FirstOutput,
    is_terminal: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut stamped = false;
    loop {
        let len = match from.read(&mut buffer) {
            // A pty's master fails with EIO when its last slave is closed, which is its end.
            Ok(0) => return Ok(()),
            Err(error) if is_terminal && error.raw_os_error() == Some(libc::EIO) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        write_all(to, &buffer[..len])?;
        if !stamped {
            first.stamp();
            stamped = true;
        }
    }
}

/// Writes everything, also to a descriptor that was inherited as non-blocking.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait(to, rustix::event::PollFlags::OUT)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_readable(file: &File) -> io::Result<()> {
    wait(file, rustix::event::PollFlags::IN)
}

fn wait(file: &File, flags: rustix::event::PollFlags) -> io::Result<()> {
    match rustix::event::poll(&mut [rustix::event::PollFd::new(file, flags)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sockets are shut down; a native container's pipes end with their last descriptor, and its terminal with a signal.
fn stop_writing(file: &File) {
    shut(file, Shutdown::Write);
}

fn stop_reading(file: &File) {
    shut(file, Shutdown::Both);
}

fn shut(file: &File, how: Shutdown) {
    let is_socket =
        fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket);
    if is_socket {
        // It may be closed already, by the other side.
        if let Err(error) = shutdown(file.as_fd(), how) {
            tracing::debug!(%error, "a stream was closed before");
        }
    }
}
