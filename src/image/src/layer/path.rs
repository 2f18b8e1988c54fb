//! Paths of tar entries, and the reasons for which an entry is refused.

use crate::erofs::{FileData, XattrError};

/// The longest path and symlink (PATH_MAX with its NUL).
pub(super) const MAX_PATH: usize = 4096;
/// The longest name (NAME_MAX).
const MAX_NAME: usize = 255;
/// Why an entry is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// `..` in the path or in a hard link's target.
    #[error("its path contains '..'")]
    ParentPath,
    /// The path exceeds 4095 bytes or one of its names 255, or contains NUL.
    #[error("its path is too long or not valid")]
    Path,
    /// The layer has something that is neither a directory nor a symlink in the place of one of the
    /// path's directories.
    #[error("its path leads through something that is not a directory")]
    ThroughNonDirectory,
    /// The path leads through more than 40 symlinks, or in circles.
    #[error("its path leads through too many symlinks")]
    Symlinks,
    /// The entry for the root is not a directory.
    #[error("the root must be a directory")]
    Root,
    /// A whiteout without a name, or a reserved name in another place.
    #[error("names beginning with .wh. are reserved for whiteouts")]
    Whiteout,
    /// A symlink's target is empty, longer than 4095 bytes, or contains NUL.
    #[error("its target is not valid")]
    Target,
    /// A hard link's target is neither in this layer so far nor visible below it.
    #[error("the target of the hard link does not exist")]
    LinkMissing,
    /// A hard link to a directory.
    #[error("the target of the hard link is a directory")]
    LinkToDirectory,
    /// The kernel has no such device number.
    #[error("its device number is out of range")]
    Device,
    /// The file exceeds 16 TiB.
    #[error("it is larger than {} bytes", FileData::MAX_SIZE)]
    FileSize,
    /// An xattr is refused.
    #[error("one of its xattrs is refused")]
    Xattr(#[from] XattrError),
}

/// A path's names from the layer's root.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    if path.len() >= MAX_PATH || path.contains(&0) {
        return Err(Problem::Path);
    }
    let names = path
        .split(|&byte| byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."));
    names
        .map(|name| match name {
            b".." => Err(Problem::ParentPath),
            name if !is_valid_name(name) => Err(Problem::Path),
            name => Ok(name),
        })
        .collect()
}

/// Whether Linux takes this as a name: 1 to 255 bytes, without NUL.
pub(super) fn is_valid_name(name: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(&0)
}
