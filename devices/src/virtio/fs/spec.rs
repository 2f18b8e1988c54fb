//! The file system device in the words of virtio 1.2, section 5.11, and what hull-vmm reads of FUSE messages.

use std::ops::Range;

/// Bytes of the tag; a shorter one is followed by zeros (5.11.4).
pub(super) const TAG_BYTES: usize = 36;

/// Offsets in the configuration space (5.11.4, struct virtio_fs_config), little-endian.
pub(super) mod config {
    pub(in super::super) const TAG: usize = 0;
    pub(in super::super) const NUM_REQUEST_QUEUES: usize = 36;
    pub(in super::super) const LEN: usize = 40;
}

/// The numbers of the queues (5.11.2), where there is no notification queue.
pub(super) const HIPRIO: usize = 0;
pub(super) const REQUESTS: usize = 1;

/// What a request asks for (FUSE, enum fuse_opcode): an open set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opcode(pub(super) u32);

impl Opcode {
    pub(super) const FORGET: Self = Self(2);
    pub(super) const OPEN: Self = Self(14);
    pub(super) const READ: Self = Self(15);
    pub(super) const WRITE: Self = Self(16);
    pub(super) const RELEASE: Self = Self(18);
    pub(super) const INIT: Self = Self(26);
    pub(super) const CREATE: Self = Self(35);
    pub(super) const INTERRUPT: Self = Self(36);
    pub(super) const DESTROY: Self = Self(38);
    pub(super) const BATCH_FORGET: Self = Self(42);
    pub(super) const TMPFILE: Self = Self(51);

    /// Whether its lookups are taken back, for which there is no reply.
    pub(super) fn forgets(self) -> bool {
        matches!(self, Self::FORGET | Self::BATCH_FORGET)
    }

    /// Where the reply has the handle of the file that was opened, counted from the reply's payload.
    pub(super) fn handle_in_reply(self) -> Option<Range<usize>> {
        match self {
            Self::OPEN => Some(0..8),
            Self::CREATE | Self::TMPFILE => Some(ENTRY_OUT_LEN..ENTRY_OUT_LEN + 8),
            _ => None,
        }
    }

    /// Whether the reply also counts as a lookup, of the node in the payload's first 8 bytes.
    pub(super) fn looks_up(self) -> bool {
        matches!(self, Self::CREATE | Self::TMPFILE)
    }
}

/// Bytes of struct fuse_entry_out, which comes before struct fuse_open_out where a file is created.
const ENTRY_OUT_LEN: usize = 128;
/// Bytes of struct fuse_open_out.
const OPEN_OUT_LEN: usize = 16;

/// The head of every request (FUSE, struct fuse_in_header).
#[derive(Debug, Clone, Copy)]
pub(super) struct InHeader {
    /// Of the whole request, this header included.
    pub(super) len: u32,
    pub(super) opcode: Opcode,
    pub(super) unique: u64,
    pub(super) nodeid: u64,
}

impl InHeader {
    pub(super) const LEN: usize = 40;

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            len: u32_at(bytes, 0),
            opcode: Opcode(u32_at(bytes, 4)),
            unique: u64_at(bytes, 8),
            nodeid: u64_at(bytes, 16),
        }
    }

    /// A request of the device's own, with its arguments.
    pub(super) fn request(opcode: Opcode, unique: u64, nodeid: u64, arguments: &[u8]) -> Vec<u8> {
        let len = (Self::LEN + arguments.len()) as u32;
        let mut packet = Vec::with_capacity(len as usize);
        packet.extend(len.to_le_bytes());
        packet.extend(opcode.0.to_le_bytes());
        packet.extend(unique.to_le_bytes());
        packet.extend(nodeid.to_le_bytes());
        // User, group, process and the length of extensions: none.
        packet.extend([0; 16]);
        packet.extend(arguments);
        packet
    }
}

/// The head of every reply (FUSE, struct fuse_out_header).
#[derive(Debug, Clone, Copy)]
pub(super) struct OutHeader {
    /// Of the whole reply, this header included.
    pub(super) len: u32,
    /// 0, or the negative number of an error.
    pub(super) error: i32,
    pub(super) unique: u64,
}

impl OutHeader {
    pub(super) const LEN: usize = 16;

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            len: u32_at(bytes, 0),
            error: u32_at(bytes, 4) as i32,
            unique: u64_at(bytes, 8),
        }
    }

    pub(super) fn bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.error.to_le_bytes());
        bytes[8..].copy_from_slice(&self.unique.to_le_bytes());
        bytes
    }

    /// Whether a reply of `len` bytes can have this header: errors are those of Linux, and have no payload.
    pub(super) fn fits(self, len: usize) -> bool {
        const MAX_ERRNO: i32 = 512;
        self.len as usize == len
            && match self.error {
                0 => true,
                error => -MAX_ERRNO < error && error < 0 && len == Self::LEN,
            }
    }
}

/// The arguments of READ and of WRITE up to its data (FUSE, struct fuse_read_in and struct fuse_write_in).
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
}

impl Transfer {
    pub(super) const LEN: usize = 40;

    pub(super) fn parse(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            handle: u64_at(bytes, 0),
            offset: u64_at(bytes, 8),
            size: u32_at(bytes, 16),
        }
    }
}

/// Bytes of the answer to a WRITE: how many were written, and padding (FUSE, struct fuse_write_out).
pub(super) const WRITE_OUT_LEN: usize = 8;

/// The arguments of a RELEASE that says nothing but the handle (FUSE, struct fuse_release_in).
pub(super) fn release_in(handle: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&handle.to_le_bytes());
    bytes
}

/// The handle in a RELEASE's arguments, which is what they begin with.
pub(super) fn released(arguments: &[u8]) -> Option<u64> {
    arguments
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
}

/// The handle in the payload of a reply that opened a file.
pub(super) fn opened(opcode: Opcode, payload: &[u8]) -> Option<u64> {
    let at = opcode.handle_in_reply()?;
    let whole = payload.len() == at.start + OPEN_OUT_LEN;
    whole.then(|| u64_at(payload, at.start))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}
