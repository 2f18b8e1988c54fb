//! The bridge itself: made when the first sandbox comes, removed when the last one goes.

use std::io;
use std::path::{Path, PathBuf};

use sys::interface::Interfaces;

use crate::error::Error;
use crate::net;
use crate::published::Memory;
use crate::routes::Routes;
use crate::state::{Lock, State};
use crate::uplinks::Uplinks;
use crate::{Network, attach, firewall, subnet};

/// The largest packet when the uplink takes larger ones: Ethernet's own.
const MAX_MTU: u16 = 1500;
/// The least MTU with which IPv4 works everywhere (RFC 791).
const MIN_MTU: u16 = 576;

/// The bridge, its address, forwarding and firewall rules, made where they are missing.
pub(crate) fn ensure(
    interfaces: &Interfaces,
    network: &Network,
    lock: &Lock,
) -> Result<State, Error> {
    let (bridge, dir) = (&*network.bridge, &*network.dir);
    let state = State::load(dir)?;
    let address = match interfaces
        .exists(bridge)
        .map_err(Error::interface("find", bridge))?
    {
        true => interfaces
            .address(bridge)
            .map_err(Error::interface("examine", bridge))?,
        false => None,
    };
    match (state, address) {
        // As it was left: the usual case. Being up and firewalled is its last step, so it is complete.
        (Some(state), Some(address)) if address == own_address(&state) && is_up(bridge)? => {
            match state.rules == firewall::EDITION {
                true => Ok(state),
                // An earlier version of hull made it.
                false => renew(bridge, dir, state, lock),
            }
        }
        // An address that we did not give.
        (None, Some(_)) => Err(Error::ForeignBridge(bridge.to_owned())),
        // Nothing, or what was left of it by a reboot or a kill.
        (state, _) => {
            if state.is_some() {
                remove(interfaces, network, lock)?;
            }
            make(interfaces, network, lock)
        }
    }
}

/// Puts the rules of this version in the place of another's.
fn renew(bridge: &str, dir: &Path, state: State, lock: &Lock) -> Result<State, Error> {
    firewall::install(bridge, &state, &Memory::new(dir).all()?)?;
    let state = State {
        rules: firewall::EDITION,
        ..state
    };
    state.store(dir, lock)?;
    Ok(state)
}

fn make(interfaces: &Interfaces, network: &Network, lock: &Lock) -> Result<State, Error> {
    let (bridge, dir) = (&*network.bridge, &*network.dir);
    let routes = Routes::read()?;
    let state = match &network.definition {
        None => {
            let subnet = subnet::choose(&routes.networks).ok_or(Error::NoFreeSubnet)?;
            State::of(subnet)
        }
        Some(definition) => State {
            gateway: Some(definition.gateway),
            range: definition.ip_range,
            internal: definition.internal,
            ..State::of(definition.subnet)
        },
    };
    let wanted = network.definition.as_ref().and_then(|network| network.mtu);
    // Of an internal network, nothing goes out by an uplink.
    let needed = match state.internal {
        true => &[],
        false => &*routes.uplinks,
    };
    let state = State {
        mtu: wanted.unwrap_or_else(|| mtu(routes.uplinks.first())),
        forwarding: closed(&network.home.dir, bridge, needed)?,
        rules: firewall::EDITION,
        ..state
    };
    state.store(dir, lock)?;
    add(interfaces, bridge)?;
    let (address, prefix_len) = own_address(&state);
    // Without one of its own it has the lowest of its ports', another one whenever those come and go: sandboxes that remember
    // the last would not reach the host until they ask again.
    interfaces
        .set_mac(bridge, attach::mac(address))
        .map_err(Error::interface("give an Ethernet address to", bridge))?;
    interfaces
        .set_address(bridge, address, prefix_len)
        .map_err(Error::interface("give an address to", bridge))?;
    interfaces
        .set_mtu(bridge, state.mtu)
        .map_err(Error::interface("set the MTU of", bridge))?;
    disable_ipv6(bridge)?;
    // The rules come first: nothing is forwarded that they do not see.
    firewall::install(bridge, &state, &Memory::new(dir).all()?)?;
    for interface in &state.forwarding {
        set_forwarding(interface, true)?;
    }
    interfaces
        .set_up(bridge, true)
        .map_err(Error::interface("bring up", bridge))?;
    Ok(state)
}

fn add(interfaces: &Interfaces, bridge: &str) -> Result<(), Error> {
    match interfaces.add_bridge(bridge) {
        // A bridge without an address: left by a process that was killed between two steps.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_bridge(bridge) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::ForeignBridge(bridge.to_owned()))
        }
        // ENOPKG: the module is not there.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOPKG.raw_os_error()) => {
            Err(Error::NoBridges)
        }
        other => other.map_err(Error::interface("make the bridge", bridge)),
    }
}

/// Removes the bridge, the rules and what else was changed, as far as it is there.
pub(crate) fn remove(interfaces: &Interfaces, network: &Network, lock: &Lock) -> Result<(), Error> {
    let (bridge, dir) = (&*network.bridge, &*network.dir);
    let Some(state) = State::load(dir)? else {
        return Ok(());
    };
    net::end(dir)?;
    Uplinks::lock(&network.home.dir)?.release(bridge, &state.forwarding, |interface| {
        set_forwarding(interface, false)
    })?;
    if interfaces
        .exists(bridge)
        .map_err(Error::interface("find", bridge))?
    {
        interfaces
            .set_up(bridge, false)
            .map_err(Error::interface("bring down", bridge))?;
        interfaces
            .remove_bridge(bridge)
            .map_err(Error::interface("remove the bridge", bridge))?;
    }
    firewall::remove(bridge)?;
    State::remove(dir, lock)
}

/// Makes a sandbox's interface a port of the bridge.
pub(crate) fn plug_in(
    interfaces: &Interfaces,
    bridge: &str,
    port: &str,
    mtu: u16,
) -> Result<(), Error> {
    interfaces
        .set_mtu(port, mtu)
        .map_err(Error::interface("set the MTU of", port))?;
    // The host is no neighbour of its guests but through the bridge.
    disable_ipv6(port)?;
    interfaces
        .add_port(bridge, port)
        .map_err(Error::interface("add to the bridge", port))?;
    interfaces
        .set_up(port, true)
        .map_err(Error::interface("bring up", port))
}

/// Lets a sandbox reach itself by its published ports. The host routes such packets, unless it has bridges ask the firewall
/// (br_netfilter, which Docker switches on): then the bridge itself sends them back, to where they came from.
pub(crate) fn reflect(port: &str) -> Result<(), Error> {
    let path = Path::new("/sys/class/net")
        .join(port)
        .join("brport/hairpin_mode");
    std::fs::write(&path, "1").map_err(Error::file(&path))
}

/// Lets the host reach published ports by its loopback addresses. Packets that a guest sends to such an address are dropped by
/// the rules, which are there before.
pub(crate) fn route_loopback(bridge: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys/net/ipv4/conf")
        .join(bridge)
        .join("route_localnet");
    std::fs::write(&path, "1").map_err(Error::file(&path))
}

fn own_address(state: &State) -> (std::net::Ipv4Addr, u8) {
    (state.gateway(), state.subnet.prefix_len)
}

/// The interfaces on which forwarding has to be switched on: the bridge's own way out, and the way back.
///
/// Only those, and not net.ipv4.ip_forward, which would switch it on for all: a host that routes already has nothing
/// left to switch, and one that does not goes on not routing for others (see [`firewall`]).
fn closed(state_dir: &Path, bridge: &str, uplinks: &[String]) -> Result<Vec<String>, Error> {
    let claimed = Uplinks::lock(state_dir)?.claim(bridge, uplinks, |uplink| {
        let path = forwarding_path(uplink);
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        Ok(text.trim() == "0")
    })?;
    Ok(std::iter::once(bridge.to_owned()).chain(claimed).collect())
}

fn set_forwarding(interface: &str, on: bool) -> Result<(), Error> {
    let path = forwarding_path(interface);
    match std::fs::write(&path, if on { "1" } else { "0" }) {
        // An interface that has gone needs nothing switched off.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !on => Ok(()),
        other => other.map_err(Error::file(&path)),
    }
}

fn forwarding_path(interface: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf")
        .join(interface)
        .join("forwarding")
}

/// Keeps an interface free of IPv6, which the bridge does not carry.
fn disable_ipv6(interface: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys/net/ipv6/conf")
        .join(interface)
        .join("disable_ipv6");
    match std::fs::write(&path, "1") {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::file(&path)),
    }
}

/// What the uplink takes in one packet, within reason.
fn mtu(uplink: Option<&String>) -> u16 {
    let of_uplink = uplink.and_then(|name| {
        std::fs::read_to_string(Path::new("/sys/class/net").join(name).join("mtu")).ok()
    });
    let of_uplink = of_uplink.and_then(|text| text.trim().parse().ok());
    of_uplink.unwrap_or(MAX_MTU).clamp(MIN_MTU, MAX_MTU)
}

fn is_bridge(name: &str) -> bool {
    Path::new("/sys/class/net")
        .join(name)
        .join("bridge")
        .is_dir()
}

/// Whether the bridge has been brought up, which is the last step of making it.
fn is_up(name: &str) -> Result<bool, Error> {
    const IFF_UP: u32 = 1;
    let path = Path::new("/sys/class/net").join(name).join("flags");
    let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
    let flags = text
        .trim()
        .strip_prefix("0x")
        .and_then(|hex| u32::from_str_radix(hex, 16).ok());
    Ok(flags.unwrap_or(0) & IFF_UP != 0)
}
