//! Guest memory: addresses, ranges and what backs them.
//!
//! Host pointers stay inside this crate; the rest of hull speaks of [`GuestAddress`].

pub use vm_memory::{Address, ByteValued, Bytes, GuestAddress, GuestMemory, GuestMemoryRegion, Le16, Le32, Le64, VolatileSlice};

/// All RAM of one guest, shared by the threads that need it.
pub type Memory = std::sync::Arc<vm_memory::GuestMemoryMmap<()>>;
