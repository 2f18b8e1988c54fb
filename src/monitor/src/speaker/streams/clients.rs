//! The clients' side of streams.

use std::collections::VecDeque;

use super::*;

/// Which of a process's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Stdin,
    Stdout,
    Stderr,
    Terminal,
}

/// Our end of a client's stream.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) client: ClientId,
    pub(super) process: ProcessId,
    part: Part,
    pub(super) socket: OwnedFd,
    /// What the client has yet to take.
    queue: VecDeque<u8>,
    primary: bool,
    stalled_since: Option<Instant>,
    /// The process's input ends with the client's.
    ends_input: bool,
    /// The client sends no more.
    input_over: bool,
    /// It is closed when it is empty.
    pub(super) closing: bool,
    is_watched: bool,
}

/// Why a client takes no more.
pub(super) enum Gone {
    /// It has closed its end.
    Left,
    /// It has not read for [`STALL_LIMIT`].
    Stalled,
    /// What is for it cannot be sent.
    Failed(Errno),
}

impl Sink {
    pub(super) fn takes(&self, process: &ProcessId, part: Part) -> bool {
        self.part == part && self.process == *process && !self.closing
    }

    pub(super) fn is_full(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends bytes, and keeps what the client does not take.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) -> Result<(), Gone> {
        self.queue.extend(bytes);
        self.flush(now)
    }

    pub(super) fn flush(&mut self, now: Instant) -> Result<(), Gone> {
        while !self.queue.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, self.queue.as_slices().0, flags) {
                Ok(len) => {
                    drop(self.queue.drain(..len));
                    self.stalled_since = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.stalled_since.get_or_insert(now);
                    return Ok(());
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Gone::Left),
                Err(error) => return Err(Gone::Failed(error)),
            }
        }
        self.stalled_since = None;
        Ok(())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.stalled_since.filter(|_| !self.primary)?;
        since.checked_add(STALL_LIMIT)
    }

    fn is_source(&self) -> bool {
        matches!(self.part, Part::Stdin | Part::Terminal) && !self.input_over && !self.closing
    }
}

/// How a client attaches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attachment {
    /// Any of them is the terminal, where there is one.
    pub(crate) streams: [bool; 3],
    pub(crate) terminal: bool,
    pub(crate) primary: bool,
    pub(crate) ends_input: bool,
}

impl Streams {
    /// Attaches a client to a process that may not have streams yet. Returns the client's ends, and which they are.
    pub(crate) fn attach(
        &mut self,
        poller: &Poller,
        client: ClientId,
        process: &ProcessId,
        how: Attachment,
    ) -> Result<(Vec<OwnedFd>, [bool; 3]), Error> {
        let wanted: Vec<Part> = match how.terminal {
            true => how
                .streams
                .contains(&true)
                .then_some(Part::Terminal)
                .into_iter()
                .collect(),
            false => [Part::Stdin, Part::Stdout, Part::Stderr]
                .into_iter()
                .zip(how.streams)
                .filter_map(|(part, wanted)| wanted.then_some(part))
                .collect(),
        };
        let mut theirs = Vec::new();
        for part in &wanted {
            let (ours, end) = sys::packet::stream_pair()?;
            let id = self.next_sink;
            self.next_sink += 1;
            let sink = Sink {
                client,
                process: process.clone(),
                part: *part,
                socket: ours,
                queue: VecDeque::new(),
                primary: how.primary,
                stalled_since: None,
                ends_input: how.ends_input,
                input_over: false,
                closing: false,
                is_watched: false,
            };
            self.sinks.insert(id, sink);
            self.watch_sink(poller, id)?;
            theirs.push(end);
        }
        let pipes = match how.terminal {
            true => [false; 3],
            false => how.streams,
        };
        Ok((theirs, pipes))
    }

    /// Takes a client's streams of a process away; the process's input goes on.
    pub(crate) fn detach(
        &mut self,
        poller: &Poller,
        client: ClientId,
        process: Option<&ProcessId>,
    ) -> Result<(), Error> {
        let of = |sink: &Sink| {
            sink.client == client && process.is_none_or(|process| sink.process == *process)
        };
        let ids: Vec<u64> = self
            .sinks
            .iter()
            .filter(|(_, sink)| of(sink))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(process) = self.drop_sink(poller, id) {
                self.watch_guests_of(poller, &process)?;
            }
        }
        Ok(())
    }

    /// A client's end is ready.
    pub(crate) fn sink_ready(
        &mut self,
        poller: &Poller,
        id: u64,
        ready: Ready,
    ) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        let Some(sink) = self.sinks.get_mut(&id) else {
            return Ok(events);
        };
        let process = sink.process.clone();
        let flushed = match ready.write || ready.gone {
            true => sink.flush(Instant::now()),
            false => Ok(()),
        };
        let over = sink.closing && !sink.is_full();
        if ready.read || ready.gone {
            self.read_input(poller, id)?;
        }
        match flushed {
            Err(why) => drop(self.cut(poller, id, why, &mut events)),
            Ok(()) if over => drop(self.drop_sink(poller, id)),
            Ok(()) => self.watch_sink(poller, id)?,
        }
        self.watch_guests_of(poller, &process)?;
        Ok(events)
    }

    /// Reads once of what a client types, if the process has taken what came before.
    fn read_input(&mut self, poller: &Poller, id: u64) -> Result<(), Error> {
        let Some(sink) = self.sinks.get_mut(&id).filter(|sink| sink.is_source()) else {
            return Ok(());
        };
        let process = sink.process.clone();
        let guest = self
            .guests
            .iter_mut()
            .find(|(_, guest)| guest.takes_input_of(&process) && guest.is_open());
        let Some((port, guest)) = guest.filter(|(_, guest)| guest.pending.is_empty()) else {
            return Ok(());
        };
        let port = *port;
        match recv(&sink.socket, &mut *self.chunk, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.end_input(poller, id)?;
            }
            Ok((len, _)) => {
                guest.pending.extend_from_slice(&self.chunk[..len]);
                if guest.push().is_err() && !guest.is_output() {
                    self.end(poller, port, None, &mut Vec::new());
                }
                self.watch_guest(poller, port)?;
                self.watch_sources_of(poller, port)?;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.end_input(poller, id)?,
        }
        Ok(())
    }

    /// A client sends no more: the process's input ends, if that is what its record says.
    fn end_input(&mut self, poller: &Poller, id: u64) -> Result<(), Error> {
        let Some(sink) = self.sinks.get_mut(&id).filter(|sink| sink.is_source()) else {
            return Ok(());
        };
        sink.input_over = true;
        if sink.part != Part::Stdin || !sink.ends_input {
            return Ok(());
        }
        let process = sink.process.clone();
        let guest = self
            .guests
            .iter_mut()
            .find(|(_, guest)| guest.takes_input_of(&process));
        match guest {
            Some((port, guest)) => {
                let port = *port;
                guest.ends = true;
                // Before the guest has opened it, its end waits with what came before.
                if guest.is_open() && guest.push().is_err() {
                    self.end(poller, port, None, &mut Vec::new());
                }
                self.watch_guest(poller, port)
            }
            None => Ok(()),
        }
    }

    /// Waits for what a client's end is good for now.
    fn watch_sink(&mut self, poller: &Poller, id: u64) -> Result<(), Error> {
        let Some(sink) = self.sinks.get_mut(&id) else {
            return Ok(());
        };
        let takes_input = self.guests.values().any(|guest| {
            guest.takes_input_of(&sink.process) && guest.is_open() && guest.pending.is_empty()
        });
        let wanted = Ready {
            read: sink.is_source() && takes_input,
            write: sink.is_full(),
            gone: false,
        };
        let is_watched = &mut sink.is_watched;
        Ok(poller.want(&sink.socket, Source::Sink(id), wanted, is_watched)?)
    }

    pub(super) fn watch_sinks_of(
        &mut self,
        poller: &Poller,
        process: &ProcessId,
    ) -> Result<(), Error> {
        let of = self
            .sinks
            .iter()
            .filter(|(_, sink)| sink.process == *process);
        let ids: Vec<u64> = of.map(|(id, _)| *id).collect();
        ids.into_iter()
            .try_for_each(|id| self.watch_sink(poller, id))
    }

    /// The input of this stream may take more: its clients are listened to.
    pub(super) fn watch_sources_of(&mut self, poller: &Poller, port: u32) -> Result<(), Error> {
        let process = match self.guests.get(&port).map(|guest| &guest.role) {
            Some(Role::Input(process) | Role::Terminal(process)) => process.clone(),
            _ => return Ok(()),
        };
        self.watch_sinks_of(poller, &process)
    }

    /// Closes what clients type on: the process does not read it any more.
    pub(super) fn drop_sources(&mut self, poller: &Poller, process: &ProcessId) {
        let of = |sink: &Sink| sink.part == Part::Stdin && sink.process == *process;
        let ids: Vec<u64> = self
            .sinks
            .iter()
            .filter(|(_, sink)| of(sink))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.drop_sink(poller, id);
        }
    }

    /// A client has gone: its streams go, and an input that was its own ends.
    pub(crate) fn client_gone(&mut self, poller: &Poller, client: ClientId) -> Result<(), Error> {
        let of = self.sinks.iter().filter(|(_, sink)| sink.client == client);
        let ids: Vec<u64> = of.map(|(id, _)| *id).collect();
        for id in ids {
            self.end_input(poller, id)?;
        }
        self.detach(poller, client, None)
    }

    /// Closes the end of a client that takes no more, and tells one that is still there why; returns whose process's it was.
    pub(super) fn cut(
        &mut self,
        poller: &Poller,
        id: u64,
        why: Gone,
        events: &mut Vec<Event>,
    ) -> Option<ProcessId> {
        let why = match why {
            Gone::Left => return self.drop_sink(poller, id),
            Gone::Stalled => format!("it was not read for {} seconds", STALL_LIMIT.as_secs()),
            Gone::Failed(error) => format!("cannot pass it to the client: {}", describe(error)),
        };
        let sink = self.sinks.get(&id)?;
        events.push(Event::Cut {
            client: sink.client,
            process: sink.process.clone(),
            primary: sink.primary,
            why,
        });
        self.drop_sink(poller, id)
    }

    /// Closes a client's end; returns whose process's it was.
    pub(super) fn drop_sink(&mut self, poller: &Poller, id: u64) -> Option<ProcessId> {
        let sink = self.sinks.remove(&id)?;
        poller.remove(&sink.socket);
        Some(sink.process)
    }
}
