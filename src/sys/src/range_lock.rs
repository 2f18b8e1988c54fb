//! Locks on single bytes of a file (open file description locks, fcntl(2)): numbers that processes share out among
//! themselves. A lock ends with the last copy of the descriptor, so that nothing has to be cleaned up.

#![expect(unsafe_code, reason = "fcntl's record locks have no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Locks byte `number` of `file`, which is open for writing, for the holders of this open file. False if another process
/// has it. The file need not be that long.
pub fn try_lock(file: impl AsFd, number: u32) -> io::Result<bool> {
    // SAFETY: zeros are a valid flock, in which every field that matters is set below.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = i64::from(number);
    lock.l_len = 1;
    // SAFETY: the structure lives to the end of the call, which does not wait.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_number_is_one_holders_until_it_lets_go() {
        let path = std::env::temp_dir().join(format!("hull-range-lock-{}", std::process::id()));
        let open = || {
            let mut options = OpenOptions::new();
            options
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .unwrap()
        };
        let (first, second) = (open(), open());
        assert!(try_lock(&first, 7).unwrap());
        assert!(!try_lock(&second, 7).unwrap());
        assert!(try_lock(&second, 8).unwrap());
        drop(first);
        assert!(try_lock(&second, 7).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
