//! Where a sandbox is on which network, and which of its ports are published.

use image::Image;
use protocol::record::{self, DEFAULT_NETWORK, Endpoint, Port, Publish, Transport};

use super::Error;
use crate::options::{Network, Options, Place};

/// The sandbox's place on its network, `None` if it has none. `network` is the record of one of the user's.
pub(super) fn endpoint(
    choice: Option<&Network>,
    network: Option<&record::Network>,
    place: &Place,
) -> Result<Option<Endpoint>, Error> {
    match choice.unwrap_or(&Network::Bridge) {
        Network::None => {
            let of_networks = [
                (!place.publish.is_empty(), "--publish"),
                (place.address.is_some(), "--ip"),
                (place.mac.is_some(), "--mac-address"),
                (!place.aliases.is_empty(), "--network-alias"),
            ];
            match of_networks.into_iter().find(|(given, _)| *given) {
                Some((_, option)) => Err(Error::NeedsNetwork(option)),
                None => Ok(None),
            }
        }
        Network::Bridge => on_default(place).map(Some),
        Network::Named(name) => match network {
            Some(network) => on_named(network, place).map(Some),
            None => Err(Error::NoNetwork(name.clone())),
        },
    }
}

fn on_default(place: &Place) -> Result<Endpoint, Error> {
    if place.address.is_some() {
        return Err(Error::AddressOnDefault);
    }
    if !place.aliases.is_empty() {
        return Err(Error::AliasOnDefault);
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
    if network.internal && !place.publish.is_empty() {
        return Err(Error::PublishOnInternal(network.name.clone()));
    }
    Ok(of(&network.name, place))
}

fn of(network: &str, place: &Place) -> Endpoint {
    Endpoint {
        address: place.address,
        mac: place.mac,
        aliases: place.aliases.clone(),
        publish: place.publish.clone(),
        ..Endpoint::on(network)
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
