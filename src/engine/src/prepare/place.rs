//! Where a sandbox is on which network, and which of its ports are published.

use image::Image;
use protocol::record::{self, DEFAULT_NETWORK, Endpoint, MAX_NETWORKS, Port, Publish, Transport};

use super::Error;
use crate::asked::Asked;
use crate::options::{Further, Network, Options, Place};

/// The sandbox's places on its networks, in the order in which they were named. `networks` are the records of the user's.
pub(super) fn endpoints(
    choice: Option<&Network>,
    place: &Place,
    further: &[Further],
    networks: &[record::Network],
) -> Result<Vec<Endpoint>, Error> {
    let choice = choice.unwrap_or(&Network::Bridge);
    if !further.is_empty() && !matches!(choice, Network::Named(_)) {
        return Err(Error::MixedNetworks);
    }
    if *choice == Network::None {
        let of_networks = [
            (!place.publish.is_empty(), "--publish"),
            (place.address.is_some(), "--ip"),
            (place.mac.is_some(), "--mac-address"),
            (!place.aliases.is_empty(), "--network-alias"),
            (!place.links.is_empty(), "--link"),
        ];
        return match of_networks.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(Error::NeedsNetwork(option)),
            None => Ok(Vec::new()),
        };
    }
    let first = match choice {
        Network::Named(name) => Some(name),
        _ => None,
    };
    let mut endpoints = Vec::new();
    let named = further.iter().map(|it| (Some(&it.network), &it.place));
    for (name, place) in std::iter::once((first, place)).chain(named) {
        let network = match name {
            None => None,
            Some(name) => Some(find(networks, name).ok_or_else(|| Error::NoNetwork(name.clone()))?),
        };
        let endpoint = endpoint(network, place)?;
        if endpoints
            .iter()
            .any(|it: &Endpoint| it.network == endpoint.network)
        {
            return Err(Error::NetworkTwice(endpoint.network));
        }
        endpoints.push(endpoint);
    }
    if endpoints.len() > MAX_NETWORKS {
        return Err(Error::TooManyNetworks(endpoints.len()));
    }
    let is_way_in = |it: &Endpoint| !find(networks, &it.network).is_some_and(|it| it.internal);
    if !place.publish.is_empty() && !endpoints.iter().any(is_way_in) {
        return Err(Error::PublishOnInternal(endpoints.remove(0).network));
    }
    Ok(endpoints)
}

/// The record of the network of this name, identifier or beginning of one.
fn find<'a>(networks: &'a [record::Network], name: &str) -> Option<&'a record::Network> {
    let by_name = networks.iter().find(|network| network.name == name);
    by_name.or_else(|| networks.iter().find(|it| it.id.starts_with(name)))
}

/// A place on one of the user's networks, or on the default one.
pub(crate) fn endpoint(
    network: Option<&record::Network>,
    place: &Place,
) -> Result<Endpoint, Error> {
    match network {
        None => on_default(place),
        Some(network) => on_named(network, place),
    }
}

fn on_default(place: &Place) -> Result<Endpoint, Error> {
    if place.address.is_some() {
        return Err(Error::AddressOnDefault);
    }
    if !place.aliases.is_empty() {
        return Err(Error::AliasOnDefault);
    }
    if !place.links.is_empty() {
        return Err(Error::LinkOnDefault);
    }
    Ok(of(DEFAULT_NETWORK, place))
}

fn on_named(network: &record::Network, place: &Place) -> Result<Endpoint, Error> {
    if let Some(address) = place.address.filter(|at| !network.subnet.contains(*at)) {
        return Err(Error::AddressOutside {
            address,
            network: network.name.clone(),
            subnet: network.subnet,
        });
    }
    Ok(of(&network.name, place))
}

fn of(network: &str, place: &Place) -> Endpoint {
    Endpoint {
        network: network.to_owned(),
        address: place.address,
        mac: place.mac,
        aliases: place.aliases.clone(),
        publish: place.publish.clone(),
        gw_priority: place.gw_priority,
        links: place.links.clone(),
    }
}

/// The ports to publish: those that were named and, where all are to be, those that are exposed and were not.
pub(super) fn published(options: &Options, image: &Image) -> Result<Vec<Publish>, Error> {
    let mut publish = options.place.publish.clone();
    if !options.publish_all {
        return Ok(publish);
    }
    let config = image.config.config().as_ref();
    let of_image = config.and_then(|config| config.exposed_ports().as_ref());
    let mut exposed = options.exposed.clone();
    for text in of_image.into_iter().flatten() {
        let ports = exposed_ports(text).ok_or_else(|| Error::ExposedPort(text.clone()))?;
        exposed.extend(ports);
    }
    exposed.sort();
    exposed.dedup();
    for port in exposed {
        if !publish.iter().any(|known| known.port == port) {
            publish.push(Publish {
                port,
                host_address: None,
                host_ports: None,
            });
        }
    }
    Ok(publish)
}

/// The same of a container that was made before.
pub(crate) fn publish_of(asked: &Asked) -> Vec<Publish> {
    let mut publish = asked.options.place.publish.clone();
    let exposed = asked
        .exposed_ports
        .iter()
        .filter(|_| asked.options.publish_all);
    for port in exposed.filter_map(|text| exposed_ports(text)).flatten() {
        if !publish.iter().any(|known| known.port == port) {
            publish.push(Publish {
                port,
                host_address: None,
                host_ports: None,
            });
        }
    }
    publish
}

/// `80`, `80/udp`, `8000-8010/tcp`
fn exposed_ports(text: &str) -> Option<impl Iterator<Item = Port> + use<>> {
    let (numbers, transport) = text.split_once('/').unwrap_or((text, "tcp"));
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return None,
    };
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    let port = move |number| Port { number, transport };
    (first != 0 && first <= last).then(|| (first..=last).map(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_are_single_ones_and_ranges() {
        let all = |text| {
            exposed_ports(text).map(|ports| ports.map(|port| port.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(all("80").unwrap(), ["80/tcp"]);
        assert_eq!(all("53/udp").unwrap(), ["53/udp"]);
        assert_eq!(
            all("8000-8002/tcp").unwrap(),
            ["8000/tcp", "8001/tcp", "8002/tcp"]
        );
        for text in ["", "0", "2-1", "80/sctp", "70000", "x"] {
            assert_eq!(all(text), None, "{text}");
        }
    }
}
