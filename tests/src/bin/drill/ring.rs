//! One request through an io_uring, which seccomp does not filter (io_uring_setup(2), io_uring_enter(2)).

use std::io;
use std::os::fd::RawFd;

use libc::{c_void, syscall};

// linux/io_uring.h
const IORING_OP_SOCKET: u8 = 45;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_FEAT_SINGLE_MMAP: u32 = 1;
/// struct io_uring_sqe and io_uring_cqe.
const SQE_LEN: usize = 64;
const CQE_LEN: usize = 16;
/// A mapping large enough for rings of two entries.
const RINGS_LEN: usize = 4096;

/// struct io_uring_params, as numbers of 32 bits: the flags of what the kernel can do, and where things are.
const FEATURES: usize = 5;
const SQ_TAIL: usize = 11;
const SQ_ARRAY: usize = 16;
const CQ_CQES: usize = 25;

/// socket(2), by way of a ring of its own.
pub(crate) fn socket(family: i32, kind: i32) -> io::Result<RawFd> {
    let mut params = [0u32; 30];
    // SAFETY: params is a struct io_uring_params: 120 bytes.
    let ring = unsafe { syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    let ring = ring as RawFd;
    if params[FEATURES] & IORING_FEAT_SINGLE_MMAP == 0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let rings = map(ring, RINGS_LEN, 0)?;
    let entries = map(ring, RINGS_LEN, IORING_OFF_SQES)?;
    let mut entry = [0u8; SQE_LEN];
    entry[0] = IORING_OP_SOCKET;
    // fd is the family, off the type, len the protocol.
    entry[4..8].copy_from_slice(&family.to_ne_bytes());
    entry[8..16].copy_from_slice(&(kind as u64).to_ne_bytes());
    // SAFETY: the offsets of head, tail and entries are the kernel's own and lie within the mappings; no other thread
    // has the ring.
    unsafe {
        std::ptr::copy_nonoverlapping(entry.as_ptr(), entries.cast(), SQE_LEN);
        let at = |offset: usize| rings.cast::<u8>().add(params[offset] as usize);
        at(SQ_ARRAY).cast::<u32>().write(0);
        at(SQ_TAIL).cast::<u32>().write_volatile(1);
        let entered = syscall(
            libc::SYS_io_uring_enter,
            ring,
            1,
            1,
            IORING_ENTER_GETEVENTS,
            std::ptr::null::<c_void>(),
            0,
        );
        if entered < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut completion = [0u8; CQE_LEN];
        std::ptr::copy_nonoverlapping(at(CQ_CQES), completion.as_mut_ptr(), CQE_LEN);
        let result =
            i32::from_ne_bytes([completion[8], completion[9], completion[10], completion[11]]);
        match result {
            ..0 => Err(io::Error::from_raw_os_error(-result)),
            fd => Ok(fd),
        }
    }
}

fn map(ring: RawFd, len: usize, offset: i64) -> io::Result<*mut c_void> {
    // SAFETY: a new mapping, wherever the kernel likes.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            ring,
            offset,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(at)
}
