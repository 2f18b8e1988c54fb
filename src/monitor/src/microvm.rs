//! A container in a VM: hull-vmm, the agent in it, and the order in which they are asked.
//!
//! ```text
//! find or make a template; spawn hull-vmm, Start, offer streams
//!      | Hello
//!      v
//! greeted: Wake, Mount, Create (and Start, if the client has said so) go out at once
//!      | Started                    any reply that is a failure: Failed
//!      v
//! running: signals and sizes go through
//!      | Exited
//!      v
//! over: the VM stays until its output has been read
//! ```

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::os::fd::OwnedFd;
use std::path::Path;

use protocol::agent::{Create, Done, FromAgent, Mount, Request, TerminalSize};
use protocol::monitor::Began;
use protocol::timeline::Nanos;
use protocol::vmm::FromVmm;
use rustix::event::PollFlags;

use crate::agent::{self, Agent, Said};
use crate::bridge::Attached;
use crate::config::{Config, Vm};
use crate::console::Console;
use crate::devices::Begin;
use crate::machine::{Broken, Event, Source, Watched};
use crate::streams::{self, Streams};
use crate::template::{Beginning, NoVm, Outside};
use crate::vmm::{self, Vmm};
use crate::{chain, measure};

mod start;

use start::{begin, create, mount};

/// Why the VM or its agent cannot go on.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Vmm(#[from] vmm::Error),
    #[error(transparent)]
    Agent(#[from] agent::Error),
    #[error(transparent)]
    Stream(#[from] streams::Error),
    #[error(transparent)]
    NoVm(#[from] NoVm),
    #[error("cannot get random bytes for the VM")]
    Entropy(#[source] std::io::Error),
    #[error("cannot prepare the VM")]
    Prepare(#[from] std::io::Error),
    #[error("cannot set up the container's network")]
    Network(#[from] network::Error),
}

/// A VM with its container.
#[derive(Debug)]
pub(crate) struct MicroVm {
    id: String,
    vmm: Vmm,
    agent: Agent,
    console: Console,
    show_console: bool,
    streams: Streams,
    network: Option<Attached>,
    phase: Phase,
    start_wanted: bool,
    awaited: BTreeMap<u64, Awaited>,
    began: Began,
    template_made: Option<Nanos>,
    hello: Option<Nanos>,
    files: Option<measure::Files>,
}

#[derive(Debug)]
enum Phase {
    /// The requests that go out at the agent's hello.
    Booting(Box<(Mount, Create)>),
    Made,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// A failure is the container's.
    Container,
    /// The same, and success means that it runs.
    Start,
    /// A signal or a size for a container that may just have ended: failures say nothing.
    Hint,
}

impl MicroVm {
    /// Starts the VM.
    pub(crate) fn new(
        config: &Config,
        vm: &Vm,
        folder: &Path,
        outside: Outside<'_>,
    ) -> Result<MicroVm, Broken> {
        Self::try_new(config, vm, folder, outside).map_err(|fault| Broken {
            message: chain(&fault),
            console: Vec::new(),
        })
    }

    fn try_new(
        config: &Config,
        vm: &Vm,
        folder: &Path,
        outside: Outside<'_>,
    ) -> Result<MicroVm, Fault> {
        let mut beginning = Beginning::find(config, vm, folder, outside)?;
        let mut network = None;
        let started = match begin(config, vm, folder, beginning.take(), &mut network) {
            Err(Fault::Vmm(error)) if beginning.is_from_template() && error.is_refusal() => {
                beginning = beginning.without_template(&error);
                begin(config, vm, folder, Begin::Kernel, &mut network)
            }
            other => other,
        }?;
        beginning.tell(outside);
        if let Some(network) = &mut network {
            network.release_tap();
        }
        let interface = network.as_ref().map(Attached::interface);
        let requests = (
            mount(config, vm),
            create(config, &started.streams, interface),
        );
        Ok(MicroVm {
            id: config.id.clone(),
            vmm: started.vmm,
            agent: Agent::new(started.control),
            console: started.console,
            show_console: vm.show_console,
            streams: started.streams,
            network,
            phase: Phase::Booting(Box::new(requests)),
            start_wanted: false,
            awaited: BTreeMap::new(),
            began: beginning.began,
            template_made: beginning.made,
            hello: None,
            files: None,
        })
    }

    /// The host's side of it: hull-vmm's process, and its place on the network. What talks to the guest stays behind.
    pub(crate) fn into_host(self) -> (Vmm, Option<Attached>) {
        (self.vmm, self.network)
    }

    /// Its hull-vmm.
    pub(crate) fn vmm(&self) -> &Vmm {
        &self.vmm
    }

    /// Makes this the side that talks to the guest, and nothing else: hull-vmm's process is its parent's affair, which
    /// says over `status` how it ended. Opens what it will need.
    pub(crate) fn part(&mut self, status: OwnedFd, measured: bool) -> std::io::Result<()> {
        self.vmm.process.part(status);
        self.network = None;
        if measured {
            self.files = Some(measure::Files::open(self.vmm.process.pid())?);
        }
        Ok(())
    }

    /// What to poll.
    pub(crate) fn watched(&self) -> Vec<Watched<'_>> {
        let mut watched = vec![(self.vmm.descriptor(), PollFlags::IN, Source::Vmm)];
        let (socket, flags) = self.agent.watched();
        if !matches!(self.phase, Phase::Over) {
            watched.push((socket, flags, Source::Agent));
            watched.extend(
                self.streams
                    .unverified()
                    .map(|(slot, fd)| (fd, PollFlags::IN, Source::Stream(slot))),
            );
        }
        watched.extend(
            self.console
                .descriptor()
                .map(|fd| (fd, PollFlags::IN, Source::Console)),
        );
        watched
    }

    /// Handles a ready descriptor.
    pub(crate) fn ready(&mut self, source: Source, events: &mut Vec<Event>) -> Result<(), Broken> {
        let result = match source {
            Source::Vmm => self.vmm_spoke(events),
            Source::Agent => self.agent_spoke(events),
            Source::Console => self.console_spoke(events),
            Source::Stream(slot) => self.stream_spoke(slot, events),
            Source::Process => Ok(()),
        };
        result.or_else(|fault| self.broken(fault))
    }

    /// Starts the container, now or as soon as it is made.
    pub(crate) fn start(&mut self) -> Result<(), Broken> {
        self.start_wanted = true;
        match self.phase {
            Phase::Made => self.request_start().or_else(|fault| self.broken(fault)),
            Phase::Booting(_) | Phase::Over => Ok(()),
        }
    }

    /// Signals the container's first process.
    pub(crate) fn signal(&mut self, signal: i32) -> Result<(), Broken> {
        let container = self.id.clone();
        self.hint(Request::Signal {
            container,
            signal,
            all: false,
        })
    }

    /// Tells the container's terminal its size.
    pub(crate) fn resize(&mut self, size: TerminalSize) -> Result<(), Broken> {
        // Before the container is made, its size at the start is what changes.
        if let Phase::Booting(requests) = &mut self.phase {
            if let protocol::agent::Stdio::Terminal { size: at_start, .. } = &mut requests.1.stdio {
                *at_start = size;
            }
            return Ok(());
        }
        let container = self.id.clone();
        self.hint(Request::Resize { container, size })
    }

    /// Asks hull-vmm for a report, from which the measures are made.
    pub(crate) fn measure(&mut self) -> Result<(), Broken> {
        self.vmm
            .ask_report()
            .or_else(|error| self.broken(error.into()))
    }

    /// Ends the VM.
    pub(crate) fn end(self) {
        self.vmm.end();
        if let Some(network) = self.network {
            network.detach();
        }
    }

    fn hint(&mut self, request: Request) -> Result<(), Broken> {
        if !matches!(self.phase, Phase::Made) {
            return Ok(());
        }
        match self.agent.request(request) {
            Ok(seq) => {
                self.awaited.insert(seq, Awaited::Hint);
                Ok(())
            }
            Err(error) => self.broken(error.into()),
        }
    }

    fn vmm_spoke(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        match self.vmm.receive()? {
            FromVmm::Running | FromVmm::Added { .. } | FromVmm::Refused { .. } => {}
            FromVmm::Report(report) => {
                // It was not asked before the files were opened.
                if let Some(files) = &mut self.files {
                    let mut measured = files.measure(&report)?;
                    measured.began = Some(self.began);
                    measured.timeline.template_made = self.template_made;
                    measured.timeline.hello = self.hello;
                    events.push(Event::Measured(Box::new(measured)));
                }
            }
            FromVmm::StreamFailed { message, .. } => return Err(vmm::Error::Stream(message).into()),
            FromVmm::Ended { end, .. } => {
                self.console_spoke(events)?;
                let panic = self.console.panic();
                return Err(vmm::Error::Ended(vmm::explain(&end, panic)).into());
            }
            FromVmm::Failed { message } => return Err(vmm::Error::Build(message).into()),
        }
        Ok(())
    }

    fn agent_spoke(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.agent.flush()?;
        for said in self.agent.receive()? {
            match said {
                Said::Hello => self.greeted()?,
                Said::Message(FromAgent::Reply { seq, result }) => {
                    let awaited = self.awaited.remove(&seq);
                    match (awaited, result) {
                        (Some(Awaited::Start), Ok(Done::Started { .. } | Done::Ok)) => {
                            events.push(Event::Started)
                        }
                        (Some(Awaited::Container | Awaited::Start), Err(failure)) => {
                            self.phase = Phase::Over;
                            events.push(Event::Failed(failure));
                            // What was pipelined behind it fails for the same reason.
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                Said::Message(FromAgent::Exited {
                    container,
                    status,
                    oom_killed,
                }) if container == self.id => {
                    self.phase = Phase::Over;
                    events.push(Event::Exited { status, oom_killed });
                    return Ok(());
                }
                Said::Message(FromAgent::Exited { .. }) => {}
            }
        }
        Ok(())
    }

    fn greeted(&mut self) -> Result<(), Fault> {
        self.hello = Some(sys::clock::monotonic_ns());
        if let Phase::Booting(requests) = std::mem::replace(&mut self.phase, Phase::Made) {
            let (mount, create) = *requests;
            // Made now: a snapshot's clock stands where it was saved, and nothing random may be older than this VM.
            let wake = agent::wake().map_err(Fault::Entropy)?;
            for request in [
                Request::Wake(wake),
                Request::Mount(mount),
                Request::Create(Box::new(create)),
            ] {
                let seq = self.agent.request(request)?;
                self.awaited.insert(seq, Awaited::Container);
            }
            if self.start_wanted {
                self.request_start()?;
            }
        }
        Ok(())
    }

    fn request_start(&mut self) -> Result<(), Fault> {
        let seq = self.agent.request(Request::Start {
            container: self.id.clone(),
        })?;
        self.awaited.insert(seq, Awaited::Start);
        Ok(())
    }

    fn console_spoke(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let text = self.console.read()?;
        if self.show_console && !text.is_empty() {
            events.push(Event::Console(text));
        }
        Ok(())
    }

    fn stream_spoke(&mut self, slot: usize, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.streams.read_token(slot)?;
        if let Some(ready) = self.streams.take_ready() {
            events.push(Event::Streams(ready));
        }
        Ok(())
    }

    /// What a person is told. When the agent is gone, hull-vmm knows better why, and says so within a moment.
    fn broken(&mut self, fault: Fault) -> Result<(), Broken> {
        let mut ignored = Vec::new();
        let mut message = chain(&fault as &dyn StdError);
        if matches!(
            fault,
            Fault::Agent(agent::Error::Closed) | Fault::Stream(streams::Error::Closed)
        ) {
            match self.vmm.receive_end() {
                Some(Ok(end)) => {
                    // What the console still holds is part of the explanation; that it cannot be read is not.
                    let _ = self.console_spoke(&mut ignored);
                    message = vmm::explain(&end, self.console.panic());
                }
                Some(Err(error)) => message = chain(&error),
                // The guest lives and has hung up. It ends with this.
                None => {}
            }
        }
        let _ = self.console_spoke(&mut ignored);
        Err(Broken {
            message,
            console: self.console.last_lines(),
        })
    }
}
