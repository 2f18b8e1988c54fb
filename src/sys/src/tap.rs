//! Taps: the host's end of a guest's network interface (linux/if_tun.h).
#![expect(unsafe_code, reason = "ioctl(2) has no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

// linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca_u32 as libc::Ioctl;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0_u32 as libc::Ioctl;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8_u32 as libc::Ioctl;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;

/// Longest name of a network interface, in bytes (IFNAMSIZ without the terminating zero).
pub const MAX_NAME_LEN: usize = 15;

/// Bytes of the header before each packet: struct virtio_net_hdr_v1.
pub const HEADER_LEN: usize = 12;

/// What the reader of a tap can do by itself, so that the kernel need not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload(u32);

impl Offload {
    /// Checksums may be missing (TUN_F_CSUM). The others need it.
    pub const CSUM: Self = Self(0x01);
    /// TCP over IPv4 may come in large pieces (TUN_F_TSO4).
    pub const TSO4: Self = Self(0x02);
    /// TCP over IPv6 may come in large pieces (TUN_F_TSO6).
    pub const TSO6: Self = Self(0x04);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Makes a tap called `name`, with a [`HEADER_LEN`] header before each packet; reads and writes do not block. The
/// interface exists as long as a copy of the descriptor does, and is down.
///
/// # Errors
/// `NotFound` without /dev/net/tun, `PermissionDenied` without CAP_NET_ADMIN, EBUSY when the name is taken.
pub fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags =
        (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    let len = HEADER_LEN as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const len) })?;
    Ok(tap)
}

/// Says what the reader of the tap can do by itself from now on.
pub fn set_offload(tap: impl AsFd, offload: Offload) -> io::Result<()> {
    let bits = libc::c_ulong::from(offload.0);
    // SAFETY: TUNSETOFFLOAD takes a number.
    check(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), TUNSETOFFLOAD, bits) })
}

/// A request about the interface called `name`.
pub(crate) fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() > MAX_NAME_LEN || name.contains(['\0', '/']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: ifreq is plain data for which zeros are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", "sixteen_bytes_ab", "a/b", "a\0b"] {
            assert!(interface_request(name).is_err(), "{name:?}");
        }
        assert!(interface_request("fifteen_bytes_a").is_ok());
    }
}
