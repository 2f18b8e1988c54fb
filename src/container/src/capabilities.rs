//! Capability sets by name, and their installation.

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use sys::capabilities::NAMES;

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec;

/// The five sets of a process (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    bounding: CapabilitySet,
    effective: CapabilitySet,
    inheritable: CapabilitySet,
    permitted: CapabilitySet,
    ambient: CapabilitySet,
}

impl Capabilities {
    pub(crate) fn parse(document: &spec::Capabilities) -> Result<Capabilities, Error> {
        Ok(Capabilities {
            bounding: set(&document.bounding)?,
            effective: set(&document.effective)?,
            inheritable: set(&document.inheritable)?,
            permitted: set(&document.permitted)?,
            ambient: set(&document.ambient)?,
        })
    }

    /// Narrows the bounding set; needs CAP_SETPCAP, so it comes before everything else.
    pub(crate) fn bound(&self) -> Result<(), Error> {
        for number in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                // EINVAL: beyond the last capability that this kernel has.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(errno) => return Err(errno).at(Step::Capabilities, "of the bounding set"),
            }
        }
        Ok(())
    }

    /// Installs the other sets, after the change of user.
    pub(crate) fn install(&self) -> Result<(), Error> {
        let sets = CapabilitySets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        };
        set_capabilities(None, sets).at(Step::Capabilities, "of the process")?;
        clear_ambient_capability_set().at(Step::Capabilities, "of the ambient set")?;
        for capability in self.ambient.iter() {
            configure_capability_in_ambient_set(capability, true)
                .at(Step::Capabilities, "of the ambient set")?;
        }
        Ok(())
    }
}

fn set(names: &[String]) -> Result<CapabilitySet, Error> {
    let mut bits = 0;
    for name in names {
        let number = name
            .strip_prefix("CAP_")
            .and_then(|name| NAMES.iter().position(|n| *n == name));
        let number = number
            .ok_or(Refusal::UnknownName)
            .at(Step::Capabilities, name)?;
        bits |= 1 << number;
    }
    Ok(CapabilitySet::from_bits_retain(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        for (name, flag) in [
            ("CAP_CHOWN", CapabilitySet::CHOWN),
            ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
            ("CAP_SETFCAP", CapabilitySet::SETFCAP),
            ("CAP_CHECKPOINT_RESTORE", CapabilitySet::CHECKPOINT_RESTORE),
        ] {
            assert_eq!(set(&[name.to_owned()]).unwrap(), flag, "{name}");
        }
        assert!(set(&["CHOWN".to_owned()]).is_err());
        assert!(set(&["CAP_EVERYTHING".to_owned()]).is_err());
    }
}
