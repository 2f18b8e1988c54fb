//! A sandbox's way onto a network: its ports, its address, its interface.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use protocol::record::Publish;
use sys::interface::Interfaces;

use crate::error::Error;
use crate::lease::{Lease, Leases};
use crate::published::{self, Memory};
use crate::state::{Lock, State};
use crate::{Host, Interface, Network, OFFLOAD, bridge, names, ports, spoofing};

/// What a sandbox asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claim<'a> {
    /// Of the sandbox's interfaces, which one it is.
    pub slot: u8,
    /// Its names for the network's DNS, and as `alias=name` what it alone calls another; what cannot be one is left out.
    pub names: &'a [String],
    /// The address that it wants; any otherwise.
    pub address: Option<Ipv4Addr>,
    /// The Ethernet address that it wants; one that follows from its address otherwise.
    pub mac: Option<[u8; 6]>,
    /// Ports that are to be reached by the host's addresses.
    pub publish: &'a [Publish],
}

/// A sandbox's place on the bridge.
#[derive(Debug)]
pub struct Attachment {
    /// For the sandbox's VM: non-blocking, a vnet header of 12 bytes, offloads on, up, a port of the bridge.
    pub tap: OwnedFd,
    /// What the sandbox's end of the wire is to be.
    pub interface: Interface,
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

impl Network {
    /// Gives the sandbox `id` an address and a tap on the bridge, which is made if it is not there.
    ///
    /// # Errors
    /// Typed by what is missing: permission, /dev/net/tun, nft, free addresses, ports.
    pub fn attach(&self, id: &str, claim: &Claim<'_>) -> Result<Attachment, Error> {
        let (lease, (tap, interface)) = self.join(id, claim, |plug| {
            let name = plug.name;
            let tap = sys::tap::create(name).map_err(|error| Error::tap(name, error))?;
            sys::tap::set_offload(&tap, OFFLOAD).map_err(|error| Error::tap(name, error))?;
            self.plug_in(plug)?;
            Ok(tap)
        })?;
        Ok(Attachment {
            tap,
            interface,
            lease,
        })
    }

    /// Gives the native container `id` an address and an interface of its own, to be moved into its network namespace;
    /// it vanishes with that.
    pub fn attach_native(&self, id: &str, claim: &Claim<'_>) -> Result<NativeAttachment, Error> {
        let (lease, (name, interface)) = self.join(id, claim, |plug| {
            let inner = names::inner(plug.name);
            let add = Error::interface("make", plug.name);
            sys::netlink::Netlink::open()
                .and_then(|mut netlink| netlink.add_veth(plug.name, &inner, plug.interface.mac))
                .map_err(|errno| add(errno.into()))?;
            self.plug_in(plug)?;
            Ok(inner)
        })?;
        Ok(NativeAttachment {
            interface,
            name,
            lease,
        })
    }

    /// Takes ports and an address, makes the network if it has to be, and has `connect` make the sandbox's interface.
    pub(crate) fn join<T>(
        &self,
        id: &str,
        claim: &Claim<'_>,
        connect: impl FnOnce(&Plug<'_>) -> Result<T, Error>,
    ) -> Result<(Lease, (T, Interface)), Error> {
        self.exists()?;
        let ports = ports::Held::take(claim.publish, self.home.host)?;
        let lock = Lock::take(&self.dir)?;
        // From here on it stays: it is removed under the lock.
        self.exists()?;
        let interfaces = Interfaces::open().map_err(Error::Socket)?;
        let leases = Leases::new(&self.dir);
        // The dead are buried first, so that their addresses and interfaces are free.
        self.bury(&leases, &interfaces)?;
        let state = match self.set_up(&interfaces, &lock) {
            Ok(state) => state,
            Err(error) => {
                // Half a network is of no use; what could not be removed here, a sweep removes.
                let _ = self.tear_down_if_unused(&leases, &interfaces, &lock);
                return Err(error);
            }
        };
        let name = names::port(id, claim.slot);
        let taken = self
            .check_mac(claim.mac)
            .and_then(|()| check_address(&state, claim.address))
            .and_then(|()| leases.take(&state, &name, claim.names, claim.address));
        let lease = match taken {
            Ok(lease) => lease,
            Err(error) => {
                let _ = self.tear_down_if_unused(&leases, &interfaces, &lock);
                return Err(error);
            }
        };
        let interface = interface(&state, lease.address(), claim.mac);
        let plug = Plug {
            interfaces: &interfaces,
            name: &name,
            state: &state,
            interface,
            ports: &ports,
        };
        match connect(&plug) {
            Ok(made) => Ok((lease.on(self.clone(), ports), (made, interface))),
            Err(error) => {
                let _ = self.port_gone(&interfaces, &lease);
                lease.forget()?;
                let _ = self.tear_down_if_unused(&leases, &interfaces, &lock);
                Err(error)
            }
        }
    }

    /// Refuses an Ethernet address that an interface of the host's has, where that is on the network too.
    fn check_mac(&self, wanted: Option<[u8; 6]>) -> Result<(), Error> {
        let (Some(mac), Host::Bridge) = (wanted, self.home.host) else {
            return Ok(());
        };
        let found = sys::netlink::Netlink::open().and_then(|mut netlink| netlink.find(mac));
        match found {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Error::MacInUse(mac)),
            Err(errno) => Err(Error::Socket(errno.into())),
        }
    }

    /// Makes a sandbox's interface a port of the bridge. The rules come first: no frame passes that they do not see.
    fn plug_in(&self, plug: &Plug<'_>) -> Result<(), Error> {
        let Plug {
            interfaces,
            name,
            interface,
            ports,
            ..
        } = plug;
        let ports = ports.published();
        Memory::new(&self.dir).store(interface.address, ports)?;
        let elements = published::addition(&self.bridge, interface.address, ports);
        let are_honest = spoofing::forbid(name, interface, &elements)?;
        if !are_honest && Leases::new(&self.dir).count()? == 1 {
            // Said by the first of those that share the bridge, not by each.
            tracing::warn!(
                "the kernel has no nftables ingress chains (NF_TABLES_NETDEV, NETFILTER_INGRESS): containers on the \
                 bridge can use each other's addresses"
            );
        }
        let by_loopback = |at: &Ipv4Addr| at.is_unspecified() || at.is_loopback();
        if ports.iter().any(|port| by_loopback(&port.host_address)) {
            bridge::route_loopback(&self.bridge)?;
        }
        bridge::plug_in(interfaces, &self.bridge, name, interface.mtu)?;
        match ports.is_empty() {
            true => Ok(()),
            false => bridge::reflect(name),
        }
    }
}

/// A sandbox that is about to be connected.
pub(crate) struct Plug<'a> {
    interfaces: &'a Interfaces,
    /// The interface's name on the host.
    name: &'a str,
    pub(crate) state: &'a State,
    pub(crate) interface: Interface,
    pub(crate) ports: &'a ports::Held,
}

/// Refuses an address that no sandbox of the network can have.
fn check_address(state: &State, wanted: Option<Ipv4Addr>) -> Result<(), Error> {
    let Some(address) = wanted else {
        return Ok(());
    };
    if !state.subnet.contains(address) {
        return Err(Error::AddressOutside {
            address,
            subnet: state.subnet,
        });
    }
    let is_usual = state.subnet.addresses().any(|usual| usual == address);
    match is_usual && address != state.gateway() {
        true => Ok(()),
        false => Err(Error::AddressReserved(address)),
    }
}

/// The Ethernet address that goes with an address of a network's.
pub(crate) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // Locally administered and unicast; 0x48 is an H.
    [0x02, 0x48, a, b, c, d]
}

/// The sandbox's end of the wire, from its address.
pub(crate) fn interface(state: &State, address: Ipv4Addr, mac: Option<[u8; 6]>) -> Interface {
    Interface {
        mac: mac.unwrap_or(self::mac(address)),
        address,
        prefix_len: state.subnet.prefix_len,
        gateway: (!state.internal).then(|| state.gateway()),
        mtu: state.mtu,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subnet;

    #[test]
    fn an_interface_follows_from_its_address() {
        let subnet = Subnet {
            network: Ipv4Addr::new(10, 213, 0, 0),
            prefix_len: 20,
        };
        let mut state = State {
            mtu: 1400,
            ..State::of(subnet)
        };
        let address = Ipv4Addr::new(10, 213, 1, 7);
        let mac = [2, 0, 0, 0, 0, 1];
        assert_eq!(interface(&state, address, Some(mac)).mac, mac);
        state.internal = true;
        assert_eq!(interface(&state, address, None).gateway, None);
        state.internal = false;
        let interface = interface(&state, address, None);
        assert_eq!(interface.mac, [2, 0x48, 10, 213, 1, 7]);
        assert_eq!(interface.gateway, Some(Ipv4Addr::new(10, 213, 0, 1)));
        assert_eq!((interface.prefix_len, interface.mtu), (20, 1400));
    }
}
