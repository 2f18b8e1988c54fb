//! Network interfaces by name: netdevice(7), and bridges as brctl made them.
//!
//! For what these requests cannot say (a pair of interfaces, another namespace) there is [`crate::netlink`].
#![expect(unsafe_code, reason = "ioctl(2) has no safe form")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::tap::{check, interface_request};

// linux/sockios.h.
const SIOCGIFFLAGS: libc::Ioctl = 0x8913;
const SIOCSIFFLAGS: libc::Ioctl = 0x8914;
const SIOCGIFADDR: libc::Ioctl = 0x8915;
const SIOCSIFADDR: libc::Ioctl = 0x8916;
const SIOCGIFNETMASK: libc::Ioctl = 0x891b;
const SIOCSIFNETMASK: libc::Ioctl = 0x891c;
const SIOCSIFMTU: libc::Ioctl = 0x8922;
const SIOCSIFHWADDR: libc::Ioctl = 0x8924;
const SIOCGIFINDEX: libc::Ioctl = 0x8933;
const SIOCBRADDBR: libc::Ioctl = 0x89a0;
const SIOCBRDELBR: libc::Ioctl = 0x89a1;
const SIOCBRADDIF: libc::Ioctl = 0x89a2;

/// The interfaces of the network namespace in which this was made.
#[derive(Debug)]
pub struct Interfaces(OwnedFd);

impl Interfaces {
    /// The interfaces of the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let kind = SocketType::DGRAM;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
        Ok(Self(socket))
    }

    /// Whether there is an interface called `name`.
    pub fn exists(&self, name: &str) -> io::Result<bool> {
        match self.index(name) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge.
    pub fn add_bridge(&self, name: &str) -> io::Result<()> {
        self.bridge_request(SIOCBRADDBR, name)
    }

    /// Removes a bridge, which has to be down. Its ports stay.
    pub fn remove_bridge(&self, name: &str) -> io::Result<()> {
        self.bridge_request(SIOCBRDELBR, name)
    }

    /// Has `socket` receive what comes in by the interface `name` alone, and send by it. Takes CAP_NET_RAW.
    pub fn bind_socket(socket: impl AsFd, name: &str) -> io::Result<()> {
        // SAFETY: name and its length describe memory that lives to the end of the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                name.len() as libc::socklen_t,
            )
        };
        check(result)
    }

    /// Makes an interface a port of a bridge.
    pub fn add_port(&self, bridge: &str, port: &str) -> io::Result<()> {
        let mut request = interface_request(bridge)?;
        request.ifr_ifru.ifru_ifindex = self.index(port)?;
        self.request(SIOCBRADDIF, &mut request)
    }

    /// Brings an interface up, or down.
    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let mut request = interface_request(name)?;
        self.request(SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel has filled this member in.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let bit = libc::IFF_UP as libc::c_short;
        request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
        self.request(SIOCSIFFLAGS, &mut request)
    }

    /// Sets the largest packet, in bytes.
    pub fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_mtu = mtu.into();
        self.request(SIOCSIFMTU, &mut request)
    }

    /// Sets the Ethernet address.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut request = interface_request(name)?;
        let mut address = libc::sockaddr {
            sa_family: libc::ARPHRD_ETHER,
            sa_data: Default::default(),
        };
        for (to, from) in address.sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_hwaddr = address;
        self.request(SIOCSIFHWADDR, &mut request)
    }

    /// Gives an interface its address and the route to its network.
    pub fn set_address(&self, name: &str, address: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix_len.min(32)))
            .unwrap_or(0);
        for (code, value) in [
            (SIOCSIFADDR, address),
            (SIOCSIFNETMASK, Ipv4Addr::from_bits(mask)),
        ] {
            let mut request = interface_request(name)?;
            request.ifr_ifru.ifru_addr = socket_address(value);
            self.request(code, &mut request)?;
        }
        Ok(())
    }

    /// An interface's first IPv4 address and the length of its network's prefix, if it has one.
    pub fn address(&self, name: &str) -> io::Result<Option<(Ipv4Addr, u8)>> {
        let mut values = [Ipv4Addr::UNSPECIFIED; 2];
        for (code, value) in [SIOCGIFADDR, SIOCGIFNETMASK].into_iter().zip(&mut values) {
            let mut request = interface_request(name)?;
            match self.request(code, &mut request) {
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => return Ok(None),
                other => other?,
            }
            // SAFETY: the kernel has filled this member in.
            let address = unsafe { request.ifr_ifru.ifru_addr };
            let [_, _, a, b, c, d, ..] = address.sa_data.map(|byte| byte as u8);
            *value = Ipv4Addr::new(a, b, c, d);
        }
        let [address, mask] = values;
        Ok(Some((address, mask.to_bits().leading_ones() as u8)))
    }

    fn index(&self, name: &str) -> io::Result<libc::c_int> {
        let mut request = interface_request(name)?;
        self.request(SIOCGIFINDEX, &mut request)?;
        // SAFETY: the kernel has filled this member in.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    fn bridge_request(&self, code: libc::Ioctl, name: &str) -> io::Result<()> {
        // The request is the name alone: an ifreq begins with it, zero-terminated.
        self.request(code, &mut interface_request(name)?)
    }

    fn request(&self, code: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: each code of this module reads and writes at most one ifreq.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), code, &raw mut *request) })
    }
}

/// An IPv4 address as a struct sockaddr: two bytes of port, then the address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_with_its_address() {
        let interfaces = Interfaces::open().unwrap();
        assert!(interfaces.exists("lo").unwrap());
        assert!(!interfaces.exists("none-such0").unwrap());
        let (address, prefix_len) = interfaces.address("lo").unwrap().unwrap();
        assert_eq!((address, prefix_len), (Ipv4Addr::LOCALHOST, 8));
    }
}
