//! The metadata of an image that is being made: inodes and the directories that name them.

use std::collections::BTreeMap;

use super::data::FileData;
use super::xattr::Xattrs;

/// A moment, in seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// A device number that the kernel can represent: 12 bits of major, 20 bits of minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// The device of overlayfs's whiteouts, 0:0.
    pub const WHITEOUT: Device = Device { major: 0, minor: 0 };

    /// `None` where the kernel has no such device number.
    pub fn new(major: u32, minor: u32) -> Option<Device> {
        (major < 1 << 12 && minor < 1 << 20).then_some(Device { major, minor })
    }

    /// Major number.
    pub fn major(self) -> u32 {
        self.major
    }

    /// Minor number.
    pub fn minor(self) -> u32 {
        self.minor
    }
}

/// What every inode has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions with setuid, setgid and sticky: 12 bits. The file type comes from [`Kind`].
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When the contents changed.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Names, in the order of their bytes.
    Directory(BTreeMap<Box<[u8]>, InodeId>),
    /// A regular file, its data already in the image.
    File(FileData),
    /// A symlink and its target, 1 to 4095 bytes.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An inode: its metadata and its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Owner, permissions, time, xattrs.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// Names an inode of one [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeId(pub(super) u32);

/// Inodes and names. Inodes that no name reaches from the root are not written.
///
/// Link counts are not kept: the layout computes them from the names. A directory has at most one
/// name and is not below itself; callers of [`Tree::link`] ensure that.
#[derive(Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// An empty tree.
    pub fn new(root: Metadata) -> Tree {
        Tree {
            inodes: vec![Inode {
                metadata: root,
                kind: Kind::Directory(BTreeMap::new()),
            }],
        }
    }

    /// Adds an inode that has no name yet. At most 2^32 are possible; callers bound their number
    /// far below.
    pub fn add(&mut self, inode: Inode) -> InodeId {
        let id = u32::try_from(self.inodes.len()).expect("fewer than 2^32 inodes");
        self.inodes.push(inode);
        InodeId(id)
    }

    /// Number of inodes added, named or not.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Always false: a tree has a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// An inode.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0 as usize]
    }

    /// An inode, to change.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.0 as usize]
    }

    /// The names of a directory; `None` if the inode is not one.
    pub fn names(&self, id: InodeId) -> Option<&BTreeMap<Box<[u8]>, InodeId>> {
        match &self.inode(id).kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// What a directory's name stands for.
    pub fn child(&self, dir: InodeId, name: &[u8]) -> Option<InodeId> {
        self.names(dir)?.get(name).copied()
    }

    /// Gives an inode a name (1 to 255 bytes, no `/`, no NUL, not `.` or `..`) and returns what had
    /// it before.
    ///
    /// Panics if `dir` is not a directory.
    pub fn link(&mut self, dir: InodeId, name: &[u8], id: InodeId) -> Option<InodeId> {
        match &mut self.inode_mut(dir).kind {
            Kind::Directory(names) => names.insert(name.into(), id),
            other => panic!("{dir:?} is not a directory but {other:?}"),
        }
    }
}
