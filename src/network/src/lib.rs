//! The host's side of containers' networks: one bridge, a tap or a pair of interfaces for each sandbox, addresses, NAT.
//!
//! ```text
//!  guest --virtio-net-- tap hull<id> --+
//!  guest --virtio-net-- tap hull<id> --+-- bridge hull0 (.1 of a private network) -- NAT -- the host's uplink
//!  container's netns -- veth hull<id> -+
//! ```
//!
//! There is no daemon: the first to attach makes the bridge, and the last to leave removes it. A sandbox's address
//! is a [`Lease`]: a lock on a file that the sandbox's monitor holds, so that it ends with the monitor however that
//! ends. A tap vanishes with its last descriptor. What a kill -9 leaves behind (a lease's file, the bridge, the firewall's
//! table) is removed by the next attach, release or [`Network::sweep`].
//!
//! Containers on the bridge reach each other, as Docker's default has it, each under its own addresses alone; from
//! outside, they are reached by the host alone. Deliberately absent: published ports, names, IPv6, networks without root.

mod bridge;
mod dns;
mod error;
mod firewall;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod nft;
mod resolv_conf;
mod routes;
mod spoofing;
mod state;
mod subnet;

use std::error::Error as StdError;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use sys::interface::Interfaces;
use sys::tap::Offload;

pub use dns::Launch;
pub use error::Error;
pub use lease::Lease;
pub use resolv_conf::{PUBLIC_RESOLVERS, host_resolv_conf, named_resolv_conf, resolv_conf};
pub use spoofing::can_forbid as can_forbid_spoofing;
pub use subnet::Subnet;

use lease::Leases;
use state::{Lock, State};

/// The bridge's name, and the firewall table's without the number.
const BRIDGE: &str = "hull0";
/// How names of interfaces begin that belong to a sandbox.
const PORT_PREFIX: &str = "hull";

/// What a VM's tap leaves to the VM.
pub const OFFLOAD: Offload = Offload::CSUM.and(Offload::TSO4).and(Offload::TSO6);

/// Bridge networking on this host.
#[derive(Debug, Clone)]
pub struct Network {
    dir: PathBuf,
    bridge: String,
}

/// A sandbox's place on the bridge.
#[derive(Debug)]
pub struct Attachment {
    /// For the sandbox's VM: non-blocking, a vnet header of 12 bytes, offloads on, up, a port of the bridge.
    pub tap: OwnedFd,
    /// What the sandbox's end of the wire is to be.
    pub interface: Interface,
    /// The tap has checksum and segmentation offload switched on.
    pub offload: bool,
    /// To be kept as long as the sandbox lives, then released.
    pub lease: Lease,
}

/// A native container's place on the bridge.
#[derive(Debug)]
pub struct NativeAttachment {
    /// What the container's end is to be. It has the MAC address already and waits in the host's network namespace.
    pub interface: Interface,
    /// Its name there.
    pub name: String,
    /// To be kept as long as the container lives, then released.
    pub lease: Lease,
}

/// The sandbox's end of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Its Ethernet address, made from the IPv4 address.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits of the address that are the network's.
    pub prefix_len: u8,
    /// The bridge's address: the way out.
    pub gateway: Ipv4Addr,
    /// Largest packet, in bytes: what the host's uplink takes, at most 1500.
    pub mtu: u16,
}

impl Network {
    /// The host's network for sandboxes, remembered in the folder `network` of `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self::on_bridge(state_dir, BRIDGE)
    }

    /// Another one beside it, for tests: its bridge and its firewall table are called `bridge`.
    pub fn on_bridge(state_dir: &Path, bridge: &str) -> Self {
        Self {
            dir: state_dir.join("network"),
            bridge: bridge.to_owned(),
        }
    }

    /// Gives the sandbox `id` an address and a tap on the bridge, which is made if it is not there.
    ///
    /// # Errors
    /// Typed by what is missing: permission, /dev/net/tun, nft, free addresses.
    pub fn attach(&self, id: &str) -> Result<Attachment, Error> {
        let (lease, (tap, interface)) = self.join(id, |interfaces, name, interface| {
            let tap = sys::tap::create(name).map_err(|error| Error::tap(name, error))?;
            sys::tap::set_offload(&tap, OFFLOAD).map_err(|error| Error::tap(name, error))?;
            self.plug_in(interfaces, name, interface)?;
            Ok(tap)
        })?;
        Ok(Attachment {
            tap,
            interface,
            offload: true,
            lease,
        })
    }

    /// Gives the native container `id` an address and an interface of its own, to be moved into its network namespace;
    /// it vanishes with that.
    pub fn attach_native(&self, id: &str) -> Result<NativeAttachment, Error> {
        let (lease, (name, interface)) = self.join(id, |interfaces, name, interface| {
            let inner = inner_name(name);
            let add = Error::interface("make", name);
            sys::netlink::Netlink::open()
                .and_then(|mut netlink| netlink.add_veth(name, &inner, interface.mac))
                .map_err(|errno| add(errno.into()))?;
            self.plug_in(interfaces, name, interface)?;
            Ok(inner)
        })?;
        Ok(NativeAttachment {
            interface,
            name,
            lease,
        })
    }

    /// Takes an address, makes the bridge if it has to be, and has `connect` make the sandbox's interface.
    fn join<T>(
        &self,
        id: &str,
        connect: impl FnOnce(&Interfaces, &str, &Interface) -> Result<T, Error>,
    ) -> Result<(Lease, (T, Interface)), Error> {
        let lock = Lock::take(&self.dir)?;
        let interfaces = Interfaces::open().map_err(Error::Socket)?;
        let leases = Leases::new(&self.dir);
        // The dead are buried first, so that their addresses and interfaces are free.
        self.bury(&leases, &interfaces)?;
        let state = match bridge::ensure(&interfaces, &self.bridge, &self.dir, &lock) {
            Ok(state) => state,
            Err(error) => {
                // Half a bridge is of no use; what could not be removed here, a sweep removes.
                let _ = self.tear_down_if_unused(&leases, &interfaces, &lock);
                return Err(error);
            }
        };
        let name = port_name(id);
        let lease = leases.take(&state.subnet, &name)?;
        let interface = interface(&state, lease.address());
        match connect(&interfaces, &name, &interface) {
            Ok(made) => Ok((lease.on(self.clone()), (made, interface))),
            Err(error) => {
                let _ = port_gone(&interfaces, &name);
                lease.forget()?;
                let _ = self.tear_down_if_unused(&leases, &interfaces, &lock);
                Err(error)
            }
        }
    }

    /// Makes a sandbox's interface a port of the bridge. The rules come first: no frame passes that they do not see.
    fn plug_in(
        &self,
        interfaces: &Interfaces,
        name: &str,
        interface: &Interface,
    ) -> Result<(), Error> {
        if !spoofing::forbid(name, interface)? && Leases::new(&self.dir).count()? == 1 {
            // Said by the first of those that share the bridge, not by each.
            tracing::warn!(
                "the kernel has no nftables ingress chains (NF_TABLES_NETDEV, NETFILTER_INGRESS): containers on the \
                 bridge can use each other's addresses"
            );
        }
        bridge::plug_in(interfaces, &self.bridge, name, interface.mtu)
    }

    /// Has a hull-net answer the names of this network, which is called `domain`: `launch` starts one and gives its number,
    /// unless one that knows the same lives. The caller's sandbox is on the network. Other names are asked of the host's
    /// resolvers, if `forwards`.
    ///
    /// # Errors
    /// Port 53 of the gateway is another server's; hull-net cannot be started.
    pub fn serve_names(
        &self,
        domain: &str,
        forwards: bool,
        launch: impl FnOnce(&Launch<'_>) -> Result<Pid, Box<dyn StdError + Send + Sync>>,
    ) -> Result<(), Error> {
        let _lock = Lock::take(&self.dir)?;
        let state = State::load(&self.dir)?.ok_or(Error::Gone)?;
        let wanted = dns::Wanted {
            domain: domain.to_owned(),
            subnet: state.subnet,
            gateway: state.subnet.gateway(),
            resolvers: match forwards {
                true => resolv_conf::resolvers(),
                false => Vec::new(),
            },
        };
        Ok(dns::ensure(&self.dir, &self.bridge, &wanted, launch)?)
    }

    /// Removes what dead sandboxes have left, and the bridge with the firewall's table if no sandbox is left.
    pub fn sweep(&self) -> Result<(), Error> {
        if !self.dir.try_exists().map_err(Error::file(&self.dir))? {
            return Ok(());
        }
        let lock = Lock::take(&self.dir)?;
        let interfaces = Interfaces::open().map_err(Error::Socket)?;
        let leases = Leases::new(&self.dir);
        self.bury(&leases, &interfaces)?;
        self.tear_down_if_unused(&leases, &interfaces, &lock)
    }

    /// Ends a lease: the sandbox is gone.
    fn release(&self, lease: lease::Held) -> Result<(), Error> {
        let lock = Lock::take(&self.dir)?;
        let interfaces = Interfaces::open().map_err(Error::Socket)?;
        let leases = Leases::new(&self.dir);
        port_gone(&interfaces, lease.port())?;
        lease.forget()?;
        self.bury(&leases, &interfaces)?;
        self.tear_down_if_unused(&leases, &interfaces, &lock)
    }

    /// Removes stale leases, and their interfaces where those have stayed.
    fn bury(&self, leases: &Leases, interfaces: &Interfaces) -> Result<(), Error> {
        for dead in leases.dead()? {
            tracing::info!(address = %dead.address(), port = dead.port(), "removing a dead sandbox's lease");
            port_gone(interfaces, dead.port())?;
            dead.forget()?;
        }
        Ok(())
    }

    fn tear_down_if_unused(
        &self,
        leases: &Leases,
        interfaces: &Interfaces,
        lock: &Lock,
    ) -> Result<(), Error> {
        match leases.count()? {
            0 => bridge::remove(interfaces, &self.bridge, &self.dir, lock),
            _ => Ok(()),
        }
    }
}

/// The sandbox's end of the wire, from its address.
fn interface(state: &State, address: Ipv4Addr) -> Interface {
    let [a, b, c, d] = address.octets();
    Interface {
        // Locally administered and unicast; 0x48 is an H.
        mac: [0x02, 0x48, a, b, c, d],
        address,
        prefix_len: state.subnet.prefix_len,
        gateway: state.subnet.gateway(),
        mtu: state.mtu,
    }
}

/// Removes a sandbox's interface from the host if it is there (a tap is not, once its VM is gone), and its rules.
fn port_gone(interfaces: &Interfaces, name: &str) -> Result<(), Error> {
    // A lease whose holder died before it was written has none, and a name that we never gave is not ours to remove.
    if !is_port_name(name) {
        return Ok(());
    }
    let failed = Error::interface("remove", name);
    if interfaces.exists(name).map_err(&failed)? {
        let removed =
            sys::netlink::Netlink::open().and_then(|mut netlink| netlink.remove_link(name));
        match removed {
            // It went by itself meanwhile.
            Err(rustix::io::Errno::NODEV) | Ok(()) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    // Last: no frame passes that they do not see.
    spoofing::forget(name)
}

/// The name of a sandbox's interface on the host: as much of its id as fits.
fn port_name(id: &str) -> String {
    let id = id.chars().filter(char::is_ascii_alphanumeric);
    let room = sys::tap::MAX_NAME_LEN - PORT_PREFIX.len();
    PORT_PREFIX.chars().chain(id.take(room)).collect()
}

/// Whether [`port_name`] makes such names. They become parts of nft's scripts.
fn is_port_name(name: &str) -> bool {
    name.starts_with(PORT_PREFIX)
        && name.len() <= sys::tap::MAX_NAME_LEN
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The name of a pair's other end until it is in its container.
fn inner_name(port: &str) -> String {
    let end = port.len().min(sys::tap::MAX_NAME_LEN - 1);
    format!("{}i", &port[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_are_short_and_plain() {
        assert_eq!(port_name("0123456789abcdef0123"), "hull0123456789a");
        assert_eq!(port_name("a/b\0c-ü"), "hullabc");
        assert!(is_port_name("hull0123456789a") && is_port_name("hullabc"));
        for name in [
            "",
            "eth0",
            "hull0123456789ab",
            "hulla; flush ruleset",
            "hull\nx",
        ] {
            assert!(!is_port_name(name), "{name}");
        }
        assert_eq!(inner_name("hull0123456789a"), "hull0123456789i");
        assert_eq!(inner_name("hullab"), "hullabi");
    }

    #[test]
    fn an_interface_follows_from_its_address() {
        let subnet = Subnet {
            network: Ipv4Addr::new(10, 213, 0, 0),
            prefix_len: 20,
        };
        let state = State {
            subnet,
            mtu: 1400,
            forwarding: vec![],
        };
        let interface = interface(&state, Ipv4Addr::new(10, 213, 1, 7));
        assert_eq!(interface.mac, [2, 0x48, 10, 213, 1, 7]);
        assert_eq!(interface.gateway, Ipv4Addr::new(10, 213, 0, 1));
        assert_eq!((interface.prefix_len, interface.mtu), (20, 1400));
    }
}
