//! Streams to other machines of the same host (vsock(7)), which rustix cannot address.

#![expect(unsafe_code, reason = "rustix has no sockaddr_vm")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A stream to a port of a machine, close-on-exec. Blocks until the peer has accepted or refused.
pub fn connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::VSOCK, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // SAFETY: sockaddr_vm is a plain structure for which zeros are valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: address is valid for the call and its length is given; the socket is open.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}
