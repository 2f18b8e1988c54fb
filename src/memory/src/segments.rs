//! A run of guest memory in pieces, and I/O between it and descriptors without a copy in between.
//!
//! The pieces of one virtio descriptor chain, in their order, are one run of bytes here: a device takes its header from
//! the front and hands the rest to the kernel. The guest may write the same bytes meanwhile: no references to them are
//! made, and a value is copied out once and then validated.
#![expect(unsafe_code, reason = "vectored I/O takes raw pointers")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// The most pieces of one run. No driver's chain has more than 261 descriptors (a page each for the most data of a FUSE
/// request, and headers; a queue of the other devices has 256); a buffer that crosses from one memory region to another
/// takes two pieces.
pub const MAX_SEGMENTS: usize = 512;

/// A run of guest memory in pieces, none of which is empty.
#[derive(Debug, Default)]
pub struct Segments<'m> {
    slices: Vec<VolatileSlice<'m>>,
    /// Pieces before this one were consumed.
    first: usize,
    len: usize,
}

/// The run has [`MAX_SEGMENTS`] pieces already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_SEGMENTS} pieces of guest memory")]
pub struct TooManySegments;

impl<'m> Segments<'m> {
    /// An empty run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece at the end; an empty one is left out.
    pub fn push(&mut self, slice: VolatileSlice<'m>) -> Result<(), TooManySegments> {
        if slice.is_empty() {
            return Ok(());
        }
        if self.slices.len() - self.first >= MAX_SEGMENTS {
            return Err(TooManySegments);
        }
        self.len += slice.len();
        self.slices.push(slice);
        Ok(())
    }

    /// Adds another run at the end, all of it or nothing.
    pub fn append(&mut self, other: Segments<'m>) -> Result<(), TooManySegments> {
        if self.pieces() + other.pieces() > MAX_SEGMENTS {
            return Err(TooManySegments);
        }
        self.len += other.len;
        self.slices.extend(&other.slices[other.first..]);
        Ok(())
    }

    /// Bytes in the run.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.slices.len() - self.first
    }

    /// Drops `count` bytes from the front, or all that there are.
    pub fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left > 0 {
            let slice = &mut self.slices[self.first];
            if left < slice.len() {
                *slice = slice.offset(left).expect("the offset is inside the piece");
                return;
            }
            left -= slice.len();
            self.first += 1;
        }
    }

    /// Drops bytes from the end until `len` are left.
    pub fn truncate(&mut self, len: usize) {
        let mut excess = self.len.saturating_sub(len);
        self.len -= excess;
        while excess > 0 {
            let last = self
                .slices
                .last_mut()
                .expect("the length is the sum of the pieces");
            if excess < last.len() {
                let kept = last.len() - excess;
                *last = last
                    .subslice(0, kept)
                    .expect("a prefix is inside the piece");
                return;
            }
            excess -= last.len();
            self.slices.pop();
        }
    }

    /// Moves the last `count` bytes, or all that there are, into a run of their own.
    pub fn split_off_last(&mut self, count: usize) -> Segments<'m> {
        let keep = self.len.saturating_sub(count);
        let mut tail = Segments {
            slices: self.slices[self.first..].to_vec(),
            first: 0,
            len: self.len,
        };
        tail.advance(keep);
        self.truncate(keep);
        tail
    }

    /// A second view of the first `len` bytes, or of all that there are.
    pub fn prefix(&self, len: usize) -> Segments<'m> {
        let mut prefix = Segments {
            slices: self.slices[self.first..].to_vec(),
            first: 0,
            len: self.len,
        };
        prefix.truncate(len);
        prefix
    }

    /// Copies bytes out and drops them from the front; returns how many, fewer than asked at the end of the run.
    pub fn take(&mut self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices[self.first..] {
            if done == to.len() {
                break;
            }
            done += slice.copy_to(&mut to[done..]);
        }
        self.advance(done);
        done
    }

    /// Copies bytes in and drops them from the front; returns how many, fewer than given at the end of the run.
    pub fn put(&mut self, from: &[u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices[self.first..] {
            if done == from.len() {
                break;
            }
            let count = slice.len().min(from.len() - done);
            slice.copy_from(&from[done..done + count]);
            done += count;
        }
        self.advance(done);
        done
    }

    /// Copies a fixed number of bytes out, all or nothing.
    pub fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.len < N {
            return None;
        }
        let mut bytes = [0; N];
        self.take(&mut bytes);
        Some(bytes)
    }

    /// Fills `count` bytes, or all that there are, with zeros and drops them from the front.
    pub fn put_zeros(&mut self, count: usize) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut left = count.min(self.len);
        while left > 0 {
            left -= self.put(&ZEROS[..left.min(ZEROS.len())]);
        }
    }

    /// readv(2) into the run: what was read is dropped from the front.
    pub fn read_from(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: the vectors describe guest memory that is mapped while `self` lives and has no references to it.
        self.transfer(|iov, count| unsafe { libc::readv(fd.as_raw_fd(), iov, count) })
    }

    /// writev(2) from the run: what was written is dropped from the front.
    pub fn write_to(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: as in `read_from`; the kernel only reads.
        self.transfer(|iov, count| unsafe { libc::writev(fd.as_raw_fd(), iov, count) })
    }

    /// preadv(2) into the run from `offset` in bytes: what was read is dropped from the front.
    pub fn read_from_at(&mut self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        // SAFETY: as in `read_from`.
        self.transfer(|iov, count| unsafe { libc::preadv(fd.as_raw_fd(), iov, count, offset) })
    }

    /// Fills the run from `offset` in bytes: what was read is dropped from the front. What is left then has no bytes in the file.
    pub fn fill_from_at(&mut self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        let end = offset + self.len as u64;
        while !self.is_empty() {
            match self.read_from_at(fd, end - self.len as u64) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// pwritev(2) from the run at `offset` in bytes: what was written is dropped from the front.
    pub fn write_to_at(&mut self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let offset = file_offset(offset)?;
        // SAFETY: as in `read_from`; the kernel only reads.
        self.transfer(|iov, count| unsafe { libc::pwritev(fd.as_raw_fd(), iov, count, offset) })
    }

    /// Makes one system call over the run's vectors and drops the bytes that it transferred.
    fn transfer(
        &mut self,
        call: impl FnOnce(*const libc::iovec, libc::c_int) -> libc::ssize_t,
    ) -> io::Result<usize> {
        let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_SEGMENTS];
        let pieces = &self.slices[self.first..];
        for (iovec, slice) in iovecs.iter_mut().zip(pieces) {
            iovec.write(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
        let count = pieces.len().min(MAX_SEGMENTS) as libc::c_int;
        let done = call(iovecs.as_ptr().cast(), count);
        let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        self.advance(done);
        Ok(done)
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    fn memory() -> GuestMemoryMmap<()> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        memory.write_slice(b"abcdefghij", GuestAddress(0)).unwrap();
        memory
    }

    fn run<'m>(memory: &'m GuestMemoryMmap<()>, pieces: &[(u64, usize)]) -> Segments<'m> {
        let mut run = Segments::new();
        for &(address, len) in pieces {
            run.push(memory.get_slice(GuestAddress(address), len).unwrap())
                .unwrap();
        }
        run
    }

    #[test]
    fn bytes_are_taken_across_pieces_in_order() {
        let memory = memory();
        let mut run = run(&memory, &[(7, 3), (0, 0), (0, 2), (4, 1)]);
        assert_eq!((run.len(), run.pieces()), (6, 3));
        assert_eq!(run.take_array::<2>(), Some(*b"hi"));
        assert_eq!(run.take_array::<5>(), None);
        let mut rest = [0; 8];
        assert_eq!(run.take(&mut rest), 4);
        assert_eq!(&rest[..4], b"jabe");
        assert!(run.is_empty());
        run.advance(1);
    }

    #[test]
    fn the_end_can_be_split_off_inside_a_piece() {
        let memory = memory();
        let mut head = run(&memory, &[(0, 4), (4, 4)]);
        head.advance(1);
        let mut tail = head.split_off_last(5);
        assert_eq!(head.take_array::<2>(), Some(*b"bc"));
        assert!(head.is_empty());
        assert_eq!(tail.prefix(2).take_array::<2>(), Some(*b"de"));
        assert_eq!(tail.take_array::<5>(), Some(*b"defgh"));
        assert_eq!(tail.split_off_last(3).len(), 0);
    }

    #[test]
    fn a_run_has_a_largest_number_of_pieces() {
        let memory = memory();
        let mut run = run(&memory, &[(0, 1); MAX_SEGMENTS]);
        let more = memory.get_slice(GuestAddress(0), 1).unwrap();
        assert_eq!(run.push(more), Err(TooManySegments));
        run.advance(1);
        assert_eq!(run.push(more), Ok(()));
    }

    #[test]
    fn a_file_is_read_and_written_in_pieces() {
        let memory = memory();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let mut target = run(&memory, &[(0x100, 3), (0x200, 4)]);
        assert_eq!(target.read_from_at(file.as_fd(), 5).unwrap(), 5);
        assert_eq!(target.len(), 2);
        assert_eq!(
            run(&memory, &[(0x100, 3), (0x200, 2)]).take_array(),
            Some(*b"56789")
        );

        let mut source = run(&memory, &[(0, 1), (9, 1)]);
        assert_eq!(source.write_to_at(file.as_fd(), 9).unwrap(), 2);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "012345678aj");
        assert!(source.write_to_at(file.as_fd(), u64::MAX).is_err());
    }

    #[test]
    fn zeros_fill_no_more_than_the_run() {
        let memory = memory();
        let mut target = run(&memory, &[(0, 2), (4, 2)]);
        target.put_zeros(3);
        assert_eq!(target.len(), 1);
        target.put_zeros(100);
        assert_eq!(run(&memory, &[(0, 7)]).take_array(), Some(*b"\0\0cd\0\0g"));
    }
}
