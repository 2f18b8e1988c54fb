//! The container's place on its network.

use std::net::Ipv4Addr;

use clap::Args;
use engine::options::{Further, Network, Options, Place};
use engine::protocol::record::Link;

use values::attachments::{self, Attachment};
use values::ports::{self, Exposed, Ports};
use values::{OrDefault, or_default};
use values::{names, value};

/// Ports, addresses and names on the network: of a container, and of a pod.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlaceArgs {
    /// Publish a port: [[ADDRESS:]HOST_PORT:]PORT[/udp], or ranges of ports
    #[arg(short, long, value_name = "PORTS", value_parser = ports::publish)]
    publish: Vec<Ports>,
    /// Address on a network of one's own
    #[arg(long, value_name = "ADDRESS", value_parser = or_default(names::ipv4))]
    ip: Option<OrDefault<Ipv4Addr>>,
    /// Ethernet address
    #[arg(long, value_name = "ADDRESS", value_parser = or_default(names::mac))]
    mac_address: Option<OrDefault<[u8; 6]>>,
    /// Further name on a network of one's own
    #[arg(long, alias = "net-alias", value_name = "NAME", value_parser = names::alias)]
    network_alias: Vec<String>,
}

impl PlaceArgs {
    pub(crate) fn place(self) -> Place {
        Place {
            publish: self
                .publish
                .into_iter()
                .flat_map(|Ports(all)| all)
                .collect(),
            address: value(self.ip),
            mac: value(self.mac_address),
            aliases: self.network_alias,
            ..Place::default()
        }
    }
}

/// What a container has beyond that.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Network: none, bridge, or one of one's own, also with what is asked for there: name=NETWORK,alias=NAME,ip=ADDRESS,
    /// mac-address=ADDRESS,gw-priority=NUMBER; of one's own several [default: bridge]
    #[arg(long, alias = "net", value_name = "NETWORK", value_parser = attachments::attachment)]
    network: Vec<Attachment>,
    /// Name for another container on the first network: NAME[:ALIAS]
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = names::link)]
    link: Vec<Link>,
    /// Publish every exposed port at a free port of this host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port, or a range: for -P and to be shown
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = ports::expose)]
    expose: Vec<Exposed>,
}

impl NetworkArgs {
    pub(super) fn set(self, options: &mut Options) -> anyhow::Result<()> {
        let mut networks = self.network.into_iter();
        let own = self.place.place();
        options.place = own.clone();
        options.place.links = self.link;
        if let Some(Attachment { network, place }) = networks.next() {
            options.network = network;
            let both = [
                (
                    !own.aliases.is_empty() && !place.aliases.is_empty(),
                    "alias",
                ),
                (
                    own.address.is_some() && place.address.is_some(),
                    "IPv4 address",
                ),
                (own.mac.is_some() && place.mac.is_some(), "mac address"),
            ];
            if let Some((_, what)) = both.into_iter().find(|(given, _)| *given) {
                anyhow::bail!(
                    "conflicting options: cannot specify both a container-wide and a per-network {what}"
                );
            }
            options.place.aliases.extend(place.aliases);
            options.place.address = own.address.or(place.address);
            options.place.mac = own.mac.or(place.mac);
            options.place.gw_priority = place.gw_priority;
        }
        for Attachment { network, place } in networks {
            let Some(Network::Named(network)) = network else {
                anyhow::bail!(
                    "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                );
            };
            options.further_networks.push(Further { network, place });
        }
        options.publish_all = self.publish_all;
        options.exposed = self
            .expose
            .into_iter()
            .flat_map(|Exposed(all)| all)
            .collect();
        Ok(())
    }
}
