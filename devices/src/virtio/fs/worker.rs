//! The thread of a file system device, and what it keeps from one start of the device to the next.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use memory::Memory;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::files::Files;
use super::link::Link;
use super::session::Session;
use super::{MAX_MESSAGE_LEN, Shared};
use crate::virtio::ring::Ring;

/// What marks an event of the socket to hull-fs; those of all else have 0.
pub(super) const SOCKET: u64 = 1;

/// Why the thread looks at its queues again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The time is over.
    TimeOver,
    /// There is something to read from hull-fs, or room for it, and perhaps more.
    ByHullFs,
    /// By a kick, by a stop or by a signal.
    Otherwise,
}

/// From a start to a stop: the queues and their memory.
pub(super) struct Job {
    pub(super) memory: Memory,
    pub(super) forgets: Ring,
    pub(super) requests: Ring,
}

/// What the thread keeps between its jobs.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    /// What the thread sleeps on: edge-triggered, so that kicks and the stop need not be read to be cleared.
    pub(super) wakeups: Epoll,
    /// To hull-fs, while there is one.
    pub(super) link: Option<Link>,
    pub(super) files: Files,
    /// For one reply; empty until the first socket comes.
    pub(super) buffer: Vec<u8>,
    /// That hull-fs is at fault was logged, once in the device's life: a guest may know how to make it.
    pub(super) fault_logged: bool,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let files = Files::new(shared.max_open_files);
        let worker = Self {
            shared,
            wakeups: Epoll::new()?,
            link: None,
            files,
            buffer: Vec::new(),
            fault_logged: false,
        };
        worker.watch(ControlOperation::Add, worker.shared.stop.wake())?;
        Ok(worker)
    }

    fn watch(&self, operation: ControlOperation, fd: &EventFd) -> io::Result<()> {
        let edge = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        self.wakeups.ctl(operation, fd.as_raw_fd(), edge)
    }

    /// Does one job after the other, each until the device is stopped, as long as it lives.
    pub(super) fn run(mut self, jobs: Receiver<Job>, done: Sender<[Ring; 2]>) {
        while let Ok(job) = jobs.recv() {
            let rings = self.work(job);
            self.shared.stop.done();
            if done.send(rings).is_err() {
                return;
            }
        }
    }

    fn work(&mut self, job: Job) -> [Ring; 2] {
        let Job {
            memory,
            forgets,
            requests,
        } = job;
        let kicks = [forgets.kick.clone(), requests.kick.clone()];
        for kick in &kicks {
            if let Err(error) = self.watch(ControlOperation::Add, kick) {
                // Only want of kernel memory: the device stays silent, the VM goes on.
                tracing::warn!(%error, "a file system's queue cannot be watched");
            }
        }
        let rings = Session::new(self, &memory, forgets, requests).run();
        for kick in &kicks {
            // Fails only where adding failed.
            let _ = self.watch(ControlOperation::Delete, kick);
        }
        rings
    }

    /// Sleeps until a kick, a stop, a socket that is ready, or EINTR; at most so many milliseconds, or -1 for ever.
    pub(super) fn sleep(&self, timeout_ms: i32) -> Woken {
        let mut events = [EpollEvent::default(); 4];
        // Nothing else can fail.
        match self.wakeups.wait(timeout_ms, &mut events) {
            Ok(0) => Woken::TimeOver,
            Ok(count) if events[..count].iter().any(|event| event.data() == SOCKET) => {
                Woken::ByHullFs
            }
            _ => Woken::Otherwise,
        }
    }

    /// Takes up the conversation with a new hull-fs.
    pub(super) fn connect(&mut self, socket: OwnedFd) {
        match Link::new(socket, &self.wakeups) {
            Ok(link) => {
                self.buffer.resize(MAX_MESSAGE_LEN, 0);
                self.link = Some(link);
            }
            // Only want of kernel memory, or of descriptors to watch.
            Err(error) => tracing::warn!(%error, "hull-fs's socket cannot be watched"),
        }
    }
}
