//! Why a sandbox cannot have a network.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::net;
use crate::subnet::Subnet;

/// Why a sandbox cannot have a network, or leave it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not root.
    #[error(
        "bridge networking needs root (CAP_NET_ADMIN) to {action}; use --network none without it"
    )]
    NotPermitted {
        /// What was attempted.
        action: &'static str,
    },
    /// No /dev/net/tun.
    #[error(
        "/dev/net/tun is missing, so there are no taps; load the kernel module tun (modprobe tun)"
    )]
    NoTun,
    /// The kernel knows no bridges.
    #[error("the kernel cannot make bridges; load the kernel module bridge (modprobe bridge)")]
    NoBridges,
    /// No nft command.
    #[error(
        "the command nft is missing, without which there is no NAT; install the package nftables"
    )]
    NoNft,
    /// nft refused the rules.
    #[error("nft failed ({status}): {message}")]
    Nft {
        /// How it ended.
        status: ExitStatus,
        /// Its first line of complaint.
        message: String,
    },
    /// nft could not be run.
    #[error("the command nft could not be run")]
    NftRun(#[source] io::Error),
    /// Every private network that hull considers is in use.
    #[error(
        "every private network that hull would use for its bridge overlaps a route of this host"
    )]
    NoFreeSubnet,
    /// Every address is leased.
    #[error("all {0} addresses of the bridge's network are in use")]
    NoFreeAddress(usize),
    /// The address that was asked for is leased.
    #[error("Address already in use: {0} belongs to another container of the network")]
    AddressInUse(Ipv4Addr),
    /// The address that was asked for is not one of the network's.
    #[error("no configured subnet contains IP address {address}: the network is {subnet}")]
    AddressOutside {
        /// The address.
        address: Ipv4Addr,
        /// The network's.
        subnet: Subnet,
    },
    /// The address that was asked for is the bridge's, the network's own or the broadcast address.
    #[error(
        "{0} is not an address that a container can have: it is the gateway's or the network's own"
    )]
    AddressReserved(Ipv4Addr),
    /// The Ethernet address that was asked for is an interface's of the host's: what looks for the container's by it would find
    /// that one.
    #[error("the Ethernet address {} belongs to an interface of this host", .0.map(|byte| format!("{byte:02x}")).join(":"))]
    MacInUse([u8; 6]),
    /// The network was removed meanwhile.
    #[error("network {0} not found")]
    Removed(String),
    /// A port of the host that another process has.
    #[error("Bind for {0} failed: port is already allocated")]
    PortTaken(SocketAddrV4),
    /// All of the ports that would do are another's.
    #[error("Bind for {address}:{first}-{last} failed: all ports are allocated")]
    PortsTaken {
        /// The host's address.
        address: Ipv4Addr,
        /// The first port.
        first: u16,
        /// The last one.
        last: u16,
    },
    /// A port that is root's.
    #[error(
        "Bind for {0} failed: low ports are for root alone; publish a higher one, or lower the sysctl \
         net.ipv4.ip_unprivileged_port_start"
    )]
    PortOfRoot(SocketAddrV4),
    /// A port of the host that cannot be had.
    #[error("Bind for {address}/{transport} failed")]
    Port {
        /// The host's address and port.
        address: SocketAddrV4,
        /// What carries it.
        transport: &'static str,
        /// Why.
        source: rustix::io::Errno,
    },
    /// Something that is no bridge of ours has the bridge's name.
    #[error("there is an interface {0} already, which is not a bridge with an address of hull's")]
    ForeignBridge(String),
    /// A network without a bridge.
    #[error("the network was removed while a sandbox was joining it; start the container again")]
    Gone,
    /// The network has no hull-net.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// hull-net does not let the sandbox in.
    #[error("hull-net does not let the container join its network: {0}")]
    Refused(String),
    /// hull-net cannot be talked to.
    #[error("cannot talk to the network's hull-net")]
    Talk(#[source] io::Error),
    /// An interface could not be handled.
    #[error("could not {action} the network interface {name}")]
    Interface {
        /// What was attempted.
        action: &'static str,
        /// On what.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A socket for requests about interfaces could not be made.
    #[error("could not make a socket to ask for network interfaces")]
    Socket(#[source] io::Error),
    /// A file could not be read or written.
    #[error("could not access {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What a file of the network's state says cannot be understood.
    #[error("{path} is damaged; remove it when no container with a network is running")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Error {
    /// The error for an interface on which `action` fails.
    pub(crate) fn interface(action: &'static str, name: &str) -> impl Fn(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::NotPermitted {
                action: "set up interfaces",
            },
            _ => Error::Interface {
                action,
                name: name.to_owned(),
                source,
            },
        }
    }

    /// The error for a tap that cannot be made.
    pub(crate) fn tap(name: &str, source: io::Error) -> Error {
        // ENODEV and ENXIO: the device's file is there and its driver is not.
        match (source.kind(), source.raw_os_error()) {
            (io::ErrorKind::NotFound, _) | (_, Some(libc_enodev::ENODEV | libc_enodev::ENXIO)) => {
                Error::NoTun
            }
            _ => Error::interface("make the tap", name)(source),
        }
    }

    /// The error for a file.
    pub(crate) fn file(path: &Path) -> impl Fn(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::NotPermitted {
                action: "write its state folder and the kernel's settings",
            },
            _ => Error::File {
                path: path.to_owned(),
                source,
            },
        }
    }
}

/// errno(3) values that io::ErrorKind does not tell apart.
mod libc_enodev {
    pub(super) const ENXIO: i32 = rustix::io::Errno::NXIO.raw_os_error();
    pub(super) const ENODEV: i32 = rustix::io::Errno::NODEV.raw_os_error();
}
