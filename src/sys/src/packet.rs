//! Packets with descriptors over Unix SOCK_SEQPACKET sockets.
//!
//! Invariants: one send is one packet, whole or not at all; every received descriptor is close-on-exec and owned by the
//! receiver. Deliberately absent: what a packet means.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// The most descriptors in one packet: the kernel's own limit (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 253;

/// Why a packet could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer closed the socket.
    #[error("the peer closed the socket")]
    Closed,
    /// The packet, or its descriptors, did not fit what the receiver allows.
    #[error("a packet exceeds {0} bytes or {MAX_DESCRIPTORS} descriptors")]
    TooLong(usize),
    /// The socket failed, or would block.
    #[error("the socket failed")]
    Io(#[from] Errno),
}

/// A connected pair of sockets of whole packets, both close-on-exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connected pair of byte streams, both close-on-exec.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Sends one packet with its descriptors. With `SendFlags::DONTWAIT`, fails with EAGAIN instead of blocking.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Error> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(Error::TooLong(bytes.len()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Error::TooLong(bytes.len()));
    }
    loop {
        match sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut control,
            flags | SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::Closed),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet of at most `max_len` bytes with its descriptors.
pub fn receive(
    socket: impl AsFd,
    max_len: usize,
    flags: RecvFlags,
) -> Result<(Vec<u8>, Vec<OwnedFd>), Error> {
    let mut bytes = vec![0; max_len];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(Error::Closed),
            Err(error) => return Err(error.into()),
        }
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::TooLong(max_len));
    }
    // Packets are never empty here: zero bytes are the end of the conversation.
    if message.bytes == 0 {
        return Err(Error::Closed);
    }
    bytes.truncate(message.bytes);
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_packet() {
        let (a, b) = pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send(&a, b"one", &[write.as_fd()], SendFlags::empty()).unwrap();
        drop(write);
        let (bytes, mut descriptors) = receive(&b, 16, RecvFlags::empty()).unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"one"[..], 1));
        let mut pipe = std::fs::File::from(descriptors.remove(0));
        pipe.write_all(b"through").unwrap();
        drop(pipe);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn a_packet_too_long_is_refused_and_an_end_is_a_close() {
        let (a, b) = pair().unwrap();
        send(&a, &[1; 20], &[], SendFlags::empty()).unwrap();
        assert!(matches!(receive(&b, 10, RecvFlags::empty()), Err(Error::TooLong(10))));
        drop(a);
        assert!(matches!(receive(&b, 10, RecvFlags::empty()), Err(Error::Closed)));
        assert!(matches!(send(&b, b"x", &[], SendFlags::empty()), Err(Error::Closed)));
    }
}
