//! The guest's half of the socket protocol.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::virtio::testing::{Buffer, Driver, PATIENCE};
use crate::virtio::vsock::spec::{EVENT, HOST_CID, Header, Op, RX, TX, Type};
use crate::virtio::vsock::{Offers, Vsock};

pub(super) const GUEST_CID: u64 = 3;
/// What the guest says of its receive buffers.
pub(super) const GUEST_BUFFER: u32 = 256 << 10;
const RX_LEN: usize = 4096;
const TX_LEN: usize = 64 << 10;

/// A packet to the guest.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) header: Header,
    pub(super) data: Vec<u8>,
}

pub(super) struct Guest {
    pub(super) driver: Driver<Vsock>,
    pub(super) offers: Offers,
    /// Where packets to the host are put, round and round.
    tx: Vec<(Buffer, Buffer)>,
    next_tx: usize,
    pub(super) tx_in_flight: usize,
    /// Receive buffers in the order in which they were made available.
    rx: VecDeque<Buffer>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let (device, offers) = Vsock::new(GUEST_CID as u32);
        Self::with_device(device, offers)
    }

    pub(super) fn with_device(device: Vsock, offers: Offers) -> Self {
        let mut driver = Driver::new(device);
        let tx = (0..8).map(|_| {
            let header = driver.writable(Header::LEN);
            let data = driver.writable(TX_LEN);
            (Buffer { flags: 0, ..header }, Buffer { flags: 0, ..data })
        });
        let tx = tx.collect();
        Self {
            driver,
            offers,
            tx,
            next_tx: 0,
            tx_in_flight: 0,
            rx: VecDeque::new(),
        }
    }

    /// A guest with buffers in its receive queue.
    pub(super) fn receiving() -> Self {
        let mut guest = Self::new();
        guest.post_rx(16);
        guest
    }

    /// Makes `count` receive buffers available.
    pub(super) fn post_rx(&mut self, count: usize) {
        for _ in 0..count {
            let buffer = self.driver.writable(RX_LEN);
            self.repost(buffer);
        }
        self.driver.queues[RX].kick();
    }

    fn repost(&mut self, buffer: Buffer) {
        self.driver.queues[RX].add(&[buffer]);
        self.rx.push_back(buffer);
    }

    /// Offers a stream at `port` and returns the host's end.
    pub(super) fn offer(&self, port: u32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.offers.offer(port, theirs.into()).unwrap();
        ours
    }

    /// The header of a packet without data.
    pub(super) fn header(guest_port: u32, host_port: u32, op: Op) -> Header {
        Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: guest_port,
            dst_port: host_port,
            len: 0,
            kind: Type::STREAM,
            op,
            flags: 0,
            buf_alloc: GUEST_BUFFER,
            fwd_cnt: 0,
        }
    }

    /// Sends a packet, whatever its header says, and does not wait for anything but a free slot.
    pub(super) fn send(&mut self, header: Header, data: &[u8]) {
        while self.tx_in_flight == self.tx.len() {
            self.driver.wait_used(TX);
            self.tx_in_flight -= 1;
        }
        let (head, room) = self.tx[self.next_tx % self.tx.len()];
        self.next_tx += 1;
        self.tx_in_flight += 1;
        self.driver.fill(head, &header.encode());
        self.driver.fill(room, data);
        let room = Buffer {
            len: data.len() as u32,
            ..room
        };
        let chain = [head, room];
        self.driver.queues[TX].add(if data.is_empty() { &chain[..1] } else { &chain });
        self.driver.queues[TX].kick();
    }

    /// Sends data on a connection.
    pub(super) fn send_data(&mut self, guest_port: u32, host_port: u32, data: &[u8]) {
        let header = Self::header(guest_port, host_port, Op::RW);
        self.send(
            Header {
                len: data.len() as u32,
                ..header
            },
            data,
        );
    }

    /// The next packet from the host, if there is one; its buffer is made available again.
    pub(super) fn try_receive(&mut self) -> Option<Packet> {
        let used = self.driver.queues[RX].next_used()?;
        let buffer = self
            .rx
            .pop_front()
            .expect("the device used a buffer that it had");
        let bytes = self.driver.bytes(Buffer {
            len: used.len,
            ..buffer
        });
        self.repost(buffer);
        self.driver.queues[RX].kick();
        let (header, data) = bytes
            .split_first_chunk()
            .expect("no packet is shorter than its header");
        let header = Header::parse(header);
        assert_eq!(header.len as usize, data.len());
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, GUEST_CID));
        Some(Packet {
            header,
            data: data.to_vec(),
        })
    }

    /// Waits for the next packet from the host.
    pub(super) fn receive(&mut self) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.try_receive() {
                return packet;
            }
            assert!(Instant::now() < deadline, "no packet comes");
            std::thread::yield_now();
        }
    }

    /// Waits for the next packet, which must be of this kind, for these ports.
    pub(super) fn expect(&mut self, guest_port: u32, host_port: u32, op: Op) -> Packet {
        let packet = self.receive();
        let header = packet.header;
        assert_eq!(
            (header.dst_port, header.src_port, header.op),
            (guest_port, host_port, op)
        );
        packet
    }

    /// No packet comes.
    pub(super) fn expect_silence(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
        if let Some(packet) = self.try_receive() {
            panic!("an unexpected packet: {:?}", packet.header);
        }
    }

    /// Connects to a port at which a stream is offered now; returns the host's end of it.
    pub(super) fn connect(&mut self, guest_port: u32, host_port: u32) -> UnixStream {
        let stream = self.offer(host_port);
        self.send(Self::header(guest_port, host_port, Op::REQUEST), &[]);
        self.expect(guest_port, host_port, Op::RESPONSE);
        stream
    }

    /// Waits until the transport reset event comes.
    pub(super) fn expect_transport_reset(&mut self, buffer: Buffer) {
        assert_eq!(self.driver.wait_used(EVENT).len, 4);
        assert_eq!(self.driver.bytes(buffer), [0; 4]);
    }
}

/// Reads exactly `len` bytes of the host's end.
pub(super) fn read(mut stream: &UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

pub(super) fn write(mut stream: &UnixStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}

/// The host's end is at its end of file.
pub(super) fn expect_end(mut stream: &UnixStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "more bytes came");
}
