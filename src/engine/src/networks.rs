//! Networks of the user's: what is asked for of them. What is on the host of one is the crate network's, and there only
//! while a sandbox is on it.
//!
//! ```text
//! ROOT/networks/<name>/config.json   its record: written before the folder has its place
//! ```
//!
//! Invariants: a network is there whole or not at all. Whoever makes or removes one holds ROOT/networks locked, so that no two
//! have an address in common. One that a sandbox is on is not removed: the sandbox's warden looks for the record under the
//! lock of the host's part, and it is removed under that lock. A container that does not run keeps the name alone, as in
//! Docker: its start fails once the network is gone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use protocol::record::{self, DEFAULT_NETWORK, Endpoint, Network, SandboxConfig, VERSION};
use protocol::subnet::Subnet;

use crate::engine::{Engine, is_id};
use crate::error::Error as EngineError;
use crate::events::Told;
use crate::files::{self, Draft};
use crate::{id, options, time};

mod connect;
mod list;

pub use list::{ListedNetwork, Member, NetworkFilters};

/// The one driver.
pub const DRIVER: &str = "bridge";
/// Networks that are not the user's.
pub const PREDEFINED: [&str; 3] = [DEFAULT_NETWORK, "host", "none"];
/// The option that is the largest packet: Docker's name, and a shorter one.
const MTU_OPTIONS: [&str; 2] = ["com.docker.network.driver.mtu", "mtu"];
/// What a bridge's packets may be (RFC 791; Ethernet's own).
const MTU: std::ops::RangeInclusive<u16> = 576..=1500;
/// Bits of a subnet's prefix: at most 65533 addresses, at least one.
const PREFIX_LEN: std::ops::RangeInclusive<u8> = 16..=30;
/// The longest name, in bytes: what is made of it for a moment is a little longer, and NAME_MAX is 255.
const MAX_NAME_LEN: usize = 200;

/// Why a network cannot be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no network of that name.
    #[error("network {0} not found")]
    Absent(String),
    /// Several identifiers begin so.
    #[error("network {0} is ambiguous: several identifiers begin with it")]
    Ambiguous(String),
    /// A name that it cannot have.
    #[error(
        "invalid network name: {0:?} includes invalid characters, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed, and at most \
         {MAX_NAME_LEN} of them"
    )]
    Name(String),
    /// The name is another's.
    #[error("network with name {0} already exists")]
    Exists(String),
    /// A network that is always there.
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    /// Likewise.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Permanent(String),
    /// Sandboxes are on it.
    #[error("error while removing network: network {name} has active endpoints{containers}")]
    InUse {
        /// The network.
        name: String,
        /// Those that are known, in Docker's form.
        containers: String,
    },
    /// Its addresses are another network's too.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} and {other} of the network {name}"
    )]
    Overlap {
        /// What was asked for.
        subnet: Subnet,
        /// What is taken.
        other: Subnet,
        /// By this network.
        name: String,
    },
    /// A subnet that a bridge cannot have.
    #[error(
        "the subnet {0} is of no use: its prefix may have {min} to {max} bits",
        min = PREFIX_LEN.start(),
        max = PREFIX_LEN.end()
    )]
    Prefix(Subnet),
    /// An address that is not of the subnet.
    #[error(
        "invalid {what} {value}: it is not an address range of the subnet {subnet} that a network can use"
    )]
    Outside {
        /// gateway or ip-range.
        what: &'static str,
        /// What was asked for.
        value: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// Parts of a subnet without it.
    #[error("--{0} needs --subnet: say which addresses the network has")]
    NeedsSubnet(&'static str),
    /// A driver that there is not.
    #[error(
        "could not find plugin {0} in v1 plugin registry: plugin not found; hull has the driver bridge alone"
    )]
    Driver(String),
    /// An option of the driver that hull cannot carry out.
    #[error(
        "the option {option} is refused: a network of hull's takes mtu={min} to {max} (also as {}) alone",
        MTU_OPTIONS[0],
        min = MTU.start(),
        max = MTU.end()
    )]
    Option {
        /// The option.
        option: String,
    },
    /// It is on it already.
    #[error("endpoint with name {container} already exists in network {network}")]
    Connected {
        /// The container's name.
        container: String,
        /// The network.
        network: String,
    },
    /// It is not on it.
    #[error("container {container} is not connected to the network {network}")]
    NotConnected {
        /// The container's identifier.
        container: String,
        /// The network.
        network: String,
    },
    /// One without a network keeps to itself.
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    Private,
    /// Its network is its pod's.
    #[error(
        "container {container} shares the network of its pod, which is on the networks that `hull pod create` gave it"
    )]
    OfPod {
        /// The container.
        container: String,
    },
    /// As many as there can be.
    #[error("container {container} is on {max} networks already, which is the most", max = record::MAX_NETWORKS)]
    TooMany {
        /// The container.
        container: String,
    },
    /// It runs under an earlier version.
    #[error(
        "container {container} was started by an earlier hull, which cannot change the networks of a container that runs: \
         stop it first"
    )]
    OldMonitor {
        /// The container.
        container: String,
    },
    /// What was asked for there.
    #[error(transparent)]
    Place(Box<crate::prepare::Error>),
    /// The host's part.
    #[error(transparent)]
    Host(#[from] network::Error),
    /// A record, or another part of the engine: kept for [`network::Network::remove`].
    #[error(transparent)]
    Engine(Box<EngineError>),
}

/// A network to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Its driver, where one is named.
    pub driver: Option<String>,
    /// Its addresses; a free range otherwise.
    pub subnet: Option<Subnet>,
    /// The host's address; the subnet's first one otherwise.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet that addresses are given from.
    pub ip_range: Option<Subnet>,
    /// No way out.
    pub internal: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// What a container with these places finds in /etc/resolv.conf before its own options change it; `None` if it has no network.
/// The user's own networks, of which these are the records, have a DNS server at their gateways, and that of the first knows
/// the names of all that the container is on.
pub fn resolv_conf(endpoints: &[Endpoint], networks: &[Network]) -> Option<String> {
    let host = network::host_resolv_conf();
    let record = |endpoint: &Endpoint| networks.iter().find(|it| it.name == endpoint.network);
    match endpoints.iter().find_map(record) {
        Some(network) => Some(network::named_resolv_conf(&host, network.gateway)),
        None => (!endpoints.is_empty()).then(|| network::resolv_conf(&host)),
    }
}

impl Engine {
    /// Makes a network.
    pub fn network_create(&self, new: NewNetwork) -> Result<Network, EngineError> {
        if let Some(driver) = new.driver.filter(|driver| driver != DRIVER) {
            return Err(Error::Driver(driver).into());
        }
        check_name(&new.name)?;
        let mtu = mtu(&new.options)?;
        files::make_folder(&self.layout().networks())?;
        let _alone = files::lock_folder(&self.layout().networks())?;
        let others = self.all_networks()?;
        if others.iter().any(|other| other.name == new.name) {
            return Err(Error::Exists(new.name).into());
        }
        let subnet = match new.subnet {
            Some(subnet) => checked(self.root(), subnet, &others)?,
            None => {
                let parts = [
                    (new.gateway.is_some(), "gateway"),
                    (new.ip_range.is_some(), "ip-range"),
                ];
                if let Some((_, part)) = parts.into_iter().find(|(given, _)| *given) {
                    return Err(Error::NeedsSubnet(part).into());
                }
                let taken: Vec<Subnet> = others.iter().map(|other| other.subnet).collect();
                network::Network::choose_subnet(&taken).map_err(Error::from)?
            }
        };
        let network = Network {
            version: VERSION,
            id: id::new_id(),
            created_ns: time::now_ns(),
            subnet,
            gateway: gateway(subnet, new.gateway)?,
            ip_range: range(subnet, new.ip_range)?,
            internal: new.internal,
            mtu,
            name: new.name,
            labels: new.labels,
            options: new.options,
        };
        let mut draft = Draft::begin(self.layout(), &format!("network-{}", network.id))?;
        files::write_new(&draft.path().join(record::CONFIG), &network)?;
        draft.place(&self.layout().network(&network.name))?;
        self.tell(told(&network, "create"));
        Ok(network)
    }

    /// The network of this name, identifier or beginning of one.
    pub fn network(&self, reference: &str) -> Result<Network, EngineError> {
        if let Some(network) = self.find_network(reference)? {
            return Ok(network);
        }
        let absent = || Error::Absent(reference.to_owned());
        if reference.is_empty() || !reference.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(absent().into());
        }
        let mut found = self.all_networks()?;
        found.retain(|network| network.id.starts_with(reference));
        if found.len() > 1 {
            return Err(Error::Ambiguous(reference.to_owned()).into());
        }
        Ok(found.pop().ok_or_else(absent)?)
    }

    /// The network that is asked for, if it is one of the user's.
    pub fn chosen_network(
        &self,
        choice: Option<&options::Network>,
    ) -> Result<Option<Network>, EngineError> {
        match choice {
            Some(options::Network::Named(name)) => self.network(name).map(Some),
            _ => Ok(None),
        }
    }

    /// The networks that the options name, as far as they are the user's.
    pub fn chosen_networks(&self, options: &options::Options) -> Result<Vec<Network>, EngineError> {
        let first = self.chosen_network(options.network.as_ref())?;
        let further = options.further_networks.iter();
        let further = further.map(|it| self.network(&it.network));
        first.into_iter().map(Ok).chain(further).collect()
    }

    /// The networks of the user's that a sandbox is on.
    pub fn networks_of(&self, sandbox: &SandboxConfig) -> Result<Vec<Network>, EngineError> {
        let own = sandbox.networks.iter();
        let own = own.filter(|endpoint| endpoint.network != DEFAULT_NETWORK);
        own.map(|endpoint| self.network(&endpoint.network))
            .collect()
    }

    /// Removes a network that no sandbox is on. By force, one that is not there is no failure. Returns its name.
    pub fn network_remove(&self, reference: &str, force: bool) -> Result<(), EngineError> {
        if PREDEFINED.contains(&reference) {
            return Err(Error::Permanent(reference.to_owned()).into());
        }
        let network = match self.network(reference) {
            Err(EngineError::Network(Error::Absent(_))) if force => return Ok(()),
            other => other?,
        };
        let _alone = files::lock_folder(&self.layout().networks())?;
        match self.hide_network(&network)? {
            true => Ok(()),
            false => Err(Error::InUse {
                containers: self.endpoints_text(&network)?,
                name: network.name,
            }
            .into()),
        }
    }

    /// Removes a network unless a sandbox is on it; whether it did.
    fn hide_network(&self, network: &Network) -> Result<bool, EngineError> {
        let folder = self.layout().network(&network.name);
        let hide = || match files::discard(self.layout(), &folder) {
            Ok(()) => Ok(()),
            Err(error) => Err(Error::Engine(Box::new(error))),
        };
        let record = folder.join(record::CONFIG);
        let on_host = network::Network::named(&network::Home::of(self.root()), network, &record);
        let removed = on_host.remove(hide)?;
        if removed {
            self.tell(told(network, "destroy"));
        }
        Ok(removed)
    }

    /// The network of this whole name.
    pub(crate) fn find_network(&self, name: &str) -> Result<Option<Network>, EngineError> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let path = self.layout().network(name).join(record::CONFIG);
        let network: Option<Network> = files::read(&path)?;
        if let Some(network) = &network {
            files::check_version(&path, network.version)?;
        }
        Ok(network.filter(|network| is_id(&network.id)))
    }
}

fn told(network: &Network, action: &str) -> Told {
    Told::new("network", action, &network.id)
        .with("name", &network.name)
        .with("type", DRIVER)
}

/// Refuses what cannot be a network's name.
fn check_name(name: &str) -> Result<(), Error> {
    if PREDEFINED.contains(&name) {
        return Err(Error::Predefined(name.to_owned()));
    }
    match is_name(name) {
        true => Ok(()),
        false => Err(Error::Name(name.to_owned())),
    }
}

/// Whether a network may be called so: other than a container's, its name may have one character.
pub fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_NAME_LEN).contains(&name.len())
        && name.bytes().all(known)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// The largest packet that the options ask for; others are refused.
fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u16>, Error> {
    let mut mtu = None;
    for (name, value) in options {
        let bytes = value.parse().ok().filter(|bytes| MTU.contains(bytes));
        match bytes.filter(|_| MTU_OPTIONS.contains(&name.as_str())) {
            Some(bytes) => mtu = Some(bytes),
            None => {
                return Err(Error::Option {
                    option: format!("{name}={value}"),
                });
            }
        }
    }
    Ok(mtu)
}

fn checked(root: &Path, subnet: Subnet, others: &[Network]) -> Result<Subnet, Error> {
    if !PREFIX_LEN.contains(&subnet.prefix_len) {
        return Err(Error::Prefix(subnet));
    }
    let overlap = |other: Subnet, name: &str| Error::Overlap {
        subnet,
        other,
        name: name.to_owned(),
    };
    if let Some(other) = others.iter().find(|other| other.subnet.overlaps(&subnet)) {
        return Err(overlap(other.subnet, &other.name));
    }
    // The default network has addresses while a container is on it.
    match network::Network::new(&network::Home::of(root)).subnet() {
        Ok(Some(other)) if other.overlaps(&subnet) => Err(overlap(other, DEFAULT_NETWORK)),
        _ => Ok(subnet),
    }
}

fn gateway(subnet: Subnet, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
    let gateway = wanted.unwrap_or_else(|| subnet.gateway());
    match subnet.addresses().any(|address| address == gateway) {
        true => Ok(gateway),
        false => Err(Error::Outside {
            what: "gateway",
            value: gateway.to_string(),
            subnet,
        }),
    }
}

fn range(subnet: Subnet, wanted: Option<Subnet>) -> Result<Option<Subnet>, Error> {
    match wanted {
        Some(range) if !subnet.holds(&range) => Err(Error::Outside {
            what: "ip-range",
            value: range.to_string(),
            subnet,
        }),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests;
