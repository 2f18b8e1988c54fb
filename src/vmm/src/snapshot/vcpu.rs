//! A vCPU's registers, read and set in KVM's order.

#![expect(
    unsafe_code,
    reason = "KVM reads an XSAVE area of a size that it decides"
)]

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use crate::kvm::{Error, failed};
use crate::vcpu::set_msrs;

/// IA32_TIME_STAMP_COUNTER (SDM vol. 4).
const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE: it counts for nothing unless the time stamp counter and the local APIC are set before.
const TSC_DEADLINE: u32 = 0x6e0;
/// Far from any time stamp: at 4 GHz a processor needs 36 years to count so far.
const FAR: u64 = 1 << 62;

/// The type of a 64-bit task state segment that is not marked busy (SDM vol. 3A, 3.5).
const TSS_AVAILABLE: u8 = 9;
/// CPUID leaf with the hypervisor's name, and what QEMU's emulator is called there.
const HYPERVISOR: u32 = 0x4000_0000;
const QEMU_TCG: [u8; 12] = *b"TCGTCGTCGTCG";

/// Everything that KVM keeps of a vCPU besides its CPUID, which follows from the configuration.
#[derive(Serialize, Deserialize)]
pub struct VcpuState {
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debugregs: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

impl VcpuState {
    /// Of a vCPU that is not in the guest and has finished its last access. `msrs` are those that KVM lists as to be saved.
    ///
    /// KVM requires the order: MP_STATE first, since reading it settles pending INITs and SIPIs.
    pub fn save(fd: &VcpuFd, msrs: &[u32]) -> Result<Self, Error> {
        Ok(Self {
            mp_state: fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?,
            regs: fd.get_regs().map_err(failed("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
            xsave: fd.get_xsave().map_err(failed("KVM_GET_XSAVE"))?,
            xcrs: fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
            debugregs: fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?,
            lapic: fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?,
            msrs: get_msrs(fd, msrs)?,
            events: fd
                .get_vcpu_events()
                .map_err(failed("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    fn time_stamp(&self) -> u64 {
        let tsc = self.msrs.iter().find(|msr| msr.index == TSC);
        tsc.map_or(0, |msr| msr.data)
    }

    /// Sets a new vCPU that has its CPUID: KVM checks what comes later against what came before.
    fn restore(&self, fd: &VcpuFd, time_stamp: u64) -> Result<(), Error> {
        fd.set_mp_state(self.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))?;
        fd.set_regs(&self.regs).map_err(failed("KVM_SET_REGS"))?;
        let mut sregs = self.sregs;
        if is_emulated_by_qemu() {
            sregs.tr.type_ = TSS_AVAILABLE;
        }
        fd.set_sregs(&sregs).map_err(failed("KVM_SET_SREGS"))?;
        fd.set_xcrs(&self.xcrs).map_err(failed("KVM_SET_XCRS"))?;
        // SAFETY: KVM reads KVM_CAP_XSAVE2 bytes, and `System::check_snapshots` has found that these are no more than the structure.
        unsafe { fd.set_xsave(&self.xsave) }.map_err(failed("KVM_SET_XSAVE"))?;
        fd.set_debug_regs(&self.debugregs)
            .map_err(failed("KVM_SET_DEBUGREGS"))?;
        fd.set_lapic(&self.lapic).map_err(failed("KVM_SET_LAPIC"))?;
        set_msrs(fd, &self.different_msrs(fd, time_stamp)?)?;
        fd.set_vcpu_events(&self.events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))
    }

    /// The registers that differ from a new vCPU's. KVM gives values of some that it then refuses to set, such as
    /// IA32_PERF_CAPABILITIES of a guest without performance counters.
    fn different_msrs(&self, fd: &VcpuFd, time_stamp: u64) -> Result<Vec<kvm_msr_entry>, Error> {
        let wanted: Vec<_> = self.msrs.iter().map(|msr| msr.index).collect();
        let new = get_msrs(fd, &wanted)?;
        let set = self.msrs.iter().filter_map(|&msr| match msr.index {
            TSC => Some(tsc(time_stamp)),
            TSC_DEADLINE => Some(msr),
            _ => Some(msr).filter(|msr| !new.contains(msr)),
        });
        Ok(set.collect())
    }
}

/// Sets a VM's new vCPUs, each to its state.
///
/// Their time stamp counters go on together from where the first one's was. KVM takes a write within a second of what it
/// expects for an attempt to set several alike, and gives the vCPU the offset of the write before (kvm_synchronize_tsc):
/// right for all but the first. That one's would, on Linux before 6.7 and for a guest saved in its first second, go with
/// zero, which KVM wrote when it made the vCPU; so it is sent elsewhere first.
pub fn restore<'a>(
    vcpus: impl IntoIterator<Item = &'a VcpuFd>,
    states: &[VcpuState],
) -> Result<(), Error> {
    let time_stamp = states.first().map_or(0, VcpuState::time_stamp);
    for (index, (fd, state)) in vcpus.into_iter().zip(states).enumerate() {
        if index == 0 {
            set_msrs(fd, &[tsc(time_stamp ^ FAR)])?;
        }
        state.restore(fd, time_stamp)?;
    }
    Ok(())
}

fn tsc(value: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index: TSC,
        data: value,
        ..Default::default()
    }
}

/// Whether the host's processor is QEMU's emulator. It looks into an I/O permission bitmap only if the task register is not
/// marked busy (check_io in target/i386/tcg), which KVM on AMD always reads it as: user space in a guest that has been
/// given ports, as hull's agent has, would lose them.
fn is_emulated_by_qemu() -> bool {
    let name = std::arch::x86_64::__cpuid(HYPERVISOR);
    let words = [name.ebx, name.ecx, name.edx].map(u32::to_le_bytes);
    words.as_flattened() == QEMU_TCG
}

/// Reads those of `wanted` that this KVM gives: it lists some that it refuses (KVM_GET_MSRS stops at the first such).
fn get_msrs(fd: &VcpuFd, wanted: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
    let mut read = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while !rest.is_empty() {
        let entries: Vec<_> = rest
            .iter()
            .map(|&index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        let mut msrs = Msrs::from_entries(&entries).expect("no more than KVM lists");
        let count = fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
        read.extend_from_slice(&msrs.as_slice()[..count]);
        // The one that was refused.
        rest = rest.get(count + 1..).unwrap_or_default();
    }
    read.sort_by_key(|msr| msr.index == TSC_DEADLINE);
    Ok(read)
}

#[cfg(test)]
impl VcpuState {
    /// One that takes as much JSON as a vCPU can, with as many registers as KVM is asked for at once.
    pub(super) fn largest() -> Self {
        let ones = |len: usize| vec![0xff_u8; len];
        let state = serde_json::json!({
            "mp_state": ones(size_of::<kvm_mp_state>()),
            "regs": ones(size_of::<kvm_regs>()),
            "sregs": ones(size_of::<kvm_sregs>()),
            "xsave": ones(size_of::<kvm_xsave>()),
            "xcrs": ones(size_of::<kvm_xcrs>()),
            "debugregs": ones(size_of::<kvm_debugregs>()),
            "lapic": ones(size_of::<kvm_lapic_state>()),
            "msrs": vec![ones(size_of::<kvm_msr_entry>()); kvm_bindings::KVM_MAX_MSR_ENTRIES],
            "events": ones(size_of::<kvm_vcpu_events>()),
        });
        serde_json::from_value(state).expect("every structure is its bytes")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use memory::Ram;

    use super::*;
    use crate::kvm::System;

    fn read_tsc(fd: &VcpuFd) -> u64 {
        get_msrs(fd, &[TSC]).unwrap()[0].data
    }

    #[test]
    #[ignore = "needs /dev/kvm"]
    fn time_stamp_counters_go_on_together_however_far_apart_they_were_read() {
        let open = || File::options().read(true).write(true).open("/dev/kvm");
        let system = System::new(open().unwrap().into()).unwrap();
        let msrs = system.saved_msrs().unwrap();
        for milliseconds in [1, 300, 5_000, 100_000] {
            let ram = Ram::new(&arch::layout::ram(32 << 20)).unwrap();
            let vm = system.create_vm(&ram, 3, false).unwrap();
            let fds: Vec<_> = (0..3).map(|index| vm.create_vcpu(index).unwrap()).collect();
            let mut states: Vec<_> = fds
                .iter()
                .map(|fd| VcpuState::save(fd, &msrs).unwrap())
                .collect();
            let second = u64::from(fds[0].get_tsc_khz().unwrap()) * 1000;
            let saved = second * milliseconds / 1000;
            for (index, state) in states.iter_mut().enumerate() {
                let msr = state.msrs.iter_mut().find(|msr| msr.index == TSC).unwrap();
                msr.data = saved + index as u64 * 3 * second;
            }
            restore(&fds, &states).unwrap();
            // Each read lies between those before and after it only if the counters are one.
            let reads: Vec<_> = (0..30).map(|n| read_tsc(&fds[n % fds.len()])).collect();
            assert!(reads.is_sorted(), "{milliseconds} ms: {reads:?}");
            assert!(reads[0] >= saved, "{milliseconds} ms: {reads:?}");
        }
    }
}
