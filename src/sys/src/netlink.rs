//! The few rtnetlink(7) requests that set up a container's network interface, over a socket of the caller's network
//! namespace.
//!
//! Invariants: every request asks for an acknowledgement and waits for it; every reply is read within its bounds.
//! Deliberately absent: everything but links, IPv4 addresses and default routes; IPv6; monitoring.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

// Numbers of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// Bytes of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// Bytes of `struct ifinfomsg`.
const IFINFO_LEN: usize = 16;
/// Larger than any datagram of a dump (the kernel caps them at 32 KiB).
const BUFFER_LEN: usize = 32 << 10;

/// A network interface of the socket's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(u32);

impl Link {
    /// The loopback interface: always the first of its namespace.
    pub const LOOPBACK: Link = Link(1);
}

/// A change to a link; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Change<'a> {
    /// The new name.
    pub name: Option<&'a str>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// The hardware address. Many drivers take one only while the link is down.
    pub mac: Option<[u8; 6]>,
    /// Bring it up, or take it down.
    pub up: Option<bool>,
    /// Move it into this network namespace.
    pub namespace: Option<Namespace<'a>>,
}

/// A network namespace.
#[derive(Debug, Clone, Copy)]
pub enum Namespace<'a> {
    /// That of a process.
    Of(rustix::process::Pid),
    /// That of a descriptor.
    Open(BorrowedFd<'a>),
}

/// An rtnetlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// A socket of the network namespace that the calling thread is in.
    pub fn open() -> Result<Netlink, Errno> {
        // Protocol 0 is NETLINK_ROUTE.
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// A socket of another network namespace, which the calling thread enters and leaves again.
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Netlink, Errno> {
        let kind = Some(LinkNameSpaceType::Network);
        let own = own_namespace()?;
        move_into_link_name_space(namespace, kind)?;
        let opened = Netlink::open();
        // Who could enter another one can come back: it is the thread's own.
        assert_eq!(move_into_link_name_space(own.as_fd(), kind), Ok(()));
        opened
    }

    /// The first link with this hardware address.
    pub fn find(&mut self, mac: [u8; 6]) -> Result<Option<Link>, Errno> {
        let links = self.links(|kind, value| kind == IFLA_ADDRESS && value == mac)?;
        Ok(links.first().copied())
    }

    /// The link of a device that was made with this hardware address (since Linux 5.6), whichever it has now. What a kernel
    /// makes of itself (loopback, ifb, dummy, veth) has none.
    pub fn find_device(&mut self, mac: [u8; 6]) -> Result<Option<Link>, Errno> {
        let links = self.links(|kind, value| kind == IFLA_PERM_ADDRESS && value == mac)?;
        Ok(links.first().copied())
    }

    /// The links with an attribute that `is_wanted`.
    fn links(&mut self, is_wanted: impl Fn(u16, &[u8]) -> bool) -> Result<Vec<Link>, Errno> {
        let mut found = Vec::new();
        self.request(
            Message::new(RTM_GETLINK, NLM_F_DUMP, &[0; IFINFO_LEN]),
            |kind, body| found.extend(link(kind, body, &is_wanted)),
        )?;
        Ok(found)
    }

    /// Makes a pair of interfaces, each other's wire: `name`, and `peer` with this hardware address.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_mac: [u8; 6]) -> Result<(), Errno> {
        let mut other_end = vec![0; IFINFO_LEN];
        append_attribute(
            &mut other_end,
            IFLA_IFNAME,
            &[peer.as_bytes(), b"\0"].concat(),
        );
        append_attribute(&mut other_end, IFLA_ADDRESS, &peer_mac);
        let mut data = Vec::new();
        append_attribute(&mut data, VETH_INFO_PEER, &other_end);
        let mut info = Vec::new();
        append_attribute(&mut info, IFLA_INFO_KIND, b"veth\0");
        append_attribute(&mut info, IFLA_INFO_DATA, &data);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut message = Message::new(RTM_NEWLINK, flags, &[0; IFINFO_LEN]);
        message.attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        message.attribute(IFLA_LINKINFO, &info);
        self.request(message, |_, _| ())
    }

    /// Removes a link, and with it the other end of a pair.
    pub fn remove_link(&mut self, name: &str) -> Result<(), Errno> {
        let mut message = Message::new(RTM_DELLINK, NLM_F_ACK, &[0; IFINFO_LEN]);
        message.attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        self.request(message, |_, _| ())
    }

    /// Changes a link.
    pub fn change(&mut self, link: Link, change: &Change<'_>) -> Result<(), Errno> {
        let flags = if change.up == Some(true) { IFF_UP } else { 0 };
        let mask = if change.up.is_some() { IFF_UP } else { 0 };
        let mut info = [0; IFINFO_LEN];
        info[4..8].copy_from_slice(&link.0.to_ne_bytes());
        info[8..12].copy_from_slice(&flags.to_ne_bytes());
        info[12..16].copy_from_slice(&mask.to_ne_bytes());
        let mut message = Message::new(RTM_NEWLINK, NLM_F_ACK, &info);
        if let Some(name) = change.name {
            message.attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        }
        if let Some(mtu) = change.mtu {
            message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(mac) = change.mac {
            message.attribute(IFLA_ADDRESS, &mac);
        }
        match change.namespace {
            None => {}
            Some(Namespace::Of(pid)) => {
                message.attribute(IFLA_NET_NS_PID, &pid.as_raw_pid().to_ne_bytes());
            }
            Some(Namespace::Open(namespace)) => {
                let number = namespace.as_raw_fd();
                message.attribute(IFLA_NET_NS_FD, &number.to_ne_bytes());
            }
        }
        self.request(message, |_, _| ())
    }

    /// Gives a link an address and with it the route to its network.
    pub fn add_address(
        &mut self,
        link: Link,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> Result<(), Errno> {
        let mut body = [0; 8];
        body[0] = AF_INET;
        body[1] = prefix_len;
        body[4..8].copy_from_slice(&link.0.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body);
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        if prefix_len < 31 {
            let host_bits = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
            message.attribute(IFA_BROADCAST, &broadcast.octets());
        }
        self.request(message, |_, _| ())
    }

    /// Routes everything without a better route to a gateway on a link, and to no other.
    pub fn set_default_route(&mut self, link: Link, gateway: Ipv4Addr) -> Result<(), Errno> {
        let body = [
            AF_INET,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            0,
            RTN_UNICAST,
            0,
            0,
            0,
            0,
        ];
        let mut message = Message::new(
            RTM_NEWROUTE,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            &body,
        );
        message.attribute(RTA_GATEWAY, &gateway.octets());
        message.attribute(RTA_OIF, &link.0.to_ne_bytes());
        self.request(message, |_, _| ())
    }

    /// Sends a request and hands every message of the answer to `each`, to the end of the dump or the acknowledgement.
    fn request(
        &mut self,
        mut message: Message,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Errno> {
        self.sequence += 1;
        rustix::net::send(
            &self.socket,
            message.finish(self.sequence),
            SendFlags::empty(),
        )?;
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            let (len, _) =
                rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &buffer[..len];
            while rest.len() >= HEADER_LEN {
                let len = u32_at(rest, 0) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let body = rest.get(HEADER_LEN..len).ok_or(Errno::BADMSG)?;
                if u32_at(rest, 8) == self.sequence {
                    match kind {
                        NLMSG_ERROR if body.len() >= 4 => {
                            return match u32_at(body, 0) as i32 {
                                0 => Ok(()),
                                code => Err(Errno::from_raw_os_error(code.wrapping_neg())),
                            };
                        }
                        NLMSG_DONE => return Ok(()),
                        kind => each(kind, body),
                    }
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }
}

/// The network namespace of the calling thread.
pub fn own_namespace() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty())
}

/// A request being put together.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(body);
        Message(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        append_attribute(&mut self.0, kind, value);
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.0
    }
}

/// Appends an attribute to what is being put together, a message or another attribute's value.
fn append_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = 4 + value.len() as u16;
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The attributes of a message, as far as they are well formed.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u16::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The link that a message of a dump describes, if one of its attributes is wanted.
fn link(kind: u16, body: &[u8], is_wanted: impl Fn(u16, &[u8]) -> bool) -> Option<Link> {
    if kind != RTM_NEWLINK || body.len() < IFINFO_LEN {
        return None;
    }
    attributes(&body[IFINFO_LEN..])
        .any(|(kind, value)| is_wanted(kind, value))
        .then(|| Link(u32_at(body, 4)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_its_address() {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.find([0; 6]).unwrap(), Some(Link::LOOPBACK));
        assert_eq!(netlink.find([0xfe, 0xff, 1, 2, 3, 4]).unwrap(), None);
    }

    #[test]
    fn what_the_kernel_makes_of_itself_is_no_device() {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.find_device([0; 6]).unwrap(), None);
        assert_eq!(netlink.find_device([0xfe, 0xff, 1, 2, 3, 4]).unwrap(), None);
    }

    #[test]
    fn a_device_is_found_by_the_address_that_it_was_made_with() {
        let of = |path: &std::path::Path, file: &str| {
            let text = std::fs::read_to_string(path.join(file)).unwrap();
            text.trim().to_owned()
        };
        let entries = std::fs::read_dir("/sys/class/net").unwrap();
        let entries = entries.map(|entry| entry.unwrap().path());
        // NET_ADDR_PERM: it still has that address.
        let devices = entries.filter(|path| path.join("device").exists());
        for path in devices.filter(|path| of(path, "addr_assign_type") == "0") {
            let address = of(&path, "address");
            let bytes = address
                .split(':')
                .map(|it| u8::from_str_radix(it, 16).unwrap());
            let mac: [u8; 6] = bytes.collect::<Vec<_>>().try_into().unwrap();
            let found = Netlink::open().unwrap().find_device(mac).unwrap();
            assert_eq!(found, Some(Link(of(&path, "ifindex").parse().unwrap())));
        }
    }

    #[test]
    fn a_namespace_that_is_entered_is_not_this_thread_s() {
        let own = own_namespace().unwrap();
        // Without root the kernel refuses even one's own.
        if rustix::process::geteuid().is_root() {
            let mut netlink = Netlink::open_in(own.as_fd()).unwrap();
            assert_eq!(netlink.find([0; 6]).unwrap(), Some(Link::LOOPBACK));
        }
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(Netlink::open_in(file.as_fd()).is_err());
    }

    #[test]
    fn attributes_cut_short_end_the_list() {
        let bytes = [8, 0, 1, 0, 1, 2, 3, 4, 9, 0, 2, 0, 1];
        assert_eq!(
            attributes(&bytes).collect::<Vec<_>>(),
            [(1, &[1, 2, 3, 4][..])]
        );
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[3]).count(), 0);
    }
}
