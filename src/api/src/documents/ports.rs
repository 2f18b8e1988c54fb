//! Ports in documents.

use std::collections::BTreeMap;

use engine::protocol::record::{Port, Publish, Published};
use serde_json::{Map, Value, json};

/// `HostConfig.PortBindings`: what was asked for.
pub fn bindings<'a>(publish: impl IntoIterator<Item = &'a Publish>) -> Value {
    let mut all: BTreeMap<Port, Vec<Value>> = BTreeMap::new();
    for one in publish {
        let address = one.host_address.map(|address| address.to_string());
        let port = match one.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let binding = json!({"HostIp": address.unwrap_or_default(), "HostPort": port});
        all.entry(one.port).or_default().push(binding);
    }
    let all = all.into_iter();
    Value::Object(
        all.map(|(port, to)| (port.to_string(), json!(to)))
            .collect(),
    )
}

/// `NetworkSettings.Ports` of a container that runs: what is true, and `null` for what is exposed alone.
pub fn settings(exposed: &[String], published: &[Published]) -> Value {
    let mut all: Map<String, Value> = exposed
        .iter()
        .map(|port| (port.clone(), Value::Null))
        .collect();
    for one in published {
        let entry = all.entry(one.port.to_string()).or_insert(Value::Null);
        let binding = json!({
            "HostIp": one.host_address.to_string(),
            "HostPort": one.host_port.to_string(),
        });
        match entry {
            Value::Array(bindings) => bindings.push(binding),
            _ => *entry = json!([binding]),
        }
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use engine::protocol::record::Transport;

    use super::*;

    fn published(number: u16, transport: Transport, host_port: u16) -> Published {
        Published {
            port: Port { number, transport },
            host_address: Ipv4Addr::UNSPECIFIED,
            host_port,
        }
    }

    #[test]
    fn documents_have_what_was_asked_and_what_is_true() {
        let port = Port {
            number: 80,
            transport: Transport::Tcp,
        };
        let publish = |host_address, host_ports| Publish {
            port,
            host_address,
            host_ports,
        };
        let asked = [
            publish(None, None),
            publish(Some(Ipv4Addr::LOCALHOST), Some((8080, 8080))),
            publish(None, Some((8000, 8010))),
        ];
        assert_eq!(
            bindings(&asked).to_string(),
            r#"{"80/tcp":[{"HostIp":"","HostPort":""},{"HostIp":"127.0.0.1","HostPort":"8080"},{"HostIp":"","HostPort":"8000-8010"}]}"#
        );
        let exposed = ["80/tcp", "443/tcp"].map(str::to_owned);
        let both = [
            published(80, Transport::Tcp, 8080),
            published(80, Transport::Tcp, 8081),
        ];
        let document = settings(&exposed, &both);
        assert_eq!(document["443/tcp"], Value::Null);
        assert_eq!(document["80/tcp"][1]["HostPort"], "8081");
        assert_eq!(document["80/tcp"][0]["HostIp"], "0.0.0.0");
    }
}
