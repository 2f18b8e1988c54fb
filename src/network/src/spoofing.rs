//! What may come in by a sandbox's interface: its own frames, and nothing in another's name.
//!
//! Each interface has a table of its own, whose chain sees every frame before the bridge does, so that the bridge does
//! not even learn a forged address. (Chains of the bridge family come too late: the bridge learns from LLDP without asking
//! them.) The table is made before the interface becomes a port, and removed with it.
//!
//! IPv4 and ARP pass with the addresses that the sandbox was given; all else is dropped, also IPv6 and tagged frames.

use crate::Interface;
use crate::error::Error;
use crate::nft::run;

/// What nft says of a kernel without ingress chains: EOPNOTSUPP, or EAFNOSUPPORT of older ones.
const UNSUPPORTED: [&str; 2] = ["Operation not supported", "Address family not supported"];

/// Has only frames of the sandbox's own come in by `port`, which exists already, and carries out `more` in the same
/// transaction. False where the kernel has no means for the first.
pub(crate) fn forbid(port: &str, interface: &Interface, more: &str) -> Result<bool, Error> {
    with(&ruleset(port, interface), more)
}

/// Removes the rules of `port` if they are there, and carries out `more` in the same transaction.
pub(crate) fn forget(port: &str, more: &str) -> Result<(), Error> {
    let script = format!("table netdev {port}\ndelete table netdev {port}\n");
    with(&script, more).map(drop)
}

/// A kernel without ingress chains carries out `more` alone.
fn with(script: &str, more: &str) -> Result<bool, Error> {
    let is_done = carried_out(run(&["-f", "-"], &format!("{script}{more}")))?;
    if !is_done && !more.is_empty() {
        run(&["-f", "-"], more)?;
    }
    Ok(is_done)
}

/// Whether this host can keep sandboxes from forging addresses: nothing is changed.
///
/// # Errors
/// nft is missing or does not work.
pub fn can_forbid() -> Result<bool, Error> {
    const SCRIPT: &str = "table netdev hullcheck {\n\
        chain from_guest { type filter hook ingress device \"lo\" priority filter; policy accept; }\n\
        }\n";
    carried_out(run(&["--check", "-f", "-"], SCRIPT))
}

/// The table: declared, deleted and declared again, whatever was there before.
fn ruleset(port: &str, interface: &Interface) -> String {
    let mac = interface.mac.map(|byte| format!("{byte:02x}")).join(":");
    let address = interface.address;
    format!(
        "table netdev {port}\n\
         delete table netdev {port}\n\
         table netdev {port} {{\n\
         \x20 chain from_guest {{\n\
         \x20   type filter hook ingress device \"{port}\" priority filter; policy drop;\n\
         \x20   ether saddr {mac} ether type ip ip saddr {address} accept\n\
         \x20   ether saddr {mac} ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
         arp saddr ether {mac} arp saddr ip {address} accept\n\
         \x20 }}\n\
         }}\n"
    )
}

/// A kernel that cannot is no failure.
fn carried_out(result: Result<String, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Nft { message, .. }) if UNSUPPORTED.iter().any(|it| message.contains(it)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn the_rules_name_the_port_and_what_its_sandbox_was_given() {
        let interface = Interface {
            mac: [0x02, 0x48, 10, 213, 0, 2],
            address: Ipv4Addr::new(10, 213, 0, 2),
            prefix_len: 20,
            gateway: Some(Ipv4Addr::new(10, 213, 0, 1)),
            mtu: 1500,
        };
        let rules = ruleset("hullab", &interface);
        assert!(rules.starts_with("table netdev hullab\ndelete table netdev hullab\n"));
        assert!(rules.contains("device \"hullab\" priority filter; policy drop;\n"));
        assert!(
            rules
                .contains("ether saddr 02:48:0a:d5:00:02 ether type ip ip saddr 10.213.0.2 accept")
        );
        assert!(rules.contains("arp saddr ether 02:48:0a:d5:00:02 arp saddr ip 10.213.0.2 accept"));
        assert_eq!(rules.matches('{').count(), rules.matches('}').count());
    }

    #[test]
    fn only_a_kernel_without_the_means_goes_without() {
        let failed = |message: &str| {
            carried_out(Err(Error::Nft {
                status: ExitStatus::from_raw(256),
                message: message.to_owned(),
            }))
        };
        let refusal = "/dev/stdin:1:1-20: Error: Could not process rule: Operation not supported";
        assert!(!failed(refusal).unwrap());
        assert!(failed("Error: Could not process rule: No such file or directory").is_err());
        assert!(carried_out(Err(Error::NoNft)).is_err());
        assert!(carried_out(Ok(String::new())).unwrap());
    }
}
