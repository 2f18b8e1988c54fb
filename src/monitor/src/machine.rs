//! What a monitor runs a container on, and what comes of it.

use std::os::fd::BorrowedFd;

use protocol::agent::{ExitStatus, Failure, TerminalSize};
use protocol::monitor::Measured;
use rustix::event::PollFlags;

use crate::microvm::MicroVm;
use crate::native::Native;
use crate::streams::Ready;

/// Something that happened to the container.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its streams are there for a client.
    Streams(Ready),
    /// Its process has been executed.
    Started,
    /// It could not be made or started.
    Failed(Failure),
    /// Its process has ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// For want of memory.
        oom_killed: bool,
    },
    /// What was asked for with [`Machine::measure`].
    Measured(Box<Measured>),
    /// The guest printed this on its console, and somebody wants to see it.
    Console(String),
}

/// The machine itself has ended or failed.
#[derive(Debug)]
pub struct Broken {
    /// What happened and why, for a person.
    pub message: String,
    /// Last lines of the guest's console.
    pub console: Vec<String>,
}

/// Which of a machine's descriptors is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// hull-vmm's packets.
    Vmm,
    /// The agent's frames.
    Agent,
    /// The guest's console.
    Console,
    /// A stream whose token is awaited.
    Stream(usize),
    /// A native container's process.
    Process,
}

/// A descriptor to poll.
pub(crate) type Watched<'a> = (BorrowedFd<'a>, PollFlags, Source);

/// What stands between the container and the host.
#[derive(Debug)]
pub(crate) enum Machine {
    /// A VM.
    Vm(Box<MicroVm>),
    /// Namespaces.
    Native(Box<Native>),
}

impl Machine {
    /// What to poll.
    pub(crate) fn watched(&self) -> Vec<Watched<'_>> {
        match self {
            Machine::Vm(vm) => vm.watched(),
            Machine::Native(native) => native.watched(),
        }
    }

    /// Handles a ready descriptor; what came of it is added to `events`.
    pub(crate) fn ready(&mut self, source: Source, events: &mut Vec<Event>) -> Result<(), Broken> {
        match self {
            Machine::Vm(vm) => vm.ready(source, events),
            Machine::Native(native) => native.ready(source, events),
        }
    }

    /// Starts the container's process as soon as it is made.
    pub(crate) fn start(&mut self, events: &mut Vec<Event>) -> Result<(), Broken> {
        match self {
            Machine::Vm(vm) => vm.start(),
            Machine::Native(native) => {
                native.start(events);
                Ok(())
            }
        }
    }

    /// Signals the container's first process.
    pub(crate) fn signal(&mut self, signal: i32) -> Result<(), Broken> {
        match self {
            Machine::Vm(vm) => vm.signal(signal),
            Machine::Native(native) => native.signal(signal),
        }
    }

    /// Tells the container's terminal its size.
    pub(crate) fn resize(&mut self, size: TerminalSize) -> Result<(), Broken> {
        match self {
            Machine::Vm(vm) => vm.resize(size),
            Machine::Native(native) => native.resize(size),
        }
    }

    /// Measures; answered by [`Event::Measured`].
    pub(crate) fn measure(&mut self, events: &mut Vec<Event>) -> Result<(), Broken> {
        match self {
            Machine::Vm(vm) => vm.measure(),
            Machine::Native(native) => native.measure(events),
        }
    }

    /// Ends it, with everything in it.
    pub(crate) fn end(self) {
        match self {
            Machine::Vm(vm) => vm.end(),
            Machine::Native(native) => native.end(),
        }
    }
}
