//! NAT and forwarding rules, in a table of our own: nothing in other tables is touched, and removing it removes all.
//!
//! ```text
//!  from outside:   prerouting  to an address of the host's and a published port -> the sandbox's     source as it was
//!  from the host:  output      likewise                                                              127.0.0.0/8 becomes the bridge's
//!  from a sandbox: prerouting  likewise, also to itself                                              becomes the bridge's
//! ```

use std::net::Ipv4Addr;
use std::path::Path;

use protocol::record::Published;

use crate::PORT_PREFIX;
use crate::error::Error;
use crate::nft::run;
use crate::published::{self, ALL, ONE};
use crate::state::State;

/// The chain in which Docker, which drops what is forwarded and not its own, lets others have their say.
const DOCKER_USER: &str = "ip filter DOCKER-USER";

/// Which rules these are: a table of other ones is made anew.
pub(crate) const EDITION: u32 = 1;

/// Puts the rules in place of those that may be there, all at once, with the ports that lead to sandboxes.
pub(crate) fn install(
    bridge: &str,
    state: &State,
    ports: &[(Ipv4Addr, Vec<Published>)],
) -> Result<(), Error> {
    let admission = admission(bridge)?;
    let rules = ruleset(bridge, state);
    let elements = ports
        .iter()
        .map(|(address, ports)| published::addition(bridge, *address, ports));
    nft(&format!(
        "{admission}{rules}{}",
        elements.collect::<String>()
    ))
}

/// Removes the rules if they are there.
pub(crate) fn remove(bridge: &str) -> Result<(), Error> {
    let expulsion = docker_rules(bridge)?.map_or_else(String::new, |handles| expulsion(&handles));
    nft(&format!(
        "{expulsion}table ip {bridge}\ndelete table ip {bridge}\n"
    ))
}

/// What has Docker let our packets through, in place of what may be there. Nothing on a host without Docker. (Our own
/// chain decides about them too: a packet has to be let through by all.)
fn admission(bridge: &str) -> Result<String, Error> {
    let Some(handles) = docker_rules(bridge)? else {
        return Ok(String::new());
    };
    let rules = ["iifname", "oifname"].map(|direction| {
        format!("insert rule {DOCKER_USER} {direction} \"{bridge}\" accept comment \"{bridge}\"\n")
    });
    Ok(expulsion(&handles) + &rules.concat())
}

/// Removes rules from Docker's chain.
fn expulsion(handles: &[u64]) -> String {
    let rules = handles
        .iter()
        .map(|handle| format!("delete rule {DOCKER_USER} handle {handle}\n"));
    rules.collect()
}

/// The handles of our rules in Docker's chain, or `None` if there is no such chain.
fn docker_rules(bridge: &str) -> Result<Option<Vec<u64>>, Error> {
    // Its bridge is there whenever its chain is; without it nft need not be asked.
    if !Path::new("/sys/class/net/docker0").exists() && bridge == crate::BRIDGE {
        return Ok(None);
    }
    let arguments = ["-j", "-a", "list", "chain"]
        .into_iter()
        .chain(DOCKER_USER.split(' '));
    match run(&arguments.collect::<Vec<_>>(), "") {
        Ok(listing) => Ok(Some(handles(&listing, bridge))),
        // There is no such chain: Docker uses another firewall, or none.
        Err(Error::Nft { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The handles of the rules with this comment, in what `nft -j -a` prints (libnftables-json(5)).
fn handles(listing: &str, comment: &str) -> Vec<u64> {
    let listing: serde_json::Value = serde_json::from_str(listing).unwrap_or_default();
    let rules = listing["nftables"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|object| &object["rule"]);
    let ours = rules.filter(|rule| rule["comment"] == comment);
    ours.filter_map(|rule| rule["handle"].as_u64()).collect()
}

/// The table. It is declared, deleted and declared again: one transaction, whatever was there before.
///
/// - What leaves the bridge's network for anywhere else takes the host's address; of an internal one nothing does.
/// - New connections into the bridge's network come from itself, from the host, or by a published port: not from outside, and
///   not from other networks.
/// - Ports of the host's loopback addresses are published to the host alone, and packets of a sandbox's to such an address
///   are dropped before they could become anything else: the bridge routes them.
/// - Where forwarding was off on an interface before, it still is for all traffic but that of hull's bridges.
fn ruleset(bridge: &str, state: &State) -> String {
    let subnet = state.subnet;
    let mut kept_closed = String::new();
    for interface in state
        .forwarding
        .iter()
        .filter(|&interface| interface != bridge)
    {
        kept_closed += &format!("    iifname \"{interface}\" oifname != \"{PORT_PREFIX}*\" drop\n");
    }
    let (masquerade, no_way_out) = match state.internal {
        false => (
            format!("    ip saddr {subnet} oifname != \"{bridge}\" masquerade\n"),
            String::new(),
        ),
        true => (
            String::new(),
            format!("    iifname \"{bridge}\" oifname != \"{bridge}\" drop\n"),
        ),
    };
    let maps = published::maps(bridge);
    format!(
        "table ip {bridge}\n\
         delete table ip {bridge}\n\
         {maps}\
         table ip {bridge} {{\n\
         \x20 chain raw {{\n\
         \x20   type filter hook prerouting priority raw; policy accept;\n\
         \x20   iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop\n\
         \x20 }}\n\
         \x20 chain to_sandbox {{\n\
         \x20   dnat ip addr . port to ip daddr . meta l4proto . th dport map @{ONE}\n\
         \x20   dnat ip addr . port to meta l4proto . th dport map @{ALL}\n\
         \x20 }}\n\
         \x20 chain prerouting {{\n\
         \x20   type nat hook prerouting priority dstnat; policy accept;\n\
         \x20   ip daddr 127.0.0.0/8 return\n\
         \x20   fib daddr type local jump to_sandbox\n\
         \x20 }}\n\
         \x20 chain output {{\n\
         \x20   type nat hook output priority -100; policy accept;\n\
         \x20   fib daddr type local jump to_sandbox\n\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         {masquerade}\
         \x20   oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade\n\
         \x20   oifname \"{bridge}\" ip saddr {subnet} ct status dnat masquerade\n\
         \x20 }}\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy accept;\n\
         \x20   iifname \"{bridge}\" ip saddr != {subnet} drop\n\
         {no_way_out}\
         \x20   oifname \"{bridge}\" ct state established,related accept\n\
         \x20   oifname \"{bridge}\" ct status dnat accept\n\
         \x20   oifname \"{bridge}\" iifname != \"{bridge}\" drop\n\
         {kept_closed}\
         \x20 }}\n\
         }}\n"
    )
}

/// For `fuzz/` only.
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use crate::state::State;

    /// The rules for this state.
    pub(crate) fn rules(bridge: &str, state: &State) -> String {
        super::ruleset(bridge, state)
    }

    /// What nft prints.
    pub(crate) fn listing(text: &str) -> String {
        super::expulsion(&super::handles(text, "hullx"))
    }
}

/// Has nft carry out a script, all of it or nothing.
fn nft(script: &str) -> Result<(), Error> {
    run(&["-f", "-"], script).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subnet::Subnet;
    use std::net::Ipv4Addr;

    #[test]
    fn the_rules_name_the_bridge_the_network_and_what_was_opened() {
        let subnet = Subnet {
            network: Ipv4Addr::new(10, 213, 0, 0),
            prefix_len: 20,
        };
        let mut state = State {
            forwarding: vec!["hull0".to_owned(), "eth0".to_owned()],
            ..State::of(subnet)
        };
        let rules = ruleset("hull0", &state);
        assert!(rules.starts_with("table ip hull0\ndelete table ip hull0\ntable ip hull0 {\n"));
        // Before anything is translated: replies to the host's own loopback address are still the bridge's then.
        let guarded = "hook prerouting priority raw; policy accept;\n    iifname \"hull0\" ip daddr 127.0.0.0/8 drop\n";
        assert!(rules.contains(guarded), "{rules}");
        assert!(rules.contains("ip saddr 10.213.0.0/20 oifname != \"hull0\" masquerade\n"));
        assert!(rules.contains("iifname \"eth0\" oifname != \"hull*\" drop\n"));
        assert!(!rules.contains("iifname \"hull0\" oifname != \"hull0\" drop"));
        assert_eq!(rules.matches('{').count(), rules.matches('}').count());
        state.internal = true;
        let internal = ruleset("hull0", &state);
        assert!(internal.contains("iifname \"hull0\" oifname != \"hull0\" drop\n"));
        assert!(!internal.contains("oifname != \"hull0\" masquerade"));
        // The fuzz target `state` counts them too.
        assert_eq!((internal.lines().count(), rules.lines().count()), (43, 43));
    }

    #[test]
    fn our_rules_are_found_among_dockers() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"chain": {"name": "DOCKER-USER", "handle": 1}},
            {"rule": {"handle": 7, "comment": "hull0", "expr": [{"accept": null}]}},
            {"rule": {"handle": 8, "expr": [{"return": null}]}},
            {"rule": {"handle": 9, "comment": "hull0"}}, {"rule": {"handle": 10, "comment": "hull01"}}]}"#;
        assert_eq!(handles(listing, "hull0"), [7, 9]);
        assert_eq!(handles("", "hull0"), [] as [u64; 0]);
        assert_eq!(
            expulsion(&[7]),
            "delete rule ip filter DOCKER-USER handle 7\n"
        );
    }
}
