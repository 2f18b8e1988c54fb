//! Loop devices: a file as a block device (linux/loop.h), for kernels that mount no file.
#![expect(unsafe_code, reason = "ioctl(2) has no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::tap::check;

// linux/loop.h.
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config`, with what of its `struct loop_info64` is set here.
#[repr(C)]
struct Configuration {
    fd: u32,
    block_size: u32,
    before: [u64; 5],
    encryption: [u32; 3],
    flags: u32,
    after: [u64; 22],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Configuration>() == 304);

/// A read-only block device with a file's content. It is given back when this and every mount of it are gone.
#[derive(Debug)]
pub struct LoopDevice {
    _device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Takes a free device.
    ///
    /// # Errors
    /// `NotFound` on a kernel without loop devices, `PermissionDenied` without root.
    pub fn attach(file: impl AsFd) -> io::Result<Self> {
        let control = File::options()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        loop {
            // SAFETY: LOOP_CTL_GET_FREE takes nothing.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            check(number)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = File::open(&path)?;
            match configure(&device, file.as_fd()) {
                // Another process has taken it in between, and the next one is asked for.
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
                result => {
                    return result.map(|()| Self {
                        _device: device,
                        path,
                    });
                }
            }
        }
    }

    /// Its path below /dev.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn configure(device: &File, file: BorrowedFd<'_>) -> io::Result<()> {
    let configuration = Configuration {
        fd: file.as_raw_fd() as u32,
        block_size: 0,
        before: [0; 5],
        encryption: [0; 3],
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        after: [0; 22],
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one loop_config, which `configuration` is.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const configuration) })
}
