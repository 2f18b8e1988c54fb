//! `network`: networks of one's own.

use std::net::Ipv4Addr;

use api::documents::network::document;
use clap::{Args, Subcommand};
use engine::Engine;
use engine::networks::{DRIVER, ListedNetwork, NetworkFilters, NewNetwork};
use engine::options::Place;
use engine::protocol::record::Link;
use engine::protocol::subnet::{self, Subnet};
use values::{self, OrDefault, attachments, environment, moments, names, or_default, value};

use crate::containers::each;
use crate::containers::inspect::print_found;
use crate::out;
use crate::output::{self, Columns, Row};
use crate::prune::agreed;

/// Networks: containers on one reach each other, and nothing else but by published ports
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    Create(CreateArgs),
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    Inspect(InspectArgs),
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    Prune(PruneArgs),
    Connect(ConnectArgs),
    Disconnect(DisconnectArgs),
}

/// Connect a container, which may run, to a network
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hull network connect app web
  hull network connect --alias data --ip 10.5.0.9 app db")]
pub(crate) struct ConnectArgs {
    /// Further name of the container there
    #[arg(long, value_name = "NAME", value_parser = names::alias)]
    alias: Vec<String>,
    /// Its address there
    #[arg(long, value_name = "ADDRESS", value_parser = or_default(names::ipv4))]
    ip: Option<OrDefault<Ipv4Addr>>,
    /// Name for another container there, for this one alone
    #[arg(long, value_name = "NAME[:ALIAS]", value_parser = names::link)]
    link: Vec<Link>,
    /// Of several networks, the one with the highest is the way out
    #[arg(long, value_name = "NUMBER", value_parser = attachments::priority, allow_hyphen_values = true)]
    gw_priority: Option<i32>,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Take a container, which may run, off a network
#[derive(Debug, Args)]
pub(crate) struct DisconnectArgs {
    /// Also off a network that has been removed
    #[arg(short, long)]
    force: bool,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Make a network
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hull network create app
  hull network create --subnet 10.5.0.0/24 --gateway 10.5.0.254 --internal app
  hull run -d --network app --name db postgres")]
pub(crate) struct CreateArgs {
    /// Its driver: bridge is the only one
    #[arg(short, long, value_name = "DRIVER", default_value = DRIVER)]
    driver: String,
    /// Its addresses, as in 10.5.0.0/24; free ones otherwise
    #[arg(long, value_name = "CIDR", value_parser = or_default(network))]
    subnet: Option<OrDefault<Subnet>>,
    /// This host's address on it; the first one otherwise
    #[arg(long, value_name = "ADDRESS", value_parser = or_default(names::ipv4))]
    gateway: Option<OrDefault<Ipv4Addr>>,
    /// The part of the subnet that containers are given addresses of
    #[arg(long, value_name = "CIDR", value_parser = or_default(network))]
    ip_range: Option<OrDefault<Subnet>>,
    /// No way out of it, nor into it by published ports
    #[arg(long)]
    internal: bool,
    /// Set a label
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = environment::label)]
    labels: Vec<(String, String)>,
    /// Set an option of the driver: mtu=BYTES
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = environment::label)]
    options: Vec<(String, String)>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// List networks
#[derive(Debug, Args)]
#[command(
    after_help = "Filters: name=PART, id=BEGINNING, driver=DRIVER, label=KEY[=VALUE], scope=local, type=custom|builtin, dangling=BOOL

Examples:
  hull network ls --filter type=custom -q
  hull network ls --format '{{.Name}}: {{.Driver}}'"
)]
pub(crate) struct LsArgs {
    /// Show those that match, as in type=custom
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut identifiers short
    #[arg(long)]
    no_trunc: bool,
    /// Print identifiers only
    #[arg(short, long)]
    quiet: bool,
}

/// Show everything that is known of networks
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Networks
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Remove networks that no running container is on
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Those that are not there are no failure
    #[arg(short, long)]
    force: bool,
    /// Networks
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Remove the networks that no container uses
#[derive(Debug, Args)]
#[command(after_help = "Filters: label=KEY[=VALUE], label!=KEY[=VALUE], until=MOMENT")]
pub(crate) struct PruneArgs {
    /// Remove only what matches, as in label=tier=test
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

fn network(text: &str) -> Result<Option<Subnet>, subnet::ParseError> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some),
    }
}

/// `hull network`.
pub(crate) fn network_command(command: NetworkCommand) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    match command {
        NetworkCommand::Create(args) => {
            let network = engine.network_create(NewNetwork {
                name: args.name,
                driver: Some(args.driver).filter(|driver| !driver.is_empty()),
                subnet: value(args.subnet),
                gateway: value(args.gateway),
                ip_range: value(args.ip_range),
                internal: args.internal,
                labels: args.labels.into_iter().collect(),
                options: args.options.into_iter().collect(),
            })?;
            out(&format!("{}\n", network.id))?;
            Ok(0)
        }
        NetworkCommand::Ls(args) => ls(&engine, &args),
        NetworkCommand::Inspect(args) => {
            print_found(&args.networks, args.format.as_deref(), |name| {
                document(&engine, &engine.any_network(name)?)
            })
        }
        NetworkCommand::Rm(args) => each(&args.networks, |name| {
            engine.network_remove(name, args.force)
        }),
        NetworkCommand::Prune(args) => prune(&engine, &args),
        NetworkCommand::Connect(args) => {
            let place = Place {
                address: value(args.ip),
                aliases: args.alias,
                links: args.link,
                gw_priority: args.gw_priority.unwrap_or_default(),
                ..Place::default()
            };
            engine.network_connect(&args.network, &args.container, &place)?;
            Ok(0)
        }
        NetworkCommand::Disconnect(args) => {
            engine.network_disconnect(&args.network, &args.container, args.force)?;
            Ok(0)
        }
    }
}

fn ls(engine: &Engine, args: &LsArgs) -> anyhow::Result<u8> {
    let mut filters = NetworkFilters::default();
    for (key, text) in &args.filters {
        let invalid = || anyhow::anyhow!("invalid filter '{key}={text}'");
        match (key.as_str(), text.as_str()) {
            ("name", _) => filters.names.push(text.clone()),
            ("id", _) => filters.ids.push(text.clone()),
            ("driver", _) => filters.drivers.push(text.clone()),
            ("label", _) => filters.labels.push(moments::label(text)),
            ("scope", "local") => {}
            ("type", "custom") => filters.custom = Some(true),
            ("type", "builtin") => filters.custom = Some(false),
            ("dangling", _) => {
                filters.dangling = Some(values::boolean(text).map_err(|_| invalid())?);
            }
            _ => return Err(invalid()),
        }
    }
    let listed = engine.networks(&filters)?;
    let rows: Vec<Row> = listed.iter().map(|one| row(one, args.no_trunc)).collect();
    out(&output::listing(
        COLUMNS,
        args.format.as_deref(),
        args.quiet,
        &rows,
    )?)?;
    Ok(0)
}

fn row(one: &ListedNetwork, whole: bool) -> Row {
    let id = match whole {
        true => one.id.clone(),
        false => output::short_id(&one.id),
    };
    let is_internal = one.network.as_ref().is_some_and(|network| network.internal);
    let created_ns = one.network.as_ref().map_or(0, |network| network.created_ns);
    Row::new([
        ("ID", id),
        ("Name", one.name.clone()),
        ("Driver", one.driver.to_owned()),
        ("Scope", "local".to_owned()),
        ("IPv4", (one.driver == DRIVER).to_string()),
        ("IPv6", "false".to_owned()),
        ("Internal", is_internal.to_string()),
        ("CreatedAt", output::moment(created_ns)),
    ])
    .labelled(&one.labels())
}

fn prune(engine: &Engine, args: &PruneArgs) -> anyhow::Result<u8> {
    let mut filters = NetworkFilters::default();
    for (key, text) in &args.filters {
        match key.as_str() {
            "label" => filters.labels.push(moments::label(text)),
            "label!" => filters.without_labels.push(moments::label(text)),
            "until" => filters.until_ns = Some(moments::moment(text)?),
            other => anyhow::bail!("invalid filter '{other}'"),
        }
    }
    let warning = "This will remove all custom networks not used by at least one container.";
    if !args.force && !agreed(warning)? {
        return Ok(0);
    }
    let pruned = engine.prune_networks(&filters)?;
    if !pruned.is_empty() {
        out(&format!("Deleted Networks:\n{}\n\n", pruned.join("\n")))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn engine() -> (tempfile::TempDir, Engine) {
        let root = tempfile::tempdir().unwrap();
        let installation = engine::install::Installation::at(root.path());
        let engine = Engine::open(root.path(), installation);
        (root, engine)
    }

    #[test]
    fn the_table_and_the_document_are_dockers() {
        let (_root, engine) = engine();
        let made = engine
            .network_create(NewNetwork {
                name: "app".into(),
                subnet: Some("10.245.0.0/24".parse().unwrap()),
                labels: [("a".into(), "b".into())].into(),
                ..NewNetwork::default()
            })
            .unwrap();
        let listed = engine.networks(&NetworkFilters::default()).unwrap();
        let rows: Vec<Row> = listed.iter().map(|one| row(one, false)).collect();
        let table = output::listing(COLUMNS, None, false, &rows).unwrap();
        let mut lines = table.lines();
        assert_eq!(
            lines.next(),
            Some("NETWORK ID     NAME      DRIVER    SCOPE")
        );
        let expected = format!("{}   app       bridge    local", &made.id[..12]);
        assert_eq!(lines.next(), Some(&*expected));
        assert!(
            lines
                .next()
                .unwrap()
                .ends_with("   bridge    bridge    local")
        );
        assert!(
            lines
                .next()
                .unwrap()
                .ends_with("   none      null      local")
        );
        let format = Some("{{.Name}} {{.Label \"a\"}} {{.Internal}} {{.IPv4}}");
        let text = output::listing(COLUMNS, format, false, &rows[..1]).unwrap();
        assert_eq!(text, "app b false true\n");
        let document = document(&engine, &listed[0]).unwrap();
        assert_eq!(document["IPAM"]["Config"][0]["Subnet"], "10.245.0.0/24");
        assert_eq!(document["IPAM"]["Config"][0]["Gateway"], "10.245.0.1");
        assert_eq!(
            (&document["Id"], &document["Containers"]),
            (&json!(made.id), &json!({}))
        );
    }
}
