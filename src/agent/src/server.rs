//! The loop: what is ready gets its turn, and what that has led to is sent.
//!
//! ```text
//! control ------> requests.rs   a queue for each container, in order; replies in any
//! SIGCHLD ------> processes.rs  reaped, output drained, Exited
//! building, starting ---------> processes.rs
//! pumps --------> streaming.rs
//! listeners, relays ---------> forward.rs
//! cgroup events-> ending.rs     frozen; empty, so removed
//! workers ------> working.rs    a forked process for each long request
//! ```
//!
//! Invariant: nothing here waits but [`Poll::wait`] (and the end of the whole agent, in ending.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use protocol::agent::{Done, FromAgent, ProcessId, Request};
use sys::signalfd::SignalFd;

use crate::asleep::Asleep;
use crate::connection::Connection;
use crate::containers::{Container, Process};
use crate::disks::Disks;
use crate::failure::Refusal;
use crate::forward::{Forwarding, Listener};
use crate::layers::Layers;
use crate::poll::{CONTROL, EventFlags, Number, Poll, SIGNALS, Side};
use crate::pump::Pump;
use crate::sandbox::Sandbox;
use crate::worker::Worker;
use crate::{Broken, End, Surroundings};

/// What a number in the set stands for, but for the connection and the signals.
pub(crate) enum Source {
    /// A process that is being built or starts.
    Process(ProcessId),
    /// One direction of a process's stream.
    Pump(ProcessId, Pump),
    /// Where containers connect to a socket of the host's.
    Listener(Listener),
    /// One direction of such a connection.
    Relay(Pump),
    /// A forked process at work.
    Worker(Worker),
    /// The cgroup of this container, which is being frozen.
    Freezing(String),
    /// The cgroup of this container, which is being removed.
    Remains(String),
}

/// An agent at work.
pub(crate) struct Server {
    pub(crate) place: Surroundings,
    pub(crate) connection: Connection,
    pub(crate) poll: Poll,
    pub(crate) signals: SignalFd,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    /// Children that have not been reaped, by their number.
    pub(crate) children: BTreeMap<i32, ProcessId>,
    /// Processes that have ended and have not been reported.
    pub(crate) exited: BTreeSet<ProcessId>,
    pub(crate) sources: BTreeMap<Number, Source>,
    pub(crate) disks: Disks,
    pub(crate) layers: Layers,
    pub(crate) sandbox: Sandbox,
    pub(crate) forwarding: Forwarding,
    pub(crate) has_executed: bool,
}

impl Server {
    /// What an agent does once its machine has woken.
    pub(crate) fn new(asleep: Asleep, connection: Connection) -> io::Result<Server> {
        let Asleep {
            place,
            poll,
            signals,
            disks,
        } = asleep;
        poll.add(&connection, CONTROL, Side::From, EventFlags::IN)?;
        poll.add(&signals, SIGNALS, Side::From, EventFlags::IN)?;
        Ok(Server {
            layers: Layers::new(place.run_dir.join("layers")),
            disks,
            connection,
            poll,
            signals,
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            children: BTreeMap::new(),
            exited: BTreeSet::new(),
            sources: BTreeMap::new(),
            sandbox: Sandbox::default(),
            forwarding: Forwarding::default(),
            has_executed: false,
            place,
        })
    }

    /// Serves requests until the end, and leaves no process and no mount.
    pub(crate) fn serve(mut self) -> Result<End, Broken> {
        let end = self.run();
        self.stop();
        end
    }

    fn run(&mut self) -> Result<End, Broken> {
        // What came together with the request that woke the machine is in the connection already.
        let mut ready = vec![CONTROL];
        loop {
            let mut end = None;
            for number in ready {
                match number {
                    CONTROL => end = self.requests(),
                    SIGNALS => self.reap(),
                    number => self.turn(number),
                }
            }
            // Whatever has happened: exits whose output is delivered are reported before the agent waits or ends
            // (lifecycle H16).
            self.report_exits();
            let flushed = self.connection.flush();
            if let Some(end) = end {
                return Ok(end);
            }
            if let Err(error) = flushed {
                return Ok(End::ControlLost(error));
            }
            self.watch_control()?;
            ready = self.poll.wait()?;
        }
    }

    /// Waits for room to send, where something is unsent; and for requests, unless too much is.
    fn watch_control(&self) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !self.connection.is_congested());
        flags.set(EventFlags::OUT, self.connection.has_unsent());
        self.poll
            .modify(&self.connection, CONTROL, Side::From, flags)
    }

    /// Takes what has come over the control connection, unless too much waits to be sent: then there is an event when the
    /// host has taken some of it.
    fn requests(&mut self) -> Option<End> {
        loop {
            let next = self
                .connection
                .flush()
                .and_then(|()| self.connection.next());
            match next {
                Err(error) => return Some(End::ControlLost(error)),
                Ok(None) => return None,
                Ok(Some(message)) => match message.request {
                    Request::Shutdown { code } => return Some(End::Shutdown(code)),
                    request => self.take(message.seq, request),
                },
            }
        }
    }

    /// Something has news, unless it is gone.
    fn turn(&mut self, number: Number) {
        match self.sources.get(&number) {
            None => {}
            Some(Source::Process(id)) => {
                let id = id.clone();
                self.advance(&id);
            }
            Some(Source::Pump(..)) => self.pump(number),
            Some(Source::Listener(_)) => self.accept(number),
            Some(Source::Relay(_)) => self.relay(number),
            Some(Source::Worker(_)) => self.work(number),
            Some(Source::Freezing(name)) => {
                let name = name.clone();
                self.freezing(&name);
            }
            Some(Source::Remains(name)) => {
                let name = name.clone();
                self.clear(&name);
            }
        }
    }

    /// Answers a request.
    pub(crate) fn reply(&mut self, seq: u64, result: Result<Done, Refusal>) {
        let result = result.map_err(Into::into);
        self.connection.send(&FromAgent::Reply { seq, result });
    }
}
