//! EROFS images: a streaming writer of our own, and a reader of what it writes.
//!
//! - [`Writer`] takes file data as it comes and appends it to the output; the metadata, kept as a
//!   [`Tree`], follows at the end. Nothing is written twice but the superblock.
//! - [`Reader`] looks paths up in a finished image: for hard links into lower layers, and for
//!   tests.
//!
//! The format is that of Linux 6.12 (`fs/erofs/erofs_fs.h`), of which this is used: 4 KiB blocks,
//! no compression, flat and chunk-based data (holes are null chunks), inline directory tails and
//! symlinks, inline xattrs, compact and extended inodes, and the superblock's checksum.
//!
//! ```text
//! block 0      superblock at byte 1024
//! 1 ..         file data: every file starts on a block, so that it can be mapped (DAX)
//! meta ..      inodes, in slots of 32 bytes, with their xattrs, chunk maps and inline tails; the root comes first
//! ..           directory blocks and symlinks that do not fit beside their inodes
//! ```
//!
//! Invariants: the same tree and data give the same bytes; no file's data is inline; memory is
//! bounded by the metadata. Deliberately absent: compression, shared xattrs, more than one device.

mod data;
mod directory;
mod format;
mod layout;
mod output;
mod reader;
mod tree;
mod writer;
mod xattr;

pub use data::{Density, FileData, FileWriter};
pub use format::BLOCK_SIZE;
#[cfg(fuzzing)]
pub use format::sign;
pub use output::Error;
pub use reader::{DirEntry, Node, NodeKind, ReadError, Reader};
pub use tree::{Device, Inode, InodeId, Kind, Metadata, Timestamp, Tree};
pub use writer::{Summary, Writer};
pub use xattr::{XattrError, Xattrs};

#[cfg(test)]
mod tests;
