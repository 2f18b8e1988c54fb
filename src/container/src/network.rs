//! A container's network interface: moved in from outside, set up from inside.

use std::net::Ipv4Addr;

use rustix::process::Pid;
use sys::netlink::{Change, Link, Netlink};

use crate::error::{Attempt, Error, Refusal, Step};

/// An interface of the surroundings that becomes the container's eth0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Which one it is.
    pub which: Which,
    /// The hardware address that it gets. It is down until it has it, and so sends nothing under another.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix.
    pub prefix_len: u8,
    /// Default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Largest packet, in bytes.
    pub mtu: u16,
}

/// How the interface is told from others of the surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// By the hardware address that it has.
    WithMac([u8; 6]),
    /// It is the machine's only network device. What a kernel makes of itself (loopback, ifb0, dummy0) is none.
    OnlyDevice,
}

const NAME: &str = "eth0";

impl Interface {
    /// Moves the interface into the network namespace of a process, where it has its hardware address.
    pub(crate) fn move_to(&self, pid: Pid) -> Result<(), Error> {
        let mut netlink = Netlink::open().at(Step::Interface, NAME)?;
        let link = match self.which {
            Which::WithMac(mac) => with_mac(&mut netlink, mac)?,
            Which::OnlyDevice => match netlink.devices().at(Step::Interface, NAME)?.as_slice() {
                [] => return Err(Refusal::NoNetworkDevice).at(Step::Interface, NAME),
                [device] => *device,
                _ => return Err(Refusal::SeveralNetworkDevices).at(Step::Interface, NAME),
            },
        };
        let change = Change {
            namespace_of: Some(pid),
            mac: Some(self.mac),
            ..Change::default()
        };
        netlink
            .change(link, &change)
            .at(Step::Interface, shown(self.mac))
    }

    /// Gives the interface its name, address and route, inside.
    pub(crate) fn set_up(&self) -> Result<(), Error> {
        let mut netlink = Netlink::open().at(Step::Interface, NAME)?;
        let link = with_mac(&mut netlink, self.mac)?;
        let rename = Change {
            name: Some(NAME),
            mtu: Some(self.mtu.into()),
            ..Change::default()
        };
        netlink.change(link, &rename).at(Step::Interface, NAME)?;
        netlink
            .change(
                link,
                &Change {
                    up: true,
                    ..Change::default()
                },
            )
            .at(Step::Interface, NAME)?;
        netlink
            .add_address(link, self.address, self.prefix_len)
            .at(
                Step::Interface,
                format_args!("address {}/{}", self.address, self.prefix_len),
            )?;
        if let Some(gateway) = self.gateway {
            netlink
                .add_default_route(link, gateway)
                .at(Step::Interface, format_args!("gateway {gateway}"))?;
        }
        Ok(())
    }
}

fn with_mac(netlink: &mut Netlink, mac: [u8; 6]) -> Result<Link, Error> {
    let link = netlink.find(mac).at(Step::Interface, shown(mac))?;
    link.ok_or(Refusal::NoSuchInterface)
        .at(Step::Interface, shown(mac))
}

fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Brings loopback up, inside.
pub(crate) fn loopback_up() -> Result<(), Error> {
    let mut netlink = Netlink::open().at(Step::Interface, "lo")?;
    netlink
        .change(
            Link::LOOPBACK,
            &Change {
                up: true,
                ..Change::default()
            },
        )
        .at(Step::Interface, "lo")
}
