//! Driving a vCPU out of the guest, from another thread, without a race.

#![expect(
    unsafe_code,
    reason = "maps the page that KVM shares with a vCPU's user"
)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::raw::{c_int, c_void};
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The signal that interrupts KVM_RUN. Its handler does nothing: the interruption is the effect.
pub(super) fn kick_signal() -> c_int {
    SIGRTMIN()
}

/// Installs the kick's handler, once for the process.
pub fn install_handler() -> Result<(), vmm_sys_util::errno::Error> {
    extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}
    register_signal_handler(kick_signal(), nothing)
}

/// The `immediate_exit` flag of a vCPU (KVM documentation, 5): while it is set, KVM_RUN returns at once.
///
/// A mapping of its own of the page that the vCPU's thread uses, so that the flag can be set while KVM_RUN runs there.
#[derive(Debug)]
pub(super) struct ImmediateExit {
    page: *mut c_void,
}

const PAGE_BYTES: usize = 4096;

// SAFETY: the mapping belongs to this value alone, and is only accessed atomically.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    pub(super) fn new(vcpu: &VcpuFd) -> rustix::io::Result<Self> {
        // SAFETY: the descriptor is open as long as `vcpu` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory. A vCPU's descriptor has at
        // least this page.
        let page = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        Ok(Self { page })
    }

    pub(super) fn set(&self) {
        let offset = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the byte lies in the mapping, which lives as long as `self`; every byte is aligned for an AtomicU8. The
        // kernel reads it at any time, and the vCPU's thread never writes it.
        let flag = unsafe { AtomicU8::from_ptr(self.page.cast::<u8>().add(offset)) };
        flag.store(1, Ordering::SeqCst);
    }
}

impl Drop for ImmediateExit {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value and is not used after the drop.
        let _ = unsafe { munmap(self.page, PAGE_BYTES) };
    }
}
