//! Connecting containers to networks, and disconnecting them.
//!
//! ```text
//! sandbox's folder locked: its record rewritten -> container's folder locked: its record -> a monitor lives? it is told
//!                                                  failed there: both records as they were -> told again
//! ```
//!
//! Invariants (lifecycle 10, H36 to H39): the sandbox's record says which networks it is on; the container's has their names
//! for listings, and the resolver that goes with them. A monitor reads the record and takes nobody's word for it.

use protocol::agent::FailureKind;
use protocol::monitor::Request;
use protocol::record::{DEFAULT_NETWORK, Endpoint, MAX_NETWORKS, Network, SandboxConfig};

use super::{Error, PREDEFINED, told};
use crate::asked::Asked;
use crate::engine::{Engine, chain};
use crate::error::{Error as EngineError, Subject};
use crate::events::Told;
use crate::options::Place;
use crate::prepare::{self, place};
use crate::{etc, files, id};

impl Engine {
    /// Connects a container, whether it runs or not, to a network.
    pub fn network_connect(
        &self,
        network: &str,
        container: &str,
        asked: &Place,
    ) -> Result<(), EngineError> {
        let known = self.endpoint_network(network)?;
        let endpoint = place::endpoint(known.as_ref(), asked)
            .map_err(|error| Error::Place(Box::new(error)))?;
        let found = self.container(container)?;
        let name = &found.config.name;
        let publish = place::publish_of(&serde_json::from_str(found.config.asked.get())?);
        if !found.config.run.network {
            return Err(Error::Private.into());
        }
        let connect = |all: &mut Vec<Endpoint>| {
            if all.iter().any(|it| it.network == endpoint.network) {
                return Err(Error::Connected {
                    container: name.clone(),
                    network: endpoint.network.clone(),
                });
            }
            if all.len() >= MAX_NETWORKS {
                return Err(Error::TooMany {
                    container: name.clone(),
                });
            }
            let mut endpoint = endpoint.clone();
            // Ports are the container's, whichever networks it is on: the first names them.
            if all.is_empty() {
                endpoint.publish.clone_from(&publish);
            }
            all.push(endpoint);
            Ok(())
        };
        let undo = |all: &mut Vec<Endpoint>| {
            all.retain(|it| it.network != endpoint.network);
            Ok(())
        };
        self.change_networks(&found.config.id, connect, undo)?;
        self.tell_connection(known.as_ref(), &found.config.id, "connect");
        Ok(())
    }

    /// Takes a container, whether it runs or not, off a network.
    pub fn network_disconnect(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), EngineError> {
        let known = match self.endpoint_network(network) {
            // By force, from one that has been removed.
            Err(EngineError::Network(Error::Absent(name))) if force => Err(name),
            other => Ok(other?),
        };
        let name = match &known {
            Ok(Some(known)) => &known.name,
            Ok(None) => DEFAULT_NETWORK,
            Err(name) => name,
        };
        let found = self.container(container)?;
        let id = &found.config.id;
        let removed = std::cell::RefCell::new(None);
        let disconnect = |all: &mut Vec<Endpoint>| {
            let at = all.iter().position(|it| it.network == name);
            let at = at.ok_or_else(|| Error::NotConnected {
                container: id.clone(),
                network: name.to_owned(),
            })?;
            let mut endpoint = all.remove(at);
            // Ports are the container's: they go with the first of those that are left.
            if let Some(first) = all.first_mut() {
                first.publish.append(&mut endpoint.publish.clone());
            } else {
                endpoint.publish.clear();
            }
            *removed.borrow_mut() = Some((at, endpoint));
            Ok(())
        };
        let undo = |all: &mut Vec<Endpoint>| {
            if let Some((at, endpoint)) = removed.take() {
                all.insert(at.min(all.len()), endpoint);
            }
            Ok(())
        };
        self.change_networks(id, disconnect, undo)?;
        self.tell_connection(known.ok().flatten().as_ref(), id, "disconnect");
        Ok(())
    }

    /// The places of a sandbox on networks.
    pub fn endpoints(&self, sandbox: &str) -> Result<Vec<Endpoint>, EngineError> {
        let config = self.sandbox_config(sandbox)?;
        Ok(config.map_or_else(Vec::new, |config| config.networks))
    }

    /// The network's record, if it is one of the user's; the default one has none.
    fn endpoint_network(&self, reference: &str) -> Result<Option<Network>, EngineError> {
        match reference {
            DEFAULT_NETWORK => Ok(None),
            _ if PREDEFINED.contains(&reference) => Err(Error::Private.into()),
            _ => self.network(reference).map(Some),
        }
    }

    /// Changes the networks of a single container's sandbox, at once if it runs; if that fails, it is undone.
    fn change_networks(
        &self,
        id: &str,
        change: impl Fn(&mut Vec<Endpoint>) -> Result<(), Error>,
        undo: impl Fn(&mut Vec<Endpoint>) -> Result<(), Error>,
    ) -> Result<(), EngineError> {
        self.rewrite_networks(id, change)?;
        let request = || Request::Networks {
            container: id.to_owned(),
        };
        // One that has ended meanwhile is on them when it starts again.
        let Err(error) = self.ask(id, request()) else {
            return Ok(());
        };
        let undone = self
            .rewrite_networks(id, undo)
            .and_then(|()| self.ask(id, request()));
        if let Err(error) = undone {
            tracing::warn!(error = %chain(&error), "a container's networks are not what its record says");
        }
        Err(match error {
            EngineError::Failure(failure) if failure.kind == FailureKind::Unsupported => {
                Error::OldMonitor {
                    container: id::short(id).to_owned(),
                }
                .into()
            }
            error => error,
        })
    }

    fn rewrite_networks(
        &self,
        id: &str,
        change: impl Fn(&mut Vec<Endpoint>) -> Result<(), Error>,
    ) -> Result<(), EngineError> {
        let absent = || EngineError::not_found(Subject::Container, id);
        // Under the lock under which a monitor is spawned: one that lives afterwards can be told, and one that does not yet
        // reads what is written here.
        let _making = files::lock_folder(&self.layout().sandbox(id))?;
        let Some(mut sandbox) = self.sandbox_config(id)? else {
            // Only a single container's sandbox has its identifier.
            return Err(match self.exists(id) {
                true => Error::OfPod {
                    container: id::short(id).to_owned(),
                }
                .into(),
                false => absent(),
            });
        };
        let mut networks = std::mem::take(&mut sandbox.networks);
        change(&mut networks)?;
        if sandbox.net.is_none() {
            sandbox.net = prepare::net(&networks, self.installation())?;
        }
        sandbox.set_networks(networks);
        files::write(&self.layout().sandbox_config(id), &sandbox)?;
        self.rewrite_container(id, &sandbox)
    }

    /// Has the container's record say what follows from its networks.
    fn rewrite_container(&self, id: &str, sandbox: &SandboxConfig) -> Result<(), EngineError> {
        let _lock = self.lock_config(id, id)?;
        let mut config = self.config(id, id)?;
        let names = sandbox.networks.iter().map(|it| it.network.clone());
        config.networks = Some(names.collect());
        let asked: Asked = serde_json::from_str(config.asked.get())?;
        // What has been removed has no resolver.
        let known = sandbox.networks.iter();
        let known = known.filter_map(|it| self.find_network(&it.network).transpose());
        let known = known.collect::<Result<Vec<_>, _>>()?;
        let text = super::resolv_conf(&sandbox.networks, &known);
        let resolv_conf = etc::resolv_conf(text.as_deref(), &asked.options.dns);
        config.run.etc.resolv_conf = Some(resolv_conf);
        self.rewrite(&config)
    }

    fn tell_connection(&self, network: Option<&Network>, container: &str, action: &str) {
        let told = match network {
            Some(network) => told(network, action),
            None => Told::new("network", action, DEFAULT_NETWORK)
                .with("name", DEFAULT_NETWORK)
                .with("type", super::DRIVER),
        };
        self.tell(told.with("container", container));
    }
}
