//! Files with holes.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// The first stretch of data at or after `from`, in bytes: where it begins, and where the hole behind it does. `None` if there
/// is none. A file system that knows no holes says that all is data (lseek(2)).
pub fn next_data(file: impl AsFd, from: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(&file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some((start, seek(&file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
