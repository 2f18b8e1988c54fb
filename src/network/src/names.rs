//! Names of interfaces on the host, of tables and of folders.

use protocol::record;

use crate::PORT_PREFIX;

/// Digits of a network's identifier in its bridge's name: as many as an interface's name has room for.
const BRIDGE_ID_LEN: usize = 10;

/// The name of the bridge of the network with this identifier. No interface of a sandbox's has a hyphen there.
pub(crate) fn bridge(id: &str) -> String {
    let id: String = id.chars().take(BRIDGE_ID_LEN).collect();
    format!("{PORT_PREFIX}-{id}")
}

/// Whether it can be a network's identifier. It becomes a part of nft's scripts.
pub(crate) fn is_id(id: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    id.len() == 64 && id.bytes().all(is_digit)
}

/// Which sandbox an interface on the host belongs to, if the interface has this name.
pub fn is_port_of(interface: &str, sandbox: &str) -> bool {
    (0..record::MAX_NETWORKS as u8).any(|slot| interface == port(sandbox, slot))
}

/// The name of a sandbox's interface on the host: as much of its id as fits. Of a sandbox's several, all but the first end
/// in a letter that no identifier has (`g` and on) instead.
pub(crate) fn port(id: &str, slot: u8) -> String {
    let id = id.chars().filter(char::is_ascii_alphanumeric);
    let room = sys::tap::MAX_NAME_LEN - PORT_PREFIX.len();
    let letter = (slot > 0).then(|| char::from(b'f' + slot));
    let id = id.take(room - usize::from(letter.is_some()));
    PORT_PREFIX.chars().chain(id).chain(letter).collect()
}

/// Whether [`port`] makes such names. They become parts of nft's scripts.
pub(crate) fn is_port(name: &str) -> bool {
    name.starts_with(PORT_PREFIX)
        && name.len() <= sys::tap::MAX_NAME_LEN
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The name of a pair's other end until it is in its container.
pub(crate) fn inner(port: &str) -> String {
    format!("huli{}", port.strip_prefix(PORT_PREFIX).unwrap_or(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_are_short_and_plain() {
        assert_eq!(port("0123456789abcdef0123", 0), "hull0123456789a");
        assert_eq!(port("0123456789abcdef0123", 1), "hull0123456789g");
        assert_eq!(port("0123456789abcdef0123", 3), "hull0123456789i");
        assert_eq!(port("a/b\0c-ü", 0), "hullabc");
        assert!(is_port("hull0123456789a") && is_port("hullabc"));
        for name in [
            "",
            "eth0",
            "hull0123456789ab",
            "hulla; flush ruleset",
            "hull\nx",
        ] {
            assert!(!is_port(name), "{name}");
        }
        assert_eq!(inner("hull0123456789a"), "huli0123456789a");
        assert_eq!(inner("hullab"), "huliab");
        assert!(!is_port(&inner("hullab")));
    }

    #[test]
    fn a_bridge_of_a_network_is_called_by_its_identifier() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(bridge(&id), "hull-0123456789");
        assert!(bridge(&id).len() <= sys::tap::MAX_NAME_LEN && !is_port(&bridge(&id)));
        assert!(is_id(&id) && !is_id("app") && !is_id(&id.to_uppercase()));
        assert!(is_port_of("hull0123456789a", &id) && is_port_of("hull0123456789h", &id));
        assert!(!is_port_of("hull0123456789b", &id) && !is_port_of("hull0123456789k", &id));
    }
}
