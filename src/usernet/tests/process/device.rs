//! A guest's network device: frames of its wire, each of which is checked.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as StackTime;

/// Bytes before each frame.
pub(crate) const HEADER: usize = 12;

/// A wire's other end, as a network device.
pub(crate) struct Wire {
    pub(crate) socket: OwnedFd,
    received: VecDeque<Vec<u8>>,
}

impl Wire {
    pub(crate) fn new(socket: OwnedFd) -> Wire {
        Wire {
            socket,
            received: VecDeque::new(),
        }
    }

    /// The next frame that was taken.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.received.pop_front()
    }

    fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        poll(&mut fds, Some(&rustix::time::Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Takes what has come; at most so much that the stack is not swamped.
    pub(crate) fn take(&mut self) {
        let mut buffer = vec![0; 70_000];
        while self.received.len() < 64 {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((len, _)) if len > HEADER => {
                    check(&buffer[..len]);
                    self.received.push_back(buffer[HEADER..len].to_vec());
                }
                _ => return,
            }
        }
    }
}

/// What every frame of hull-net's has to be: lengths that agree, headers whose sums are right, and segments that the
/// guest may have to make of it within the MTU.
fn check(message: &[u8]) {
    let (virtio, frame) = message.split_at(HEADER);
    if frame[12..14] != [8, 0] {
        assert_eq!(frame[12..14], [8, 6]);
        return;
    }
    let ip = &frame[14..];
    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
    let words = ip[..20]
        .chunks(2)
        .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let sum: u32 = words.sum();
    assert_eq!(
        (sum & 0xffff) + (sum >> 16),
        0xffff,
        "the checksum of {:x?}",
        &ip[..20]
    );
    let gso_size = usize::from(u16::from_le_bytes([virtio[4], virtio[5]]));
    match virtio[1] {
        0 => assert!(ip.len() <= 1500, "too long: {}", ip.len()),
        kind => {
            assert_eq!((kind, ip[9], virtio[0]), (1, 6, 1));
            assert!((1..=1460).contains(&gso_size));
        }
    }
    if virtio[0] == 1 {
        assert_eq!(virtio[6..8], [34, 0]);
    }
}

pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Sending<'a>(&'a OwnedFd);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut message = vec![0; HEADER + len];
        let result = f(&mut message[HEADER..]);
        // There was room, unless hull-net is gone, which a test sees otherwise.
        let _ = send(self.0, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: StackTime) -> Option<(Received, Sending<'_>)> {
        if !self.has_room() {
            return None;
        }
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&self.socket)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Sending<'_>> {
        self.has_room().then_some(Sending(&self.socket))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        // What comes may have its checksum left to us, as to a guest that has taken VIRTIO_NET_F_GUEST_CSUM.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}
