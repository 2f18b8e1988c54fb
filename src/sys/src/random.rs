//! Random bytes of the kernel's, and random bytes for it.

#![expect(unsafe_code, reason = "ioctls of random(4) have no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// linux/random.h: _IOW('R', 0x03, int[2]).
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// linux/random.h: _IO('R', 0x07).
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
/// Bytes of a key of the kernel's generator.
const SEED_LEN: usize = 32;

/// Fills `buffer` from getrandom(2). Waits only if the host's generator has not been seeded since its boot.
pub fn fill(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match rustix::rand::getrandom(&mut *buffer, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => buffer = &mut buffer[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// struct rand_pool_info of linux/random.h.
#[repr(C)]
struct PoolInfo {
    /// In bits.
    entropy_count: libc::c_int,
    /// In bytes.
    buf_size: libc::c_int,
    buf: [u8; SEED_LEN],
}

/// Mixes `seed` into the pool of the kernel's generator, every bit of it counted as random. That is enough for a generator
/// that had none. `generator` is /dev/random or /dev/urandom; needs CAP_SYS_ADMIN.
pub fn add_entropy(generator: impl AsFd, seed: &[u8; SEED_LEN]) -> io::Result<()> {
    let info = PoolInfo {
        entropy_count: 8 * SEED_LEN as libc::c_int,
        buf_size: SEED_LEN as libc::c_int,
        buf: *seed,
    };
    // SAFETY: the request reads a rand_pool_info and as many bytes behind it as that says, which are in it.
    match unsafe {
        libc::ioctl(
            generator.as_fd().as_raw_fd(),
            RNDADDENTROPY,
            &raw const info,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the kernel's generator take a new key from its pool now. What was drawn from the old one and not yet used is
/// dropped, in the kernel and in the vDSO. `generator` as above; needs CAP_SYS_ADMIN.
pub fn reseed(generator: impl AsFd) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    match unsafe { libc::ioctl(generator.as_fd().as_raw_fd(), RNDRESEEDCRNG) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn the_generator_takes_a_seed_and_starts_afresh() {
        let generator = std::fs::File::open("/dev/urandom").unwrap();
        add_entropy(&generator, &[7; SEED_LEN]).unwrap();
        reseed(&generator).unwrap();
    }

    #[test]
    fn what_is_no_generator_takes_no_seed() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let refused = |result: io::Result<()>| result.unwrap_err().raw_os_error();
        assert_eq!(
            refused(add_entropy(&null, &[0; SEED_LEN])),
            Some(libc::ENOTTY)
        );
        assert_eq!(refused(reseed(&null)), Some(libc::ENOTTY));
    }
}
