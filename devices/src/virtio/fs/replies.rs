//! From hull-fs to the guest: replies, each of which must belong to a request and fit it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::link::Received;
use super::session::{InFlight, MAX_BATCH, Session, put_error};
use super::spec::{self, OutHeader};

impl Session<'_, '_> {
    /// Takes what hull-fs has sent; `true` if there may be more.
    pub(super) fn take_replies(&mut self) -> bool {
        let mut buffer = std::mem::take(&mut self.worker.buffer);
        for _ in 0..MAX_BATCH {
            if !self.replies_wait {
                break;
            }
            self.take_reply(&mut buffer);
        }
        self.worker.buffer = buffer;
        self.replies_wait
    }

    fn take_reply(&mut self, buffer: &mut [u8]) {
        let received = match &self.worker.link {
            Some(link) => link.receive(buffer),
            None => Received::Nothing,
        };
        match received {
            Received::Nothing => self.replies_wait = false,
            Received::Gone => {
                self.replies_wait = false;
                self.hull_fs_is_gone();
            }
            Received::Packet {
                len,
                descriptors,
                lost,
            } => {
                self.deliver(&buffer[..len], descriptors, lost);
                // With nothing in flight there is no reply. What else there may be, void replies and the socket's end, is read
                // when the next packet comes, or found out when the next is sent.
                self.replies_wait = !self.in_flight.is_empty();
                self.notify_in_time();
            }
        }
    }

    fn deliver(&mut self, packet: &[u8], descriptors: Vec<OwnedFd>, lost: bool) {
        let Some(header) = packet.first_chunk().map(OutHeader::parse) else {
            self.fault("a reply without a header");
            return;
        };
        let unique = header.unique;
        if self.worker.link.as_mut().is_some_and(|l| l.is_void(unique)) {
            return;
        }
        let Some(mut request) = self.in_flight.remove(&unique) else {
            self.fault("a reply to nothing");
            return;
        };
        let written = match self.accept(&request, header, packet, descriptors, lost) {
            Ok(()) => request.writable.put(packet),
            Err(errno) => put_error(&mut request.writable, unique, errno),
        };
        self.requests.push(self.memory, request.head, written);
    }

    /// Checks a reply, and takes the file that was opened with it.
    fn accept(
        &mut self,
        request: &InFlight<'_>,
        header: OutHeader,
        packet: &[u8],
        mut descriptors: Vec<OwnedFd>,
        lost: bool,
    ) -> Result<(), Errno> {
        let payload = &packet[OutHeader::LEN..];
        let too_long = packet.len() > request.writable.len();
        if !header.fits(packet.len()) {
            return Err(self.fault("a reply that is malformed"));
        }
        let has_file = header.error == 0 && request.opcode.handle_in_reply().is_some();
        if !has_file {
            return match (too_long, lost || !descriptors.is_empty()) {
                (false, false) => Ok(()),
                (true, _) => Err(self.fault("a reply too long for the guest's buffers")),
                (_, true) => Err(self.fault("a descriptor that nothing asked for")),
            };
        }
        let Some(handle) = spec::opened(request.opcode, payload) else {
            return Err(self.fault("a reply that is malformed"));
        };
        if self.worker.files.contains(handle) {
            return Err(self.fault("a handle twice"));
        }
        let file = descriptors.pop();
        let refusal = match file {
            _ if lost || self.worker.files.is_full() => Errno::NFILE,
            _ if too_long => self.fault("a reply too long for the guest's buffers"),
            Some(file) if descriptors.is_empty() => {
                self.worker.files.insert(handle, file);
                return Ok(());
            }
            _ => self.fault("another number of descriptors than one for an open file"),
        };
        self.undo_open(request, handle, payload);
        Err(refusal)
    }

    /// The guest does not learn of a file that hull-fs has opened.
    fn undo_open(&mut self, request: &InFlight<'_>, handle: u64, payload: &[u8]) {
        let looked_up = request.opcode.looks_up();
        let node = match looked_up {
            true => spec::u64_at(payload, 0),
            false => request.node,
        };
        if let Some(link) = &mut self.worker.link {
            link.undo_open(node, handle, looked_up);
            self.flush();
        }
    }

    /// hull-fs is at fault; the guest reads an I/O error.
    fn fault(&mut self, what: &'static str) -> Errno {
        if !std::mem::replace(&mut self.worker.fault_logged, true) {
            tracing::warn!(
                what,
                "hull-fs has sent what it should not; later faults are not logged"
            );
        }
        Errno::IO
    }
}
