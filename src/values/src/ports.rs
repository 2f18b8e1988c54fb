//! Ports, in all of Docker's forms.
//!
//! ```text
//! [[ADDRESS:][HOST_PORT[-HOST_PORT]]:]PORT[-PORT][/PROTOCOL]        target=PORT[,published=PORT][,protocol=PROTOCOL]
//! ```

use std::net::{IpAddr, Ipv4Addr};

use engine::protocol::record::{Port, Publish, Transport};

/// Why a value is no port.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The container's port is missing.
    #[error("no port specified: {0}<empty>")]
    NoPort(String),
    /// A container's port that is none.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// A host's port that is none.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// An address that is none.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// An IPv6 address.
    #[error(
        "invalid IP address: {0}: hull's networks carry IPv4 alone; name an IPv4 address of the host, or none for all of them"
    )]
    Ipv6(String),
    /// Ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's.
        container: String,
        /// The host's.
        host: String,
    },
    /// Another transport.
    #[error("invalid proto: {0}: hull forwards tcp and udp")]
    Protocol(String),
    /// A part of the long form that is none.
    #[error(
        "invalid publish opts format (should be name=value with the names target, published and protocol, but got '{0}')"
    )]
    Part(String),
    /// A port to be exposed that is none.
    #[error("invalid port format for --expose: {0}")]
    Expose(String),
}

/// What one `-p` asks for: a range has a port each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(pub Vec<Publish>);

/// What one `--expose` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed(pub Vec<Port>);

/// `-p`
pub fn publish(text: &str) -> Result<Ports, Error> {
    if text.contains('=') {
        return publish(&short_form(text)?);
    }
    let (text, transport) = transport(text)?;
    let (address, host, container) = split(text);
    if container.is_empty() {
        return Err(Error::NoPort(text.to_owned()));
    }
    let host_address = host_address(address)?;
    let (first, last) =
        range(container).ok_or_else(|| Error::ContainerPort(container.to_owned()))?;
    let host_range = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| Error::HostPort(host.to_owned()))?),
    };
    let publish = |number: u16, host_ports| Publish {
        port: Port { number, transport },
        host_address,
        host_ports,
    };
    Ok(Ports(match host_range {
        None => (first..=last).map(|number| publish(number, None)).collect(),
        // Any of the host's for the one.
        Some(range) if first == last => vec![publish(first, Some(range))],
        Some((host_first, host_last)) if host_last - host_first == last - first => (first..=last)
            .map(|number| {
                let host = host_first + (number - first);
                publish(number, Some((host, host)))
            })
            .collect(),
        Some(_) => {
            return Err(Error::Ranges {
                container: container.to_owned(),
                host: host.to_owned(),
            });
        }
    }))
}

/// `--expose`
pub fn expose(text: &str) -> Result<Exposed, Error> {
    let (numbers, transport) = transport(text)?;
    let (first, last) = range(numbers).ok_or_else(|| Error::Expose(text.to_owned()))?;
    let port = |number| Port { number, transport };
    Ok(Exposed((first..=last).map(port).collect()))
}

/// A port of a container's, as `hull port` takes it.
pub fn port(text: &str) -> Result<Port, Error> {
    let (number, transport) = transport(text)?;
    match range(number) {
        Some((number, last)) if number == last => Ok(Port { number, transport }),
        _ => Err(Error::ContainerPort(number.to_owned())),
    }
}

/// The long form as a short one.
fn short_form(text: &str) -> Result<String, Error> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            _ => return Err(Error::Part(part.to_owned())),
        }
    }
    let is_plain = |value: &str| !value.contains(['=', ':', '/']);
    match [target, published]
        .into_iter()
        .find(|value| !is_plain(value))
    {
        Some(value) => Err(Error::ContainerPort(value.to_owned())),
        None => Ok(format!("{published}:{target}/{protocol}")),
    }
}

fn transport(text: &str) -> Result<(&str, Transport), Error> {
    let (rest, name) = text.split_once('/').unwrap_or((text, "tcp"));
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok((rest, Transport::Tcp)),
        "udp" => Ok((rest, Transport::Udp)),
        _ => Err(Error::Protocol(name.to_owned())),
    }
}

/// The address, the host's ports and the container's. Colons of an IPv6 address stand in brackets, or before all others.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = text.rsplit_once(':') else {
        return ("", "", text);
    };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

fn host_address(text: &str) -> Result<Option<Ipv4Addr>, Error> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(text).parse() {
        _ if text.is_empty() => Ok(None),
        Ok(IpAddr::V4(address)) if bare.is_none() => {
            Ok((!address.is_unspecified()).then_some(address))
        }
        Ok(IpAddr::V6(_)) => Err(Error::Ipv6(text.to_owned())),
        _ => Err(Error::Address(text.to_owned())),
    }
}

/// One port, or the first and the last; 0 is none.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port != 0)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        let Ports(all) = publish(text).unwrap();
        let texts = all.iter().map(|publish| {
            let address = publish
                .host_address
                .map(|at| format!("{at}:"))
                .unwrap_or_default();
            let host = match publish.host_ports {
                None => "*".to_owned(),
                Some((first, last)) if first == last => first.to_string(),
                Some((first, last)) => format!("{first}-{last}"),
            };
            format!("{address}{host}->{}", publish.port)
        });
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_form_of_dockers_is_read() {
        for (text, meant) in [
            ("80", "*->80/tcp"),
            ("8080:80", "8080->80/tcp"),
            ("53:53/udp", "53->53/udp"),
            ("53:53/UDP", "53->53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:*->80/tcp"),
            ("0.0.0.0:8080:80", "8080->80/tcp"),
            (":80", "*->80/tcp"),
            ("::80", "*->80/tcp"),
            ("80-81", "*->80/tcp *->81/tcp"),
            ("8000-8001:80-81/udp", "8000->80/udp 8001->81/udp"),
            ("8000-9000:80", "8000-9000->80/tcp"),
            (
                "127.0.0.1:8000-8001:80-81",
                "127.0.0.1:8000->80/tcp 127.0.0.1:8001->81/tcp",
            ),
            ("target=80", "*->80/tcp"),
            ("published=8080,target=80,protocol=udp", "8080->80/udp"),
        ] {
            assert_eq!(one(text), meant, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_said() {
        for (text, said) in [
            ("", "no port specified: <empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("x", "invalid containerPort: x"),
            ("0", "invalid containerPort: 0"),
            ("80:70000", "invalid containerPort: 70000"),
            ("+80:80", "invalid hostPort: +80"),
            ("90-80:80", "invalid hostPort: 90-80"),
            ("300.0.0.1:80:80", "invalid IP address: 300.0.0.1"),
            ("host:80:80", "invalid IP address: host"),
            (
                "80-82:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 80-82",
            ),
            (
                "80:80/sctp",
                "invalid proto: sctp: hull forwards tcp and udp",
            ),
            (
                "target=80,mode=host",
                "invalid publish opts format (should be name=value with the names target, published and protocol, but got 'mode=host')",
            ),
            ("target=127.0.0.1:80", "invalid containerPort: 127.0.0.1:80"),
        ] {
            assert_eq!(publish(text).unwrap_err().to_string(), said, "{text}");
        }
        for text in ["[::1]:8080:80", "[::]:80:80", "::1:8080:80"] {
            let said = publish(text).unwrap_err().to_string();
            assert!(said.contains("IPv4 alone"), "{said}");
        }
        assert_eq!(expose("9-8").unwrap_err(), Error::Expose("9-8".into()));
        let Exposed(ports) = expose("80-81/udp").unwrap();
        assert_eq!(ports.len(), 2);
        assert_eq!(port("53/udp").unwrap().to_string(), "53/udp");
        assert_eq!(
            port("80-81").unwrap_err().to_string(),
            "invalid containerPort: 80-81"
        );
    }
}
