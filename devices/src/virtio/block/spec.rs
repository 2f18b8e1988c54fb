//! The block device in the words of virtio 1.2, section 5.2.

/// Bytes of a sector: the unit of every offset and length, whatever the block size (5.2.4).
pub(super) const SECTOR_BYTES: u64 = 512;

/// Feature bits (5.2.3).
pub(super) mod feature {
    pub(in super::super) const SIZE_MAX: u64 = 1 << 1;
    pub(in super::super) const SEG_MAX: u64 = 1 << 2;
    pub(in super::super) const RO: u64 = 1 << 5;
    pub(in super::super) const BLK_SIZE: u64 = 1 << 6;
    pub(in super::super) const FLUSH: u64 = 1 << 9;
    pub(in super::super) const TOPOLOGY: u64 = 1 << 10;
    pub(in super::super) const DISCARD: u64 = 1 << 13;
    pub(in super::super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offsets in the configuration space (5.2.4, struct virtio_blk_config), little-endian.
pub(super) mod config {
    pub(in super::super) const CAPACITY: usize = 0;
    pub(in super::super) const SIZE_MAX: usize = 8;
    pub(in super::super) const SEG_MAX: usize = 12;
    pub(in super::super) const BLK_SIZE: usize = 20;
    pub(in super::super) const PHYSICAL_BLOCK_EXP: usize = 24;
    pub(in super::super) const MIN_IO_SIZE: usize = 26;
    pub(in super::super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(in super::super) const MAX_DISCARD_SEG: usize = 40;
    pub(in super::super) const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    pub(in super::super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    pub(in super::super) const MAX_WRITE_ZEROES_SEG: usize = 52;
    pub(in super::super) const WRITE_ZEROES_MAY_UNMAP: usize = 56;
    pub(in super::super) const LEN: usize = 60;
}

/// What a request asks for (5.2.6, `type`): an open set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestType(pub(super) u32);

impl RequestType {
    pub(super) const IN: Self = Self(0);
    pub(super) const OUT: Self = Self(1);
    pub(super) const FLUSH: Self = Self(4);
    pub(super) const GET_ID: Self = Self(8);
    pub(super) const DISCARD: Self = Self(11);
    pub(super) const WRITE_ZEROES: Self = Self(13);
}

/// The status of a request (5.2.6, `status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(pub(super) u8);

impl Status {
    pub(super) const OK: Self = Self(0);
    pub(super) const IOERR: Self = Self(1);
    pub(super) const UNSUPP: Self = Self(2);
}

/// Bytes of the device id that GET_ID gives (5.2.6).
pub(super) const ID_BYTES: usize = 20;

/// The head of every request (5.2.6, struct virtio_blk_req up to `data`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: RequestType,
    pub(super) sector: u64,
}

impl Header {
    pub(super) const LEN: usize = 16;

    pub(super) fn parse(bytes: [u8; Self::LEN]) -> Self {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = bytes;
        Self {
            kind: RequestType(u32::from_le_bytes([k0, k1, k2, k3])),
            sector: u64::from_le_bytes(sector),
        }
    }
}

/// One range of a DISCARD or WRITE_ZEROES request (5.2.6, struct virtio_blk_discard_write_zeroes).
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) sector: u64,
    pub(super) sectors: u32,
    pub(super) flags: u32,
}

impl Range {
    pub(super) const LEN: usize = 16;
    /// The only flag: the range may be deallocated. The others are reserved and must be zero.
    pub(super) const UNMAP: u32 = 1 << 0;

    pub(super) fn parse(bytes: [u8; Self::LEN]) -> Self {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
        Self {
            sector: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            sectors: u32::from_le_bytes([n0, n1, n2, n3]),
            flags: u32::from_le_bytes(flags),
        }
    }
}
