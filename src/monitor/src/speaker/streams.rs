//! The streams of a sandbox: each of the guest's to its log and its clients, and what clients type to the guest.
//!
//! ```text
//! guest: output --read, if no sink is full--> log
//!                                       \---> sink of each attached client --> its socket
//! guest: input <-- what is left over <------- source of each attached client
//! ```
//!
//! Invariants: no byte that came before a stream's token, or without it, goes anywhere; at most one read's worth of bytes
//! waits for each client, and while some does, no more is read of that output (back pressure); a client that attached to a
//! process that was executing may stay full for [`STALL_LIMIT`], after which it is dropped. docs/lifecycle.md, "Streams".

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use protocol::agent::{ProcessId, Stream, TOKEN_LEN};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::log::Log;
use super::poller::{Poller, Ready, Source};
use super::session::{Ask, ClientId, Role};

mod clients;
mod guest;

pub(crate) use clients::Attachment;
use clients::{Gone, Part, Sink};
use guest::{Guest, Opened};

/// Read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How long a client that attached later may hold a stream up.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// The guest has broken the rules of streams.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It opened a stream with another token than it was given.
    #[error("the guest opened a stream with a wrong token")]
    WrongToken,
    /// The set of descriptors does not take one.
    #[error("cannot wait for a stream")]
    Poll(#[from] io::Error),
}

/// What came of a stream.
#[derive(Debug)]
pub(crate) enum Event {
    /// An output has come to its end; with the reason if that was too early.
    Ended {
        process: ProcessId,
        port: u32,
        failure: Option<String>,
    },
    /// A client that is still there lost its attachment.
    Cut {
        client: ClientId,
        process: ProcessId,
        /// It was attached when the process started.
        primary: bool,
        why: String,
    },
    /// The guest has opened the stream of an archive: it is the client's.
    Transfer { ask: Ask, socket: OwnedFd },
    /// A container's log is to be rotated.
    LogFull { container: String },
    /// A process that is listened to has written this.
    Captured { process: ProcessId, bytes: Vec<u8> },
}

/// All streams.
#[derive(Debug)]
pub(crate) struct Streams {
    guests: BTreeMap<u32, Guest>,
    sinks: BTreeMap<u64, Sink>,
    next_sink: u64,
    logs: BTreeMap<String, Log>,
    captured: BTreeSet<ProcessId>,
    chunk: Vec<u8>,
}

impl Streams {
    pub(crate) fn new() -> Streams {
        Streams {
            guests: BTreeMap::new(),
            sinks: BTreeMap::new(),
            next_sink: 0,
            logs: BTreeMap::new(),
            captured: BTreeSet::new(),
            chunk: vec![0; CHUNK_BYTES],
        }
    }

    /// A container's output goes to this log, too.
    pub(crate) fn set_log(&mut self, container: &str, log: Log) {
        self.logs.insert(container.to_owned(), log);
    }

    /// The log of a container, if it has one.
    pub(crate) fn log_mut(&mut self, container: &str) -> Option<&mut Log> {
        self.logs.get_mut(container)
    }

    /// Takes our end of a stream that the guest may open.
    pub(crate) fn open(
        &mut self,
        poller: &Poller,
        stream: &Stream,
        role: Role,
        socket: OwnedFd,
    ) -> Result<(), Error> {
        poller.add(&socket, Source::Guest(stream.port), Ready::READ)?;
        let guest = Guest {
            role,
            socket,
            token: stream.token,
            read: 0,
            ended: false,
            is_watched: true,
            pending: Vec::new(),
            ends: false,
        };
        self.guests.insert(stream.port, guest);
        Ok(())
    }

    /// What this process writes is reported until it has ended.
    pub(crate) fn capture(&mut self, process: ProcessId) {
        self.captured.insert(process);
    }

    /// Forgets streams.
    pub(crate) fn close(&mut self, poller: &Poller, ports: &[u32]) {
        for port in ports {
            if let Some(guest) = self.guests.remove(port) {
                poller.remove(&guest.socket);
            }
        }
    }

    /// A stream of the guest's is ready.
    pub(crate) fn guest_ready(
        &mut self,
        poller: &Poller,
        port: u32,
        ready: Ready,
    ) -> Result<Vec<Event>, Error> {
        let Some(guest) = self.guests.get_mut(&port) else {
            return Ok(Vec::new());
        };
        let mut events = Vec::new();
        if guest.read < TOKEN_LEN {
            match guest.read_token()? {
                Opened::NotYet => return Ok(events),
                Opened::Never => self.end(poller, port, None, &mut events),
                Opened::Yes if matches!(guest.role, Role::Transfer(_)) => {
                    self.hand_over(poller, port, &mut events);
                }
                Opened::Yes => {
                    self.watch_guest(poller, port)?;
                    self.watch_sources_of(poller, port)?;
                }
            }
            return Ok(events);
        }
        let takes_input = !(ready.write || ready.gone) || guest.push().is_ok();
        let is_output = guest.is_output();
        if is_output && (ready.read || ready.gone) && !self.is_blocked(port) {
            self.read_output(poller, port, &mut events)?;
        }
        if !takes_input && !is_output {
            self.end(poller, port, None, &mut events);
        }
        self.watch_guest(poller, port)?;
        self.watch_sources_of(poller, port)?;
        Ok(events)
    }

    /// Reads every output to its end or until there is no more, whatever its clients have room for: the machine has ended,
    /// and what it has sent is all in the sockets.
    pub(crate) fn drain(&mut self, poller: &Poller) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        let ports: Vec<u32> = self.guests.keys().copied().collect();
        for port in ports {
            while let Some(guest) = self.guests.get(&port) {
                if guest.ended || !guest.is_output() || guest.read < TOKEN_LEN {
                    break;
                }
                if !self.read_output(poller, port, &mut events)? {
                    break;
                }
            }
        }
        Ok(events)
    }

    /// Reads once of an output and passes it on. False if there was nothing.
    fn read_output(
        &mut self,
        poller: &Poller,
        port: u32,
        events: &mut Vec<Event>,
    ) -> Result<bool, Error> {
        let Some(guest) = self.guests.get(&port) else {
            return Ok(false);
        };
        let Some((process, part)) = guest.output() else {
            return Ok(false);
        };
        let process = process.clone();
        let len = match recv(&guest.socket, &mut *self.chunk, RecvFlags::DONTWAIT) {
            // Reset: it was closed with input that it had not read.
            Ok((0, _)) | Err(Errno::CONNRESET) => {
                self.end(poller, port, None, events);
                return Ok(false);
            }
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => {
                let failure = format!("cannot read it from the machine: {}", describe(error));
                self.end(poller, port, Some(failure), events);
                return Ok(false);
            }
        };
        let bytes = &self.chunk[..len];
        if process.exec.is_none()
            && let Some(log) = self.logs.get_mut(&process.container)
            && log.write(part == Part::Stderr, bytes, sys::clock::realtime_ns())
        {
            let container = process.container.clone();
            events.push(Event::LogFull { container });
        }
        if self.captured.contains(&process) {
            let (process, bytes) = (process.clone(), bytes.to_vec());
            events.push(Event::Captured { process, bytes });
        }
        let now = Instant::now();
        let mut gone = Vec::new();
        for (id, sink) in &mut self.sinks {
            if sink.takes(&process, part)
                && let Err(why) = sink.push(bytes, now)
            {
                gone.push((*id, why));
            }
        }
        for (id, why) in gone {
            self.cut(poller, id, why, events);
        }
        self.watch_sinks_of(poller, &process)?;
        Ok(true)
    }

    /// An output has come to its end, or an input is gone.
    fn end(
        &mut self,
        poller: &Poller,
        port: u32,
        failure: Option<String>,
        events: &mut Vec<Event>,
    ) {
        let Some(guest) = self.guests.get_mut(&port) else {
            return;
        };
        if guest.ended {
            return;
        }
        guest.ended = true;
        guest.is_watched = false;
        poller.remove(&guest.socket);
        if let Role::Input(process) = &guest.role {
            // Clients that write to it learn that it is closed.
            let process = process.clone();
            self.drop_sources(poller, &process);
            return;
        }
        if let Some((process, part)) = guest.output() {
            let process = process.clone();
            if process.exec.is_none()
                && let Some(log) = self.logs.get_mut(&process.container)
            {
                log.end(part == Part::Stderr, sys::clock::realtime_ns());
            }
            events.push(Event::Ended {
                process,
                port,
                failure,
            });
        }
    }

    /// The stream of an archive is its client's from here on.
    fn hand_over(&mut self, poller: &Poller, port: u32, events: &mut Vec<Event>) {
        if let Some(guest) = self.guests.remove(&port)
            && let Role::Transfer(ask) = guest.role
        {
            poller.remove(&guest.socket);
            let socket = guest.socket;
            events.push(Event::Transfer { ask, socket });
        }
    }

    /// Some client has yet to take what came last of this output.
    fn is_blocked(&self, port: u32) -> bool {
        let output = self.guests.get(&port).and_then(Guest::output);
        output.is_some_and(|(process, part)| {
            let mut sinks = self.sinks.values();
            sinks.any(|sink| sink.takes(process, part) && sink.is_full())
        })
    }

    fn watch_guest(&mut self, poller: &Poller, port: u32) -> Result<(), Error> {
        let is_blocked = self.is_blocked(port);
        let Some(guest) = self.guests.get_mut(&port).filter(|guest| !guest.ended) else {
            return Ok(());
        };
        let wanted = Ready {
            read: guest.read < TOKEN_LEN || (guest.is_output() && !is_blocked),
            write: guest.read == TOKEN_LEN && !guest.pending.is_empty(),
            gone: false,
        };
        let is_watched = &mut guest.is_watched;
        Ok(poller.want(&guest.socket, Source::Guest(port), wanted, is_watched)?)
    }

    /// Waits again for the outputs of a process whose clients have taken something.
    fn watch_guests_of(&mut self, poller: &Poller, process: &ProcessId) -> Result<(), Error> {
        let of = self.guests.iter().filter(|(_, guest)| guest.is_of(process));
        let ports: Vec<u32> = of.map(|(port, _)| *port).collect();
        ports
            .into_iter()
            .try_for_each(|port| self.watch_guest(poller, port))
    }

    /// The process has ended: its clients' streams end when they have taken what is theirs, and its own are forgotten.
    pub(crate) fn finish(&mut self, poller: &Poller, process: &ProcessId) {
        self.captured.remove(process);
        let of = self.guests.iter().filter(|(_, guest)| guest.is_of(process));
        let ports: Vec<u32> = of.map(|(port, _)| *port).collect();
        self.close(poller, &ports);
        let of = self
            .sinks
            .iter_mut()
            .filter(|(_, sink)| sink.process == *process);
        let mut over = Vec::new();
        for (id, sink) in of {
            sink.closing = true;
            if !sink.is_full() {
                over.push(*id);
            }
        }
        for id in over {
            self.drop_sink(poller, id);
        }
    }

    /// The process that a stream belongs to.
    pub(crate) fn process_of(&self, port: u32) -> Option<ProcessId> {
        match &self.guests.get(&port)?.role {
            Role::Input(process) | Role::Terminal(process) | Role::Output { process, .. } => {
                Some(process.clone())
            }
            Role::Transfer(_) => None,
        }
    }

    /// Every client has taken what is its own.
    pub(crate) fn is_idle(&self) -> bool {
        !self.sinks.values().any(Sink::is_full)
    }

    /// When [`Streams::drop_stalled`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.sinks.values().filter_map(Sink::deadline).min()
    }

    /// Takes their streams from clients that have held others up for too long.
    pub(crate) fn drop_stalled(
        &mut self,
        poller: &Poller,
        now: Instant,
    ) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        let stalled = |sink: &Sink| sink.deadline().is_some_and(|by| now >= by);
        let ids: Vec<u64> = self
            .sinks
            .iter()
            .filter(|(_, sink)| stalled(sink))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(process) = self.cut(poller, id, Gone::Stalled, &mut events) {
                self.watch_guests_of(poller, &process)?;
            }
        }
        Ok(events)
    }
}

/// What an error number means.
fn describe(error: Errno) -> String {
    protocol::chain(&io::Error::from(error))
}

#[cfg(test)]
mod tests;
