//! The files that every container gets in /etc, and the names in them.

use std::fmt::Write;
use std::net::IpAddr;

use protocol::agent::EtcFiles;

use crate::options::{Dns, HostAddress, Options};

/// The longest host name (HOST_NAME_MAX of Linux is 64; 63 is the longest label of a name in the DNS, RFC 1035, 2.3.4).
const MAX_HOSTNAME_LEN: usize = 63;
/// The longest NIS domain name (__NEW_UTS_LEN of Linux).
const MAX_DOMAINNAME_LEN: usize = 64;

/// Docker's, for a container without an address.
const HOSTS: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// Why a container cannot have these names.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A host name that is none.
    #[error(
        "{0:?} is not a host name: at most {MAX_HOSTNAME_LEN} letters, digits, dots, hyphens and underscores, \
         and no dot or hyphen at its beginning"
    )]
    Hostname(String),
    /// A domain name that is none.
    #[error(
        "{0:?} is not a domain name: at most {MAX_DOMAINNAME_LEN} letters, digits, dots, hyphens and underscores, \
         and no dot or hyphen at its beginning"
    )]
    Domainname(String),
    /// The host cannot be reached.
    #[error(
        "--add-host {0}:host-gateway needs a network through which the container reaches the host; add --network bridge, as root"
    )]
    NoGateway(String),
}

/// A container's own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// As the kernel has it.
    pub hostname: String,
    /// What the container's address is called in /etc/hosts: the qualified name, the first label, and the host name itself
    /// where it is neither.
    pub own: Vec<String>,
}

impl Names {
    /// The names that the options ask for; without a host name it is `default`.
    pub fn of(options: &Options, default: &str) -> Result<Names, Error> {
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let hostname = given(&options.hostname).unwrap_or_else(|| default.to_owned());
        if !is_hostname(&hostname) {
            return Err(Error::Hostname(hostname));
        }
        let mut own = Vec::new();
        match given(&options.domainname) {
            None => own.push(hostname.clone()),
            Some(domain) if !is_name(&domain, MAX_DOMAINNAME_LEN) => {
                return Err(Error::Domainname(domain));
            }
            Some(domain) => own.push(format!("{hostname}.{domain}")),
        }
        let label = hostname.split('.').next().unwrap_or(&hostname).to_owned();
        for name in [label, hostname.clone()] {
            if !own.contains(&name) {
                own.push(name);
            }
        }
        Ok(Names { hostname, own })
    }
}

/// The files for a container of these names. `resolv_conf` is what its network has in the file of that name, if it has a
/// network. /etc/hosts lacks what depends on the container's address.
pub fn files(
    options: &Options,
    names: &Names,
    resolv_conf: Option<&str>,
) -> Result<EtcFiles, Error> {
    let mut hosts = HOSTS.to_owned();
    for host in &options.extra_hosts {
        match host.address {
            HostAddress::Ip(address) => line(&mut hosts, address, &host.name),
            HostAddress::Gateway if resolv_conf.is_some() => {}
            HostAddress::Gateway => return Err(Error::NoGateway(host.name.clone())),
        }
    }
    Ok(EtcFiles {
        hosts: Some(hosts),
        hostname: Some(format!("{}\n", names.hostname)),
        resolv_conf: Some(self::resolv_conf(resolv_conf, &options.dns)),
    })
}

/// /etc/resolv.conf, from what a container's networks have in it, if it has any.
pub fn resolv_conf(text: Option<&str>, dns: &Dns) -> String {
    with_options(text.unwrap_or_default(), dns)
}

fn line(hosts: &mut String, address: IpAddr, name: &str) {
    writeln!(hosts, "{address}\t{name}").expect("a String takes what is written");
}

/// resolv.conf(5) with the user's resolvers, domains and options in the place of those that it has.
fn with_options(text: &str, dns: &Dns) -> String {
    let replaced = |keyword: &str| match keyword {
        "nameserver" => !dns.servers.is_empty(),
        "search" | "domain" => !dns.search.is_empty(),
        "options" => !dns.options.is_empty(),
        _ => false,
    };
    let mut new = String::new();
    for line in text.lines() {
        if !replaced(line.split_whitespace().next().unwrap_or_default()) {
            new.push_str(line);
            new.push('\n');
        }
    }
    let mut add = |keyword: &str, words: &[String]| {
        if !words.is_empty() {
            writeln!(new, "{keyword} {}", words.join(" ")).expect("a String takes what is written");
        }
    };
    for server in &dns.servers {
        add("nameserver", &[server.to_string()]);
    }
    let domains: Vec<String> = dns
        .search
        .iter()
        .filter(|name| *name != ".")
        .cloned()
        .collect();
    add("search", &domains);
    add("options", &dns.options);
    new
}

fn is_hostname(name: &str) -> bool {
    is_name(name, MAX_HOSTNAME_LEN)
}

/// Underscores are not of the DNS, but Docker takes them, and they harm nothing in /etc/hosts.
fn is_name(name: &str, max_len: usize) -> bool {
    (1..=max_len).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !name.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ExtraHost;

    fn own(hostname: &str, domainname: &str) -> Vec<String> {
        let options = Options {
            hostname: Some(hostname.into()),
            domainname: Some(domainname.into()),
            ..Options::default()
        };
        Names::of(&options, "0123456789ab").unwrap().own
    }

    #[test]
    fn host_names_are_checked() {
        assert!(is_hostname("web-1.example"));
        assert!(is_hostname("web_1"));
        for bad in ["", "-a", "a b", "a/b", "a\nb", &"x".repeat(64)] {
            assert!(!is_hostname(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_qualified_name_resolves_by_its_first_label_too() {
        assert_eq!(own("foo", ""), ["foo"]);
        assert_eq!(own("foo.bar.example", ""), ["foo.bar.example", "foo"]);
        assert_eq!(own("foo", "bar.example"), ["foo.bar.example", "foo"]);
        assert_eq!(
            own("foo.bar", "example"),
            ["foo.bar.example", "foo", "foo.bar"]
        );
        // An empty name is Docker's default.
        assert_eq!(own("", ""), ["0123456789ab"]);
    }

    #[test]
    fn hosts_of_the_user_s_come_after_loopback() {
        let host = |name: &str, address| ExtraHost {
            name: name.into(),
            address,
        };
        let options = Options {
            extra_hosts: vec![
                host("db", HostAddress::Ip("10.0.0.5".parse().unwrap())),
                host("v6", HostAddress::Ip("2001:db8::1".parse().unwrap())),
            ],
            ..Options::default()
        };
        let names = Names::of(&options, "abc").unwrap();
        let files_of = |options: &Options| files(options, &names, None);
        assert_eq!(
            files_of(&options).unwrap().hosts.unwrap(),
            format!("{HOSTS}10.0.0.5\tdb\n2001:db8::1\tv6\n")
        );
        let options = Options {
            extra_hosts: vec![host("me", HostAddress::Gateway)],
            ..Options::default()
        };
        assert_eq!(files_of(&options), Err(Error::NoGateway("me".into())));
    }

    #[test]
    fn what_the_user_names_replaces_the_host_s_resolver() {
        let text = "# mine\nnameserver 10.0.0.1\nsearch lan\noptions ndots:1\n";
        let dns = |servers: &[&str], search: &[&str], options: &[&str]| Dns {
            servers: servers.iter().map(|s| s.parse().unwrap()).collect(),
            search: search.iter().map(|s| (*s).to_owned()).collect(),
            options: options.iter().map(|s| (*s).to_owned()).collect(),
        };
        assert_eq!(with_options(text, &dns(&[], &[], &[])), text);
        assert_eq!(
            with_options(
                text,
                &dns(&["1.1.1.1", "::1"], &["a", "b"], &["ndots:2", "rotate"])
            ),
            "# mine\nnameserver 1.1.1.1\nnameserver ::1\nsearch a b\noptions ndots:2 rotate\n"
        );
        assert_eq!(
            with_options(text, &dns(&[], &["."], &[])),
            "# mine\nnameserver 10.0.0.1\noptions ndots:1\n"
        );
        assert_eq!(
            with_options("", &dns(&["1.1.1.1"], &[], &[])),
            "nameserver 1.1.1.1\n"
        );
    }
}
