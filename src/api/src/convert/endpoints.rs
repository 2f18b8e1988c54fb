//! Places on networks: those that a container is created with, and one that it is connected to.

use engine::options::{Further, Network, Options, Place};

use super::read;
use crate::error::Failure;
use crate::fields::Fields;

/// `NetworkingConfig`. The container's first network is the one that `NetworkMode` names, or the first of these.
pub(super) fn endpoints(mut fields: Fields, options: &mut Options) -> Result<(), Failure> {
    let all = fields.object("EndpointsConfig")?.rest();
    fields.end()?;
    for (name, endpoint) in all {
        let network = read(values::machine::network(&name))?;
        let place = place(endpoint)?;
        let is_first = network.is_none() || options.network.is_none() || network == options.network;
        match network {
            network if is_first => {
                options.network = options.network.take().or(network);
                options.place.address = place.address.or(options.place.address);
                options.place.mac = place.mac.or(options.place.mac);
                options.place.gw_priority = place.gw_priority;
                options.place.aliases.extend(place.aliases);
                options.place.links.extend(place.links);
            }
            Some(Network::Named(network)) => {
                options.further_networks.push(Further { network, place });
            }
            _ => {
                return Err(Failure::invalid(
                    "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
                ));
            }
        }
    }
    // The default network has no names; compose gives some all the same.
    if matches!(
        options.network,
        None | Some(Network::Bridge | Network::None)
    ) {
        options.place.aliases.clear();
    }
    Ok(())
}

/// `EndpointConfig`.
pub(crate) fn place(mut endpoint: Fields) -> Result<Place, Failure> {
    let mut place = Place::default();
    let mut addresses = endpoint.object("IPAMConfig")?;
    if let Some(address) = addresses.text("IPv4Address")? {
        place.address = read(values::names::ipv4(&address))?;
    }
    addresses.end()?;
    for alias in endpoint.get::<Vec<String>>("Aliases")? {
        place.aliases.push(read(values::names::alias(&alias))?);
    }
    for link in endpoint.get::<Vec<String>>("Links")? {
        place.links.push(read(values::names::link(&link))?);
    }
    if let Some(mac) = endpoint.text("MacAddress")? {
        place.mac = read(values::names::mac(&mac))?;
    }
    place.gw_priority = endpoint.get("GwPriority")?;
    // What inspect shows of an endpoint, and clients send back.
    for known in ["NetworkID", "EndpointID", "Gateway", "IPAddress"] {
        endpoint.text(known)?;
    }
    endpoint.get::<u8>("IPPrefixLen")?;
    endpoint.get::<Vec<String>>("DNSNames")?;
    endpoint.end()?;
    Ok(place)
}
