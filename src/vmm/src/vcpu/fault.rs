//! Descriptions of why a vCPU cannot go on.

#![expect(
    unsafe_code,
    reason = "reads the union that KVM fills for the exit at hand"
)]

use std::fmt::Write;

use kvm_ioctls::VcpuFd;

/// KVM_INTERNAL_ERROR_EMULATION (KVM documentation, 5).
const EMULATION: u32 = 1;

/// KVM_EXIT_INTERNAL_ERROR.
pub(super) fn internal(fd: &mut VcpuFd) -> String {
    // SAFETY: the exit at hand is KVM_EXIT_INTERNAL_ERROR, for which KVM fills `internal`; every bit pattern is a value.
    let error = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal };
    let mut message = format!("KVM internal error, suberror {}", error.suberror);
    if error.suberror == EMULATION {
        message.push_str(" (an instruction could not be emulated)");
    }
    message.push_str(&place(fd));
    // With flag 0 KVM adds the instruction: its length and 15 bytes, right after the flags.
    if error.suberror == EMULATION && error.ndata >= 3 && error.data[0] & 1 != 0 {
        let bytes: Vec<u8> = error.data[1..3]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let len = usize::from(bytes[0]).min(15);
        message.push_str(", instruction");
        for byte in &bytes[1..=len] {
            let _ = write!(message, " {byte:02x}");
        }
    }
    message
}

/// KVM_EXIT_FAIL_ENTRY.
pub(super) fn entry(fd: &VcpuFd, reason: u64) -> String {
    format!(
        "the processor refused to enter the guest, reason {reason:#x}{}",
        place(fd)
    )
}

/// KVM_RUN itself failed.
pub(super) fn run_failed(fd: &VcpuFd, error: kvm_ioctls::Error) -> String {
    format!("KVM_RUN failed: {error}{}", place(fd))
}

fn place(fd: &VcpuFd) -> String {
    match fd.get_regs() {
        Ok(registers) => format!(" at RIP {:#x}", registers.rip),
        Err(_) => String::new(),
    }
}
