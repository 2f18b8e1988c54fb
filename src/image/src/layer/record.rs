//! The record of a layer's tar: everything of it that is not file data, in order, so that [`super::RebuiltTar`] can
//! give the same tar again, byte for byte, from the record and the layer's EROFS image.
//!
//! ```text
//! 0    magic, 8 bytes
//! 8    bytes of the tar, u64, little-endian
//! 16   a zstd frame of operations, each a tag and its numbers (LEB128):
//!        literal  length, then the bytes: headers, padding, data of entries that the image does not hold
//!        copy     start, length: of the image, whose data of regular files is as the tar has it.
//!                 The start counts from where the data of the next file would follow (zigzag)
//!        zeros    length: a hole of the image
//! ```
//!
//! A record belongs to one image file: it names places in it. Invariants: writing one takes bounded memory; a record
//! never holds data that its image has. Deliberately absent: checksums; what is rebuilt is verified by its diffID.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use crate::erofs::{BLOCK_SIZE, FileData};

use super::sparse::Segment;

/// What a record begins with; the last digit is the format's version.
pub(super) const MAGIC: &[u8; 8] = b"HULLTAR1";
/// The magic number and the tar's length.
pub(super) const HEADER_LEN: u64 = 16;
/// zstd's default: 197 KB for a Debian image of 170 MB and 8743 entries, where level 9 has 171 KB.
const LEVEL: i32 = 3;
/// Literal bytes are collected up to here, so that the headers of small files share an operation.
const LITERAL_LEN: usize = 32 << 10;

/// The tags of the operations.
pub(super) mod tag {
    pub(in super::super) const LITERAL: u8 = 0;
    pub(in super::super) const COPY: u8 = 1;
    pub(in super::super) const ZEROS: u8 = 2;
}

/// Writes the record while the tar is read.
pub(super) struct Recorder {
    to: zstd::stream::write::Encoder<'static, File>,
    literal: Vec<u8>,
    /// Where the next file's data is expected in the image.
    expected: u64,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts a record in an empty file.
    pub(super) fn new(mut file: File) -> io::Result<Recorder> {
        file.seek(SeekFrom::Start(HEADER_LEN))?;
        Ok(Recorder {
            to: zstd::stream::write::Encoder::new(file, LEVEL)?,
            literal: Vec::with_capacity(LITERAL_LEN),
            expected: BLOCK_SIZE as u64,
        })
    }

    /// Bytes of the tar that are not in the image.
    pub(super) fn literal(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = LITERAL_LEN - self.literal.len();
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            self.literal.extend_from_slice(part);
            bytes = rest;
            if self.literal.len() == LITERAL_LEN {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// A file's data, of which the tar has these segments.
    pub(super) fn data(&mut self, data: &FileData, segments: &[Segment]) -> io::Result<()> {
        self.flush()?;
        for segment in segments {
            for (position, len) in data.pieces(segment.offset, segment.len) {
                match position {
                    Some(position) => self.copy(position, len)?,
                    None => self.operation(tag::ZEROS, &[len])?,
                }
            }
        }
        Ok(())
    }

    /// Ends the record of a tar of this length.
    pub(super) fn finish(mut self, tar_bytes: u64) -> io::Result<()> {
        self.flush()?;
        let mut file = self.to.finish()?;
        file.rewind()?;
        let mut header = [0; HEADER_LEN as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..].copy_from_slice(&tar_bytes.to_le_bytes());
        file.write_all(&header)
    }

    fn copy(&mut self, position: u64, len: u64) -> io::Result<()> {
        // Both are below 16 TiB, so their difference fits.
        let skip = position as i64 - self.expected as i64;
        let zigzag = (skip << 1 ^ skip >> 63) as u64;
        self.expected = (position + len).next_multiple_of(BLOCK_SIZE as u64);
        self.operation(tag::COPY, &[zigzag, len])
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        self.operation(tag::LITERAL, &[self.literal.len() as u64])?;
        self.to.write_all(&self.literal)?;
        self.literal.clear();
        Ok(())
    }

    fn operation(&mut self, tag: u8, numbers: &[u64]) -> io::Result<()> {
        let mut encoded = vec![tag];
        for &number in numbers {
            let mut left = number;
            while left >= 0x80 {
                encoded.push(left as u8 | 0x80);
                left >>= 7;
            }
            encoded.push(left as u8);
        }
        self.to.write_all(&encoded)
    }
}
