//! Networks.

use engine::networks::{ListedNetwork, NetworkFilters, NewNetwork};
use serde_json::json;

use crate::call::{Answer, Call, empty, json};
use crate::convert::{endpoints, read};
use crate::documents::network::document;
use crate::error::Failure;
use crate::fields::Fields;
use crate::query::{boolean, unknown};

fn filters(call: &Call, prune: bool) -> Result<NetworkFilters, Failure> {
    let mut filters = NetworkFilters::default();
    for (key, value) in call.query.filters()? {
        match (super::label(&key, &value), key.as_str()) {
            (Some((true, label)), _) => filters.labels.push(label),
            (Some((false, label)), _) if prune => filters.without_labels.push(label),
            (None, "until") if prune => {
                filters.until_ns = Some(read(values::moments::moment(&value))?)
            }
            (None, "name") if !prune => filters.names.push(value),
            (None, "id") if !prune => filters.ids.push(value),
            (None, "driver") if !prune => filters.drivers.push(value),
            (None, "dangling") if !prune => filters.dangling = Some(boolean(&key, &value)?),
            (None, "type") if !prune => {
                filters.custom = Some(match value.as_str() {
                    "custom" => true,
                    "builtin" => false,
                    _ => {
                        return Err(Failure::invalid(format!(
                            "invalid filter: 'type'='{value}'"
                        )));
                    }
                });
            }
            // Every network is one of this machine's.
            (None, "scope") if !prune && value == "local" => {}
            (None, "scope") if !prune => filters.names.push("/".into()),
            _ => return Err(unknown(&key)),
        }
    }
    Ok(filters)
}

pub(crate) fn list(call: Call) -> Answer {
    let networks = call.engine.networks(&filters(&call, false)?)?;
    let all: Result<Vec<_>, _> = networks
        .iter()
        .map(|one| document(call.engine, one))
        .collect();
    json(200, &all?)
}

pub(crate) fn inspect(call: Call) -> Answer {
    let network: ListedNetwork = call.engine.any_network(&call.target)?;
    json(200, &document(call.engine, &network)?)
}

pub(crate) fn create(call: Call) -> Answer {
    let mut fields = Fields::parse(&call.body)?;
    let name = fields.text("Name")?.unwrap_or_default();
    let mut new = NewNetwork {
        name,
        driver: fields.text("Driver")?,
        internal: fields.get("Internal")?,
        labels: fields.get("Labels")?,
        options: fields.get("Options")?,
        ..NewNetwork::default()
    };
    // Names of networks are unique here in any case; containers may be attached to every network.
    fields.get::<bool>("CheckDuplicate")?;
    fields.get::<bool>("Attachable")?;
    if fields.text("Scope")?.is_some_and(|scope| scope != "local") {
        return Err(Failure::not_built("a network of a swarm"));
    }
    if fields.take::<bool>("EnableIPv4")? == Some(false) {
        return Err(Failure::not_built("a network without IPv4"));
    }
    let mut ipam = fields.object("IPAM")?;
    if let Some(driver) = ipam.text("Driver")?.filter(|driver| driver != "default") {
        return Err(Failure::new(
            501,
            format!("hull has no IPAM driver {driver}"),
        ));
    }
    let mut ranges = ipam.objects("Config")?;
    if ranges.len() > 1 {
        return Err(Failure::not_built("a network of several ranges"));
    }
    if let Some(mut range) = ranges.pop() {
        new.subnet = read(range.text("Subnet")?.map(|text| text.parse()).transpose())?;
        new.ip_range = read(range.text("IPRange")?.map(|text| text.parse()).transpose())?;
        new.gateway = read(range.text("Gateway")?.map(|text| text.parse()).transpose())?;
        range.end()?;
    }
    ipam.end()?;
    fields.end()?;
    let network = call.engine.network_create(new)?;
    json(201, &json!({"Id": network.id, "Warning": ""}))
}

pub(crate) fn remove(call: Call) -> Answer {
    call.engine.network_remove(&call.target, false)?;
    empty(204)
}

pub(crate) fn connect(call: Call) -> Answer {
    let mut fields = Fields::parse(&call.body)?;
    let container = fields.text("Container")?.unwrap_or_default();
    let place = endpoints::place(fields.object("EndpointConfig")?)?;
    fields.end()?;
    call.engine
        .network_connect(&call.target, &container, &place)?;
    empty(200)
}

pub(crate) fn disconnect(call: Call) -> Answer {
    let mut fields = Fields::parse(&call.body)?;
    let container = fields.text("Container")?.unwrap_or_default();
    let force = fields.get("Force")?;
    fields.end()?;
    call.engine
        .network_disconnect(&call.target, &container, force)?;
    empty(200)
}

pub(crate) fn prune(call: Call) -> Answer {
    let pruned = call.engine.prune_networks(&filters(&call, true)?)?;
    json(200, &json!({"NetworksDeleted": pruned}))
}
