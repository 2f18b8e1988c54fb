//! What an x86-64 guest expects at reset: address layout, boot protocols, CPUID, MSRs, page tables, MP table.
//!
//! Pure values: nothing here performs an ioctl or touches guest memory. What belongs in guest memory is given out as
//! [`Placed`] bytes. Documents are cited by the abbreviations of resources/SPECS.md: SDM (Intel), APM (AMD), BOOT
//! (Documentation/arch/x86/boot.rst), PVH (xen.git, docs/misc/pvh.pandoc), MPS (MultiProcessor Specification 1.4).
//!
//! Deliberately absent: ACPI, PCI and any legacy device's address but those of [`layout`].

use memory::GuestAddress;

pub mod cmdline;
pub mod cpuid;
pub mod e820;
pub mod lapic;
pub mod layout;
pub mod linux;
#[cfg(test)]
mod model;
pub mod mptable;
pub mod msr;
pub mod pvh;
pub mod registers;
pub mod tables;
pub mod xcr;

/// Bytes and where the guest finds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Guest physical address of the first byte.
    pub at: GuestAddress,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The initramfs in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initramfs {
    /// Its first byte.
    pub at: GuestAddress,
    /// Its length in bytes.
    pub len: u64,
}
