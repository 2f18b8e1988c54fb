//! Names, addresses and resolvers.

use std::net::IpAddr;

use clap::Args;
use engine::options::{Dns, ExtraHost, Options};

use super::container::given;
use values::names;

/// What the container is called, and how it resolves names.
#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Domain name of the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Add a line to /etc/hosts; host-gateway is this host's address
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = names::extra_host)]
    add_host: Vec<ExtraHost>,
    /// Resolver, instead of the host's
    #[arg(long, value_name = "ADDRESS", value_parser = names::ip)]
    dns: Vec<IpAddr>,
    /// Domain to search, instead of the host's; . means none
    #[arg(long, value_name = "DOMAIN", value_parser = names::search)]
    dns_search: Vec<String>,
    /// Option of the resolver, instead of the host's
    #[arg(long, alias = "dns-opt", value_name = "OPTION", value_parser = names::dns_option)]
    dns_option: Vec<String>,
}

impl NameArgs {
    pub(super) fn set(self, options: &mut Options) {
        options.hostname = given(self.hostname);
        options.domainname = given(self.domainname);
        options.extra_hosts = self.add_host;
        options.dns = Dns {
            servers: self.dns,
            search: self.dns_search,
            options: self.dns_option,
        };
    }
}
