//! The container's place on its network.

use std::net::Ipv4Addr;

use clap::Args;
use engine::options::{Options, Place};

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
        }
    }
}

/// What a container has beyond that.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Publish every exposed port at a free port of this host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port, or a range: for -P and to be shown
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = ports::expose)]
    expose: Vec<Exposed>,
}

impl NetworkArgs {
    pub(super) fn set(self, options: &mut Options) {
        options.place = self.place.place();
        options.publish_all = self.publish_all;
        options.exposed = self
            .expose
            .into_iter()
            .flat_map(|Exposed(all)| all)
            .collect();
    }
}
