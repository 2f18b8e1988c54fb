//! Which private network a bridge gets.

use std::net::Ipv4Addr;

pub use protocol::subnet::Subnet;

/// Length of the prefix of every network that is considered: 4093 sandboxes.
const PREFIX_LEN: u8 = 20;

/// The first network for the default bridge that has nothing in common with `taken`.
///
/// The list keeps away from what others use by default: Docker 172.17 to 172.31 and 192.168.0 to 192.168.240,
/// Podman 10.88 to 10.89, Kubernetes 10.96 and 10.244, libvirt 192.168.122.
pub(crate) fn choose(taken: &[Subnet]) -> Option<Subnet> {
    let shared = (64..128).map(|second| [100, second, 0, 0]);
    free(in_ten(213..221).chain(shared), taken)
}

/// The first network for a bridge of the user's that has nothing in common with `taken`. The default bridge, which may not be
/// there at the moment, chooses from others.
pub(crate) fn choose_named(taken: &[Subnet]) -> Option<Subnet> {
    free(in_ten(221..244).chain(in_ten(245..255)), taken)
}

/// Networks of 10.0.0.0/8 with these second octets.
fn in_ten(seconds: std::ops::Range<u8>) -> impl Iterator<Item = [u8; 4]> {
    seconds.flat_map(|second| (0..16).map(move |third| [10, second, third * 16, 0]))
}

fn free(candidates: impl Iterator<Item = [u8; 4]>, taken: &[Subnet]) -> Option<Subnet> {
    let mut candidates = candidates.map(|octets| Subnet {
        network: Ipv4Addr::from(octets),
        prefix_len: PREFIX_LEN,
    });
    candidates.find(|candidate| !taken.iter().any(|other| other.overlaps(candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn the_choice_keeps_away_from_the_hosts_routes() {
        assert_eq!(choose(&[]), Some(subnet("10.213.0.0/20")));
        assert_eq!(
            choose(&[subnet("10.213.5.0/24")]),
            Some(subnet("10.213.16.0/20"))
        );
        assert_eq!(
            choose(&[subnet("10.0.0.0/8")]),
            Some(subnet("100.64.0.0/20"))
        );
        assert_eq!(choose(&[subnet("0.0.0.0/1")]), None);
    }

    #[test]
    fn a_network_of_the_users_never_takes_what_the_default_bridge_may() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        while let Some(next) = choose(&ours) {
            ours.push(next);
        }
        while let Some(next) = choose_named(&theirs) {
            theirs.push(next);
        }
        assert_eq!(theirs.len(), 33 * 16);
        assert!(
            theirs
                .iter()
                .all(|one| !ours.iter().any(|other| other.overlaps(one)))
        );
    }
}
