//! What little of a PC the guest expects besides virtio. Each is a chip that knows its registers and not where on the
//! bus they lie.

mod control;
mod i8042;
mod serial;

pub use control::{Control, ControlEvents};
pub use i8042::I8042;
pub use serial::Serial;

/// A chip on the I/O port bus. An access has 1, 2 or 4 bytes and begins at the chip's port number `offset`.
pub trait Chip: Send {
    /// The guest reads: `data` is filled.
    fn read(&mut self, offset: u16, data: &mut [u8]);
    /// The guest writes.
    fn write(&mut self, offset: u16, data: &[u8]);
}
