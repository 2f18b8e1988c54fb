//! The main loop's part of a vsock device: moves packets between the queues and the connections.
//!
//! What a guest can make the device hold is bounded: packets due to the guest are flags of
//! their connection, but for resets, and when [`MAX_RESETS`] of those wait for receive buffers, no packet is taken from
//! the guest before some are gone. One turn of the loop handles at most [`BUDGET`] chains in each direction.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use event_manager::{EventOps, Events, MutEventSubscriber};
use memory::{GuestMemoryMmap, Memory, Segments};
use vmm_sys_util::epoll::EventSet;

use super::connection::{Connection, Filled, Ports, Violation};
use super::offers::{Offers, StreamError};
use super::spec::{HOST_CID, Header, Op, TRANSPORT_RESET, Type};
use super::table::{Number, Table};
use crate::virtio::ring::{Chain, Ring};

/// The most connections, those included that only wait for the host to read the rest.
pub(super) const MAX_CONNECTIONS: usize = 4096;
/// The receive buffer of a connection, in bytes; it is allocated only while the host does not read. All of them
/// together are bounded by MANY * LARGE_BUFFER + (MAX_CONNECTIONS - MANY) * SMALL_BUFFER: less than 128 MiB.
pub(super) const LARGE_BUFFER: u32 = 256 << 10;
/// The receive buffer when there are MANY connections already.
pub(super) const SMALL_BUFFER: u32 = 16 << 10;
pub(super) const MANY: usize = 256;
/// The most resets that wait for a receive buffer.
pub(super) const MAX_RESETS: usize = 256;
/// The most chains of a queue in one turn of the main loop: at most 2 MiB are copied, and others get their turn.
const BUDGET: usize = 32;

/// Tokens of the main loop: those of connections come after these.
const KICK: u32 = 0;
const FIRST_CONNECTION: u32 = 1;

pub(super) struct Worker {
    pub(super) guest_cid: u64,
    pub(super) offers: Offers,
    pub(super) memory: Memory,
    pub(super) rx: Ring,
    pub(super) tx: Ring,
    pub(super) event: Ring,
    /// The driver has not been told that its connections are gone.
    pub(super) transport_reset_due: bool,
    pub(super) table: Table,
    /// Connections that may have a packet due.
    pub(super) due: VecDeque<Number>,
    /// Resets due: answers to packets of connections that are not there.
    pub(super) resets: VecDeque<Header>,
}

impl MutEventSubscriber for Worker {
    fn init(&mut self, ops: &mut EventOps) {
        // Edge-triggered: a kick need not be read to be cleared.
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let kicks = [&self.rx, &self.tx, &self.event]
            .map(|ring| Events::with_data(&*ring.kick, KICK, edge));
        for events in kicks {
            if let Err(error) = ops.add(events) {
                // For want of kernel memory only. The device stays silent; the VM goes on.
                tracing::warn!(%error, "the main loop cannot watch the socket device's queues");
            }
        }
        // Chains may be there from before a save, for which no kick will come.
        self.turn(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        if let Some(number) = events.data().checked_sub(FIRST_CONNECTION) {
            if let Some(connection) = self.table.get(number) {
                connection.ready(events.event_set());
            }
            self.after(number, ops);
        }
        self.turn(ops);
    }
}

impl Worker {
    /// Moves what can be moved, within the budget.
    fn turn(&mut self, ops: &mut EventOps) {
        let memory = self.memory.clone();
        let mut more = self.receive(&memory, ops);
        let held_back = self.resets.len() >= MAX_RESETS;
        more |= self.send(&memory, ops);
        more |= held_back && self.resets.len() < MAX_RESETS;
        self.announce_reset(&memory);
        for ring in [&mut self.rx, &mut self.tx, &mut self.event] {
            ring.notify(&memory);
        }
        if more {
            self.tx.kick_again();
        }
    }

    /// Takes packets from the guest. `true` if there are more than one turn handles.
    fn receive(&mut self, memory: &GuestMemoryMmap, ops: &mut EventOps) -> bool {
        self.tx.disable_kicks(memory);
        for _ in 0..BUDGET {
            if self.resets.len() >= MAX_RESETS {
                return false;
            }
            if let Some(Chain {
                head, mut readable, ..
            }) = self.tx.pop(memory)
            {
                self.packet(&mut readable, ops);
                self.tx.push(memory, head, 0);
            } else if self.tx.enable_kicks(memory) {
                self.tx.disable_kicks(memory);
            } else {
                return false;
            }
        }
        true
    }

    /// Sends packets to the guest while some are due and it has buffers. `true` if one turn was not enough.
    fn send(&mut self, memory: &GuestMemoryMmap, ops: &mut EventOps) -> bool {
        for _ in 0..BUDGET {
            if self.resets.is_empty() && self.due.is_empty() {
                return false;
            }
            if let Some(Chain {
                head, mut writable, ..
            }) = self.rx.pop(memory)
            {
                match self.fill(&mut writable, ops) {
                    Some(written) => self.rx.push(memory, head, written),
                    None => self.rx.unpop(1),
                }
            } else if self.rx.enable_kicks(memory) {
                self.rx.disable_kicks(memory);
            } else {
                return false;
            }
        }
        !self.resets.is_empty() || !self.due.is_empty()
    }

    /// Handles one packet from the guest. One with another source, or shorter than its header announces, is dropped.
    fn packet(&mut self, packet: &mut Segments<'_>, ops: &mut EventOps) {
        let Some(header) = packet.take_array().as_ref().map(Header::parse) else {
            return;
        };
        if header.src_cid != self.guest_cid || packet.len() < header.len as usize {
            return;
        }
        packet.truncate(header.len as usize);
        let ports = Ports {
            guest: header.src_port,
            host: header.dst_port,
        };
        if header.dst_cid != HOST_CID || header.kind != Type::STREAM {
            return self.reset(&header);
        }
        match (self.table.find(ports), header.op) {
            (None, Op::REQUEST) => self.connect(&header, ops),
            (None, _) => self.reset(&header),
            (Some(number), Op::RST) => self.forget(number, ops),
            (Some(number), _) => match self.deliver(number, &header, packet) {
                Ok(false) => self.after(number, ops),
                // It neither sends nor receives any more: the reset confirms that (5.10.6.5).
                Ok(true) | Err(Violation) if !self.ended_by_failure(number, ops) => {
                    self.reset(&header);
                    self.forget(number, ops);
                }
                Ok(true) | Err(Violation) => {}
            },
        }
    }

    /// Hands a packet to its connection. `Ok(true)` if the guest is done with it.
    fn deliver(
        &mut self,
        number: Number,
        header: &Header,
        data: &mut Segments<'_>,
    ) -> Result<bool, Violation> {
        let connection = self.table.get(number).ok_or(Violation)?;
        connection.update_credit(header);
        match header.op {
            Op::RW => connection.receive(data)?,
            Op::CREDIT_UPDATE => {}
            Op::CREDIT_REQUEST => connection.credit_requested(),
            Op::SHUTDOWN => return Ok(connection.guest_shut_down(header.flags)),
            // REQUEST for what is connected, RESPONSE to what was not asked, and unknown ones.
            _ => return Err(Violation),
        }
        Ok(false)
    }

    /// Answers a connection request.
    fn connect(&mut self, request: &Header, ops: &mut EventOps) {
        let connections = self.table.len();
        if connections >= MAX_CONNECTIONS {
            return self.reset(request);
        }
        let Some(fd) = self.offers.take(request.dst_port) else {
            return self.reset(request);
        };
        let buf_alloc = if connections < MANY {
            LARGE_BUFFER
        } else {
            SMALL_BUFFER
        };
        let raw = fd.as_raw_fd();
        let number = self.table.insert(Connection::new(request, fd, buf_alloc));
        let events =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        if let Err(error) = ops.add(Events::with_data_raw(
            raw,
            FIRST_CONNECTION + number,
            events,
        )) {
            self.table.remove(number);
            self.offers
                .failed(request.dst_port, StreamError::Watch(error));
            return self.reset(request);
        }
        self.after(number, ops);
    }

    /// Puts the next packet that is due into a chain. `None` if none was due after all.
    fn fill(&mut self, chain: &mut Segments<'_>, ops: &mut EventOps) -> Option<usize> {
        if chain.len() < Header::LEN {
            return Some(0);
        }
        let mut head = chain.prefix(Header::LEN);
        chain.advance(Header::LEN);
        while self.resets.is_empty() {
            let number = self.due.pop_front()?;
            let Some(connection) = self.table.get(number) else {
                continue;
            };
            connection.queued = false;
            if !connection.has_work() {
                continue;
            }
            let filled = connection.fill(&mut head, chain);
            self.after(number, ops);
            match filled {
                Filled::Packet(len) => return Some(len),
                Filled::NoRoom => return Some(0),
                Filled::Nothing => {}
            }
        }
        let reset = self.resets.pop_front()?;
        Some(head.put(&reset.encode()))
    }

    /// What has to be done after a connection's state has changed.
    fn after(&mut self, number: Number, ops: &mut EventOps) {
        if self.ended_by_failure(number, ops) {
            return;
        }
        let Some(connection) = self.table.get(number) else {
            return;
        };
        if connection.lingering && !connection.has_unsent() {
            self.close(number, ops);
        } else if connection.has_work() && !connection.queued {
            connection.queued = true;
            self.due.push_back(number);
        }
    }

    /// Ends a connection after a failure of its descriptor: resets it, unless the guest has forgotten it, and reports the
    /// failure. `true` if there was one. At most one such reset waits for each stream that was offered.
    fn ended_by_failure(&mut self, number: Number, ops: &mut EventOps) -> bool {
        let Some(connection) = self.table.get(number) else {
            return false;
        };
        let Some(error) = connection.take_failure() else {
            return false;
        };
        if !connection.lingering {
            self.resets.push_back(connection.header(Op::RST, 0));
        }
        let port = connection.ports.host;
        self.close(number, ops);
        self.offers.failed(port, error);
        true
    }

    /// The guest has forgotten the connection. The host still gets what the guest had sent.
    fn forget(&mut self, number: Number, ops: &mut EventOps) {
        let Some(connection) = self.table.get(number) else {
            return;
        };
        let unsent = connection.guest_gone();
        let ports = connection.ports;
        self.table.forget_ports(ports);
        if !unsent {
            self.close(number, ops);
        }
    }

    fn close(&mut self, number: Number, ops: &mut EventOps) {
        let Some(connection) = self.table.remove(number) else {
            return;
        };
        if connection.queued {
            // Otherwise the next connection with this number would be queued twice.
            self.due.retain(|&due| due != number);
        }
        if let Err(error) = ops.remove(Events::empty_raw(connection.fd().as_raw_fd())) {
            tracing::warn!(%error, "a stream could not be taken off the main loop");
        }
    }

    /// Answers a packet with a reset, unless it is one.
    fn reset(&mut self, header: &Header) {
        if header.op != Op::RST {
            self.resets.push_back(header.reset());
        }
    }

    /// Tells the driver once that its connections did not survive, as soon as it has a buffer for that.
    fn announce_reset(&mut self, memory: &GuestMemoryMmap) {
        if !self.transport_reset_due {
            return;
        }
        self.event.disable_kicks(memory);
        for _ in 0..BUDGET {
            if let Some(Chain {
                head, mut writable, ..
            }) = self.event.pop(memory)
            {
                let fits = writable.len() >= TRANSPORT_RESET.len();
                let written = if fits {
                    writable.put(&TRANSPORT_RESET)
                } else {
                    0
                };
                self.event.push(memory, head, written);
                if fits {
                    self.transport_reset_due = false;
                    return;
                }
            } else if !self.event.enable_kicks(memory) {
                return;
            }
        }
    }
}
