//! Mounts that no other process sees and that end with this one.
#![expect(
    unsafe_code,
    reason = "unshare has no safe form: some of its flags break what Rust relies on"
)]

use std::io;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives this process, which must have one thread, mounts of its own: changes do not leave it, nor those of others
/// enter.
pub fn enter() -> io::Result<()> {
    // SAFETY: NEWNS changes what paths mean to this thread. No memory is concerned, and descriptors stay what they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    Ok(())
}
