//! What is done to capabilities, before the change of user and after it.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use super::Walls;

/// What only a process with capabilities can do to have none but `kept` for ever: a bounding set of those, and no way in which
/// user ids would bring any. Those that are kept pass an exec as ambient ones.
pub(super) fn lock(walls: Walls, kept: CapabilitySet) -> rustix::io::Result<()> {
    if walls == Walls::None {
        return Ok(());
    }
    clear_ambient_capability_set()?;
    if !kept.is_empty() {
        let mut sets = capabilities(None)?;
        sets.inheritable = kept;
        set_capabilities(None, sets)?;
        for one in kept.iter() {
            configure_capability_in_ambient_set(one, true)?;
        }
    }
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Beyond the last capability that this kernel has.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
}

/// Gives up all but `kept`.
pub(super) fn keep(kept: CapabilitySet) -> rustix::io::Result<()> {
    if kept.is_empty() {
        clear_ambient_capability_set()?;
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: kept,
        },
    )
}
