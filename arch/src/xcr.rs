//! Extended control registers (Intel SDM volume 1, 13.3).

use kvm_bindings::kvm_cpuid_entry2;

/// Leaf 1, ECX: XSAVE and with it XCR0 exist.
const XSAVE: u32 = 1 << 26;

/// XCR0 with everything that a vCPU of this CPUID may enable, or `None` where there is no XCR0.
///
/// At reset it would be 1, and every kernel sets it to this at once. It begins so because QEMU's emulated SVM does not
/// intercept XSETBV: KVM in such a machine does not see the guest's write, and reverts it at the next exit. The
/// guest then runs with x87 state alone and dies in its first return from a signal.
pub fn xcr0(cpuid: &[kvm_cpuid_entry2]) -> Option<u64> {
    let leaf = |function| {
        cpuid
            .iter()
            .find(|entry| entry.function == function && entry.index == 0)
    };
    leaf(1).filter(|leaf| leaf.ecx & XSAVE != 0)?;
    let states = leaf(0xd)?;
    Some(u64::from(states.edx) << 32 | u64::from(states.eax)).filter(|&bits| bits != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xcr0_holds_what_cpuid_says_if_there_is_xsave() {
        let mut features = kvm_cpuid_entry2 {
            function: 1,
            ecx: XSAVE,
            ..Default::default()
        };
        let states = kvm_cpuid_entry2 {
            function: 0xd,
            eax: 7,
            edx: 1,
            ..Default::default()
        };
        assert_eq!(xcr0(&[features, states]), Some(0x1_0000_0007));
        assert_eq!(xcr0(&[features]), None);
        features.ecx = 0;
        assert_eq!(xcr0(&[features, states]), None);
    }
}
