//! The threads that serve the socket to hull-vmm.
//!
//! Quick threads take requests and answer them; those that may have to wait for a disk they hand to slow threads, so that an
//! fsync holds up none but others of its kind. Answers go out in any order. When the slow threads have all that they may, quick
//! ones wait for them: back pressure, up to the guest.
//!
//! One quick thread has the turn to receive. It keeps it while it answers, unless more requests wait already: a guest that
//! asks for one thing at a time is served by one thread, and none is woken in vain.
//!
//! A DESTROY is a barrier: what came before it is answered before it is, so that a guest that begins anew, with numbers that it
//! used before, gets no answer to what it forgot.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use protocol::fs::MAX_MESSAGE_LEN;
use sys::packet;

use crate::server::{Reply, Server};
use crate::{abi, lock};

/// Threads for what is answered from the host's memory, or from a disk in one access.
const QUICK_THREADS: usize = 4;
/// Threads for what may take long.
const SLOW_THREADS: usize = 4;
/// Requests that wait for a slow thread: as many as a queue of the device holds.
const MAX_WAITING: usize = 256;

/// The socket to hull-vmm, and the server behind it.
#[derive(Debug)]
struct Session {
    server: Arc<Server>,
    socket: OwnedFd,
    /// Held by the thread that receives.
    turn: Mutex<()>,
    in_flight: InFlight,
    /// A packet that was not one has been told of.
    warned: AtomicBool,
}

/// Requests that were received and are not answered yet, but for the one of the thread that has the turn.
#[derive(Debug, Default)]
struct InFlight {
    counted: Mutex<Counted>,
    none: Condvar,
}

#[derive(Debug, Default)]
struct Counted {
    requests: usize,
    /// A thread waits until there are none: to wake none takes a system call, too.
    is_awaited: bool,
}

impl InFlight {
    fn add(&self) {
        lock(&self.counted).requests += 1;
    }

    fn done(&self) {
        let mut counted = lock(&self.counted);
        counted.requests -= 1;
        if counted.requests == 0 && counted.is_awaited {
            self.none.notify_all();
        }
    }

    /// Waits until there are none. None may be added meanwhile.
    fn wait(&self) {
        let mut counted = lock(&self.counted);
        counted.is_awaited = true;
        let waited = self
            .none
            .wait_while(counted, |counted| counted.requests > 0);
        waited.unwrap_or_else(PoisonError::into_inner).is_awaited = false;
    }
}

/// Starts the threads. When hull-vmm closes the socket, the process ends: there is nothing left to serve.
pub fn start(server: Arc<Server>, socket: OwnedFd) -> io::Result<()> {
    let session = Arc::new(Session {
        server,
        socket,
        turn: Mutex::default(),
        in_flight: InFlight::default(),
        warned: AtomicBool::new(false),
    });
    let (slow, waiting) = sync_channel(MAX_WAITING);
    let waiting = Arc::new(Mutex::new(waiting));
    for number in 0..SLOW_THREADS {
        let (session, waiting) = (session.clone(), waiting.clone());
        sys::thread::spawn(&format!("fs-slow{number}"), move || {
            session.serve_slow(&waiting);
        })?;
    }
    for number in 0..QUICK_THREADS {
        let (session, slow) = (session.clone(), slow.clone());
        sys::thread::spawn(&format!("fs{number}"), move || session.serve(&slow))?;
    }
    Ok(())
}

impl Session {
    fn serve(&self, slow: &SyncSender<Vec<u8>>) {
        let mut buffer = vec![0; MAX_MESSAGE_LEN];
        let mut turn = lock(&self.turn);
        loop {
            let request = match packet::receive(&self.socket, &mut buffer) {
                Ok(packet) if packet.len == 0 => sys::fork::exit(0),
                // Descriptors that come along are nothing that was asked for: they are closed.
                Ok(packet) => &buffer[..packet.len],
                Err(packet::Error::Truncated) => {
                    self.warn("hull-vmm sent a request that is too long");
                    continue;
                }
                Err(packet::Error::Io(error)) => self.give_up(&error),
            };
            if is(request, |opcode| opcode == abi::Opcode::DESTROY) {
                self.in_flight.wait();
                self.answer(request);
            } else if is(request, abi::Opcode::may_be_slow) {
                self.in_flight.add();
                drop(turn);
                if slow.send(request.to_vec()).is_err() {
                    // The slow threads live as long as the process.
                    return;
                }
                turn = lock(&self.turn);
            } else if self.more_wait() {
                self.in_flight.add();
                drop(turn);
                self.answer(request);
                self.in_flight.done();
                turn = lock(&self.turn);
            } else {
                self.answer(request);
            }
        }
    }

    /// Whether further requests have come. That it cannot be found out costs no more than a thread that is woken in vain.
    fn more_wait(&self) -> bool {
        rustix::io::ioctl_fionread(&self.socket).is_ok_and(|waiting| waiting > 0)
    }

    fn serve_slow(&self, waiting: &Mutex<Receiver<Vec<u8>>>) {
        loop {
            // The one that waits holds the lock; it is free while a request is served.
            let request = lock(waiting).recv();
            let Ok(request) = request else {
                return;
            };
            self.answer(&request);
            self.in_flight.done();
        }
    }

    fn answer(&self, request: &[u8]) {
        let Some(reply) = self.server.handle(request) else {
            return;
        };
        let Err(error) = self.send(&reply) else {
            return;
        };
        // Only so many descriptors may wait in sockets (ETOOMANYREFS).
        let instead = self.server.take_back(request, &reply);
        match instead.map(|instead| self.send(&instead)) {
            Some(Ok(())) => {}
            _ => self.give_up(&error),
        }
    }

    fn send(&self, reply: &Reply) -> io::Result<()> {
        let descriptor: Option<BorrowedFd<'_>> = reply.descriptor();
        packet::send(&self.socket, &reply.bytes, descriptor.as_slice())
    }

    fn warn(&self, what: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{what}");
        }
    }

    /// hull-vmm is gone, or cannot be talked to.
    fn give_up(&self, error: &io::Error) -> ! {
        tracing::debug!(%error, "the socket to hull-vmm failed");
        sys::fork::exit(0)
    }
}

fn is(request: &[u8], kind: impl FnOnce(abi::Opcode) -> bool) -> bool {
    let header = abi::InHeader::read(&mut abi::Reader::new(request));
    header.is_ok_and(|header| kind(abi::Opcode(header.opcode)))
}
