//! The socket device, with streams that the host offers, writes, reads, shuts and closes.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use devices::virtio::Device;
use devices::virtio::vsock::{Offers, Vsock, VsockState};

use crate::guest::{self, Host, Request};
use crate::input::Input;

const GUEST_CID: u32 = 3;
/// Ports that are offered begin here.
const FIRST_PORT: u32 = 1024;
/// The most streams at a time.
const MAX_STREAMS: usize = 6;

#[derive(Default)]
struct Streams {
    offers: Option<Offers>,
    ours: Vec<UnixStream>,
}

/// Runs an input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut streams = Streams::default();
    guest::drive(&mut Finishing(&mut streams), &mut input);
}

/// Lets go of everything before descriptors are counted.
struct Finishing<'a>(&'a mut Streams);

impl Streams {
    fn offer(&mut self, port: u32) {
        let Some(offers) = &self.offers else { return };
        if self.ours.len() == MAX_STREAMS {
            return;
        }
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        ours.set_nonblocking(true).expect("a socket");
        // Taken already: the monitor would not do that.
        if offers.offer(FIRST_PORT + port, theirs.into()).is_ok() {
            self.ours.push(ours);
        }
    }

    fn read(&mut self, index: usize) {
        let Some(mut stream) = self.ours.get(index) else {
            return;
        };
        let mut bytes = [0; 4096];
        while let Ok(1..) = stream.read(&mut bytes) {}
    }
}

impl Host for Finishing<'_> {
    fn device(&mut self) -> Box<dyn Device> {
        let (device, offers) = match self.0.offers.take() {
            None => Vsock::new(GUEST_CID),
            Some(_) => Vsock::restore(VsockState {
                guest_cid: GUEST_CID,
            }),
        };
        self.0.offers = Some(offers);
        self.0.offer(0);
        Box::new(device)
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let streams = &mut *self.0;
        let (what, index) = (input.u8() % 8, usize::from(input.u8()) % MAX_STREAMS);
        match what {
            0 => streams.offer(index as u32),
            1 => streams.read(index),
            2 | 3 => {
                let bytes = vec![index as u8; input.u16().into()];
                if let Some(mut stream) = streams.ours.get(index) {
                    // As much as fits.
                    let _ = stream.write(&bytes);
                }
            }
            4 | 5 => {
                let how = [Shutdown::Read, Shutdown::Write][usize::from(what & 1)];
                if let Some(stream) = streams.ours.get(index) {
                    let _ = stream.shutdown(how);
                }
            }
            6 if index < streams.ours.len() => drop(streams.ours.swap_remove(index)),
            _ => {
                for index in 0..streams.ours.len() {
                    streams.read(index);
                }
            }
        }
    }

    fn request(&mut self, input: &mut Input<'_>) -> Request {
        let (kind, op) = (input.u8(), input.u8());
        let (guest_port, host_port) = (input.u8() % 8, input.u8() % 8);
        let bytes = match kind & 1 {
            0 => input.short().to_vec(),
            _ => vec![9; input.u16().into()],
        };
        let len = match kind & 2 {
            0 => bytes.len() as u32,
            _ => input.u32(),
        };
        let (buf_alloc, fwd_cnt) = match kind & 4 {
            0 => (0x4000, 0),
            _ => (input.u32(), input.u32()),
        };
        let flags = if kind & 8 == 0 { 0 } else { input.u8() };
        let cids = if kind & 0x10 == 0 {
            [GUEST_CID.into(), 2]
        } else {
            [input.u64(), input.u64()]
        };
        let socket = if kind & 0x20 == 0 { 1 } else { input.u16() };
        let mut header = Vec::new();
        header.extend(cids.map(u64::to_le_bytes).concat());
        header.extend((100 + u32::from(guest_port)).to_le_bytes());
        header.extend((FIRST_PORT + u32::from(host_port)).to_le_bytes());
        header.extend(len.to_le_bytes());
        header.extend(socket.to_le_bytes());
        header.extend((u16::from(op) % 10).to_le_bytes());
        header.extend(u32::from(flags).to_le_bytes());
        header.extend(buf_alloc.to_le_bytes());
        header.extend(fwd_cnt.to_le_bytes());
        let readable = match kind & 0x40 {
            0 => vec![header, bytes],
            _ => vec![[header, bytes].concat()],
        };
        Request {
            queue: 1,
            readable,
            writable: Vec::new(),
        }
    }

    fn check(&mut self) {
        for index in 0..self.0.ours.len() {
            self.0.read(index);
        }
        self.0.ours.clear();
        self.0.offers = None;
    }
}
