//! From the queues to hull-fs: what is malformed is refused, data is moved at once, and the rest is passed on.

use memory::Segments;
use rustix::io::Errno;

use super::MAX_MESSAGE_LEN;
use super::link::is_own;
use super::session::{InFlight, MAX_BATCH, Session, not_connected, put_error};
use super::spec::{self, InHeader, Opcode, OutHeader, Transfer, WRITE_OUT_LEN};
use crate::virtio::ring::Chain;

/// What became of a request at once.
enum Begun {
    /// It is done, with this much payload behind the room for the header.
    Done(usize),
    /// hull-fs has it.
    Sent,
}

impl<'m> Session<'_, 'm> {
    /// Takes chains off the hiprio queue, none of which has a reply; `true` if there may be more.
    pub(super) fn take_forgets(&mut self) -> bool {
        for _ in 0..MAX_BATCH {
            if self.is_to_stop() || self.is_blocked() {
                return false;
            }
            let Some(mut chain) = self.forgets.pop(self.memory) else {
                return false;
            };
            self.note_activity();
            let len = chain.readable.len();
            if let Some(bytes) = chain.readable.take_array() {
                let header = InHeader::parse(&bytes);
                if header.opcode.forgets() {
                    self.forget(&header, &bytes, len, &mut chain.readable);
                }
            }
            self.forgets.push(self.memory, chain.head, 0);
        }
        true
    }

    /// Passes on what takes lookups back. What is malformed has no one to be told.
    fn forget(
        &mut self,
        header: &InHeader,
        bytes: &[u8],
        len: usize,
        arguments: &mut Segments<'_>,
    ) {
        let fits = header.len as usize == len && len <= MAX_MESSAGE_LEN && !is_own(header.unique);
        if let Some(link) = &mut self.worker.link
            && link.mounted
            && fits
        {
            link.send(message(bytes, arguments));
            self.flush();
        }
    }

    /// Takes chains off the request queue; `true` if there may be more.
    pub(super) fn take_requests(&mut self) -> bool {
        for _ in 0..MAX_BATCH {
            if self.is_to_stop() || self.is_blocked() {
                return false;
            }
            let Some(chain) = self.requests.pop(self.memory) else {
                return false;
            };
            self.note_activity();
            self.begin(chain);
            self.notify_in_time();
        }
        true
    }

    fn begin(&mut self, chain: Chain<'m>) {
        let Chain {
            head,
            mut readable,
            mut writable,
        } = chain;
        let len = readable.len();
        let Some(bytes) = readable.take_array() else {
            return self.requests.push(self.memory, head, 0);
        };
        let header = InHeader::parse(&bytes);
        // Linux sends one here for an entry of a directory that came with a listing and that it could not use.
        if header.opcode.forgets() {
            self.forget(&header, &bytes, len, &mut readable);
        }
        let has_reply = !header.opcode.forgets() && header.opcode != Opcode::INTERRUPT;
        if !has_reply || writable.len() < OutHeader::LEN {
            return self.requests.push(self.memory, head, 0);
        }
        let mut reply = writable.prefix(OutHeader::LEN);
        let begun = match self.check(&header, len) {
            Err(errno) => Err(errno),
            Ok(()) => match header.opcode {
                Opcode::READ => self.read(&mut readable, &mut writable),
                Opcode::WRITE => self.write(&mut readable, &mut writable),
                _ if len > MAX_MESSAGE_LEN => Err(Errno::TOOBIG),
                _ => {
                    let message = message(&bytes, &mut readable);
                    self.pass_on(&header, message, head, std::mem::take(&mut writable));
                    Ok(Begun::Sent)
                }
            },
        };
        let written = match begun {
            Ok(Begun::Sent) => return,
            Ok(Begun::Done(payload)) => put_success(&mut reply, header.unique, payload),
            Err(errno) => put_error(&mut reply, header.unique, errno),
        };
        self.requests.push(self.memory, head, written);
    }

    /// Refuses what cannot be carried out, whatever it is.
    fn check(&self, header: &InHeader, len: usize) -> Result<(), Errno> {
        match &self.worker.link {
            Some(link) if link.mounted || header.opcode == Opcode::INIT => {}
            _ => return Err(not_connected(header.opcode)),
        }
        let is_known = self.in_flight.contains_key(&header.unique);
        match header.len as usize != len || is_own(header.unique) || is_known {
            true => Err(Errno::INVAL),
            false => Ok(()),
        }
    }

    fn read(&self, arguments: &mut Segments<'m>, reply: &mut Segments<'m>) -> Result<Begun, Errno> {
        let of = Transfer::parse(&arguments.take_array().ok_or(Errno::INVAL)?);
        reply.advance(OutHeader::LEN);
        self.worker.files.read(of, reply).map(Begun::Done)
    }

    fn write(
        &self,
        arguments: &mut Segments<'m>,
        reply: &mut Segments<'m>,
    ) -> Result<Begun, Errno> {
        let of = Transfer::parse(&arguments.take_array().ok_or(Errno::INVAL)?);
        reply.advance(OutHeader::LEN);
        if reply.len() < WRITE_OUT_LEN {
            return Err(Errno::INVAL);
        }
        let count = self.worker.files.write(of, arguments)?;
        reply.put(&(count as u64).to_le_bytes());
        Ok(Begun::Done(WRITE_OUT_LEN))
    }

    /// Hands a request to hull-fs.
    fn pass_on(&mut self, header: &InHeader, message: Vec<u8>, head: u16, writable: Segments<'m>) {
        let worker = &mut *self.worker;
        let link = worker.link.as_mut().expect("a request is checked first");
        match header.opcode {
            Opcode::INIT => link.mounted = true,
            Opcode::DESTROY => {
                link.mounted = false;
                worker.files.close_all();
            }
            Opcode::RELEASE => {
                if let Some(handle) = spec::released(&message[InHeader::LEN..]) {
                    worker.files.close(handle);
                }
            }
            _ => {}
        }
        link.send(message);
        let request = InFlight {
            head,
            opcode: header.opcode,
            node: header.nodeid,
            writable,
        };
        self.in_flight.insert(header.unique, request);
        self.flush();
    }
}

/// A request as it came.
fn message(header: &[u8], arguments: &mut Segments<'_>) -> Vec<u8> {
    let mut message = vec![0; header.len() + arguments.len()];
    let (head, rest) = message.split_at_mut(header.len());
    head.copy_from_slice(header);
    arguments.take(rest);
    message
}

/// Writes the header of a reply with `payload` bytes behind it; returns the length of the whole.
fn put_success(reply: &mut Segments<'_>, unique: u64, payload: usize) -> usize {
    let len = OutHeader::LEN + payload;
    let header = OutHeader {
        len: len as u32,
        error: 0,
        unique,
    };
    reply.put(&header.bytes());
    len
}
