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

/// MSR_IA32_TSC_DEADLINE (SDM vol. 4): it counts for nothing unless the time stamp counter and the local APIC are set before.
const TSC_DEADLINE: u32 = 0x6e0;

/// The type of a 64-bit task state segment that is not marked busy (SDM vol. 3A, 3.5).
const TSS_AVAILABLE: u8 = 9;
/// CPUID leaf with the hypervisor's name, and what QEMU's emulator is called there.
const HYPERVISOR: u32 = 0x4000_0000;
const QEMU_TCG: [u8; 12] = *b"TCGTCGTCGTCG";

/// Everything that KVM keeps of a vCPU besides its CPUID, which is the configuration's.
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
    /// Of a vCPU that is not in the guest and has finished its last access. `msrs` are those that KVM says are to be saved.
    ///
    /// The order is KVM's wish: MP_STATE first, since reading it settles pending INITs and SIPIs.
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

    /// Sets a new vCPU, whose CPUID is set: what comes later is checked against what came before.
    pub fn restore(&self, fd: &VcpuFd) -> Result<(), Error> {
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
        set_msrs(fd, &self.msrs)?;
        fd.set_vcpu_events(&self.events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))
    }
}

/// Whether the host's processor is QEMU's emulator. It looks into an I/O permission bitmap only if the task register is not
/// marked busy (check_io in target/i386/tcg), which KVM on AMD always reads it as: a guest whose user space has been given
/// ports, as hull's agent has, would lose them.
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
