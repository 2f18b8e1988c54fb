//! Partitions of a block device that are told to the kernel instead of read from a table (BLKPG).

#![expect(unsafe_code, reason = "BLKPG has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

// linux/blkpg.h
const BLKPG: u32 = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;

/// The largest number of a partition (DISK_MAX_PARTS less the whole disk).
pub const MAX_NUMBER: i32 = 255;

/// `struct blkpg_ioctl_arg`
#[repr(C)]
struct Argument {
    op: i32,
    flags: i32,
    datalen: i32,
    data: *mut Partition,
}

/// `struct blkpg_partition`
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    pno: i32,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// Makes partition `number` of an open disk, in bytes. Its device node appears before this returns.
pub fn add(disk: impl AsFd, number: i32, start: u64, len: u64) -> io::Result<()> {
    let out_of_range = || io::Error::from_raw_os_error(libc::EINVAL);
    let start = i64::try_from(start).map_err(|_| out_of_range())?;
    let length = i64::try_from(len).map_err(|_| out_of_range())?;
    change(disk, BLKPG_ADD_PARTITION, number, start, length)
}

/// Removes partition `number`, which must not be in use.
pub fn remove(disk: impl AsFd, number: i32) -> io::Result<()> {
    change(disk, BLKPG_DEL_PARTITION, number, 0, 0)
}

fn change(disk: impl AsFd, op: i32, number: i32, start: i64, length: i64) -> io::Result<()> {
    let mut partition = Partition {
        start,
        length,
        pno: number,
        devname: [0; 64],
        volname: [0; 64],
    };
    let mut argument = Argument {
        op,
        flags: 0,
        datalen: size_of::<Partition>() as i32,
        data: &mut partition,
    };
    // SAFETY: the argument points to a partition of the announced size that lives to the end of the call.
    match unsafe { libc::ioctl(disk.as_fd().as_raw_fd(), BLKPG as _, &raw mut argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
