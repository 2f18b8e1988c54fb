//! A layer's tar, rebuilt from its EROFS image and the record of the tar that it was made from.
//!
//! Invariants: a damaged or hostile record gives an error or other bytes, never a panic, and no more bytes than its
//! header says; memory is bounded. Deliberately absent: the check of the diffID, which is the caller's.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::erofs::BLOCK_SIZE;

use super::Limits;
use super::record::{HEADER_LEN, MAGIC, tag};

/// What is wrong with a record; the source of an [`io::Error`] of kind `InvalidData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It does not begin as a record does, or was written by a later hull.
    #[error("it is not a record of a tar, or one of a later version")]
    Magic,
    /// It says more than any tar has that is converted.
    #[error("the record is of a tar of {bytes} bytes, more than any that is stored")]
    Size {
        /// What it says.
        bytes: u64,
    },
    /// An operation is malformed.
    #[error("an operation of the record is malformed")]
    Operation,
    /// Its operations make a tar of another length than its header says.
    #[error("the record makes more or fewer than the {expected} bytes that it says")]
    Length {
        /// Bytes of the tar, by the header.
        expected: u64,
    },
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// What is being read.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Literal { left: u64 },
    Copy { position: u64, left: u64 },
    Zeros { left: u64 },
}

/// Reads the tar.
pub struct RebuiltTar {
    image: File,
    record: zstd::stream::read::Decoder<'static, BufReader<File>>,
    operation: Operation,
    /// Where the next file's data is expected in the image.
    expected: u64,
    tar_bytes: u64,
    /// Bytes of the tar that are still to come.
    left: u64,
}

impl RebuiltTar {
    /// Opens a record and the image that it belongs to.
    pub fn open(image: File, mut record: File) -> io::Result<RebuiltTar> {
        let mut header = [0; HEADER_LEN as usize];
        record.seek(SeekFrom::Start(0))?;
        record.read_exact(&mut header)?;
        let (magic, bytes) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(RecordError::Magic.into());
        }
        let tar_bytes = u64::from_le_bytes(bytes.try_into().expect("eight bytes are left"));
        if tar_bytes > Limits::default().tar_bytes {
            return Err(RecordError::Size { bytes: tar_bytes }.into());
        }
        Ok(RebuiltTar {
            image,
            // The decoder's own bound on a frame's window, 128 MiB, is the bound on its memory.
            record: zstd::stream::read::Decoder::new(record)?.single_frame(),
            operation: Operation::Literal { left: 0 },
            expected: BLOCK_SIZE as u64,
            tar_bytes,
            left: tar_bytes,
        })
    }

    /// Bytes of the whole tar.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }

    /// Reads the next operation; `None` at the record's end.
    fn next(&mut self) -> io::Result<Option<Operation>> {
        let mut tag = [0];
        if read_some(&mut self.record, &mut tag)? == 0 {
            return Ok(None);
        }
        Ok(Some(match tag[0] {
            tag::LITERAL => Operation::Literal {
                left: self.number()?,
            },
            tag::ZEROS => Operation::Zeros {
                left: self.number()?,
            },
            tag::COPY => {
                let (zigzag, left) = (self.number()?, self.number()?);
                let skip = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                let position = self.expected.checked_add_signed(skip);
                let position = position.ok_or(RecordError::Operation)?;
                let end = position.checked_add(left);
                let expected = end.and_then(|end| end.checked_next_multiple_of(BLOCK_SIZE as u64));
                self.expected = expected.ok_or(RecordError::Operation)?;
                Operation::Copy { position, left }
            }
            _ => return Err(RecordError::Operation.into()),
        }))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.record.read_exact(&mut byte)?;
            let bits = u64::from(byte[0] & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError::Operation.into())
    }

    /// Reads a part of the current operation, which has `left` bytes, at least one of them.
    fn part(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.operation {
            Operation::Literal { left } => {
                let len = within(buffer, *left);
                let count = read_some(&mut self.record, &mut buffer[..len])?;
                *left -= count as u64;
                count
            }
            Operation::Copy { position, left } => {
                let len = within(buffer, *left);
                let count = self.image.read_at(&mut buffer[..len], *position)?;
                *position += count as u64;
                *left -= count as u64;
                count
            }
            Operation::Zeros { left } => {
                let len = within(buffer, *left);
                buffer[..len].fill(0);
                *left -= len as u64;
                len
            }
        };
        match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

impl Operation {
    fn left(&self) -> u64 {
        match self {
            Operation::Literal { left }
            | Operation::Copy { left, .. }
            | Operation::Zeros { left } => *left,
        }
    }
}

impl Read for RebuiltTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let wrong_length = RecordError::Length {
            expected: self.tar_bytes,
        };
        while self.operation.left() == 0 {
            match self.next()? {
                Some(operation) => self.operation = operation,
                None if self.left == 0 => return Ok(0),
                None => return Err(wrong_length.into()),
            }
        }
        if self.left == 0 {
            return Err(wrong_length.into());
        }
        let len = within(buffer, self.left);
        let count = self.part(&mut buffer[..len])?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// How much of a buffer `left` bytes fill.
fn within(buffer: &[u8], left: u64) -> usize {
    buffer
        .len()
        .min(usize::try_from(left).unwrap_or(usize::MAX))
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
