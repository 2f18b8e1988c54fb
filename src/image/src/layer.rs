//! A layer: its tar stream as one EROFS image.
//!
//! [`convert`] reads the (decompressed) tar once, to its very end, and writes the image as it goes.
//! Nothing is unpacked and no path is resolved on the host, so no privileges are needed.
//!
//! How entries are converted:
//!
//! - Paths are taken from the layer's root: leading `/` and `.` are dropped, `..` is refused.
//!   Symlinks among a path's directories, of this layer or the ones below, are followed inside the
//!   root (`resolve`); anything else there that is not a directory refuses the entry. Missing
//!   parents appear as the lower layers have them, else as 0755 root:root.
//! - An entry for the root gives the root's attributes. Without one the root is marked
//!   ([`protocol::layer::IMPLIED_ROOT_XATTR`]): the attributes of the next layer below count.
//! - Of several entries for a path the last wins; a directory over a directory keeps its contents.
//! - OCI whiteouts (image-spec 1.1, layer.md) become overlayfs's: `.wh.NAME` a character device
//!   0:0, `.wh..wh..opq` the xattr `trusted.overlay.opaque`. They hide entries of lower layers,
//!   never of this layer. AUFS's own files (`.wh..wh.*` in the root) are left out.
//! - Hard links share an inode; one into a lower layer copies the file from there.
//! - Xattrs are kept, except those in namespaces that EROFS cannot store and `trusted.overlay.*`,
//!   which is reserved for overlayfs. Dropped xattrs are counted. Textual ACLs (`SCHILY.acl.*`) are
//!   ignored, as in Docker.
//! - Device nodes are kept: only a guest sees them.
//!
//! Invariants: the same tar gives the same bytes, unless [`Converted::depends_on_lower`]; memory is
//! bounded by [`Limits`]. [`convert_recorded`] also keeps what the image does not hold of the tar,
//! from which [`RebuiltTar`] gives the very tar again. Deliberately absent: decompression and digests
//! (the caller's reader does both).

mod builder;
mod header;
mod links;
mod lower;
mod path;
mod pax;
mod rebuild;
mod record;
mod resolve;
mod sparse;
mod tar;
mod whiteouts;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::erofs;

pub use header::Field;
pub use lower::LowerLayers;
pub use path::Problem;
pub use rebuild::{RebuiltTar, RecordError};
pub use tar::TarError;

/// Bounds of a layer. A tar that exceeds one is refused, however small it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the tar and parents that they imply: each costs about 250 bytes of memory.
    pub entries: u64,
    /// Bytes of names, link targets and xattrs together, which are held in memory.
    pub metadata_bytes: u64,
    /// Bytes of the tar.
    pub tar_bytes: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
}

impl Default for Limits {
    /// Larger than any known layer: a full desktop has 300,000 files, images for machine learning
    /// have 50 GiB.
    fn default() -> Limits {
        Limits {
            entries: 1 << 20,
            metadata_bytes: 256 << 20,
            tar_bytes: 128 << 30,
            image_bytes: 128 << 30,
        }
    }
}

/// The result of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// Bytes of the image, a multiple of 4096.
    pub image_bytes: u64,
    /// Bytes of the tar, from its first to the last that the reader gave.
    pub tar_bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// Xattrs that were left out.
    pub dropped_xattrs: u64,
    /// The tar hides all layers below it. overlayfs ignores opaqueness of a root directory, so
    /// those layers must not be mounted.
    pub opaque_root: bool,
    /// The image depends on the lower layers: it is valid for this tar only above the same layers.
    pub depends_on_lower: bool,
}

/// Why a layer could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tar could not be read to its end.
    #[error("cannot read the layer")]
    Read(#[source] std::io::Error),
    /// The stream is not a tar, or is damaged.
    #[error("the layer's tar is damaged at byte {offset}")]
    Tar {
        /// Offset of the header that is wrong.
        offset: u64,
        /// What is wrong.
        source: TarError,
    },
    /// An entry of the tar is refused.
    #[error("the layer's entry {path:?} is refused")]
    Entry {
        /// The entry.
        path: PathBuf,
        /// Why.
        source: Problem,
    },
    /// The layer exceeds one of [`Limits`].
    #[error("the layer has more than {limit} {unit}")]
    Limit {
        /// Of what.
        unit: Unit,
        /// The limit.
        limit: u64,
    },
    /// The image could not be written.
    #[error("cannot write the layer's image")]
    Write(#[from] erofs::Error),
    /// The record of the tar could not be written.
    #[error("cannot write the record of the layer's tar")]
    Record(#[source] std::io::Error),
    /// A lower layer could not be read.
    #[error("cannot read a lower layer")]
    Lower(#[from] erofs::ReadError),
}

/// The unit of a limit in [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// [`Limits::entries`]
    Entries,
    /// [`Limits::metadata_bytes`]
    MetadataBytes,
    /// [`Limits::tar_bytes`]
    TarBytes,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unit::Entries => "files",
            Unit::MetadataBytes => "bytes of names, links and xattrs",
            Unit::TarBytes => "bytes of tar",
        })
    }
}

/// Reads a layer's tar to the end of the reader and writes its image to an empty output.
///
/// `lower` are the layers below, which are consulted for hard links, missing parents and symlinks.
/// The output is flushed, not synchronised; after an error it holds a part of an image without a
/// superblock.
pub fn convert(
    tar: impl Read,
    output: impl Write + Seek,
    lower: &LowerLayers,
    limits: &Limits,
) -> Result<Converted, Error> {
    run(tar, output, lower, limits, None)
}

/// As [`convert`], and writes to `record`, an empty file, what [`RebuiltTar`] needs to give the same tar again.
pub fn convert_recorded(
    tar: impl Read,
    output: impl Write + Seek,
    lower: &LowerLayers,
    limits: &Limits,
    record: File,
) -> Result<Converted, Error> {
    let recorder = record::Recorder::new(record).map_err(Error::Record)?;
    run(tar, output, lower, limits, Some(recorder))
}

fn run(
    tar: impl Read,
    output: impl Write + Seek,
    lower: &LowerLayers,
    limits: &Limits,
    recorder: Option<record::Recorder>,
) -> Result<Converted, Error> {
    let mut tar = tar::TarReader::new(tar, limits.tar_bytes, recorder);
    let mut builder = builder::Builder::new(output, lower, limits)?;
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        builder.add(&entry, &mut tar)?;
    }
    let tar_bytes = tar.finish()?;
    let built = builder.finish()?;
    Ok(Converted {
        image_bytes: built.summary.image_bytes,
        tar_bytes,
        entries,
        inodes: built.summary.inodes,
        dropped_xattrs: built.dropped_xattrs,
        opaque_root: built.opaque_root,
        depends_on_lower: built.depends_on_lower,
    })
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests;
