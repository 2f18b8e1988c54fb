//! The data of regular files: written as it comes, in whole blocks, leaving out what is zero.

use std::io::{Seek, Write};

use super::format::{BLOCK_BITS, BLOCK_SIZE, CHUNK_BITS_MAX, NULL_BLOCK};
use super::output::{Error, Output};

/// A file's chunk map has at most this many entries of 4 bytes: larger files get larger chunks.
const MAX_CHUNKS: u64 = 1 << 20;

/// How much of a file is expected to be holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Density {
    /// Nothing: only runs of zeros of 64 KiB and more become holes, so that ordinary files keep one
    /// run of blocks.
    Dense,
    /// The tar says that there are holes: they are kept to the block.
    Sparse,
}

impl Density {
    fn min_chunk_bits(self) -> u8 {
        match self {
            Density::Dense => 4,
            Density::Sparse => 0,
        }
    }
}

/// Where a file's data is in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    pub(super) size: u64,
    pub(super) blocks: Blocks,
}

impl FileData {
    /// The largest file, holes included: 16 TiB, as ext4 has it.
    pub const MAX_SIZE: u64 = (u32::MAX as u64) * BLOCK_SIZE as u64;

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Blocks {
    /// One run, from this block on.
    Run(u32),
    /// Chunks of `BLOCK_SIZE << bits`; those in no extent are holes.
    Chunks { bits: u8, extents: Box<[Extent]> },
}

/// Chunks that lie one after the other in the file and in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    first_chunk: u32,
    chunks: u32,
    block: u32,
}

impl Extent {
    fn end_block(&self, bits: u8) -> u64 {
        u64::from(self.block) + (u64::from(self.chunks) << bits)
    }
}

impl FileData {
    /// Where the image has `len` bytes of the file from `offset` on: byte positions, `None` for a hole, and lengths.
    /// Panics beyond the file's end.
    pub(crate) fn pieces(&self, offset: u64, len: u64) -> Vec<(Option<u64>, u64)> {
        let end = offset + len;
        assert!(end <= self.size, "a range beyond the file's end");
        let (mut pieces, mut position) = (Vec::new(), offset);
        let mut add = |from: u64, to: u64, block: Option<(u32, u64)>| {
            let (from, to) = (from.max(position), to.min(end));
            if from < to {
                let start = block.map(|(block, at)| (u64::from(block) << BLOCK_BITS) + from - at);
                pieces.push((start, to - from));
                position = to;
            }
        };
        match &self.blocks {
            Blocks::Run(block) => add(0, end, Some((*block, 0))),
            Blocks::Chunks { bits, extents } => {
                let start = |e: &Extent| u64::from(e.first_chunk) * chunk_size(*bits);
                let after = |e: &Extent| start(e) + u64::from(e.chunks) * chunk_size(*bits);
                // A hostile file has a million segments and as many extents: each is looked at once.
                let known = extents.partition_point(|extent| after(extent) <= offset);
                let mut at = offset;
                for extent in extents[known..].iter().take_while(|e| start(e) < end) {
                    add(at, start(extent), None);
                    add(
                        start(extent),
                        after(extent),
                        Some((extent.block, start(extent))),
                    );
                    at = after(extent);
                }
                add(at, end, None);
            }
        }
        pieces
    }

    /// Number of entries of the chunk map; 0 if there is none.
    pub(super) fn chunk_count(&self) -> u64 {
        match self.blocks {
            Blocks::Run(_) => 0,
            Blocks::Chunks { bits, .. } => self.size.div_ceil(chunk_size(bits)),
        }
    }

    /// The chunk map: a block address for each chunk.
    pub(super) fn chunk_map(&self) -> impl Iterator<Item = u32> {
        let (bits, extents) = match &self.blocks {
            Blocks::Run(_) => (0, &[][..]),
            Blocks::Chunks { bits, extents } => (*bits, &**extents),
        };
        let mut extents = extents.iter().peekable();
        (0..self.chunk_count()).map(move |chunk| {
            let chunk = chunk as u32;
            while extents
                .next_if(|e| chunk >= e.first_chunk + e.chunks)
                .is_some()
            {}
            match extents.peek() {
                Some(e) if chunk >= e.first_chunk => e.block + ((chunk - e.first_chunk) << bits),
                _ => NULL_BLOCK,
            }
        })
    }
}

fn chunk_size(bits: u8) -> u64 {
    1 << (u32::from(bits) + BLOCK_BITS)
}

/// Writes one file's data; made by [`super::Writer::file`].
///
/// A chunk that is all zeros is left out. Once a byte of a chunk is not zero, the whole chunk is
/// written.
#[derive(Debug)]
pub struct FileWriter<'a, W> {
    output: &'a mut Output<W>,
    size: u64,
    position: u64,
    bits: u8,
    /// Whether the chunk that `position` lies in is being written.
    open: bool,
    extents: Vec<Extent>,
}

impl<'a, W: Write + Seek> FileWriter<'a, W> {
    pub(super) fn new(output: &'a mut Output<W>, size: u64, density: Density) -> Self {
        assert!(size <= FileData::MAX_SIZE, "a file of {size} bytes");
        let mut bits = density.min_chunk_bits();
        while size.div_ceil(chunk_size(bits)) > MAX_CHUNKS {
            bits += 1;
        }
        FileWriter {
            output,
            size,
            position: 0,
            bits,
            open: false,
            extents: Vec::new(),
        }
    }

    /// Appends bytes. Panics if the file gets longer than was announced.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (part, rest) =
                bytes.split_at(self.left_in_chunk().min(bytes.len() as u64) as usize);
            if !self.open && part.iter().any(|&byte| byte != 0) {
                self.open_chunk()?;
            }
            if self.open {
                self.output.write(part)?;
            }
            self.advance(part.len() as u64);
            bytes = rest;
        }
        Ok(())
    }

    /// Appends zeros. Panics if the file gets longer than was announced.
    pub fn skip(&mut self, mut count: u64) -> Result<(), Error> {
        while count > 0 {
            let mut part = self.left_in_chunk().min(count);
            if self.open {
                self.output.zeros(part)?;
            } else {
                // Whole chunks at once: a hole of terabytes is one step.
                part += (count - part) / chunk_size(self.bits) * chunk_size(self.bits);
            }
            self.advance(part);
            count -= part;
        }
        Ok(())
    }

    fn left_in_chunk(&self) -> u64 {
        chunk_size(self.bits) - self.position % chunk_size(self.bits)
    }

    fn advance(&mut self, count: u64) {
        self.position += count;
        assert!(
            self.position <= self.size,
            "a file is longer than was announced"
        );
        if self.position.is_multiple_of(chunk_size(self.bits)) {
            self.open = false;
        }
    }

    /// Starts to write the current chunk, with the zeros that it began with.
    fn open_chunk(&mut self) -> Result<(), Error> {
        let chunk = (self.position / chunk_size(self.bits)) as u32;
        let block = self.output.next_block();
        match self.extents.last_mut() {
            Some(e)
                if e.first_chunk + e.chunks == chunk
                    && e.end_block(self.bits) == u64::from(block) =>
            {
                e.chunks += 1
            }
            _ => self.extents.push(Extent {
                first_chunk: chunk,
                chunks: 1,
                block,
            }),
        }
        self.open = true;
        self.output.zeros(self.position % chunk_size(self.bits))
    }

    /// The end of the file. Panics if it is shorter than was announced.
    pub fn finish(self) -> Result<FileData, Error> {
        assert_eq!(
            self.position, self.size,
            "a file is shorter than was announced"
        );
        self.output.pad_to_block()?;
        let chunks = self.size.div_ceil(chunk_size(self.bits));
        let blocks = match &self.extents[..] {
            [] if self.size == 0 => Blocks::Run(0),
            // Nothing but a hole: as few chunks as there can be.
            [] => Blocks::Chunks {
                bits: CHUNK_BITS_MAX,
                extents: Box::default(),
            },
            [e] if u64::from(e.chunks) == chunks => Blocks::Run(e.block),
            _ => Blocks::Chunks {
                bits: self.bits,
                extents: self.extents.into(),
            },
        };
        Ok(FileData {
            size: self.size,
            blocks,
        })
    }
}
