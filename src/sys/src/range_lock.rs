//! Locks on single bytes of a file (open file description locks, fcntl(2)): numbers that processes share out among
//! themselves. A lock ends with the last copy of the descriptor, so that nothing has to be cleaned up.

#![expect(unsafe_code, reason = "fcntl's record locks have no safe form")]

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};

/// Locks byte `number` of `file`, which is open for writing, for the holders of this open file alone. False if another open
/// file has a lock on it. The file need not be that long.
pub fn try_lock(file: impl AsFd, number: u64) -> io::Result<bool> {
    set(file, libc::F_WRLCK, number)
}

/// Locks byte `number` of `file`, which is open for reading, together with others that do. False if another open file has it
/// alone.
pub fn try_share(file: impl AsFd, number: u64) -> io::Result<bool> {
    set(file, libc::F_RDLCK, number)
}

/// Gives byte `number` back.
pub fn unlock(file: impl AsFd, number: u64) -> io::Result<()> {
    set(file, libc::F_UNLCK, number).map(drop)
}

/// Whether another open file has a lock on any of these bytes.
pub fn is_locked(file: impl AsFd, numbers: RangeInclusive<u64>) -> io::Result<bool> {
    if numbers.is_empty() {
        return Ok(false);
    }
    let mut lock = describe(libc::F_WRLCK, numbers);
    // SAFETY: the structure lives to the end of the call, which writes to no more than it.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(lock.l_type != libc::F_UNLCK as libc::c_short),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(file: impl AsFd, kind: libc::c_int, number: u64) -> io::Result<bool> {
    let lock = describe(kind, number..=number);
    // SAFETY: the structure lives to the end of the call, which does not wait.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            error => Err(error),
        },
    }
}

fn describe(kind: libc::c_int, numbers: RangeInclusive<u64>) -> libc::flock {
    // SAFETY: zeros are a valid flock, in which every field that matters is set below.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = numbers.start().cast_signed();
    lock.l_len = (numbers.end() - numbers.start() + 1).cast_signed();
    lock
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::path::PathBuf;

    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("hull-range-lock-{name}-{}", std::process::id()))
    }

    fn open(path: &PathBuf) -> File {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        options.open(path).unwrap()
    }

    #[test]
    fn a_number_is_one_holders_until_it_lets_go() {
        let path = path("one");
        let (first, second) = (open(&path), open(&path));
        assert!(try_lock(&first, 7).unwrap());
        assert!(!try_lock(&second, 7).unwrap());
        assert!(try_lock(&second, 8).unwrap());
        drop(first);
        assert!(try_lock(&second, 7).unwrap());
        unlock(&second, 7).unwrap();
        assert!(try_lock(open(&path), 7).unwrap());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_locks_of_others_are_seen_and_not_ones_own() {
        let path = path("others");
        let writer = open(&path);
        let reader = File::open(&path).unwrap();
        assert!(try_share(&reader, 5).unwrap());
        assert!(try_share(File::open(&path).unwrap(), 5).unwrap());
        for (numbers, expected) in [
            (1..=9, true),
            (5..=5, true),
            (1..=4, false),
            (6..=u64::from(u32::MAX), false),
        ] {
            assert_eq!(
                is_locked(&writer, numbers.clone()).unwrap(),
                expected,
                "{numbers:?}"
            );
        }
        #[expect(clippy::reversed_empty_ranges, reason = "there are no such bytes")]
        let none = is_locked(&writer, 6..=4);
        assert!(!none.unwrap());
        assert!(!is_locked(&reader, 1..=9).unwrap());
        assert!(!try_lock(&writer, 5).unwrap());
        // A copy of the descriptor keeps it.
        let copy = reader.try_clone().unwrap();
        drop(reader);
        assert!(is_locked(&writer, 1..=9).unwrap());
        drop(copy);
        assert!(!is_locked(&writer, 1..=9).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}
