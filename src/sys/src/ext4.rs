//! Growing an ext4 file system while it is mounted.

#![expect(unsafe_code, reason = "EXT4_IOC_RESIZE_FS has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::fstatvfs;

/// `_IOW('f', 16, __u64)` (fs/ext4/ext4.h)
const EXT4_IOC_RESIZE_FS: u32 = 0x4008_6610;

/// Grows the file system to which an open directory belongs to `bytes`, less what is no whole block. One of that size
/// stays as it is; to make one smaller is refused (EINVAL). Needs CAP_SYS_RESOURCE.
pub fn grow(directory: impl AsFd, bytes: u64) -> io::Result<()> {
    let blocks = bytes / fstatvfs(&directory)?.f_bsize.max(1);
    // SAFETY: the argument is a u64 that lives to the end of the call.
    match unsafe {
        libc::ioctl(
            directory.as_fd().as_raw_fd(),
            EXT4_IOC_RESIZE_FS as _,
            &raw const blocks,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
