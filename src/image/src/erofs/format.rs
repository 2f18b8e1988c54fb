//! The on-disk structures that are used, as fs/erofs/erofs_fs.h (Linux 6.12) defines them. All
//! fields are little-endian.

use super::tree::{Device, Timestamp};

/// log2 of the block size (`blkszbits`).
pub(super) const BLOCK_BITS: u32 = 12;
/// Bytes of a block.
pub const BLOCK_SIZE: usize = 1 << BLOCK_BITS;
/// Bytes of an inode slot: a nid counts these from the start of the metadata area.
pub(super) const SLOT_SIZE: u64 = 32;
/// Where the superblock is (`EROFS_SUPER_OFFSET`).
pub(super) const SUPER_OFFSET: usize = 1024;
/// `EROFS_SUPER_MAGIC_V1`
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`
pub(super) const COMPAT_CHECKSUM: u32 = 1;
/// `EROFS_FEATURE_COMPAT_MTIME`: inode times are mtimes.
pub(super) const COMPAT_MTIME: u32 = 2;
/// `EROFS_FEATURE_INCOMPAT_CHUNKED_FILE`
pub(super) const INCOMPAT_CHUNKED_FILE: u32 = 4;
/// `EROFS_NULL_ADDR`: the block address of a hole.
pub(super) const NULL_BLOCK: u32 = u32::MAX;
/// `EROFS_CHUNK_FORMAT_BLKBITS_MASK`: a chunk is at most `BLOCK_SIZE << 31`.
pub(super) const CHUNK_BITS_MAX: u8 = 0x1f;
/// Bytes of an entry of a chunk map (`EROFS_BLOCK_MAP_ENTRY_SIZE`).
pub(super) const CHUNK_ENTRY_SIZE: u64 = 4;

/// File types of `i_mode`.
pub(super) mod mode {
    pub(in super::super) const MASK: u16 = 0o170000;
    pub(in super::super) const SOCKET: u16 = 0o140000;
    pub(in super::super) const SYMLINK: u16 = 0o120000;
    pub(in super::super) const REGULAR: u16 = 0o100000;
    pub(in super::super) const BLOCK: u16 = 0o060000;
    pub(in super::super) const DIRECTORY: u16 = 0o040000;
    pub(in super::super) const CHAR: u16 = 0o020000;
    pub(in super::super) const FIFO: u16 = 0o010000;
}

/// The file type of a directory entry (`FT_*`, include/linux/fs_types.h) for an `i_mode`.
pub(super) fn dirent_type(i_mode: u16) -> u8 {
    match i_mode & mode::MASK {
        mode::REGULAR => 1,
        mode::DIRECTORY => 2,
        mode::CHAR => 3,
        mode::BLOCK => 4,
        mode::FIFO => 5,
        mode::SOCKET => 6,
        mode::SYMLINK => 7,
        _ => 0,
    }
}

/// How an inode's data is stored (`EROFS_INODE_*`), the values that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// Whole blocks in one run.
    FlatPlain = 0,
    /// The same, but for the last part, which follows the inode.
    FlatInline = 2,
    /// A map of chunks follows the inode.
    ChunkBased = 4,
}

/// The superblock, those fields that are not constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SuperBlock {
    pub(super) feature_incompat: u32,
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    pub(super) build_time: Timestamp,
    pub(super) blocks: u32,
    pub(super) meta_block: u32,
    pub(super) uuid: [u8; 16],
}

impl SuperBlock {
    /// Block 0 of an image, with its checksum.
    pub(super) fn encode(&self) -> [u8; BLOCK_SIZE] {
        let mut block = [0; BLOCK_SIZE];
        let sb = &mut block[SUPER_OFFSET..];
        sb[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        sb[8..12].copy_from_slice(&(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        sb[12] = BLOCK_BITS as u8;
        sb[14..16].copy_from_slice(&self.root_nid.to_le_bytes());
        sb[16..24].copy_from_slice(&self.inodes.to_le_bytes());
        sb[24..32].copy_from_slice(&self.build_time.seconds.to_le_bytes());
        sb[32..36].copy_from_slice(&self.build_time.nanoseconds.to_le_bytes());
        sb[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        sb[40..44].copy_from_slice(&self.meta_block.to_le_bytes());
        sb[48..64].copy_from_slice(&self.uuid);
        sb[80..84].copy_from_slice(&self.feature_incompat.to_le_bytes());
        let checksum = crc32c(sb);
        sb[4..8].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// The superblock of an image's first block, or why it is not one that [`Self::encode`] writes.
    pub(super) fn decode(block: &[u8; BLOCK_SIZE]) -> Result<SuperBlock, SuperError> {
        let mut sb = [0; BLOCK_SIZE - SUPER_OFFSET];
        sb.copy_from_slice(&block[SUPER_OFFSET..]);
        if u32_at(&sb, 0) != MAGIC {
            return Err(SuperError::Magic);
        }
        let checksum = u32_at(&sb, 4);
        sb[4..8].fill(0);
        if crc32c(&sb) != checksum {
            return Err(SuperError::Checksum);
        }
        let feature_incompat = u32_at(&sb, 80);
        if feature_incompat & !INCOMPAT_CHUNKED_FILE != 0 || u32::from(sb[12]) != BLOCK_BITS {
            return Err(SuperError::Unsupported);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&sb[48..64]);
        Ok(SuperBlock {
            feature_incompat,
            root_nid: u16_at(&sb, 14),
            inodes: u64_at(&sb, 16),
            build_time: Timestamp {
                seconds: u64_at(&sb, 24) as i64,
                nanoseconds: u32_at(&sb, 32),
            },
            blocks: u32_at(&sb, 36),
            meta_block: u32_at(&sb, 40),
            uuid,
        })
    }
}

/// Why a block is not a superblock of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SuperError {
    Magic,
    Checksum,
    Unsupported,
}

/// An inode without what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawInode {
    pub(super) layout: DataLayout,
    /// `i_xattr_icount`: 0, or 1 + the inline xattrs' bytes beyond the header / 4.
    pub(super) xattr_count: u16,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    /// `i_u`: block address, device number or chunk format.
    pub(super) data: u32,
    /// `i_ino`
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
}

impl RawInode {
    /// Bytes of `struct erofs_inode_compact`.
    pub(super) const COMPACT_SIZE: usize = 32;
    /// Bytes of `struct erofs_inode_extended`.
    pub(super) const EXTENDED_SIZE: usize = 64;

    /// Whether the compact form holds all of it in an image with this build time.
    pub(super) fn fits_compact(&self, build_time: Timestamp) -> bool {
        self.mtime == build_time
            && u16::try_from(self.uid).is_ok()
            && u16::try_from(self.gid).is_ok()
            && u16::try_from(self.nlink).is_ok()
            && u32::try_from(self.size).is_ok()
    }

    /// The inode's bytes; `extended` or not as [`Self::fits_compact`] says.
    pub(super) fn encode(&self, extended: bool, to: &mut Vec<u8>) {
        let format = (self.layout as u16) << 1 | u16::from(extended);
        to.extend(format.to_le_bytes());
        to.extend(self.xattr_count.to_le_bytes());
        to.extend(self.mode.to_le_bytes());
        if extended {
            to.extend([0; 2]);
            to.extend(self.size.to_le_bytes());
        } else {
            to.extend((self.nlink as u16).to_le_bytes());
            to.extend((self.size as u32).to_le_bytes());
            to.extend([0; 4]);
        }
        to.extend(self.data.to_le_bytes());
        to.extend(self.number.to_le_bytes());
        if extended {
            to.extend(self.uid.to_le_bytes());
            to.extend(self.gid.to_le_bytes());
            to.extend(self.mtime.seconds.to_le_bytes());
            to.extend(self.mtime.nanoseconds.to_le_bytes());
            to.extend(self.nlink.to_le_bytes());
            to.extend([0; 16]);
        } else {
            to.extend((self.uid as u16).to_le_bytes());
            to.extend((self.gid as u16).to_le_bytes());
            to.extend([0; 4]);
        }
    }

    /// Decodes an inode and says how long it is; `None` for a form that we do not write.
    pub(super) fn decode(
        bytes: &[u8; Self::EXTENDED_SIZE],
        build_time: Timestamp,
    ) -> Option<(RawInode, usize)> {
        let format = u16_at(bytes, 0);
        let layout = match format >> 1 {
            0 => DataLayout::FlatPlain,
            2 => DataLayout::FlatInline,
            4 => DataLayout::ChunkBased,
            _ => return None,
        };
        let extended = format & 1 != 0;
        let inode = RawInode {
            layout,
            xattr_count: u16_at(bytes, 2),
            mode: u16_at(bytes, 4),
            nlink: if extended {
                u32_at(bytes, 44)
            } else {
                u16_at(bytes, 6).into()
            },
            size: if extended {
                u64_at(bytes, 8)
            } else {
                u32_at(bytes, 8).into()
            },
            data: u32_at(bytes, 16),
            number: u32_at(bytes, 20),
            uid: if extended {
                u32_at(bytes, 24)
            } else {
                u16_at(bytes, 24).into()
            },
            gid: if extended {
                u32_at(bytes, 28)
            } else {
                u16_at(bytes, 26).into()
            },
            mtime: match extended {
                true => Timestamp {
                    seconds: u64_at(bytes, 32) as i64,
                    nanoseconds: u32_at(bytes, 40),
                },
                false => build_time,
            },
        };
        let size = if extended {
            Self::EXTENDED_SIZE
        } else {
            Self::COMPACT_SIZE
        };
        Some((inode, size))
    }
}

/// `new_encode_dev` (include/linux/kdev_t.h).
pub(super) fn encode_device(device: Device) -> u32 {
    (device.minor() & 0xff) | (device.major() << 8) | ((device.minor() & !0xff) << 12)
}

/// `new_decode_dev`
pub(super) fn decode_device(rdev: u32) -> Device {
    let major = (rdev >> 8) & 0xfff;
    let minor = (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00);
    Device::new(major, minor).expect("12 and 20 bits")
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// For `fuzz/` only: recomputes the checksum of an image whose superblock was changed.
#[cfg(fuzzing)]
pub fn sign(image: &mut [u8]) {
    if let Some(sb) = image.get_mut(SUPER_OFFSET..BLOCK_SIZE) {
        sb[4..8].fill(0);
        let checksum = crc32c(sb);
        sb[4..8].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// The kernel's `crc32c(~0, …)`: CRC-32C without the final inversion.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // The check value of CRC-32/ISCSI is 0xe3069283, which includes the final inversion.
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_damaged_superblock_is_told_from_a_foreign_block() {
        let sb = SuperBlock {
            feature_incompat: 0,
            root_nid: 2,
            inodes: 1,
            build_time: Timestamp {
                seconds: -5,
                nanoseconds: 7,
            },
            blocks: 3,
            meta_block: 1,
            uuid: [9; 16],
        };
        let mut block = sb.encode();
        assert_eq!(SuperBlock::decode(&block), Ok(sb));
        block[SUPER_OFFSET + 40] ^= 1;
        assert_eq!(SuperBlock::decode(&block), Err(SuperError::Checksum));
        assert_eq!(SuperBlock::decode(&[0; BLOCK_SIZE]), Err(SuperError::Magic));
    }

    #[test]
    fn device_numbers_survive_the_kernels_encoding() {
        for (major, minor) in [(0, 0), (1, 3), (4095, 0xf_ffff), (8, 256)] {
            let device = Device::new(major, minor).unwrap();
            assert_eq!(decode_device(encode_device(device)), device);
        }
        assert_eq!(encode_device(Device::new(8, 0x123).unwrap()), 0x10_0823);
    }
}
