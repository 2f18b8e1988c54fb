//! Listing networks, what is on each, and removing those that nothing uses.

use std::collections::BTreeMap;

use protocol::agent::Interface;
use protocol::record::{Attachment, DEFAULT_NETWORK, Network};
use sha2::{Digest, Sha256};

use super::{DRIVER, PREDEFINED};
use crate::engine::{Engine, chain};
use crate::error::Error;
use crate::files;
use crate::list::ListOptions;

/// A condition on labels: a name, and a value if it is to have one.
type Label = (String, Option<String>);

/// Which networks. What is empty does not matter; of names, identifiers and drivers one must match, of labels all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkFilters {
    /// Parts of the name.
    pub names: Vec<String>,
    /// Beginnings of the identifier.
    pub ids: Vec<String>,
    /// Drivers.
    pub drivers: Vec<String>,
    /// Labels that it has.
    pub labels: Vec<Label>,
    /// Labels that it does not have.
    pub without_labels: Vec<Label>,
    /// It is the user's own, or not.
    pub custom: Option<bool>,
    /// No container is on it, or one is.
    pub dangling: Option<bool>,
    /// It was made before this moment, in nanoseconds since the epoch.
    pub until_ns: Option<u64>,
}

/// A network in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedNetwork {
    /// Its name.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// `bridge` or `null`.
    pub driver: &'static str,
    /// Its record, if it is the user's.
    pub network: Option<Network>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: Interface,
}

impl ListedNetwork {
    /// One that every host has.
    fn predefined(name: &str) -> ListedNetwork {
        let digest = Sha256::digest(format!("hull {name}"));
        ListedNetwork {
            name: name.to_owned(),
            id: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            driver: if name == DEFAULT_NETWORK {
                DRIVER
            } else {
                "null"
            },
            network: None,
        }
    }

    fn of(network: Network) -> ListedNetwork {
        ListedNetwork {
            name: network.name.clone(),
            id: network.id.clone(),
            driver: DRIVER,
            network: Some(network),
        }
    }

    /// Labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let network = self.network.as_ref();
        network.map_or_else(BTreeMap::new, |network| network.labels.clone())
    }
}

impl NetworkFilters {
    fn hold(&self, one: &ListedNetwork, users: usize) -> bool {
        let labels = one.labels();
        let has = |(name, value): &Label| {
            let found = labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| found == value))
        };
        let any = |parts: &[String], holds: &dyn Fn(&str) -> bool| {
            parts.is_empty() || parts.iter().any(|part| holds(part))
        };
        let created_ns = one.network.as_ref().map(|network| network.created_ns);
        any(&self.names, &|part| one.name.contains(part))
            && any(&self.ids, &|part| one.id.starts_with(part))
            && any(&self.drivers, &|driver| one.driver == driver)
            && self.labels.iter().all(has)
            && !self.without_labels.iter().any(has)
            && self
                .custom
                .is_none_or(|custom| custom == one.network.is_some())
            && self
                .dangling
                .is_none_or(|wanted| wanted == (users == 0 && one.network.is_some()))
            && self
                .until_ns
                .is_none_or(|until| created_ns.is_some_and(|created| created < until))
    }
}

impl Engine {
    /// The networks in the order of their names, with those that every host has.
    pub fn networks(&self, filters: &NetworkFilters) -> Result<Vec<ListedNetwork>, Error> {
        let users = self.network_users()?;
        // There is no network `host`.
        let predefined = PREDEFINED.into_iter().filter(|name| *name != "host");
        let mut all: Vec<ListedNetwork> = predefined.map(ListedNetwork::predefined).collect();
        all.extend(self.all_networks()?.into_iter().map(ListedNetwork::of));
        all.retain(|one| filters.hold(one, users.get(&one.name).copied().unwrap_or(0)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The network of this name, identifier or beginning of one, which may be one that every host has.
    pub fn any_network(&self, reference: &str) -> Result<ListedNetwork, Error> {
        let known = self.networks(&NetworkFilters {
            custom: Some(false),
            ..NetworkFilters::default()
        })?;
        let mut found = known
            .into_iter()
            .filter(|one| one.name == reference || one.id == reference);
        match found.next() {
            Some(one) => Ok(one),
            None => self.network(reference).map(ListedNetwork::of),
        }
    }

    /// The containers that run on a network.
    pub fn network_members(&self, name: &str) -> Result<Vec<Member>, Error> {
        let mut members = Vec::new();
        for one in self.list(&ListOptions::default())? {
            let names = one.summary.networks();
            // An earlier version did not say which: it was the only one.
            let is_on =
                |at: &Attachment| at.network == name || (at.network.is_empty() && names == [name]);
            if let Some(at) = one.state.interfaces.iter().find(|at| is_on(at)) {
                members.push(Member {
                    interface: at.interface.clone(),
                    id: one.summary.id,
                    name: one.summary.name,
                });
            }
        }
        Ok(members)
    }

    /// Removes the networks that no container and no pod uses, whether they run or not. Returns their names.
    pub fn prune_networks(&self, filters: &NetworkFilters) -> Result<Vec<String>, Error> {
        let unused = self.networks(&NetworkFilters {
            custom: Some(true),
            dangling: Some(true),
            ..filters.clone()
        })?;
        let _alone = match unused.is_empty() {
            true => None,
            false => files::lock_folder(&self.layout().networks())?,
        };
        let users = self.network_users()?;
        let mut pruned = Vec::new();
        for network in unused.into_iter().filter_map(|one| one.network) {
            if !users.contains_key(&network.name) && self.hide_network(&network)? {
                pruned.push(network.name);
            }
        }
        Ok(pruned)
    }

    /// How many containers and pods use each network, whether they run or not.
    fn network_users(&self) -> Result<BTreeMap<String, usize>, Error> {
        let mut users = BTreeMap::new();
        for summary in self.summaries()? {
            for network in summary.networks() {
                *users.entry(network.to_owned()).or_default() += 1;
            }
        }
        for pod in self.pods()? {
            let sandbox = self.pod_config(&pod.id)?;
            for endpoint in sandbox.into_iter().flat_map(|sandbox| sandbox.networks) {
                *users.entry(endpoint.network).or_default() += 1;
            }
        }
        Ok(users)
    }

    /// Who is on a network, as Docker says it where it refuses to remove one; nothing if no container of this root is.
    pub(super) fn endpoints_text(&self, network: &Network) -> Result<String, Error> {
        let members = self.network_members(&network.name)?;
        let texts = members.iter().map(|member| {
            format!(
                "name:{:?} id:{:?}",
                member.name,
                crate::id::short(&member.id)
            )
        });
        let texts: Vec<String> = texts.collect();
        Ok(match texts.is_empty() {
            true => String::new(),
            false => format!(" ({})", texts.join(", ")),
        })
    }

    pub(super) fn all_networks(&self) -> Result<Vec<Network>, Error> {
        let mut networks = Vec::new();
        for name in files::names(&self.layout().networks())? {
            match self.find_network(&name) {
                Ok(found) => networks.extend(found),
                Err(error @ Error::Later { .. }) => return Err(error),
                // One damaged file does not hide the others.
                Err(error) => {
                    tracing::warn!(name, error = %chain(&error), "a network is not shown");
                }
            }
        }
        Ok(networks)
    }
}
