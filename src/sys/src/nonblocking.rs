//! Descriptors that are never waited for.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Makes reads and writes of `descriptor` fail (`WouldBlock`) instead of waiting. It holds for the open file, so for
/// everyone who shares it.
pub fn set_nonblocking(descriptor: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&descriptor)?;
    Ok(fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?)
}
