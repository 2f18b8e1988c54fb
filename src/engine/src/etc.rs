//! The files that every container gets in /etc.

use protocol::agent::EtcFiles;

/// Docker's, for a container without an address; the monitor adds the address when there is one.
const HOSTS: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// The files for a container of this host name, with or without a way out.
pub fn files(hostname: &str, networked: bool) -> EtcFiles {
    let resolv_conf = networked.then(|| network::resolv_conf(&network::host_resolv_conf()));
    EtcFiles {
        hosts: Some(HOSTS.to_owned()),
        hostname: Some(format!("{hostname}\n")),
        resolv_conf: Some(resolv_conf.unwrap_or_default()),
    }
}
