//! From a start of the device to its stop: turns between the queues and hull-fs, and both of their ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use memory::{Memory, Segments};
use rustix::io::Errno;

use super::STOP_TIMEOUT;
use super::link::{Unsent, is_own};
use super::spec::{Opcode, OutHeader};
use super::worker::{Woken, Worker};
use crate::virtio::ring::Ring;

/// How many chains of a queue, or replies, are looked at before the others have their turn.
pub(super) const MAX_BATCH: usize = 16;
/// How long the device must have nothing to do before it asks for kicks of the hiprio queue. Until then it looks there each time
/// it is awake: what takes lookups back is not urgent, and a kick each would cost as much as a request.
const FORGETS_MAY_WAIT_MS: i32 = 20;
/// How long finished requests may wait for others of their batch before the driver is interrupted.
const MAX_INTERRUPT_DELAY: Duration = Duration::from_micros(500);

/// The device at work.
pub(super) struct Session<'w, 'm> {
    pub(super) worker: &'w mut Worker,
    pub(super) memory: &'m Memory,
    pub(super) forgets: Ring,
    pub(super) requests: Ring,
    /// Requests that hull-fs has, or that wait to be sent, by their `unique`: at most as many as their queue is long.
    pub(super) in_flight: BTreeMap<u64, InFlight<'m>>,
    /// There may be something to read from hull-fs. Its socket is not asked otherwise: it would mostly have nothing.
    pub(super) replies_wait: bool,
    /// The hiprio queue is waited for.
    hears_forgets: bool,
    /// When the driver was last interrupted, or needed not be.
    notified: Instant,
}

/// A request that hull-fs has.
pub(super) struct InFlight<'m> {
    pub(super) head: u16,
    pub(super) opcode: Opcode,
    pub(super) node: u64,
    pub(super) writable: Segments<'m>,
}

impl<'w, 'm> Session<'w, 'm> {
    pub(super) fn new(
        worker: &'w mut Worker,
        memory: &'m Memory,
        forgets: Ring,
        requests: Ring,
    ) -> Self {
        Self {
            worker,
            memory,
            forgets,
            requests,
            in_flight: BTreeMap::new(),
            replies_wait: true,
            hears_forgets: true,
            notified: Instant::now(),
        }
    }

    /// Works until the device is to stop; then gives the queues back, with nothing in flight.
    pub(super) fn run(mut self) -> [Ring; 2] {
        while !self.is_to_stop() {
            // Also at the start: chains may be there from before a save, for which no kick will come.
            self.serve();
            if !self.is_to_stop() {
                self.sleep(match self.hears_forgets {
                    true => -1,
                    false => FORGETS_MAY_WAIT_MS,
                });
            }
        }
        self.finish();
        [self.forgets, self.requests]
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.worker.shared.stop.asked()
    }

    fn sleep(&mut self, timeout_ms: i32) {
        match self.worker.sleep(timeout_ms) {
            Woken::TimeOver => self.hears_forgets = true,
            Woken::ByHullFs => self.replies_wait = true,
            Woken::Otherwise => {}
        }
    }

    /// Does everything that there is to do now. A kick, a packet, or room in the socket calls for it again.
    fn serve(&mut self) {
        while !self.is_to_stop() {
            self.take_socket();
            self.flush();
            self.forgets.disable_kicks(self.memory);
            self.requests.disable_kicks(self.memory);
            self.notified = Instant::now();
            let mut more = self.take_replies();
            more |= self.take_forgets();
            more |= self.take_requests();
            self.notify();
            if more {
                continue;
            }
            if self.is_blocked() || !self.enable_kicks() {
                return;
            }
        }
    }

    /// Asks for kicks; `true` if chains have come for which there will be none.
    fn enable_kicks(&mut self) -> bool {
        let forgets = self.hears_forgets && self.forgets.enable_kicks(self.memory);
        forgets | self.requests.enable_kicks(self.memory)
    }

    fn notify(&mut self) {
        self.forgets.notify(self.memory);
        self.requests.notify(self.memory);
        self.notified = Instant::now();
    }

    pub(super) fn notify_in_time(&mut self) {
        if self.notified.elapsed() > MAX_INTERRUPT_DELAY {
            self.notify();
        }
    }

    /// Whether nothing more can be sent for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.worker.link.as_ref().is_some_and(|l| l.is_blocked())
    }

    /// Begins with a new hull-fs, if there is one.
    fn take_socket(&mut self) {
        let given = self.worker.shared.lock_given().take();
        if let Some(socket) = given {
            self.disconnect();
            self.worker.connect(socket);
            self.replies_wait = true;
        }
    }

    /// Ends with hull-fs: what it has fails.
    fn disconnect(&mut self) {
        self.worker.link = None;
        self.worker.files.close_all();
        self.fail_all(not_connected);
    }

    /// The driver is busy: what it puts into the hiprio queue is seen without a kick.
    pub(super) fn note_activity(&mut self) {
        self.hears_forgets = false;
    }

    pub(super) fn hull_fs_is_gone(&mut self) {
        let in_flight = self.in_flight.len();
        tracing::warn!(in_flight, "hull-fs is gone: the guest's shares with it");
        self.disconnect();
    }

    fn fail_all(&mut self, errno: impl Fn(Opcode) -> Errno) {
        for (unique, mut request) in std::mem::take(&mut self.in_flight) {
            let written = put_error(&mut request.writable, unique, errno(request.opcode));
            self.requests.push(self.memory, request.head, written);
        }
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(link) = &mut self.worker.link {
            match link.flush(&self.worker.wakeups) {
                Ok(()) => return,
                Err(Unsent::Message { unique, errno }) if !is_own(unique) => {
                    tracing::debug!(%errno, "a request was not sent to hull-fs");
                    self.fail(unique, Errno::IO);
                }
                Err(Unsent::Message { .. } | Unsent::Gone) => self.hull_fs_is_gone(),
            }
        }
    }

    /// Fails a request, if it is in flight.
    fn fail(&mut self, unique: u64, errno: Errno) {
        if let Some(mut request) = self.in_flight.remove(&unique) {
            let written = put_error(&mut request.writable, unique, errno);
            self.requests.push(self.memory, request.head, written);
        }
    }

    /// Waits a moment for what is in flight; what has not come back then fails, and all that the guest has with hull-fs ends.
    fn finish(&mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        self.replies_wait = true;
        // With a queue that the guest broke there is nothing to be told.
        while !self.in_flight.is_empty() && self.requests.usable() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.flush();
            if !self.take_replies() && !self.in_flight.is_empty() {
                self.sleep(left.as_millis() as i32 + 1);
            }
        }
        let was_left = !self.in_flight.is_empty();
        self.fail_all(|_| Errno::IO);
        self.worker.files.close_all();
        if let Some(link) = &mut self.worker.link
            && (link.mounted || was_left)
        {
            link.destroy();
            self.flush();
        }
        self.notify();
        // The driver of a restored queue expects it.
        self.hears_forgets = true;
        self.enable_kicks();
    }
}

/// Without a hull-fs.
pub(super) fn not_connected(opcode: Opcode) -> Errno {
    match opcode {
        Opcode::INIT => Errno::NODEV,
        _ => Errno::NOTCONN,
    }
}

/// Writes a reply that is an error, for which every request in flight has room; returns its length.
pub(super) fn put_error(reply: &mut Segments<'_>, unique: u64, errno: Errno) -> usize {
    let header = OutHeader {
        len: OutHeader::LEN as u32,
        error: -errno.raw_os_error(),
        unique,
    };
    reply.put(&header.bytes())
}
