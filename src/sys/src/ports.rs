//! I/O ports from user space (ioperm(2)).
//!
//! Invariant: the permission is held only during an access. It is inherited by forks and survives exec, and no
//! process of a container may have it.

#![expect(unsafe_code, reason = "ioperm, in and out have no safe wrapper")]

use std::arch::asm;
use std::io;

/// A range of ports that this program may use because it knows the device behind them.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    first: u16,
    len: u16,
}

impl Ports {
    /// The `len` ports from `first` on.
    pub const fn new(first: u16, len: u16) -> Ports {
        Ports { first, len }
    }

    /// Reads 32 bits at an offset.
    pub fn read_u32(&self, offset: u16) -> io::Result<u32> {
        self.access(offset, 4, |port| {
            let value;
            // SAFETY: the permission for the port is held; an `in` touches no memory of this program.
            unsafe { asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack)) };
            value
        })
    }

    /// Writes 32 bits at an offset.
    pub fn write_u32(&self, offset: u16, value: u32) -> io::Result<()> {
        self.access(offset, 4, |port| {
            // SAFETY: the permission for the port is held; what the device does is what the caller wants of it.
            unsafe { asm!("out dx, eax", in("eax") value, in("dx") port, options(nomem, nostack)) };
        })
    }

    /// Writes 8 bits at an offset.
    pub fn write_u8(&self, offset: u16, value: u8) -> io::Result<()> {
        self.access(offset, 1, |port| {
            // SAFETY: as above.
            unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack)) };
        })
    }

    fn access<T>(&self, offset: u16, len: u16, access: impl FnOnce(u16) -> T) -> io::Result<T> {
        assert!(offset + len <= self.len, "the device has no such register");
        let port = self.first + offset;
        permit(port, len, true)?;
        let value = access(port);
        permit(port, len, false)?;
        Ok(value)
    }
}

fn permit(port: u16, len: u16, on: bool) -> io::Result<()> {
    // SAFETY: takes numbers only.
    match unsafe { libc::ioperm(port.into(), len.into(), on.into()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
