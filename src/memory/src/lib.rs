//! Guest memory: addresses, ranges and what backs them.
//!
//! Host pointers stay inside this crate; the rest of hull speaks of [`GuestAddress`]. What backs a region is known
//! here only: private anonymous memory, of which the host holds what the guest has touched, and over parts of it
//! private mappings of files (a kernel, an initramfs), of which the host holds what the guest has changed.
//!
//! Huge pages are off but for what a guest is known to fill. Deliberately absent: shared memory (it comes with the first
//! device outside the process).

mod ram;
mod segments;

pub use ram::{Error, HostRange, Ram, Slot};
pub use segments::{MAX_SEGMENTS, Segments, TooManySegments};
pub use vm_memory::{
    Address, ByteValued, Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError,
    GuestMemoryMmap, GuestMemoryRegion, Le16, Le32, Le64, Permissions, VolatileSlice,
};

/// All RAM of one guest, shared by the threads that need it.
pub type Memory = std::sync::Arc<vm_memory::GuestMemoryMmap<()>>;

/// The page size of host and guest, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// What one entry of a page directory maps, in bytes.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;
