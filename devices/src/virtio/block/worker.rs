//! The thread of a block device: one request after the other, straight between the files and guest memory.
//!
//! Requests that come together are answered with one interrupt, unless they take long: the driver is then interrupted for
//! the first before the last is done.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use memory::{Memory, Segments};
use sys::reserve::Reserve;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::spec::{Header, ID_BYTES, Range, RequestType, SECTOR_BYTES, Status};
use super::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_REQUEST_BYTES, MAX_WRITE_ZEROES_SECTORS, Shared};
use crate::virtio::ring::{Chain, Ring};

/// How long finished requests may wait for others of their batch before the driver is interrupted.
const MAX_INTERRUPT_DELAY: Duration = Duration::from_micros(500);

/// From a start to a stop: a queue and what belongs to it.
pub(super) struct Job {
    pub(super) memory: Memory,
    pub(super) ring: Ring,
    /// The driver does not flush: every write is durable before it is answered (5.2.6.2).
    pub(super) write_through: bool,
}

/// What the thread keeps between its jobs.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// What the thread sleeps on: edge-triggered, so that kicks and the stop need not be read to be cleared.
    wakeups: Epoll,
    write_through: bool,
    reserve: Reserve,
}

/// The outcome of a request: its status and the bytes of data that were written to the guest, from the first on.
struct Outcome {
    status: Status,
    data: usize,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let wakeups = Epoll::new()?;
        let worker = Self {
            shared,
            wakeups,
            write_through: false,
            reserve: Reserve::of_layers(),
        };
        worker.watch(ControlOperation::Add, worker.shared.stop.wake())?;
        Ok(worker)
    }

    fn watch(&self, operation: ControlOperation, fd: &EventFd) -> io::Result<()> {
        let edge = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        self.wakeups.ctl(operation, fd.as_raw_fd(), edge)
    }

    /// Does one job after the other, each until [`Stop::ask`], as long as the device lives.
    pub(super) fn run(mut self, jobs: Receiver<Job>, done: Sender<Ring>) {
        while let Ok(job) = jobs.recv() {
            let ring = self.work(job);
            self.shared.stop.done();
            if done.send(ring).is_err() {
                return;
            }
        }
    }

    /// Works until it is asked to stop and gives the queue back. A request that was taken is finished first.
    fn work(&mut self, job: Job) -> Ring {
        let Job {
            memory,
            mut ring,
            write_through,
        } = job;
        self.write_through = write_through;
        if let Err(error) = self.watch(ControlOperation::Add, &ring.kick) {
            // Only want of kernel memory: the device stays silent, the VM goes on.
            tracing::warn!(%error, "a disk's queue cannot be watched");
        }
        while !self.shared.stop.asked() {
            // Also at the start: chains may be there from before a save, for which no kick will come.
            self.drain(&memory, &mut ring);
            // A kick, a stop or EINTR: each leads to another look at both. Nothing else can fail.
            let _ = self.wakeups.wait(-1, &mut [EpollEvent::default()]);
        }
        // Fails only where adding failed.
        let _ = self.watch(ControlOperation::Delete, &ring.kick);
        ring
    }

    /// Takes requests until there are none, or until the end.
    fn drain(&mut self, memory: &Memory, ring: &mut Ring) {
        loop {
            ring.disable_kicks(memory);
            let mut told = Instant::now();
            while !self.shared.stop.asked()
                && let Some(chain) = ring.pop(memory)
            {
                let head = chain.head;
                let written = self.answer(chain);
                ring.push(memory, head, written);
                if told.elapsed() > MAX_INTERRUPT_DELAY {
                    ring.notify(memory);
                    told = Instant::now();
                }
            }
            ring.notify(memory);
            // Enabled even when stopping: the driver of a restored queue expects that.
            if !ring.enable_kicks(memory) || self.shared.stop.asked() {
                return;
            }
        }
    }

    /// Carries one request out. Returns the used length: 0 for a chain without room for header and status.
    fn answer(&mut self, chain: Chain<'_>) -> usize {
        let Chain {
            mut readable,
            mut writable,
            ..
        } = chain;
        let mut status = writable.split_off_last(1);
        let Some(header) = readable.take_array().map(Header::parse) else {
            return 0;
        };
        if status.is_empty() {
            return 0;
        }
        let room = writable.len();
        let outcome = match readable.len().max(room) {
            ..=MAX_REQUEST_BYTES => self.carry_out(header, &mut readable, &mut writable),
            _ => Outcome {
                status: Status::IOERR,
                data: 0,
            },
        };
        status.put(&[outcome.status.0]);
        // The used length counts from the first byte: the status is part of it only when all before it was written.
        if outcome.data == room {
            room + 1
        } else {
            outcome.data
        }
    }

    fn carry_out(
        &mut self,
        header: Header,
        from: &mut Segments<'_>,
        to: &mut Segments<'_>,
    ) -> Outcome {
        let room = to.len();
        let done = match header.kind {
            RequestType::IN => self.read(header.sector, to),
            RequestType::OUT => self.write(header.sector, from),
            RequestType::FLUSH => self.flush(),
            RequestType::GET_ID => {
                let mut id = [0; ID_BYTES];
                let serial = self.shared.serial.as_bytes();
                id[..serial.len()].copy_from_slice(serial);
                to.put(&id);
                Ok(())
            }
            RequestType::DISCARD => self.each_range(from, MAX_DISCARD_SECTORS, Self::discard),
            RequestType::WRITE_ZEROES => {
                self.each_range(from, MAX_WRITE_ZEROES_SECTORS, Self::write_zeroes)
            }
            _ => Err(Status::UNSUPP),
        };
        Outcome {
            status: done.err().unwrap_or(Status::OK),
            data: room - to.len(),
        }
    }

    fn read(&mut self, sector: u64, to: &mut Segments<'_>) -> Result<(), Status> {
        let disk = self.shared.disk();
        let offset = disk.locate(sector, to.len() as u64).ok_or(Status::IOERR)?;
        let done = disk.read(offset, to);
        self.host(done)
    }

    fn write(&mut self, sector: u64, from: &mut Segments<'_>) -> Result<(), Status> {
        let disk = self.shared.disk();
        let offset = disk
            .locate(sector, from.len() as u64)
            .ok_or(Status::IOERR)?;
        self.refuse_if_read_only()?;
        let mut done = self
            .take_room(offset, from.len() as u64)
            .and_then(|()| disk.write(offset, from));
        if self.write_through {
            done = done.and_then(|()| disk.flush());
        }
        self.host(done)
    }

    fn flush(&mut self) -> Result<(), Status> {
        if self.shared.read_only {
            return Ok(());
        }
        let done = self.shared.disk().flush();
        self.host(done)
    }

    /// Carries out a DISCARD or WRITE_ZEROES request. All ranges are checked before the first is touched.
    fn each_range(
        &mut self,
        from: &mut Segments<'_>,
        max_sectors: u32,
        act: impl Fn(&mut Self, u64, u64, u32) -> io::Result<()>,
    ) -> Result<(), Status> {
        self.refuse_if_read_only()?;
        let count = from.len() / Range::LEN;
        if count == 0 || count > MAX_RANGES as usize || !from.len().is_multiple_of(Range::LEN) {
            return Err(Status::IOERR);
        }
        let disk = self.shared.disk();
        let mut ranges = [(0, 0, 0); MAX_RANGES as usize];
        for checked in &mut ranges[..count] {
            let range = from.take_array().map(Range::parse).ok_or(Status::IOERR)?;
            // 5.2.6.2: unknown flags, and any flag of a discard, are not supported.
            if range.flags & !Range::UNMAP != 0 {
                return Err(Status::UNSUPP);
            }
            let len = u64::from(range.sectors) * SECTOR_BYTES;
            let offset = disk.locate(range.sector, len).ok_or(Status::IOERR)?;
            if range.sectors > max_sectors {
                return Err(Status::IOERR);
            }
            *checked = (offset, len, range.flags);
        }
        for &(offset, len, flags) in &ranges[..count] {
            match act(self, offset, len, flags) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return Err(Status::UNSUPP);
                }
                done => self.host(done)?,
            }
        }
        Ok(())
    }

    fn discard(&mut self, offset: u64, len: u64, flags: u32) -> io::Result<()> {
        if flags != 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.shared.disk().discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, flags: u32) -> io::Result<()> {
        let disk = self.shared.disk();
        let unmap = flags & Range::UNMAP != 0;
        if !unmap {
            self.take_room(offset, len)?;
        }
        disk.write_zeroes(offset, len, unmap)?;
        if self.write_through {
            disk.flush()
        } else {
            Ok(())
        }
    }

    /// Refuses to fill the host's file system: what is left of it is for hull's records, and for other containers'.
    fn take_room(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let disk = self.shared.disk();
        match disk.has_room(&mut self.reserve, offset, len)? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the host's file system is nearly full",
            )),
        }
    }

    fn refuse_if_read_only(&self) -> Result<(), Status> {
        // 5.2.6.2: a write to a read-only device fails with IOERR and writes nothing.
        if self.shared.read_only {
            Err(Status::IOERR)
        } else {
            Ok(())
        }
    }

    /// The guest's status for the host's result.
    fn host(&mut self, done: io::Result<()>) -> Result<(), Status> {
        done.map_err(|error| {
            if !self.shared.failure_logged.swap(true, Ordering::Relaxed) {
                let serial = &*self.shared.serial;
                tracing::warn!(disk = serial, %error, "I/O failed; later failures are not logged");
            }
            Status::IOERR
        })
    }
}
