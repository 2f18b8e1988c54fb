//! The numbers and layouts of FUSE that are used here: include/uapi/linux/fuse.h of Linux 6.12, protocol 7.38.
//!
//! Invariants: a request is read field by field from a slice, and what is missing is an error (EINVAL); nothing is cast.
//! Deliberately absent: READ and WRITE, which hull-vmm serves; locks, which the guest's kernel keeps; notifications, for
//! which virtio-fs has no queue in Linux.

mod reply;
mod request;

pub(crate) use reply::{Answer, Attr, DIRENT_LEN, ENTRY_LEN, Entry, OUT_HEADER_LEN, Writer};
pub(crate) use request::{
    AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, ForgetOne,
    FsyncIn, GetxattrIn, InHeader, InitIn, LinkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn,
    Reader, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrExtIn, SetxattrIn,
};

/// FUSE_KERNEL_VERSION.
pub(crate) const MAJOR: u32 = 7;
/// The minor version that is spoken.
pub(crate) const MINOR: u32 = 38;
/// The least minor version that a guest may speak: that of the first Linux with virtio-fs, 5.4. Since then the structures that
/// are used have grown only where a flag says so.
pub(crate) const LEAST_MINOR: u32 = 31;
/// FUSE_ROOT_ID.
pub(crate) const ROOT_ID: u64 = 1;

/// What a guest asks for (`enum fuse_opcode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opcode(pub(crate) u32);

impl Opcode {
    pub(crate) const LOOKUP: Self = Self(1);
    pub(crate) const FORGET: Self = Self(2);
    pub(crate) const GETATTR: Self = Self(3);
    pub(crate) const SETATTR: Self = Self(4);
    pub(crate) const READLINK: Self = Self(5);
    pub(crate) const SYMLINK: Self = Self(6);
    pub(crate) const MKNOD: Self = Self(8);
    pub(crate) const MKDIR: Self = Self(9);
    pub(crate) const UNLINK: Self = Self(10);
    pub(crate) const RMDIR: Self = Self(11);
    pub(crate) const RENAME: Self = Self(12);
    pub(crate) const LINK: Self = Self(13);
    pub(crate) const OPEN: Self = Self(14);
    pub(crate) const STATFS: Self = Self(17);
    pub(crate) const RELEASE: Self = Self(18);
    pub(crate) const FSYNC: Self = Self(20);
    pub(crate) const SETXATTR: Self = Self(21);
    pub(crate) const GETXATTR: Self = Self(22);
    pub(crate) const LISTXATTR: Self = Self(23);
    pub(crate) const REMOVEXATTR: Self = Self(24);
    pub(crate) const FLUSH: Self = Self(25);
    pub(crate) const INIT: Self = Self(26);
    pub(crate) const OPENDIR: Self = Self(27);
    pub(crate) const READDIR: Self = Self(28);
    pub(crate) const RELEASEDIR: Self = Self(29);
    pub(crate) const FSYNCDIR: Self = Self(30);
    pub(crate) const ACCESS: Self = Self(34);
    pub(crate) const CREATE: Self = Self(35);
    pub(crate) const INTERRUPT: Self = Self(36);
    pub(crate) const DESTROY: Self = Self(38);
    pub(crate) const BATCH_FORGET: Self = Self(42);
    pub(crate) const FALLOCATE: Self = Self(43);
    pub(crate) const READDIRPLUS: Self = Self(44);
    pub(crate) const RENAME2: Self = Self(45);
    pub(crate) const LSEEK: Self = Self(46);
    pub(crate) const COPY_FILE_RANGE: Self = Self(47);
    pub(crate) const TMPFILE: Self = Self(51);

    /// Whether the guest waits for no answer.
    pub(crate) fn has_no_reply(self) -> bool {
        [Self::FORGET, Self::BATCH_FORGET, Self::INTERRUPT].contains(&self)
    }

    /// Whether the host may have to wait for a disk as long as it likes.
    pub(crate) fn may_be_slow(self) -> bool {
        [
            Self::FSYNC,
            Self::FSYNCDIR,
            Self::FLUSH,
            Self::FALLOCATE,
            Self::COPY_FILE_RANGE,
        ]
        .contains(&self)
    }
}

/// Flags of FUSE_INIT.
pub(crate) mod init {
    pub(crate) const ASYNC_READ: u32 = 1 << 0;
    pub(crate) const ATOMIC_O_TRUNC: u32 = 1 << 3;
    pub(crate) const BIG_WRITES: u32 = 1 << 5;
    pub(crate) const AUTO_INVAL_DATA: u32 = 1 << 12;
    pub(crate) const DO_READDIRPLUS: u32 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub(crate) const ASYNC_DIO: u32 = 1 << 15;
    pub(crate) const PARALLEL_DIROPS: u32 = 1 << 18;
    pub(crate) const MAX_PAGES: u32 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u32 = 1 << 23;
    pub(crate) const SUBMOUNTS: u32 = 1 << 27;
    pub(crate) const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
    pub(crate) const SETXATTR_EXT: u32 = 1 << 29;
}

/// Bits of `fuse_setattr_in.valid`.
pub(crate) mod fattr {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
}

/// FOPEN_KEEP_CACHE: the guest keeps what it has of the file's data.
pub(crate) const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// FOPEN_NOFLUSH: no FUSE_FLUSH when it is closed.
pub(crate) const FOPEN_NOFLUSH: u32 = 1 << 5;
/// FUSE_ATTR_SUBMOUNT: the directory is where another mount begins.
pub(crate) const ATTR_SUBMOUNT: u32 = 1 << 0;
/// FUSE_FSYNC_FDATASYNC.
pub(crate) const FSYNC_FDATASYNC: u32 = 1 << 0;
