//! Every device that hull has, each with what proves that it still works.

use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;

use sys::packet;

use super::bus::Bus;
use crate::output::Output;
use crate::virtio::Device;
use crate::virtio::block::{Block, BlockConfig, Extent};
use crate::virtio::console::Console;
use crate::virtio::fs::{Fs, FsConfig, MAX_MESSAGE_LEN};
use crate::virtio::net::{Net, NetConfig, Wire};
use crate::virtio::rng::Rng;
use crate::virtio::testing::{Buffer, PATIENCE};
use crate::virtio::vsock::Vsock;

/// What the chains of a queue are made of, and when the device looks at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Readable; at once.
    Sends,
    /// Writable; at once.
    Asks,
    /// Writable; when there is something to deliver.
    Receives,
    /// A header to read and a status to write; at once.
    Requests,
    /// A message to read and room for the reply; at once.
    Calls,
    /// Never.
    Idle,
}

/// What is at the other end of a device.
pub(super) enum Peer {
    Disk,
    Shares,
    Random,
    Wire(UnixDatagram),
    Screen(PipeReader),
    Monitor,
}

/// A device and its other end.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) peer: Peer,
    /// Of each queue.
    pub(super) queues: &'static [Kind],
}

const SECTORS: u64 = 64;

fn block() -> (Box<dyn Device>, Subject) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * 512).unwrap();
    let len_bytes = SECTORS * 512;
    let block = Block::new(BlockConfig {
        serial: "victim".to_owned(),
        read_only: false,
        extents: vec![Extent { file, len_bytes }],
        align_bytes: 4096,
        min_len_bytes: 0,
    });
    let subject = Subject {
        name: "block",
        peer: Peer::Disk,
        queues: &[Kind::Requests],
    };
    (Box::new(block.unwrap()), subject)
}

fn fs() -> (Box<dyn Device>, Subject) {
    let fs = Fs::new(FsConfig {
        tag: "victim".to_owned(),
        max_open_files: 64,
    })
    .unwrap();
    let (theirs, ours) = packet::pair().unwrap();
    fs.handle().serve(theirs).unwrap();
    std::thread::spawn(move || serve_shares(&ours));
    let subject = Subject {
        name: "fs",
        peer: Peer::Shares,
        queues: &[Kind::Sends, Kind::Calls],
    };
    (Box::new(fs), subject)
}

/// What is read from every file.
const SHARED: [u8; 512] = [0x77; 512];

/// Opcodes of FUSE.
const FORGET: u32 = 2;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;

/// A hull-fs that agrees to everything, and opens one file again and again.
fn serve_shares(socket: &OwnedFd) {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&SHARED, 0).unwrap();
    let mut message = vec![0; MAX_MESSAGE_LEN];
    let mut handle = 0u64;
    while packet::receive(socket, &mut message).is_ok_and(|packet| packet.len > 0) {
        let (opcode, unique) = (&message[4..8], &message[8..16]);
        let mut payload = Vec::new();
        let mut files = Vec::new();
        match u32::from_le_bytes(opcode.try_into().unwrap()) {
            FORGET | BATCH_FORGET => continue,
            OPEN => {
                handle += 1;
                payload.extend([handle.to_le_bytes(), [0; 8]].concat());
                files.push(file.as_fd());
            }
            _ => {}
        }
        let len = (16 + payload.len()) as u64;
        let reply = [&len.to_le_bytes(), unique, &payload].concat();
        // A device that is gone is the end.
        let _ = packet::send(socket, &reply, &files);
    }
}

/// A FUSE request.
fn fuse_request(opcode: u32, unique: u64, arguments: &[u8]) -> Vec<u8> {
    let len = 40 + arguments.len() as u32;
    let mut request = [len, opcode].map(u32::to_le_bytes).concat();
    request.extend(unique.to_le_bytes());
    request.extend([0; 24]);
    request.extend(arguments);
    request
}

fn net() -> (Box<dyn Device>, Subject) {
    let (tap, wire) = UnixDatagram::pair().unwrap();
    tap.set_nonblocking(true).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    let net = Net::new(NetConfig {
        descriptor: Some(tap.into()),
        wire: Wire::Plain,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
    });
    let subject = Subject {
        name: "net",
        peer: Peer::Wire(wire),
        queues: &[Kind::Receives, Kind::Sends],
    };
    (Box::new(net.unwrap()), subject)
}

fn vsock() -> (Box<dyn Device>, Subject) {
    let subject = Subject {
        name: "vsock",
        peer: Peer::Monitor,
        queues: &[Kind::Receives, Kind::Sends, Kind::Idle],
    };
    (Box::new(Vsock::new(3).0), subject)
}

fn rng() -> (Box<dyn Device>, Subject) {
    let subject = Subject {
        name: "rng",
        peer: Peer::Random,
        queues: &[Kind::Asks],
    };
    (Box::new(Rng::new()), subject)
}

fn console() -> (Box<dyn Device>, Subject) {
    let (reader, writer) = std::io::pipe().unwrap();
    let output = Output::new(Some(writer.into())).unwrap();
    let subject = Subject {
        name: "console",
        peer: Peer::Screen(reader),
        queues: &[Kind::Idle, Kind::Sends],
    };
    (Box::new(Console::new(output)), subject)
}

/// Makes a device and its other end.
pub(super) type Make = fn() -> (Box<dyn Device>, Subject);

/// All devices. A new one is a line here.
pub(super) const ALL: [Make; 6] = [block, fs, net, vsock, rng, console];

/// A vsock packet of the guest's, from its port 9, without data.
pub(super) fn vsock_header(op: u16) -> [u8; 44] {
    let mut header = [0; 44];
    header[0] = 3; // src_cid
    header[8] = 2; // dst_cid
    header[16] = 9;
    header[20] = 7;
    header[28] = 1; // a stream
    header[30..32].copy_from_slice(&op.to_le_bytes());
    header
}

impl Subject {
    /// One buffer of each kind that a chain of this queue needs.
    pub(super) fn legal_chain(&self, bus: &mut Bus, queue: usize) -> Vec<Buffer> {
        match self.queues[queue] {
            Kind::Sends => vec![bus.readable(&[0; 64])],
            Kind::Calls => {
                let init = bus.readable(&fuse_request(INIT, 2, &[0; 64]));
                vec![init, bus.writable(256)]
            }
            Kind::Asks | Kind::Receives | Kind::Idle => vec![bus.writable(256)],
            Kind::Requests => {
                let header = bus.readable(&[0; 16]);
                vec![header, bus.writable(512), bus.writable(1)]
            }
        }
    }

    /// Has the device look at what it was given on a queue.
    pub(super) fn provoke(&self, bus: &mut Bus, queue: usize) {
        match (&self.peer, self.queues[queue]) {
            (Peer::Wire(wire), Kind::Receives) => {
                wire.send(&[0; 100]).unwrap();
            }
            // No stream is offered: the answer is a reset, and that needs a receive buffer.
            (Peer::Monitor, Kind::Receives) => {
                let request = bus.readable(&vsock_header(1));
                bus.queues[1].add(&[request]);
                bus.notify(1);
            }
            _ => {}
        }
        bus.notify(queue);
    }

    /// The device does what it is for.
    pub(super) fn works(&mut self, bus: &mut Bus) {
        match &mut self.peer {
            Peer::Disk => {
                let header = bus.readable(&[0; 16]);
                let (data, status) = (bus.writable(512), bus.writable(1));
                assert_eq!(bus.submit(0, &[header, data, status]).len, 513);
                assert_eq!(bus.bytes(status), [0]);
            }
            Peer::Shares => {
                let mut call = |opcode, unique, arguments: &[u8], payload: u32| {
                    let request = bus.readable(&fuse_request(opcode, unique, arguments));
                    let room = bus.writable(1024);
                    assert_eq!(bus.submit(1, &[request, room]).len, 16 + payload);
                    let reply = bus.bytes(room);
                    assert_eq!(reply[4..8], [0; 4]);
                    reply[16..16 + payload as usize].to_vec()
                };
                call(INIT, 2, &[0; 64], 0);
                let handle = call(OPEN, 4, &[0; 8], 16);
                let read = [&handle[..8], &[0; 8], &512u64.to_le_bytes(), &[0; 16]].concat();
                assert_eq!(call(READ, 6, &read, 512), SHARED);
            }
            Peer::Random => {
                let buffer = bus.writable(32);
                assert_eq!(bus.submit(0, &[buffer]).len, 32);
                assert_ne!(bus.bytes(buffer), [0xee; 32]);
            }
            Peer::Wire(wire) => {
                // What came in before is of no interest.
                wire.set_nonblocking(true).unwrap();
                while wire.recv(&mut [0; 100]).is_ok() {}
                wire.set_nonblocking(false).unwrap();
                let packet = bus.readable(&[7; 80]);
                bus.submit(1, &[packet]);
                let mut seen = [0; 100];
                assert_eq!(wire.recv(&mut seen).unwrap(), 80);
            }
            Peer::Screen(reader) => {
                // A full screen shows nothing more.
                rustix::io::ioctl_fionbio(&*reader, true).unwrap();
                while reader.read(&mut [0; 4096]).is_ok() {}
                rustix::io::ioctl_fionbio(&*reader, false).unwrap();
                let line = bus.readable(b"~works\n");
                bus.submit(1, &[line]);
                let mut byte = [0];
                while byte[0] != b'~' {
                    reader.read_exact(&mut byte).unwrap();
                }
            }
            Peer::Monitor => {
                let buffer = bus.writable(64);
                bus.queues[0].add(&[buffer]);
                let request = bus.readable(&vsock_header(1));
                bus.submit(1, &[request]);
                assert_eq!(bus.wait(0).len, 44);
                assert_eq!(bus.bytes(buffer)[30], 3, "the answer is a reset");
            }
        }
    }
}
