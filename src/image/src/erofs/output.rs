//! The image as it grows: a buffered, counted, fingerprinted stream.

use std::io::{self, Seek, SeekFrom, Write};

use super::format::BLOCK_SIZE;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output could not be written.
    #[error("cannot write the EROFS image")]
    Io(#[from] io::Error),
    /// The image would be larger than the caller allows, or than EROFS can be (16 TiB).
    #[error("the EROFS image would exceed {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
}

/// Bytes collected before they are written: one system call for many small files.
const BUFFER_SIZE: usize = 1 << 20;
/// Block addresses have 32 bits, and the last is [`super::format::NULL_BLOCK`].
const MAX_SIZE: u64 = (u32::MAX as u64) * BLOCK_SIZE as u64;

/// Appends to the output. Its first block, the superblock's, is written last.
#[derive(Debug)]
pub(super) struct Output<W> {
    to: W,
    buffer: Vec<u8>,
    written: u64,
    limit: u64,
    fingerprint: Fingerprint,
}

impl<W: Write + Seek> Output<W> {
    /// Starts after the superblock's block.
    pub(super) fn new(mut to: W, limit: u64) -> Result<Self, Error> {
        to.seek(SeekFrom::Start(BLOCK_SIZE as u64))?;
        Ok(Output {
            to,
            buffer: Vec::with_capacity(BUFFER_SIZE),
            written: BLOCK_SIZE as u64,
            limit: limit.min(MAX_SIZE),
            fingerprint: Fingerprint::default(),
        })
    }

    /// Bytes so far, the superblock's block included.
    pub(super) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The block that is written next; the output stands on a block's start.
    pub(super) fn next_block(&self) -> u32 {
        let position = self.position();
        assert!(
            position.is_multiple_of(BLOCK_SIZE as u64),
            "the output stands within a block"
        );
        u32::try_from(position / BLOCK_SIZE as u64).expect("MAX_SIZE was checked")
    }

    /// Refuses, before anything is written, what would not fit.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), Error> {
        match self.position().checked_add(bytes) {
            Some(end) if end <= self.limit => Ok(()),
            _ => Err(Error::TooLarge { limit: self.limit }),
        }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.reserve(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BUFFER_SIZE - self.buffer.len()));
            self.buffer.extend_from_slice(part);
            bytes = rest;
            if self.buffer.len() == BUFFER_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn zeros(&mut self, mut count: u64) -> Result<(), Error> {
        self.reserve(count)?;
        while count > 0 {
            let part = count.min((BUFFER_SIZE - self.buffer.len()) as u64);
            self.buffer.resize(self.buffer.len() + part as usize, 0);
            count -= part;
            if self.buffer.len() == BUFFER_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Zeros up to the next block.
    pub(super) fn pad_to_block(&mut self) -> Result<(), Error> {
        self.zeros(self.position().next_multiple_of(BLOCK_SIZE as u64) - self.position())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.fingerprint.add(&self.buffer);
        self.to.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left, then the first block, which is made from the fingerprint of all others.
    pub(super) fn finish(
        mut self,
        superblock: impl FnOnce([u8; 16]) -> [u8; BLOCK_SIZE],
    ) -> Result<(), Error> {
        self.pad_to_block()?;
        self.flush()?;
        self.to.seek(SeekFrom::Start(0))?;
        self.to.write_all(&superblock(
            self.fingerprint
                .0
                .map(u64::to_le_bytes)
                .concat()
                .try_into()
                .expect("16 bytes"),
        ))?;
        self.to.flush()?;
        Ok(())
    }
}

/// Distinguishes images (overlayfs compares its layers' UUIDs). Not cryptographic.
#[derive(Debug, Default)]
struct Fingerprint([u64; 2]);

impl Fingerprint {
    /// Adds bytes; only the last call may have a length that is not a multiple of 16.
    fn add(&mut self, bytes: &[u8]) {
        let (mut a, mut b) = (self.0[0], self.0[1]);
        let (words, _) = bytes.as_chunks::<16>();
        for word in words {
            let (low, high) = word.split_at(8);
            let (low, high) = (
                u64::from_le_bytes(low.try_into().expect("8")),
                u64::from_le_bytes(high.try_into().expect("8")),
            );
            // The multiplier is 2^64 divided by the golden ratio, as in Knuth's multiplicative
            // hashing.
            a = (a ^ low)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
                .wrapping_add(1);
            b = (b ^ high ^ a)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(31)
                .wrapping_add(1);
        }
        self.0 = [a, b];
    }
}
