//! For `fuzz/` only: what lies in the network's folder, and what the host's tools and files say.

use std::path::Path;

use crate::attach::interface;
use crate::firewall;
use crate::lease::Leases;
use crate::routes::Routes;
use crate::state::State;

/// Lines of the rules without those for uplinks.
const RULES: usize = 42;

/// The bridge's file in `dir`, and what is made of it.
pub fn state(dir: &Path) {
    let Ok(Some(state)) = State::load(dir) else {
        return;
    };
    let count = state.subnet.addresses().take(1 << 20).count();
    assert!(
        count < 1 << 20,
        "{} has more addresses than any bridge",
        state.subnet
    );
    for address in state.subnet.addresses().take(3) {
        assert!(state.subnet.contains(address));
        let _ = interface(&state, address, None);
    }
    let rules = firewall::fuzzing::rules("hullx", &state);
    // A name that the file holds must not become a rule.
    let others = state.forwarding.iter().filter(|name| *name != "hullx");
    assert_eq!(rules.lines().count(), RULES + others.count());
    for line in rules.lines() {
        assert!(line.matches('"').count().is_multiple_of(2), "{line}");
    }
}

/// The leases in `dir`.
pub fn leases(dir: &Path) {
    let leases = Leases::new(dir);
    let _ = leases.count();
    for dead in leases.dead().unwrap_or_default() {
        let _ = dead.forget();
    }
}

/// /proc/net/route and what nft prints.
pub fn tools(text: &str) {
    let _ = Routes::parse(text);
    let _ = firewall::fuzzing::listing(text);
}
