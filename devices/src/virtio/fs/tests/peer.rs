//! A hull-fs that does what a test says, and a driver that asks it for things.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::packet;

use super::super::spec::{InHeader, Opcode, OutHeader};
use super::super::{Fs, FsConfig, Handle, MAX_MESSAGE_LEN};
use crate::virtio::testing::{Buffer, Driver, PATIENCE};

pub(super) const LOOKUP: Opcode = Opcode(1);
/// The most files that these guests may have open.
pub(super) const MAX_OPEN: usize = 3;
/// `unique` of the INIT that [`mounted`] sends.
const INIT_UNIQUE: u64 = 2;

/// The other end of the device's socket.
pub(super) struct Peer(pub(super) OwnedFd);

/// A message that hull-fs got.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: InHeader,
    pub(super) bytes: Vec<u8>,
}

impl Message {
    pub(super) fn arguments(&self) -> &[u8] {
        &self.bytes[InHeader::LEN..]
    }
}

impl Peer {
    /// Hands the device a socket, whose other end this is.
    pub(super) fn of(handle: &Handle) -> Self {
        let (ours, theirs) = packet::pair().unwrap();
        let timeout = rustix::net::sockopt::Timeout::Recv;
        rustix::net::sockopt::set_socket_timeout(&ours, timeout, Some(PATIENCE)).unwrap();
        handle.serve(theirs).unwrap();
        Self(ours)
    }

    /// The next message.
    pub(super) fn receive(&self) -> Message {
        let mut bytes = vec![0; MAX_MESSAGE_LEN];
        let received = packet::receive(&self.0, &mut bytes).unwrap();
        assert!(received.descriptors.is_empty());
        bytes.truncate(received.len);
        let header = InHeader::parse(bytes.first_chunk().expect("the device is there"));
        assert_eq!(header.len as usize, bytes.len());
        Message { header, bytes }
    }

    /// The next message, which asks for this.
    pub(super) fn expect(&self, opcode: Opcode) -> Message {
        let message = self.receive();
        assert_eq!(message.header.opcode, opcode, "{message:?}");
        message
    }

    pub(super) fn has_nothing(&self) -> bool {
        rustix::io::ioctl_fionread(&self.0).unwrap() == 0
    }

    pub(super) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        packet::send(&self.0, bytes, descriptors).unwrap();
    }

    pub(super) fn reply(&self, unique: u64, payload: &[u8]) {
        self.send(&reply(unique, 0, payload), &[]);
    }

    pub(super) fn reply_with(&self, unique: u64, payload: &[u8], file: &File) {
        self.send(&reply(unique, 0, payload), &[file.as_fd()]);
    }
}

/// A reply as a packet.
pub(super) fn reply(unique: u64, error: i32, payload: &[u8]) -> Vec<u8> {
    let header = OutHeader {
        len: (OutHeader::LEN + payload.len()) as u32,
        error,
        unique,
    };
    [&header.bytes(), payload].concat()
}

/// What a reply to OPEN carries.
pub(super) fn open_out(handle: u64) -> Vec<u8> {
    [&handle.to_le_bytes()[..], &[0; 8]].concat()
}

/// What a reply to CREATE carries.
pub(super) fn create_out(node: u64, handle: u64) -> Vec<u8> {
    [&node.to_le_bytes()[..], &[0; 120], &open_out(handle)].concat()
}

/// The arguments of READ, and of WRITE up to its data.
pub(super) fn transfer_in(handle: u64, offset: u64, size: u32) -> Vec<u8> {
    let size = u64::from(size).to_le_bytes();
    [
        &handle.to_le_bytes()[..],
        &offset.to_le_bytes(),
        &size,
        &[0; 16],
    ]
    .concat()
}

pub(super) fn device() -> Fs {
    Fs::new(FsConfig {
        tag: "hull".into(),
        max_open_files: MAX_OPEN,
    })
    .unwrap()
}

/// A guest that has mounted the file system of a hull-fs.
pub(super) fn mounted() -> (Driver<Fs>, Peer, Handle) {
    let fs = device();
    let handle = fs.handle();
    let peer = Peer::of(&handle);
    let mut driver = Driver::new(fs);
    mount(&mut driver, &peer);
    (driver, peer, handle)
}

pub(super) fn mount(driver: &mut Driver<Fs>, peer: &Peer) {
    let init = driver.ask(Opcode::INIT, INIT_UNIQUE, &[7, 0, 0, 0], 80);
    peer.expect(Opcode::INIT);
    peer.reply(INIT_UNIQUE, &[0x55; 64]);
    assert_eq!(driver.answer(init), (0, vec![0x55; 64]));
}

/// A request under way.
pub(super) struct Asked {
    pub(super) head: u16,
    pub(super) unique: u64,
    pub(super) room: Buffer,
}

impl Driver<Fs> {
    /// Makes a request with one buffer for each direction.
    pub(super) fn ask(
        &mut self,
        opcode: Opcode,
        unique: u64,
        arguments: &[u8],
        room: usize,
    ) -> Asked {
        let request = self.readable(&InHeader::request(opcode, unique, 1, arguments));
        let room = self.writable(room);
        let head = self.queues[1].add(&[request, room]);
        self.queues[1].kick();
        Asked { head, unique, room }
    }

    /// Waits for its answer: the error, as a positive number, and the payload.
    pub(super) fn answer(&mut self, asked: Asked) -> (i32, Vec<u8>) {
        let used = self.wait_used(1);
        assert_eq!(used.head, asked.head, "another request was answered");
        self.read_reply(&asked, used.len)
    }

    /// The reply in a buffer that has come back.
    pub(super) fn read_reply(&self, asked: &Asked, len: u32) -> (i32, Vec<u8>) {
        let bytes = self.bytes(asked.room);
        let header = OutHeader::parse(bytes.first_chunk().unwrap());
        assert_eq!(header.unique, asked.unique);
        assert_eq!(header.len, len, "the used length is the reply's");
        assert!(
            bytes[len as usize..].iter().all(|&byte| byte == 0xee),
            "bytes behind the reply were written"
        );
        (-header.error, bytes[OutHeader::LEN..len as usize].to_vec())
    }

    /// Makes a request and waits for its answer, which does not come from hull-fs.
    pub(super) fn refused(&mut self, opcode: Opcode, unique: u64, arguments: &[u8]) -> i32 {
        let asked = self.ask(opcode, unique, arguments, 64);
        let (error, payload) = self.answer(asked);
        assert!(payload.is_empty());
        error
    }

    /// Opens `file` with this handle.
    pub(super) fn open(&mut self, peer: &Peer, handle: u64, file: &File) {
        let unique = 1000 + handle;
        let asked = self.ask(Opcode::OPEN, unique, &[0; 8], 32);
        peer.expect(Opcode::OPEN);
        peer.reply_with(unique, &open_out(handle), file);
        assert_eq!(self.answer(asked), (0, open_out(handle)));
    }

    pub(super) fn read(&mut self, handle: u64, offset: u64, size: u32) -> (i32, Vec<u8>) {
        let arguments = transfer_in(handle, offset, size);
        let asked = self.ask(Opcode::READ, 4, &arguments, OutHeader::LEN + size as usize);
        self.answer(asked)
    }

    /// Writes; returns the error or how many bytes were written.
    pub(super) fn write(&mut self, handle: u64, offset: u64, data: &[u8]) -> Result<u32, i32> {
        let mut arguments = transfer_in(handle, offset, data.len() as u32);
        arguments.extend(data);
        let asked = self.ask(Opcode::WRITE, 4, &arguments, 24);
        match self.answer(asked) {
            (0, payload) => Ok(u64::from_le_bytes(payload.try_into().unwrap()) as u32),
            (error, _) => Err(error),
        }
    }
}
