//! Ports as Docker shows them: in `ps`, in `port` and in documents.

use clap::Args;
use engine::protocol::record::{Port, Published};
use engine::{Container, Engine};

use crate::{out, say};
use values::ports;

/// Show a container's published ports
#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    /// The container
    container: String,
    /// The container's port
    #[arg(value_name = "PORT[/PROTOCOL]", value_parser = ports::port)]
    port: Option<Port>,
}

/// `hull port`.
pub(crate) fn port(args: PortArgs) -> anyhow::Result<u8> {
    let Container { state, .. } = Engine::find()?.container(&args.container)?;
    // Of a container that does not run, nothing leads to it.
    let published = match state.status.is_alive() {
        true => state.ports,
        false => Vec::new(),
    };
    let at = |one: &Published| format!("{}:{}", one.host_address, one.host_port);
    let Some(wanted) = args.port else {
        let lines = published
            .iter()
            .map(|one| format!("{} -> {}\n", one.port, at(one)));
        out(&lines.collect::<String>())?;
        return Ok(0);
    };
    let lines = published.iter().filter(|one| one.port == wanted);
    let lines: String = lines.map(|one| at(one) + "\n").collect();
    if lines.is_empty() {
        say(&format!(
            "Error: No public port '{wanted}' published for {}",
            args.container
        ));
        return Ok(1);
    }
    out(&lines)?;
    Ok(0)
}

/// Docker's PORTS column: groups of neighbouring ports that have the same number on both sides, or are exposed alone, and
/// then all others.
pub(crate) fn column(exposed: &[String], published: &[Published]) -> String {
    let is_published = |port: &Port| published.iter().any(|one| one.port == *port);
    let exposed = exposed.iter().filter_map(|text| ports::port(text).ok());
    let exposed = exposed.filter(|port| !is_published(port));
    let mut rows: Vec<(Port, Option<&Published>)> = exposed.map(|port| (port, None)).collect();
    rows.extend(published.iter().map(|one| (one.port, Some(one))));
    rows.sort_by_key(|(port, to)| (port.number, *to, port.transport));

    let (mut done, mut open, mut others) = (Vec::new(), Vec::<Group>::new(), Vec::new());
    for (port, to) in rows {
        let number = port.number;
        if let Some(one) = to.filter(|one| one.host_port != number) {
            others.push(format!("{}:{}->{port}", one.host_address, one.host_port));
            continue;
        }
        let key = (
            to.map(|one| one.host_address.to_string()),
            port.transport.name(),
        );
        match open.iter_mut().find(|group| group.key == key) {
            Some(group) if group.last.checked_add(1) == Some(number) => group.last = number,
            Some(group) => {
                done.push(group.text());
                (group.first, group.last) = (number, number);
            }
            None => open.push(Group {
                key,
                first: number,
                last: number,
            }),
        }
    }
    done.extend(open.iter().map(Group::text));
    done.extend(others);
    done.join(", ")
}

/// Neighbouring ports.
struct Group {
    /// The host's address, if they are published, and what carries them.
    key: (Option<String>, &'static str),
    first: u16,
    last: u16,
}

impl Group {
    fn text(&self) -> String {
        let numbers = match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        };
        match &self.key {
            (None, transport) => format!("{numbers}/{transport}"),
            (Some(address), transport) => format!("{address}:{numbers}->{numbers}/{transport}"),
        }
    }
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
    fn the_column_is_dockers() {
        use Transport::{Tcp, Udp};
        assert_eq!(column(&[], &[]), "");
        let exposed = ["80/tcp", "443/tcp", "81/tcp", "53/udp"].map(str::to_owned);
        assert_eq!(column(&exposed, &[]), "80-81/tcp, 53/udp, 443/tcp");
        let one = [published(80, Tcp, 8080)];
        assert_eq!(column(&["80/tcp".into()], &one), "0.0.0.0:8080->80/tcp");
        let several = [
            published(7000, Tcp, 7000),
            published(7001, Tcp, 7001),
            published(7001, Udp, 7001),
            published(53, Udp, 5353),
        ];
        assert_eq!(
            column(&["9/tcp".into()], &several),
            "9/tcp, 0.0.0.0:7000-7001->7000-7001/tcp, 0.0.0.0:7001->7001/udp, 0.0.0.0:5353->53/udp"
        );
    }
}
