//! Where every inode, directory block and long symlink goes, decided before any of them is written.

use std::collections::{BTreeMap, HashMap};

use super::data::Blocks;
use super::directory::{self, Dirent};
use super::format::{
    BLOCK_BITS, BLOCK_SIZE, CHUNK_ENTRY_SIZE, DataLayout, RawInode, SLOT_SIZE, dirent_type,
    encode_device, mode,
};
use super::tree::{Inode, InodeId, Kind, Timestamp, Tree};

/// The root's nid. Not 0, which would be an inode number that some programs take for "deleted".
pub(super) const ROOT_NID: u16 = 2;

/// A tree's metadata, placed.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    tree: &'a Tree,
    /// Reachable inodes, in the order in which they are written; the root first, the inodes of a
    /// directory together.
    order: Vec<InodeId>,
    /// By [`InodeId`].
    places: Vec<Place>,
    /// The mtime that most inodes have: those may be compact.
    pub(super) build_time: Timestamp,
    /// Bytes of the inode area, a multiple of the block size.
    pub(super) inode_bytes: u64,
    /// Bytes of the blocks after it.
    pub(super) block_bytes: u64,
    pub(super) uses_chunks: bool,
}

#[derive(Debug, Clone, Default)]
struct Place {
    nid: u64,
    /// 0 until a name reaches the inode.
    nlink: u32,
    /// Of directories.
    parent: u32,
    /// First of the inode's blocks after the inode area, counted from the area's end.
    first_block: u32,
    /// Bytes of a directory or symlink.
    size: u64,
    extended: bool,
    /// The last part of the data follows the inode.
    inline: bool,
}

impl<'a> Layout<'a> {
    /// Lays a tree out.
    pub(super) fn new(tree: &'a Tree) -> Layout<'a> {
        let mut layout = Layout {
            tree,
            order: Vec::new(),
            places: vec![Place::default(); tree.len()],
            build_time: Timestamp::default(),
            inode_bytes: u64::from(ROOT_NID) * SLOT_SIZE,
            block_bytes: 0,
            uses_chunks: false,
        };
        layout.visit();
        layout.build_time = layout.most_common_mtime();
        for i in 0..layout.order.len() {
            layout.place(layout.order[i]);
        }
        layout.inode_bytes = layout.inode_bytes.next_multiple_of(BLOCK_SIZE as u64);
        layout
    }

    /// Finds the reachable inodes, their order, their link counts and the directories' parents.
    fn visit(&mut self) {
        self.order.push(Tree::ROOT);
        self.places[0].nlink = 2;
        let mut pending = vec![Tree::ROOT];
        while let Some(dir) = pending.pop() {
            let names = self.tree.names(dir).expect("only directories are pending");
            let first_child = pending.len();
            for &child in names.values() {
                let place = &mut self.places[child.0 as usize];
                if place.nlink == 0 {
                    self.order.push(child);
                }
                if self.tree.names(child).is_some() {
                    assert_eq!(place.nlink, 0, "a directory has two names");
                    place.nlink = 2;
                    place.parent = dir.0;
                    pending.push(child);
                    self.places[dir.0 as usize].nlink += 1;
                } else {
                    place.nlink += 1;
                }
            }
            pending[first_child..].reverse();
        }
    }

    /// The most common time, the earliest of several.
    fn most_common_mtime(&self) -> Timestamp {
        let mut counts: HashMap<Timestamp, u64> = HashMap::new();
        for &id in &self.order {
            *counts
                .entry(self.tree.inode(id).metadata.mtime)
                .or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|&(time, count)| (count, std::cmp::Reverse(time)))
            .map_or_else(Default::default, |(t, _)| t)
    }

    /// Gives an inode its slots and blocks.
    fn place(&mut self, id: InodeId) {
        let inode = self.tree.inode(id);
        let size = match &inode.kind {
            Kind::Directory(names) => directory::size(with_dots(names).map(|(name, _)| name)),
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        self.places[id.0 as usize].size = size;
        let extended = !self.raw(id).fits_compact(self.build_time);
        let header = if extended {
            RawInode::EXTENDED_SIZE
        } else {
            RawInode::COMPACT_SIZE
        };
        let fixed = header + inode.metadata.xattrs.size();
        let tail = (size % BLOCK_SIZE as u64) as usize;
        // An inline tail may not cross a block; the kernel takes an inode that does, but there is
        // no need for one.
        let inline = tail > 0 && fixed + tail <= BLOCK_SIZE;
        let together = if inline {
            fixed + tail
        } else {
            fixed.min(BLOCK_SIZE)
        };
        let mut start = self.inode_bytes;
        if start % BLOCK_SIZE as u64 + together as u64 > BLOCK_SIZE as u64 {
            start = start.next_multiple_of(BLOCK_SIZE as u64);
        }
        let mut end = start + fixed as u64 + if inline { tail as u64 } else { 0 };
        if let Kind::File(data) = &inode.kind {
            end += data.chunk_count() * CHUNK_ENTRY_SIZE;
            self.uses_chunks |= data.chunk_count() > 0;
        }
        self.inode_bytes = end.next_multiple_of(SLOT_SIZE);
        let place = &mut self.places[id.0 as usize];
        place.nid = start / SLOT_SIZE;
        place.extended = extended;
        place.inline = inline;
        place.first_block = (self.block_bytes >> BLOCK_BITS) as u32;
        self.block_bytes += blocks_size(size, inline);
    }

    /// Number of inodes.
    pub(super) fn inodes(&self) -> u64 {
        self.order.len() as u64
    }

    /// The inode area piece by piece, given where it begins and the blocks after it begin.
    pub(super) fn write_inodes<E>(
        &self,
        first_block: u32,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut written = 0;
        let mut bytes = Vec::new();
        for &id in &self.order {
            let (inode, place) = (self.tree.inode(id), &self.places[id.0 as usize]);
            bytes.clear();
            bytes.resize((place.nid * SLOT_SIZE - written) as usize, 0);
            let mut raw = self.raw(id);
            if raw.layout != DataLayout::ChunkBased && place.size > 0 {
                raw.data = first_block + place.first_block;
            }
            raw.encode(place.extended, &mut bytes);
            inode.metadata.xattrs.encode(&mut bytes);
            if place.inline {
                let content = self.content(id);
                bytes.extend(&content[content.len() / BLOCK_SIZE * BLOCK_SIZE..]);
            }
            if let Kind::File(data) = &inode.kind {
                data.chunk_map()
                    .for_each(|block| bytes.extend(block.to_le_bytes()));
            }
            write(&bytes)?;
            written += bytes.len() as u64;
        }
        bytes.clear();
        bytes.resize((self.inode_bytes - written) as usize, 0);
        write(&bytes)
    }

    /// The blocks after the inode area, piece by piece.
    pub(super) fn write_blocks<E>(
        &self,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for &id in &self.order {
            let place = &self.places[id.0 as usize];
            let size = blocks_size(place.size, place.inline) as usize;
            if size > 0 {
                let mut content = self.content(id);
                content.resize(size, 0);
                write(&content)?;
            }
        }
        Ok(())
    }

    /// The inode, but for the address of its blocks after the inode area.
    fn raw(&self, id: InodeId) -> RawInode {
        let Inode { metadata, kind } = self.tree.inode(id);
        let place = &self.places[id.0 as usize];
        let flat = if place.inline {
            DataLayout::FlatInline
        } else {
            DataLayout::FlatPlain
        };
        let (file_type, layout, size, data) = match kind {
            Kind::Directory(_) => (mode::DIRECTORY, flat, place.size, 0),
            Kind::Symlink(_) => (mode::SYMLINK, flat, place.size, 0),
            Kind::File(data) => match &data.blocks {
                Blocks::Run(block) => (mode::REGULAR, DataLayout::FlatPlain, data.size, *block),
                Blocks::Chunks { bits, .. } => (
                    mode::REGULAR,
                    DataLayout::ChunkBased,
                    data.size,
                    u32::from(*bits),
                ),
            },
            Kind::CharDevice(device) => {
                (mode::CHAR, DataLayout::FlatPlain, 0, encode_device(*device))
            }
            Kind::BlockDevice(device) => (
                mode::BLOCK,
                DataLayout::FlatPlain,
                0,
                encode_device(*device),
            ),
            Kind::Fifo => (mode::FIFO, DataLayout::FlatPlain, 0, 0),
            Kind::Socket => (mode::SOCKET, DataLayout::FlatPlain, 0, 0),
        };
        RawInode {
            layout,
            xattr_count: metadata.xattrs.count(),
            mode: file_type | metadata.permissions & !mode::MASK,
            nlink: place.nlink,
            size,
            data,
            number: id.0 + 1,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: metadata.mtime,
        }
    }

    /// The bytes of a directory or symlink.
    fn content(&self, id: InodeId) -> Vec<u8> {
        match &self.tree.inode(id).kind {
            Kind::Symlink(target) => target.to_vec(),
            Kind::Directory(names) => directory::encode(with_dots(names).map(|(name, child)| {
                let child = match name {
                    b"." => id,
                    b".." => InodeId(self.places[id.0 as usize].parent),
                    _ => *child.expect("only the dots have no inode of their own"),
                };
                Dirent {
                    name,
                    nid: self.places[child.0 as usize].nid,
                    file_type: dirent_type(file_type(&self.tree.inode(child).kind)),
                }
            })),
            _ => Vec::new(),
        }
    }
}

fn file_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => mode::DIRECTORY,
        Kind::File(_) => mode::REGULAR,
        Kind::Symlink(_) => mode::SYMLINK,
        Kind::CharDevice(_) => mode::CHAR,
        Kind::BlockDevice(_) => mode::BLOCK,
        Kind::Fifo => mode::FIFO,
        Kind::Socket => mode::SOCKET,
    }
}

/// Bytes of whole blocks for data of this size.
fn blocks_size(size: u64, inline: bool) -> u64 {
    match inline {
        true => size / BLOCK_SIZE as u64 * BLOCK_SIZE as u64,
        false => size.next_multiple_of(BLOCK_SIZE as u64),
    }
}

/// A directory's names with `.` and `..` where they belong.
fn with_dots(
    names: &BTreeMap<Box<[u8]>, InodeId>,
) -> impl Iterator<Item = (&[u8], Option<&InodeId>)> {
    let mut dots = [&b"."[..], b".."].into_iter().peekable();
    let mut names = names.iter().peekable();
    std::iter::from_fn(move || match (dots.peek(), names.peek()) {
        (Some(dot), Some((name, _))) if ***name < **dot => {
            names.next().map(|(name, id)| (&**name, Some(id)))
        }
        (Some(_), _) => dots.next().map(|dot| (dot, None)),
        (None, _) => names.next().map(|(name, id)| (&**name, Some(id))),
    })
}
