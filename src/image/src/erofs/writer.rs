//! The writer: data first, then the metadata, then the superblock.

use std::io::{Seek, Write};

use super::data::{Density, FileWriter};
use super::format::{BLOCK_BITS, BLOCK_SIZE, INCOMPAT_CHUNKED_FILE, SuperBlock};
use super::layout::{Layout, ROOT_NID};
use super::output::{Error, Output};
use super::tree::Tree;

/// Writes one image.
///
/// ```text
/// new -> file (any number) -> finish
/// ```
#[derive(Debug)]
pub struct Writer<W> {
    output: Output<W>,
}

/// Sizes of a finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the image, a multiple of [`BLOCK_SIZE`].
    pub image_bytes: u64,
    /// The part of them that is file data.
    pub data_bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
}

impl<W: Write + Seek> Writer<W> {
    /// Starts an image at the beginning of an empty output. It will not exceed `max_bytes`.
    pub fn new(output: W, max_bytes: u64) -> Result<Writer<W>, Error> {
        Ok(Writer {
            output: Output::new(output, max_bytes)?,
        })
    }

    /// Starts the data of a file of this size, at most [`super::FileData::MAX_SIZE`]; it panics
    /// beyond that.
    pub fn file(&mut self, size: u64, density: Density) -> FileWriter<'_, W> {
        FileWriter::new(&mut self.output, size, density)
    }

    /// Writes the metadata. The output is flushed, not synchronised.
    pub fn finish(mut self, tree: &Tree) -> Result<Summary, Error> {
        let layout = Layout::new(tree);
        self.output
            .reserve(layout.inode_bytes.saturating_add(layout.block_bytes))?;
        let meta_block = self.output.next_block();
        let first_block = meta_block + (layout.inode_bytes >> BLOCK_BITS) as u32;
        layout.write_inodes(first_block, |bytes| self.output.write(bytes))?;
        layout.write_blocks(|bytes| self.output.write(bytes))?;
        let image_bytes = self.output.position();
        let blocks = self.output.next_block();
        self.output.finish(|uuid| {
            SuperBlock {
                feature_incompat: if layout.uses_chunks {
                    INCOMPAT_CHUNKED_FILE
                } else {
                    0
                },
                root_nid: ROOT_NID,
                inodes: layout.inodes(),
                build_time: layout.build_time,
                blocks,
                meta_block,
                uuid,
            }
            .encode()
        })?;
        let data_bytes = u64::from(meta_block - 1) * BLOCK_SIZE as u64;
        Ok(Summary {
            image_bytes,
            data_bytes,
            inodes: layout.inodes(),
        })
    }
}
