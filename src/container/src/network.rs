//! A container's network interfaces: moved in from outside, set up from inside, and changed while it runs.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::Pid;
use sys::netlink::{Change, Link, Namespace, Netlink, own_namespace};

use crate::error::{Attempt, Error, Refusal, Step};

/// An interface of the surroundings that becomes one of the container's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Which one it is.
    pub which: Which,
    /// Its number in the container, where it is called eth and this.
    pub slot: u8,
    /// The hardware address that it gets. It is down until it has it, and so sends nothing under another.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix.
    pub prefix_len: u8,
    /// Where the default route goes, if that goes by this interface.
    pub gateway: Option<Ipv4Addr>,
    /// Largest packet, in bytes.
    pub mtu: u16,
}

/// How the interface is told from others of the surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// By the hardware address that it has. It ends with its stay in the container.
    WithMac([u8; 6]),
    /// By the hardware address with which the machine's device was made. It goes back to the machine.
    Device([u8; 6]),
}

impl Interface {
    /// Moves the interface into the network namespace of a process, where it has its hardware address.
    pub(crate) fn move_to(&self, pid: Pid) -> Result<(), Error> {
        self.move_into(Namespace::Of(pid))
    }

    fn move_into(&self, namespace: Namespace<'_>) -> Result<(), Error> {
        let mut netlink = Netlink::open().at(Step::Interface, self.name())?;
        let link = match self.which {
            Which::WithMac(mac) => with_mac(&mut netlink, mac)?,
            Which::Device(mac) => {
                let device = netlink.find_device(mac).at(Step::Interface, self.name())?;
                device
                    .ok_or(Refusal::NoNetworkDevice)
                    .at(Step::Interface, self.name())?
            }
        };
        let change = Change {
            namespace: Some(namespace),
            mac: Some(self.mac),
            ..Change::default()
        };
        netlink
            .change(link, &change)
            .at(Step::Interface, shown(self.mac))
    }

    /// Gives the interface its name, address and route, inside.
    pub(crate) fn set_up(&self) -> Result<(), Error> {
        self.set_up_by(&mut Netlink::open().at(Step::Interface, self.name())?)
    }

    fn set_up_by(&self, netlink: &mut Netlink) -> Result<(), Error> {
        let name = self.name();
        let link = with_mac(netlink, self.mac)?;
        let rename = Change {
            name: Some(&name),
            mtu: Some(self.mtu.into()),
            ..Change::default()
        };
        netlink.change(link, &rename).at(Step::Interface, &name)?;
        let up = Change {
            up: Some(true),
            ..Change::default()
        };
        netlink.change(link, &up).at(Step::Interface, &name)?;
        netlink
            .add_address(link, self.address, self.prefix_len)
            .at(
                Step::Interface,
                format_args!("address {}/{}", self.address, self.prefix_len),
            )?;
        self.lead_out(netlink, link)
    }

    /// Sets the default route, if that goes by this interface.
    fn lead_out(&self, netlink: &mut Netlink, link: Link) -> Result<(), Error> {
        match self.gateway {
            None => Ok(()),
            Some(gateway) => netlink
                .set_default_route(link, gateway)
                .at(Step::Interface, format_args!("gateway {gateway}")),
        }
    }

    /// Takes the interface out of a container's namespace, if it is there. What has another end outside may have gone with
    /// that.
    fn take_out(&self, inside: &mut Netlink) -> Result<(), Error> {
        let name = self.name();
        match self.which {
            Which::WithMac(_) => match inside.remove_link(&name) {
                Ok(()) | Err(Errno::NODEV) => Ok(()),
                Err(errno) => Err(errno).at(Step::Interface, name),
            },
            Which::Device(mac) => {
                let Some(link) = inside.find_device(mac).at(Step::Interface, &name)? else {
                    return Ok(());
                };
                let own = own_namespace().at(Step::Interface, &name)?;
                // Its addresses and routes go with the move.
                let change = Change {
                    namespace: Some(Namespace::Open(own.as_fd())),
                    ..Change::default()
                };
                inside.change(link, &change).at(Step::Interface, &name)
            }
        }
    }

    fn name(&self) -> String {
        format!("eth{}", self.slot)
    }

    /// The same, but perhaps for the default route.
    fn is_same_as(&self, other: &Interface) -> bool {
        let gateway = self.gateway;
        *self
            == Interface {
                gateway,
                ..other.clone()
            }
    }
}

/// Gives a container's network namespace, which has the interfaces `before`, those of `after` in their place.
///
/// # Errors
/// The first failure; what can be changed after it is changed.
pub fn change_interfaces(
    namespace: BorrowedFd<'_>,
    before: &[Interface],
    after: &[Interface],
) -> Result<(), Error> {
    let mut inside = Netlink::open_in(namespace).at(Step::Interface, "of a running container")?;
    let is_among = |one: &Interface, all: &[Interface]| all.iter().any(|it| it.is_same_as(one));
    let mut outcome = Ok(());
    for gone in before.iter().filter(|one| !is_among(one, after)) {
        outcome = outcome.and(gone.take_out(&mut inside));
    }
    for one in after {
        let changed = match is_among(one, before) {
            true => with_mac(&mut inside, one.mac).and_then(|link| one.lead_out(&mut inside, link)),
            false => one
                .move_into(Namespace::Open(namespace))
                .and_then(|()| one.set_up_by(&mut inside)),
        };
        outcome = outcome.and(changed);
    }
    outcome
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
                up: Some(true),
                ..Change::default()
            },
        )
        .at(Step::Interface, "lo")
}
