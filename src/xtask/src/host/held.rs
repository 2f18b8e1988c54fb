//! Two virtual CPUs that are made and never run, so that the host's kernel does not patch itself while others run.
//!
//! KVM counts vCPUs whose local APIC is absent, disabled or not yet enabled, and patches its own code (static keys)
//! whenever such a count leaves or reaches zero: at every start of a VM, and a second later. An emulated processor can
//! still run the breakpoint that stood there during a patch after the kernel has forgotten it, which is an oops
//! ("int3" in apic_has_pending_timer). With these two the counts are never zero. The same holds for the cpuset and CPU
//! bandwidth controllers, whose first child cgroup patches the allocator and the scheduler: a cgroup is held too.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// Kept open for as long as the test host runs.
pub(crate) struct Held {
    _vms: [(VmFd, VcpuFd); 2],
}

/// Makes them.
pub(crate) fn hold() -> Result<Held> {
    hold_cgroup().context("cannot make a cgroup to be held")?;
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let without_apic = kvm.create_vm()?;
    let cpu = without_apic.create_vcpu(0)?;
    let disabled = kvm.create_vm()?;
    disabled.create_irq_chip()?;
    let other = disabled.create_vcpu(0)?;
    let mut registers = other.get_sregs()?;
    // IA32_APIC_BASE, bit 11: the APIC's global enable (Intel SDM 3A, 11.4.4).
    registers.apic_base &= !(1 << 11);
    other.set_sregs(&registers)?;
    Ok(Held {
        _vms: [(without_apic, cpu), (disabled, other)],
    })
}

/// Stays for as long as the hierarchy does.
fn hold_cgroup() -> std::io::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let held = root.join("held");
    fs::write(root.join("cgroup.subtree_control"), "+cpuset +cpu")?;
    fs::create_dir(&held)?;
    fs::write(held.join("cpu.max"), "100000 100000")
}
