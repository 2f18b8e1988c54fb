//! CPUID: what KVM supports, reduced to hull's machine, with each vCPU's own topology.
//!
//! Kept: everything KVM supports and the leaves of its paravirtual interface (KVM documentation, "KVM CPUID bits").
//! Changed: the topology (one package, one thread a core), the hypervisor bit, the TSC deadline timer. Taken away:
//! nested virtualization, the PMU, MONITOR; a container has no use for them and each is attack surface.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Input of the topology leaves, and what KVM reports outside of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vcpu {
    /// Its number, which is its APIC id.
    pub index: u8,
    /// How many the VM has.
    pub count: u8,
    /// KVM_CAP_TSC_DEADLINE_TIMER.
    pub tsc_deadline: bool,
}

// Leaf 1, ECX and EDX (SDM vol. 2A, CPUID, tables 3-10 and 3-11).
const ECX1_MONITOR: u32 = 1 << 3;
const ECX1_VMX: u32 = 1 << 5;
const ECX1_PDCM: u32 = 1 << 15;
const ECX1_TSC_DEADLINE: u32 = 1 << 24;
const ECX1_HYPERVISOR: u32 = 1 << 31;
const EDX1_HTT: u32 = 1 << 28;
// Leaf 0x8000_0001, ECX (APM vol. 3, E.4.2).
const ECX81_CMP_LEGACY: u32 = 1 << 1;
const ECX81_SVM: u32 = 1 << 2;
const ECX81_PERF_CTR_CORE: u32 = 1 << 23;

/// Leaves that are dropped: MONITOR, PMU, newer topology than 0xb, AMD's PMU, SVM.
const DROPPED: [u32; 6] = [0x5, 0xa, 0x1f, 0x23, 0x8000_0022, 0x8000_000a];

impl Vcpu {
    /// CPUID of this vCPU, from what KVM_GET_SUPPORTED_CPUID gave.
    pub fn cpuid(self, supported: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
        let amd = supported
            .iter()
            .any(|entry| entry.function == 0 && is_amd(entry));
        let has_topology = supported.iter().any(|entry| entry.function == 0xb);
        let mut entries: Vec<_> = supported
            .iter()
            .filter(|entry| entry.function != 0xb && !DROPPED.contains(&entry.function))
            .copied()
            .collect();
        for entry in &mut entries {
            self.change(entry, amd);
        }
        if has_topology {
            entries.extend(self.extended_topology());
        }
        entries
    }

    fn change(self, entry: &mut kvm_cpuid_entry2, amd: bool) {
        let (id, count) = (u32::from(self.index), u32::from(self.count));
        match entry.function {
            0x1 => {
                entry.ecx &= !(ECX1_MONITOR | ECX1_VMX | ECX1_PDCM | ECX1_TSC_DEADLINE);
                entry.ecx |= ECX1_HYPERVISOR;
                if self.tsc_deadline {
                    entry.ecx |= ECX1_TSC_DEADLINE;
                }
                entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
                set(&mut entry.edx, EDX1_HTT, count > 1);
            }
            // EAX 31:26 is the last core's number in the package (rounded up), 25:14 the last thread's that shares
            // the cache; only a third-level cache is shared.
            0x4 if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 0b111;
                let sharing = if level >= 3 { self.ids() - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14 | (self.ids() - 1) << 26;
            }
            0x8000_0001 => {
                entry.ecx &= !(ECX81_SVM | ECX81_PERF_CTR_CORE);
                set(&mut entry.ecx, ECX81_CMP_LEGACY, amd && count > 1);
            }
            // ECX 7:0 is the last core's number, 15:12 the bits of an APIC id that name the core.
            0x8000_0008 if amd => entry.ecx = (count - 1) | self.id_bits() << 12,
            // As leaf 4, for AMD.
            0x8000_001d if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 0b111;
                let sharing = if level >= 3 { count - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14;
            }
            // APIC id; core id, one thread a core; node 0 of one.
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id & 0xff, 0),
            _ => {}
        }
    }

    /// Leaf 0xb (SDM vol. 2A, CPUID): a level of threads, a level of cores, the end.
    fn extended_topology(self) -> [kvm_cpuid_entry2; 3] {
        let level = |index: u32, shift: u32, processors: u32, kind: u32| kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: processors,
            ecx: kind << 8 | index,
            edx: self.index.into(),
            ..Default::default()
        };
        [
            level(0, 0, 1, 1),
            level(1, self.id_bits(), self.count.into(), 2),
            level(2, 0, 0, 0),
        ]
    }

    /// Bits that name a core in an APIC id.
    fn id_bits(self) -> u32 {
        self.ids().trailing_zeros()
    }

    /// The number of APIC ids that the cores take, a power of two.
    fn ids(self) -> u32 {
        u32::from(self.count).next_power_of_two()
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on {
        *register |= bit;
    } else {
        *register &= !bit;
    }
}

/// "AuthenticAMD" or "HygonGenuine" in EBX, EDX, ECX of leaf 0.
fn is_amd(leaf: &kvm_cpuid_entry2) -> bool {
    let vendor = [leaf.ebx, leaf.edx, leaf.ecx]
        .map(u32::to_le_bytes)
        .concat();
    vendor == b"AuthenticAMD" || vendor == b"HygonGenuine"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            ..Default::default()
        }
    }

    fn amd() -> kvm_cpuid_entry2 {
        let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
        kvm_cpuid_entry2 {
            ebx: word(b"Auth"),
            edx: word(b"enti"),
            ecx: word(b"cAMD"),
            ..leaf(0)
        }
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let is = |e: &&kvm_cpuid_entry2| e.function == function && e.index == index;
        *entries.iter().find(is).unwrap()
    }

    #[test]
    fn each_vcpu_finds_its_own_id_in_one_package() {
        let vcpu = Vcpu {
            index: 2,
            count: 3,
            tsc_deadline: true,
        };
        let entries = vcpu.cpuid(&[
            amd(),
            leaf(1),
            leaf(0xb),
            leaf(0x8000_0008),
            leaf(0x8000_001e),
        ]);
        assert_eq!(find(&entries, 1, 0).ebx, 2 << 24 | 3 << 16);
        assert_eq!(find(&entries, 0xb, 0).ebx, 1);
        let cores = find(&entries, 0xb, 1);
        assert_eq!(
            (cores.eax, cores.ebx, cores.ecx, cores.edx),
            (2, 3, 0x201, 2)
        );
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 2 << 12 | 2);
        assert_eq!(find(&entries, 0x8000_001e, 0).eax, 2);
    }

    #[test]
    fn the_guest_knows_of_its_hypervisor_and_has_none_of_its_own() {
        let all = kvm_cpuid_entry2 {
            ecx: u32::MAX,
            ..leaf(1)
        };
        let extended = kvm_cpuid_entry2 {
            ecx: u32::MAX,
            ..leaf(0x8000_0001)
        };
        let vcpu = Vcpu {
            index: 0,
            count: 1,
            tsc_deadline: false,
        };
        let entries = vcpu.cpuid(&[all, extended, leaf(0xa), leaf(0x4000_0001)]);
        let ecx = find(&entries, 1, 0).ecx;
        assert_eq!(ecx & (ECX1_VMX | ECX1_MONITOR | ECX1_TSC_DEADLINE), 0);
        assert_ne!(ecx & ECX1_HYPERVISOR, 0);
        assert_eq!(find(&entries, 0x8000_0001, 0).ecx & ECX81_SVM, 0);
        assert!(!entries.iter().any(|entry| entry.function == 0xa));
        find(&entries, 0x4000_0001, 0);
    }

    #[test]
    fn only_the_third_level_cache_is_shared() {
        let cache = |index, level: u32| kvm_cpuid_entry2 {
            index,
            eax: level << 5 | 1,
            ..leaf(4)
        };
        let vcpu = Vcpu {
            index: 0,
            count: 32,
            tsc_deadline: true,
        };
        let entries = vcpu.cpuid(&[cache(0, 1), cache(1, 3)]);
        assert_eq!(find(&entries, 4, 0).eax >> 14, 31 << 12);
        assert_eq!(find(&entries, 4, 1).eax >> 14, 31 << 12 | 31);
    }
}
