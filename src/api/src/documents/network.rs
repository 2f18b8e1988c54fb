//! A network's document, in the shape of Docker's API.

use engine::networks::{DRIVER, ListedNetwork};
use engine::{Engine, time};
use serde_json::{Map, Value, json};

/// What is known of a network, and the containers that run on it.
pub fn document(engine: &Engine, one: &ListedNetwork) -> Result<Value, engine::Error> {
    let network = one.network.as_ref();
    let range = network.map(|network| {
        let mut range = json!({
            "Subnet": network.subnet.to_string(),
            "Gateway": network.gateway.to_string(),
        });
        if let Some(part) = network.ip_range {
            range["IPRange"] = json!(part.to_string());
        }
        range
    });
    let mut members = Map::new();
    for member in engine.network_members(&one.name)? {
        let interface = &member.interface;
        let document = json!({
            "Name": member.name,
            "EndpointID": "",
            "MacAddress": interface.mac.map(|byte| format!("{byte:02x}")).join(":"),
            "IPv4Address": format!("{}/{}", interface.address, interface.prefix_len),
            "IPv6Address": "",
        });
        members.insert(member.id, document);
    }
    Ok(json!({
        "Name": one.name,
        "Id": one.id,
        "Created": time::format(network.map_or(0, |network| network.created_ns)),
        "Scope": "local",
        "Driver": one.driver,
        "EnableIPv4": one.driver == DRIVER,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": range.into_iter().collect::<Vec<_>>()},
        "Internal": network.is_some_and(|network| network.internal),
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": members,
        "Options": network.map(|network| &network.options).cloned().unwrap_or_default(),
        "Labels": one.labels(),
    }))
}
