//! The host's side of containers' networks: a bridge each, a tap or a pair of interfaces for each sandbox, addresses, NAT,
//! published ports.
//!
//! ```text
//!  guest --virtio-net-- tap hull<id> --+
//!  guest --virtio-net-- tap hull<id> --+-- bridge hull0 (.1 of a private network) -- NAT -- the host's uplink
//!  container's netns -- veth hull<id> -+
//!
//!  guest --virtio-net-- tap hull<id> ----- bridge hull-<id> of a network with a name -- NAT -- the host's uplink
//! ```
//!
//! There is no daemon: the first to attach makes a bridge, and the last to leave removes it. A sandbox's address
//! is a [`Lease`]: a lock on a file that the sandbox's monitor holds, so that it ends with the monitor however that
//! ends. A tap vanishes with its last descriptor. What a kill -9 leaves behind (a lease's file, elements of the firewall's
//! maps, the bridge, the firewall's table) is removed by the next attach, release or [`Network::sweep`].
//!
//! Containers on a bridge reach each other, as Docker's default has it, each under its own addresses alone; from
//! outside and from other bridges, they are reached by published ports alone, and by the host. Deliberately absent: IPv6,
//! networks without root. The records of networks with names are the engine's: here is what of them is on the host.

mod attach;
mod bridge;
mod dns;
mod error;
mod firewall;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod names;
mod nft;
mod ports;
mod published;
mod resolv_conf;
mod routes;
mod spoofing;
mod state;
mod subnet;
mod uplinks;

use std::error::Error as StdError;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use protocol::record;
use rustix::process::Pid;
use sys::interface::Interfaces;
use sys::tap::Offload;

pub use attach::{Attachment, Claim, NativeAttachment};
pub use dns::Launch;
pub use error::Error;
pub use lease::Lease;
pub use names::is_port_of;
pub use resolv_conf::{PUBLIC_RESOLVERS, host_resolv_conf, named_resolv_conf, resolv_conf};
pub use spoofing::can_forbid as can_forbid_spoofing;
pub use subnet::Subnet;

use lease::Leases;
use published::Memory;
use state::{Lock, State};

/// Where the bridges' state is: bridges belong to the host, whatever roots of state its users have, and end with its boot.
pub const STATE_DIR: &str = "/run/hull";
/// The default bridge's name, and the firewall table's without the number.
const BRIDGE: &str = "hull0";
/// How names of interfaces begin that belong to a sandbox, and of bridges.
const PORT_PREFIX: &str = "hull";

/// What a VM's tap leaves to the VM.
pub const OFFLOAD: Offload = Offload::CSUM.and(Offload::TSO4).and(Offload::TSO6);

/// A network on this host: its bridge, whether that is there or not.
#[derive(Debug, Clone)]
pub struct Network {
    /// All networks' folder.
    state_dir: PathBuf,
    /// What is remembered of this one.
    dir: PathBuf,
    bridge: String,
    /// Of a network with a name; the default one chooses its addresses when it is made.
    definition: Option<Box<record::Network>>,
    /// The file that says that a network with a name exists.
    record: Option<PathBuf>,
}

/// The sandbox's end of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits of the address that are the network's.
    pub prefix_len: u8,
    /// The bridge's address: the way out, unless the network is internal.
    pub gateway: Option<Ipv4Addr>,
    /// Largest packet, in bytes: what the host's uplink takes, at most 1500.
    pub mtu: u16,
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of it that are the network's.
    pub prefix_len: u8,
    /// The name of the sandbox's interface on the host: see [`is_port_of`].
    pub port: String,
}

impl Network {
    /// The host's default network for sandboxes, remembered in the folder `network` of `state_dir`.
    pub fn new(state_dir: &Path) -> Self {
        Self::on_bridge(state_dir, BRIDGE)
    }

    /// Another one beside it, for tests: its bridge and its firewall table are called `bridge`.
    pub fn on_bridge(state_dir: &Path, bridge: &str) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            dir: state_dir.join("network"),
            bridge: bridge.to_owned(),
            definition: None,
            record: None,
        }
    }

    /// A network with a name, remembered in a folder of its own below `networks` of `state_dir`. It exists as long as the file
    /// `record` does.
    pub fn named(state_dir: &Path, definition: &record::Network, record: &Path) -> Self {
        Self {
            definition: Some(Box::new(definition.clone())),
            record: Some(record.to_owned()),
            ..Self::with_id(state_dir, &definition.id)
        }
    }

    /// Every network that is remembered in `state_dir`, to be swept.
    pub fn all(state_dir: &Path) -> Result<Vec<Self>, Error> {
        let mut all = vec![Self::new(state_dir)];
        let dir = state_dir.join("networks");
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            other => other.map_err(Error::file(&dir))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::file(&dir))?.file_name();
            all.extend(
                name.to_str()
                    .filter(|id| names::is_id(id))
                    .map(|id| Self::with_id(state_dir, id)),
            );
        }
        Ok(all)
    }

    fn with_id(state_dir: &Path, id: &str) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            dir: state_dir.join("networks").join(id),
            bridge: names::bridge(id),
            definition: None,
            record: None,
        }
    }

    /// A subnet for a new network that has nothing in common with `taken` and with the host's routes.
    pub fn choose_subnet(taken: &[Subnet]) -> Result<Subnet, Error> {
        let mut all = routes::Routes::read()?.networks;
        all.extend(taken);
        subnet::choose_named(&all).ok_or(Error::NoFreeSubnet)
    }

    /// The addresses of the bridge, while it is there.
    pub fn subnet(&self) -> Result<Option<Subnet>, Error> {
        Ok(State::load(&self.dir)?.map(|state| state.subnet))
    }

    /// The name of the bridge, whether it is there or not.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Whether a network with a name has not been removed.
    fn exists(&self) -> Result<(), Error> {
        match (&self.record, &self.definition) {
            (Some(record), Some(network)) if !record.exists() => {
                Err(Error::Removed(network.name.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Has a hull-net answer the names of this network, which is called `domain`: `launch` starts one and gives its number,
    /// unless one that knows the same lives. The caller's sandbox is on the network. Other names are asked of the host's
    /// resolvers, unless the network is internal.
    ///
    /// # Errors
    /// Port 53 of the gateway is another server's; hull-net cannot be started.
    pub fn serve_names(
        &self,
        domain: &str,
        launch: impl FnOnce(&Launch<'_>) -> Result<Pid, Box<dyn StdError + Send + Sync>>,
    ) -> Result<(), Error> {
        let _lock = Lock::take(&self.dir)?;
        let state = State::load(&self.dir)?.ok_or(Error::Gone)?;
        let wanted = dns::Wanted {
            domain: domain.to_owned(),
            subnet: state.subnet,
            gateway: state.gateway(),
            resolvers: match state.internal {
                true => Vec::new(),
                false => resolv_conf::resolvers(),
            },
        };
        Ok(dns::ensure(&self.dir, &self.bridge, &wanted, launch)?)
    }

    /// Removes what dead sandboxes have left, and the bridge with the firewall's table if no sandbox is left.
    pub fn sweep(&self) -> Result<(), Error> {
        if !self.is_remembered()? {
            return Ok(());
        }
        let lock = Lock::take(&self.dir)?;
        let interfaces = Interfaces::open().map_err(Error::Socket)?;
        let leases = Leases::new(&self.dir);
        self.bury(&leases, &interfaces)?;
        self.tear_down_if_unused(&leases, &interfaces, &lock)
    }

    /// How many sandboxes are on the network; those that died without leaving it are not.
    pub fn count(&self) -> Result<usize, Error> {
        self.sweep()?;
        if !self.is_remembered()? {
            return Ok(0);
        }
        let _lock = Lock::take(&self.dir)?;
        Leases::new(&self.dir).count()
    }

    /// The addresses in use, each with the sandbox that has it.
    pub fn holders(&self) -> Result<Vec<Holder>, Error> {
        if !self.is_remembered()? {
            return Ok(Vec::new());
        }
        let Some(state) = State::load(&self.dir)? else {
            return Ok(Vec::new());
        };
        let holder = |(address, port)| Holder {
            address,
            prefix_len: state.subnet.prefix_len,
            port,
        };
        let holders = Leases::new(&self.dir).holders()?;
        Ok(holders.into_iter().map(holder).collect())
    }

    /// Has `hide` remove a network's record unless a sandbox is on it; false if one is.
    pub fn remove<E: From<Error>>(&self, hide: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
        let lock = Lock::take(&self.dir)?;
        let interfaces = Interfaces::open().map_err(Error::Socket)?;
        let leases = Leases::new(&self.dir);
        self.bury(&leases, &interfaces)?;
        if leases.count()? > 0 {
            return Ok(false);
        }
        bridge::remove(&interfaces, self, &lock)?;
        hide()?;
        std::fs::remove_dir_all(&self.dir).map_err(Error::file(&self.dir))?;
        Ok(true)
    }

    fn is_remembered(&self) -> Result<bool, Error> {
        self.dir.try_exists().map_err(Error::file(&self.dir))
    }

    /// Ends a lease: the sandbox is gone.
    fn release(&self, lease: lease::Held) -> Result<(), Error> {
        let lock = Lock::take(&self.dir)?;
        let interfaces = Interfaces::open().map_err(Error::Socket)?;
        let leases = Leases::new(&self.dir);
        self.port_gone(&interfaces, &lease)?;
        lease.forget()?;
        self.bury(&leases, &interfaces)?;
        self.tear_down_if_unused(&leases, &interfaces, &lock)
    }

    /// Removes stale leases, and their interfaces where those have stayed.
    fn bury(&self, leases: &Leases, interfaces: &Interfaces) -> Result<(), Error> {
        for dead in leases.dead()? {
            tracing::info!(address = %dead.address(), port = dead.port(), "removing a dead sandbox's lease");
            self.port_gone(interfaces, &dead)?;
            dead.forget()?;
        }
        Ok(())
    }

    /// Removes what a lease's sandbox had on the host: its interface, its rules, what led to its ports.
    fn port_gone(&self, interfaces: &Interfaces, lease: &lease::Held) -> Result<(), Error> {
        let memory = Memory::new(&self.dir);
        let ports = memory.load(lease.address())?;
        let removal = published::removal(&self.bridge, lease.address(), &ports);
        port_gone(interfaces, lease.port(), &removal)?;
        memory.remove(lease.address())
    }

    fn tear_down_if_unused(
        &self,
        leases: &Leases,
        interfaces: &Interfaces,
        lock: &Lock,
    ) -> Result<(), Error> {
        match leases.count()? {
            0 => bridge::remove(interfaces, self, lock),
            _ => Ok(()),
        }
    }
}

/// Removes a sandbox's interface from the host if it is there (a tap is not, once its VM is gone), and its rules, and carries
/// out `removal` with those.
fn port_gone(interfaces: &Interfaces, name: &str, removal: &str) -> Result<(), Error> {
    // A lease whose holder died before it was written has none, and a name that we never gave is not ours to remove.
    if !names::is_port(name) {
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
    spoofing::forget(name, removal)
}
