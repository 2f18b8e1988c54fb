//! Packets with descriptors over a SOCK_SEQPACKET socket.
//!
//! Invariants: a packet is received whole or refused, never cut; descriptors that arrive are close-on-exec and owned
//! at once, so that none leaks when a packet is refused. Deliberately absent: what a packet means.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    bind, connect, recvmsg, sendmsg, socket_with, socketpair,
};

/// The most descriptors of one packet: the kernel's own limit (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 253;

/// A packet as it was received.
#[derive(Debug)]
pub struct Packet {
    /// Bytes of the buffer that it fills; 0 when the peer has closed the socket.
    pub len: usize,
    /// The descriptors that came with it, in order.
    pub descriptors: Vec<OwnedFd>,
}

/// The descriptors of a packet, each to be taken once.
#[derive(Debug)]
pub struct Descriptors(Vec<Option<OwnedFd>>);

impl Descriptors {
    /// Those of one packet, in their order.
    pub fn new(descriptors: Vec<OwnedFd>) -> Descriptors {
        Descriptors(descriptors.into_iter().map(Some).collect())
    }

    /// The one at this place, unless it was taken or never came.
    pub fn take(&mut self, index: u32) -> Option<OwnedFd> {
        let index = usize::try_from(index).ok()?;
        self.0.get_mut(index)?.take()
    }
}

/// Why a packet could not be received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The packet was larger than the buffer, or carried more descriptors than allowed.
    #[error("a packet was longer than allowed and has been cut")]
    Truncated,
    /// The socket failed, or would block.
    #[error("a packet could not be received")]
    Io(#[from] std::io::Error),
}

/// A connected pair of packet sockets, both close-on-exec.
pub fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A socket that listens as `name` in a folder, in the place of an earlier one, close-on-exec.
pub fn listen_in(folder: &Path, name: &str, backlog: i32) -> std::io::Result<OwnedFd> {
    match std::fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_folder, address) = in_folder(folder, name)?;
    let socket = unconnected()?;
    bind(&socket, &address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// A connection to the socket that listens as `name` in a folder, close-on-exec.
pub fn connect_in(folder: &Path, name: &str) -> std::io::Result<OwnedFd> {
    let (_folder, address) = in_folder(folder, name)?;
    let socket = unconnected()?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// A socket's path has at most 107 bytes: the folder is named by its descriptor.
fn in_folder(folder: &Path, name: &str) -> std::io::Result<(OwnedFd, SocketAddrUnix)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    let address = SocketAddrUnix::new(path)?;
    Ok((folder, address))
}

fn unconnected() -> std::io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A connected pair of byte streams, both close-on-exec.
pub fn stream_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends `bytes` as one packet with `descriptors`. A peer that is gone is an error (EPIPE), never a signal.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(Errno::INVAL.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(pushed, "the control buffer holds MAX_DESCRIPTORS");
    }
    loop {
        let sent = sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        );
        match sent {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends `bytes` as one packet with write(2): sendmsg(2) is a call that a filter cannot keep from sending descriptors.
pub fn write(socket: impl AsFd, bytes: &[u8]) -> std::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(&socket, bytes))?;
    Ok(())
}

/// Receives one packet into `buffer`.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Packet, Error> {
    match receive_at_limit(socket, buffer)? {
        (packet, false) => Ok(packet),
        (_, true) => Err(Error::Truncated),
    }
}

/// As [`receive`], for a process that may have as many descriptors as it may (RLIMIT_NOFILE): returns also whether some of
/// the packet's were lost, as it had no number left for them.
pub fn receive_at_limit(socket: impl AsFd, buffer: &mut [u8]) -> Result<(Packet, bool), Error> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut reset = false;
    let message = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            // Said once, before the packets that wait, when the peer has closed without reading ours; then come the
            // packets and the end.
            Err(Errno::CONNRESET) if !reset => reset = true,
            Err(error) => return Err(Error::Io(error.into())),
        }
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Error::Truncated);
    }
    let packet = Packet {
        len: message.bytes,
        descriptors,
    };
    Ok((packet, message.flags.contains(ReturnFlags::CTRUNC)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_packet() {
        let (a, b) = pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send(&a, b"one", &[write.as_fd()]).unwrap();
        drop(write);
        let mut buffer = [0; 16];
        let mut packet = receive(&b, &mut buffer).unwrap();
        assert_eq!(
            (&buffer[..packet.len], packet.descriptors.len()),
            (&b"one"[..], 1)
        );
        let mut pipe = std::fs::File::from(packet.descriptors.remove(0));
        pipe.write_all(b"through").unwrap();
        drop(pipe);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn last_words_are_heard_though_ours_were_not() {
        let (a, b) = pair().unwrap();
        send(&a, b"unread", &[]).unwrap();
        send(&b, b"last words", &[]).unwrap();
        drop(b);
        let mut buffer = [0; 16];
        let packet = receive(&a, &mut buffer).unwrap();
        assert_eq!(&buffer[..packet.len], b"last words");
        assert_eq!(receive(&a, &mut buffer).unwrap().len, 0);
    }

    #[test]
    fn a_packet_too_long_is_refused_and_an_end_has_no_length() {
        let (a, b) = pair().unwrap();
        send(&a, &[1; 20], &[]).unwrap();
        assert!(matches!(receive(&b, &mut [0; 10]), Err(Error::Truncated)));
        drop(a);
        assert_eq!(receive(&b, &mut [0; 10]).unwrap().len, 0);
        assert_eq!(
            send(&b, b"x", &[]).unwrap_err().kind(),
            std::io::ErrorKind::BrokenPipe
        );
    }
}
