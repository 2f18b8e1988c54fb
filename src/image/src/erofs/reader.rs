//! Reads the images that [`super::Writer`] writes. A damaged image gives an error, never a panic.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::data::FileData;
use super::directory::decode_block;
use super::format::{
    BLOCK_BITS, BLOCK_SIZE, CHUNK_BITS_MAX, CHUNK_ENTRY_SIZE, DataLayout, NULL_BLOCK, RawInode,
    SLOT_SIZE, SuperBlock, SuperError, decode_device, mode,
};
use super::tree::{Device, Metadata};
use super::xattr::Xattrs;

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read, or is shorter than it should be.
    #[error("cannot read the EROFS image")]
    Io(#[from] io::Error),
    /// It does not begin with an EROFS superblock.
    #[error("not an EROFS image")]
    NotErofs,
    /// The superblock's checksum is wrong.
    #[error("the superblock of the EROFS image is damaged")]
    Superblock,
    /// It uses features of EROFS that our writer does not.
    #[error("the EROFS image was not written by hull")]
    Unsupported,
    /// An inode, its xattrs or its data map are not valid.
    #[error("inode {nid} of the EROFS image is damaged")]
    Inode {
        /// Its number.
        nid: u64,
    },
}

/// Symlinks are shorter than PATH_MAX.
const MAX_TARGET: u64 = 4095;

/// An image, open.
#[derive(Debug)]
pub struct Reader {
    file: File,
    sb: SuperBlock,
}

/// An inode of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    nid: u64,
    raw: RawInode,
    /// Offset of the data that follows the inode and its xattrs.
    after: u64,
    /// Owner, permissions, time, xattrs.
    pub metadata: Metadata,
    /// What it is.
    pub kind: NodeKind,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symlink.
    Symlink,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Node {
    /// The inode's number.
    pub fn nid(&self) -> u64 {
        self.nid
    }

    /// Bytes of a file, directory or symlink's target.
    pub fn size(&self) -> u64 {
        self.raw.size
    }

    /// Number of names; for a directory 2 and one for each directory in it.
    pub fn links(&self) -> u32 {
        self.raw.nlink
    }

    /// Whether the data is a single run of blocks, as every file without holes has it.
    pub fn is_contiguous(&self) -> bool {
        self.raw.layout == DataLayout::FlatPlain
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: Vec<u8>,
    /// Number of its inode, for [`Reader::node`].
    pub nid: u64,
}

impl Reader {
    /// Opens an image.
    pub fn open(file: File) -> Result<Reader, ReadError> {
        let mut block = [0; BLOCK_SIZE];
        file.read_exact_at(&mut block, 0)?;
        let sb = SuperBlock::decode(&block).map_err(|error| match error {
            SuperError::Magic => ReadError::NotErofs,
            SuperError::Checksum => ReadError::Superblock,
            SuperError::Unsupported => ReadError::Unsupported,
        })?;
        Ok(Reader { file, sb })
    }

    /// Bytes of the image, as its superblock says.
    pub fn image_bytes(&self) -> u64 {
        u64::from(self.sb.blocks) << BLOCK_BITS
    }

    /// Number of inodes, as the superblock says.
    pub fn inodes(&self) -> u64 {
        self.sb.inodes
    }

    /// The root directory.
    pub fn root(&self) -> Result<Node, ReadError> {
        self.node(self.sb.root_nid.into())
    }

    /// The inode of this number.
    pub fn node(&self, nid: u64) -> Result<Node, ReadError> {
        let damaged = || ReadError::Inode { nid };
        let at = nid
            .checked_mul(SLOT_SIZE)
            .and_then(|offset| offset.checked_add(u64::from(self.sb.meta_block) << BLOCK_BITS))
            .filter(|at| *at < self.image_bytes())
            .ok_or_else(damaged)?;
        let mut bytes = [0; RawInode::EXTENDED_SIZE];
        self.file.read_exact_at(&mut bytes, at)?;
        let (raw, size) = RawInode::decode(&bytes, self.sb.build_time).ok_or_else(damaged)?;
        if raw.size > FileData::MAX_SIZE {
            return Err(damaged());
        }
        let mut xattrs = vec![0; Xattrs::size_of(raw.xattr_count)];
        self.file.read_exact_at(&mut xattrs, at + size as u64)?;
        let kind = match raw.mode & mode::MASK {
            mode::DIRECTORY => NodeKind::Directory,
            mode::REGULAR => NodeKind::File,
            mode::SYMLINK => NodeKind::Symlink,
            mode::CHAR => NodeKind::CharDevice(decode_device(raw.data)),
            mode::BLOCK => NodeKind::BlockDevice(decode_device(raw.data)),
            mode::FIFO => NodeKind::Fifo,
            mode::SOCKET => NodeKind::Socket,
            _ => return Err(damaged()),
        };
        let metadata = Metadata {
            permissions: raw.mode & !mode::MASK,
            uid: raw.uid,
            gid: raw.gid,
            mtime: raw.mtime,
            xattrs: Xattrs::decode(&xattrs).ok_or_else(damaged)?,
        };
        Ok(Node {
            nid,
            raw,
            after: at + (size + xattrs.len()) as u64,
            metadata,
            kind,
        })
    }

    /// The inode at a path below the root: components separated by `/`, no `..`. Symlinks are not
    /// followed.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Node>, ReadError> {
        let mut node = self.root()?;
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
        {
            match self.child(&node, name)? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// What a directory's name stands for; `None` if there is no such name or no directory.
    pub fn child(&self, dir: &Node, name: &[u8]) -> Result<Option<Node>, ReadError> {
        if dir.kind != NodeKind::Directory || matches!(name, b"." | b"..") {
            return Ok(None);
        }
        // The last block whose first name is not beyond the one sought.
        let (mut low, mut high) = (0, dir.size().div_ceil(BLOCK_SIZE as u64));
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.directory_block(dir, middle)?;
            let entries = decode_block(&block).ok_or(ReadError::Inode { nid: dir.nid })?;
            match entries.binary_search_by(|(entry, _)| (*entry).cmp(name)) {
                Ok(at) => return self.node(entries[at].1).map(Some),
                Err(0) => high = middle,
                Err(at) if at < entries.len() => return Ok(None),
                Err(_) => low = middle + 1,
            }
        }
        Ok(None)
    }

    /// The names of a directory, sorted, without `.` and `..`.
    pub fn entries(&self, dir: &Node) -> Result<Vec<DirEntry>, ReadError> {
        let mut all = Vec::new();
        if dir.kind != NodeKind::Directory {
            return Ok(all);
        }
        for index in 0..dir.size().div_ceil(BLOCK_SIZE as u64) {
            let block = self.directory_block(dir, index)?;
            let entries = decode_block(&block).ok_or(ReadError::Inode { nid: dir.nid })?;
            let named = entries
                .into_iter()
                .filter(|(name, _)| !matches!(*name, b"." | b".."));
            all.extend(named.map(|(name, nid)| DirEntry {
                name: name.to_vec(),
                nid,
            }));
        }
        Ok(all)
    }

    fn directory_block(&self, dir: &Node, index: u64) -> Result<Vec<u8>, ReadError> {
        let start = index << BLOCK_BITS;
        let mut block = vec![0; (dir.size() - start).min(BLOCK_SIZE as u64) as usize];
        self.read_exact_at(dir, &mut block, start)?;
        Ok(block)
    }

    /// The target of a symlink.
    pub fn read_link(&self, node: &Node) -> Result<Vec<u8>, ReadError> {
        if node.kind != NodeKind::Symlink || node.size() > MAX_TARGET {
            return Err(ReadError::Inode { nid: node.nid });
        }
        let mut target = vec![0; node.size() as usize];
        self.read_exact_at(node, &mut target, 0)?;
        Ok(target)
    }

    /// Fills the buffer with a file's bytes from `offset` on, and returns how many there were until
    /// its end.
    pub fn read_at(&self, node: &Node, buffer: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        let len = node.size().saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.read_exact_at(node, &mut buffer[..len], offset)?;
        Ok(len)
    }

    /// Bytes of a hole that begins at `offset`, up to its end or the file's; 0 if there is data.
    pub fn hole_at(&self, node: &Node, offset: u64) -> Result<u64, ReadError> {
        let mut end = offset;
        while end < node.size() {
            match self.map(node, end)? {
                (None, len) => end += len,
                _ => break,
            }
        }
        Ok(end.min(node.size()).saturating_sub(offset))
    }

    fn read_exact_at(
        &self,
        node: &Node,
        mut buffer: &mut [u8],
        mut offset: u64,
    ) -> Result<(), ReadError> {
        while !buffer.is_empty() {
            let (position, len) = self.map(node, offset)?;
            let len = len.min(buffer.len() as u64) as usize;
            let (part, rest) = buffer.split_at_mut(len);
            match position {
                Some(position) => self.file.read_exact_at(part, position)?,
                None => part.fill(0),
            }
            offset += part.len() as u64;
            buffer = rest;
        }
        Ok(())
    }

    /// Where the byte at `offset` (below the size) is in the image, `None` in a hole, and how many
    /// bytes follow it there.
    fn map(&self, node: &Node, offset: u64) -> Result<(Option<u64>, u64), ReadError> {
        let damaged = ReadError::Inode { nid: node.nid };
        if offset >= node.size() {
            return Err(damaged);
        }
        let run = |block: u32, from: u64| (u64::from(block) << BLOCK_BITS) + (offset - from);
        match node.raw.layout {
            DataLayout::FlatPlain => Ok((Some(run(node.raw.data, 0)), node.size() - offset)),
            DataLayout::FlatInline => match node.size() >> BLOCK_BITS << BLOCK_BITS {
                tail if offset >= tail => {
                    Ok((Some(node.after + offset - tail), node.size() - offset))
                }
                tail => Ok((Some(run(node.raw.data, 0)), tail - offset)),
            },
            DataLayout::ChunkBased => {
                let bits = u8::try_from(node.raw.data)
                    .ok()
                    .filter(|bits| *bits <= CHUNK_BITS_MAX)
                    .ok_or(damaged)?;
                let size = 1u64 << (u32::from(bits) + BLOCK_BITS);
                let mut entry = [0; CHUNK_ENTRY_SIZE as usize];
                self.file
                    .read_exact_at(&mut entry, node.after + offset / size * CHUNK_ENTRY_SIZE)?;
                let start = offset / size * size;
                let len = (size - (offset - start)).min(node.size() - offset);
                match u32::from_le_bytes(entry) {
                    NULL_BLOCK => Ok((None, len)),
                    block => Ok((Some(run(block, start)), len)),
                }
            }
        }
    }
}
