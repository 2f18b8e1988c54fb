//! A container's network interface: moved in from outside, set up from inside.

use std::net::Ipv4Addr;

use rustix::process::Pid;
use sys::netlink::{Change, Link, Netlink};

use crate::error::{Attempt, Error, Refusal, Step};

/// An interface of the surroundings that becomes the container's eth0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its hardware address, by which it is found.
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

const NAME: &str = "eth0";

impl Interface {
    fn mac_name(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Moves the interface into the network namespace of a process.
    pub(crate) fn move_to(&self, pid: Pid) -> Result<(), Error> {
        let mut netlink = Netlink::open().at(Step::Interface, NAME)?;
        let link = netlink
            .find(self.mac)
            .at(Step::Interface, self.mac_name())?;
        let link = link
            .ok_or(Refusal::NoSuchInterface)
            .at(Step::Interface, self.mac_name())?;
        let change = Change {
            namespace_of: Some(pid),
            ..Change::default()
        };
        netlink
            .change(link, &change)
            .at(Step::Interface, self.mac_name())
    }

    /// Gives the interface its name, address and route, inside.
    pub(crate) fn set_up(&self) -> Result<(), Error> {
        let mut netlink = Netlink::open().at(Step::Interface, NAME)?;
        let link = netlink
            .find(self.mac)
            .at(Step::Interface, self.mac_name())?;
        let link = link
            .ok_or(Refusal::NoSuchInterface)
            .at(Step::Interface, self.mac_name())?;
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
