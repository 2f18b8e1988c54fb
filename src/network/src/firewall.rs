//! NAT and forwarding rules, in a table of our own: nothing in other tables is touched, and removing it removes all.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::state::State;

/// Where nft is when PATH does not say.
const NFT: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];
/// The longest complaint of nft's that is repeated.
const MAX_MESSAGE: usize = 200;

/// Puts the rules in place of those that may be there, all at once.
pub(crate) fn install(bridge: &str, state: &State) -> Result<(), Error> {
    nft(&ruleset(bridge, state))
}

/// Removes the rules if they are there.
pub(crate) fn remove(bridge: &str) -> Result<(), Error> {
    nft(&format!("table ip {bridge}\ndelete table ip {bridge}\n"))
}

/// The table. It is declared, deleted and declared again: one transaction, whatever was there before.
///
/// - What leaves the bridge's network for anywhere else takes the host's address.
/// - New connections into the bridge's network come from itself or from the host, not from outside.
/// - Where forwarding was off on an interface before, it still is for everybody else.
fn ruleset(bridge: &str, state: &State) -> String {
    let subnet = state.subnet;
    let mut kept_closed = String::new();
    for interface in state
        .forwarding
        .iter()
        .filter(|&interface| interface != bridge)
    {
        kept_closed += &format!("    iifname \"{interface}\" oifname != \"{bridge}\" drop\n");
    }
    format!(
        "table ip {bridge}\n\
         delete table ip {bridge}\n\
         table ip {bridge} {{\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   ip saddr {subnet} oifname != \"{bridge}\" masquerade\n\
         \x20 }}\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy accept;\n\
         \x20   oifname \"{bridge}\" ct state established,related accept\n\
         \x20   oifname \"{bridge}\" iifname != \"{bridge}\" drop\n\
         \x20   iifname \"{bridge}\" ip saddr != {subnet} drop\n\
         {kept_closed}\
         \x20 }}\n\
         }}\n"
    )
}

/// Has nft carry out a script, all of it or nothing.
fn nft(script: &str) -> Result<(), Error> {
    let mut child = None;
    for program in NFT {
        let spawned = Command::new(program)
            .args(["-f", "-"])
            .current_dir(Path::new("/"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => {
                child = Some(other.map_err(Error::NftRun)?);
                break;
            }
        }
    }
    let mut child = child.ok_or(Error::NoNft)?;
    let mut input = child.stdin.take().expect("stdin is piped");
    // A script is far smaller than a pipe's buffer. nft may end before it has read it: its status says why.
    let _ = input.write_all(script.as_bytes());
    drop(input);
    let output = child.wait_with_output().map_err(Error::NftRun)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains("Operation not permitted") {
        return Err(Error::NotPermitted {
            action: "change the firewall",
        });
    }
    let message = message.lines().next().unwrap_or("no reason given");
    Err(Error::Nft {
        status: output.status,
        message: message.chars().take(MAX_MESSAGE).collect(),
    })
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
        let forwarding = vec!["hull0".to_owned(), "eth0".to_owned()];
        let rules = ruleset(
            "hull0",
            &State {
                subnet,
                mtu: 1500,
                forwarding,
            },
        );
        assert!(rules.starts_with("table ip hull0\ndelete table ip hull0\ntable ip hull0 {\n"));
        assert!(rules.contains("ip saddr 10.213.0.0/20 oifname != \"hull0\" masquerade\n"));
        assert!(rules.contains("iifname \"eth0\" oifname != \"hull0\" drop\n"));
        assert!(!rules.contains("iifname \"hull0\" oifname != \"hull0\" drop"));
        assert_eq!(rules.matches('{').count(), rules.matches('}').count());
    }
}
