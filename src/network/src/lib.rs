//! The host's side of containers' networks. As root: a bridge each, a tap or a pair of interfaces for each sandbox,
//! addresses, NAT, published ports. Without root: a hull-net each, which is switch and gateway, and a socket for each
//! sandbox.
//!
//! ```text
//!  guest --virtio-net-- tap hull<id> --+
//!  guest --virtio-net-- tap hull<id> --+-- bridge hull0 (.1 of a private network) -- NAT -- the host's uplink
//!  container's netns -- veth hull<id> -+
//!
//!  guest --virtio-net-- tap hull<id> ----- bridge hull-<id> of a network with a name -- NAT -- the host's uplink
//!
//!  guest --virtio-net-- socket --+-- hull-net of an ordinary user's network -- sockets of the host
//!  guest --virtio-net-- socket --+
//! ```
//!
//! There is no daemon: the first to attach makes a bridge, and the last to leave removes it. A sandbox's address
//! is a [`Lease`]: a lock on a file that the sandbox's monitor holds, so that it ends with the monitor however that
//! ends. A tap vanishes with its last descriptor. What a kill -9 leaves behind (a lease's file, elements of the firewall's
//! maps, the bridge, the firewall's table) is removed by the next attach, release or [`Network::sweep`].
//!
//! Containers on a network reach each other, as Docker's default has it, each under its own addresses alone; from
//! outside and from other networks, they are reached by published ports alone, and on a bridge by the host.
//! Deliberately absent: IPv6; native containers without root. The records of networks with names are the engine's: here
//! is what of them is on the host.

mod attach;
mod bridge;
mod error;
mod firewall;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod names;
mod net;
mod nft;
mod ports;
mod published;
mod resolv_conf;
mod routes;
mod spoofing;
mod state;
mod subnet;
mod switch;
mod uplinks;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use protocol::record;
use sys::interface::Interfaces;
use sys::tap::Offload;

pub use attach::{Attachment, Claim, NativeAttachment};
pub use error::Error;
pub use lease::Lease;
pub use names::is_port_of;
pub use net::{Launch, Service};
pub use resolv_conf::{PUBLIC_RESOLVERS, host_resolv_conf, named_resolv_conf, resolv_conf};
pub use spoofing::can_forbid as can_forbid_spoofing;
pub use subnet::Subnet;
pub use switch::SwitchAttachment;

use lease::Leases;
use published::Memory;
use state::{Lock, State};

/// Where the bridges' state is: bridges belong to the host, whatever roots of state its users have, and end with its boot.
const BRIDGES_DIR: &str = "/run/hull";
/// Where a user's is, in the root of state: what belongs to a boot has no lock after it, and is swept.
const SWITCHES_DIR: &str = "net";
/// The default bridge's name, and the firewall table's without the number.
const BRIDGE: &str = "hull0";
/// How names of interfaces begin that belong to a sandbox, and of bridges.
const PORT_PREFIX: &str = "hull";

/// What a VM's tap leaves to the VM.
pub const OFFLOAD: Offload = Offload::CSUM.and(Offload::TSO4).and(Offload::TSO6);

/// What a network is on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// A bridge, which takes root.
    Bridge,
    /// A hull-net.
    Switch,
}

impl Host {
    /// What networks of this process's user are.
    pub fn of_this_user() -> Host {
        match rustix::process::geteuid().is_root() {
            true => Host::Bridge,
            false => Host::Switch,
        }
    }
}

/// The networks of a user, and what they are.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
    host: Host,
}

impl Home {
    /// Of this process's user, with this root of state.
    pub fn of(root: &Path) -> Home {
        match Host::of_this_user() {
            Host::Bridge => Home::bridges(Path::new(BRIDGES_DIR)),
            Host::Switch => Home {
                dir: root.join(SWITCHES_DIR),
                host: Host::Switch,
            },
        }
    }

    /// Bridges that are remembered in this folder.
    pub fn bridges(dir: &Path) -> Home {
        Home {
            dir: dir.to_owned(),
            host: Host::Bridge,
        }
    }
}

/// A network on this host, whether a sandbox is on it or not.
#[derive(Debug, Clone)]
pub struct Network {
    /// All networks' folder.
    home: Home,
    /// What is remembered of this one.
    dir: PathBuf,
    /// The name of its bridge, if it is one.
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
    /// The network's own address: the way out, unless it is internal.
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

/// A network with a name that a sandbox is on besides another.
#[derive(Debug, Clone)]
pub struct Adjacent {
    /// It.
    pub network: Network,
    /// Its name.
    pub domain: String,
}

impl Adjacent {
    /// For a hull-net; `None` if no sandbox is on it.
    fn beside(&self) -> Result<Option<net::Beside>, Error> {
        let dir = &self.network.dir;
        let (Some(definition), Some(state)) = (&self.network.definition, State::load(dir)?) else {
            return Ok(None);
        };
        Ok(Some(net::Beside {
            adjacent: protocol::net::Adjacent {
                id: definition.id.clone(),
                leases: protocol::net::Descriptor(0),
                network: state.subnet.network,
                prefix_len: state.subnet.prefix_len,
                gateway: state.gateway(),
                domain: self.domain.clone(),
            },
            dir: dir.clone(),
        }))
    }
}

impl Network {
    /// The default network for sandboxes, remembered in the folder `network` of the home.
    pub fn new(home: &Home) -> Self {
        Self {
            home: home.clone(),
            dir: home.dir.join("network"),
            bridge: BRIDGE.to_owned(),
            definition: None,
            record: None,
        }
    }

    /// Another one beside it, for tests: its bridge and its firewall table are called `bridge`.
    pub fn on_bridge(dir: &Path, bridge: &str) -> Self {
        Self {
            bridge: bridge.to_owned(),
            ..Self::new(&Home::bridges(dir))
        }
    }

    /// A network with a name, remembered in a folder of its own below `networks` of the home. It exists as long as the file
    /// `record` does.
    pub fn named(home: &Home, definition: &record::Network, record: &Path) -> Self {
        Self {
            definition: Some(Box::new(definition.clone())),
            record: Some(record.to_owned()),
            ..Self::with_id(home, &definition.id)
        }
    }

    /// Every network that is remembered, to be swept.
    pub fn all(home: &Home) -> Result<Vec<Self>, Error> {
        let mut all = vec![Self::new(home)];
        let dir = home.dir.join("networks");
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            other => other.map_err(Error::file(&dir))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::file(&dir))?.file_name();
            all.extend(
                name.to_str()
                    .filter(|id| names::is_id(id))
                    .map(|id| Self::with_id(home, id)),
            );
        }
        Ok(all)
    }

    fn with_id(home: &Home, id: &str) -> Self {
        Self {
            home: home.clone(),
            dir: home.dir.join("networks").join(id),
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

    /// What it is.
    pub fn host(&self) -> Host {
        self.home.host
    }

    /// The addresses of the network, while a sandbox is on it.
    pub fn subnet(&self) -> Result<Option<Subnet>, Error> {
        Ok(State::load(&self.dir)?.map(|state| state.subnet))
    }

    /// Whether it has no way out.
    pub fn is_internal(&self) -> bool {
        self.definition.as_ref().is_some_and(|it| it.internal)
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
    /// unless one that knows the same lives. The caller's sandbox is on the network, and on those that are `adjacent`, whose
    /// names it is told as well. Other names are asked of the host's resolvers, unless the network is internal.
    ///
    /// # Errors
    /// Port 53 of the gateway is another server's; hull-net cannot be started.
    pub fn serve_names(
        &self,
        domain: &str,
        adjacent: &[Adjacent],
        launch: impl FnOnce(&Launch<'_>) -> net::Launched,
    ) -> Result<(), Error> {
        let adjacent = adjacent.iter().filter_map(|one| one.beside().transpose());
        let adjacent = adjacent.collect::<Result<Vec<_>, _>>()?;
        let _lock = Lock::take(&self.dir)?;
        let state = State::load(&self.dir)?.ok_or(Error::Gone)?;
        let bridge = &self.bridge;
        let wanted = wanted(domain, &state, net::Part::Names { bridge, adjacent });
        Ok(net::ensure(&self.dir, wanted, launch)?)
    }

    /// Removes what dead sandboxes have left, and what makes the network if no sandbox is left.
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
        self.take_down(&interfaces, &lock)?;
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

    /// Removes what a lease's sandbox had on the host: its interface, its rules, what led to its ports. A socket to a
    /// hull-net ends with its sandbox.
    fn port_gone(&self, interfaces: &Interfaces, lease: &lease::Held) -> Result<(), Error> {
        if self.home.host == Host::Switch {
            return Ok(());
        }
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
            0 => self.take_down(interfaces, lock),
            _ => Ok(()),
        }
    }

    /// What makes it a network, made where it is missing.
    fn set_up(&self, interfaces: &Interfaces, lock: &Lock) -> Result<State, Error> {
        match self.home.host {
            Host::Bridge => bridge::ensure(interfaces, self, lock),
            Host::Switch => switch::ensure(self, lock),
        }
    }

    fn take_down(&self, interfaces: &Interfaces, lock: &Lock) -> Result<(), Error> {
        match self.home.host {
            Host::Bridge => bridge::remove(interfaces, self, lock),
            Host::Switch => switch::remove(self, lock),
        }
    }
}

/// What a network's hull-net is to know.
fn wanted<'a>(domain: &str, state: &State, part: net::Part<'a>) -> net::Wanted<'a> {
    net::Wanted {
        domain: domain.to_owned(),
        subnet: state.subnet,
        gateway: state.gateway(),
        resolvers: match state.internal {
            true => Vec::new(),
            false => resolv_conf::resolvers(),
        },
        part,
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
