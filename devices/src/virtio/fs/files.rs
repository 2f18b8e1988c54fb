//! The files that the guest has open, and their data: straight between them and guest memory.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memory::Segments;
use rustix::io::Errno;

use super::MAX_DATA_BYTES;
use super::spec::Transfer;

/// Open files by their handles, which hull-fs has chosen. (A tree: a hash map's keys are random, which takes a system call.)
pub(super) struct Files {
    open: BTreeMap<u64, OwnedFd>,
    max: usize,
}

impl Files {
    pub(super) fn new(max: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            max,
        }
    }

    /// Whether there is no room for another one.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.max
    }

    pub(super) fn contains(&self, handle: u64) -> bool {
        self.open.contains_key(&handle)
    }

    pub(super) fn insert(&mut self, handle: u64, file: OwnedFd) {
        self.open.insert(handle, file);
    }

    pub(super) fn close(&mut self, handle: u64) {
        self.open.remove(&handle);
    }

    pub(super) fn close_all(&mut self) {
        self.open.clear();
    }

    /// Fills `to`, as far as it is asked for and the file goes; returns how many bytes came.
    pub(super) fn read(&self, of: Transfer, to: &mut Segments<'_>) -> Result<usize, Errno> {
        let file = self.checked(of)?;
        to.truncate(of.size as usize);
        transfer(to, of.offset, |to, offset| to.read_from_at(file, offset))
    }

    /// Writes as much of `from` as is asked for, which must be there; returns how many bytes were written.
    pub(super) fn write(&self, of: Transfer, from: &mut Segments<'_>) -> Result<usize, Errno> {
        let file = self.checked(of)?;
        if from.len() < of.size as usize {
            return Err(Errno::INVAL);
        }
        from.truncate(of.size as usize);
        transfer(from, of.offset, |from, offset| {
            from.write_to_at(file, offset)
        })
    }

    fn checked(&self, of: Transfer) -> Result<BorrowedFd<'_>, Errno> {
        let end = of.offset.checked_add(of.size.into());
        if of.size > MAX_DATA_BYTES || end.is_none_or(|end| end > i64::MAX as u64) {
            return Err(Errno::INVAL);
        }
        let file = self.open.get(&of.handle).ok_or(Errno::BADF)?;
        Ok(file.as_fd())
    }
}

/// Repeats `step` until `data` is through, the file ends, or there is an error, which counts only before the first byte.
fn transfer(
    data: &mut Segments<'_>,
    offset: u64,
    mut step: impl FnMut(&mut Segments<'_>, u64) -> io::Result<usize>,
) -> Result<usize, Errno> {
    let len = data.len();
    while !data.is_empty() {
        let done = len - data.len();
        match step(data, offset + done as u64) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if done == 0 => {
                return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
            Err(_) => break,
        }
    }
    Ok(len - data.len())
}
