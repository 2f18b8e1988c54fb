//! What a guest is answered.

use std::time::Duration;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::ATTR_SUBMOUNT;

/// Length of `struct fuse_out_header`.
pub(crate) const OUT_HEADER_LEN: usize = 16;
/// Length of `struct fuse_entry_out`.
pub(crate) const ENTRY_LEN: usize = 128;
/// Length of `struct fuse_dirent` without its name.
pub(crate) const DIRENT_LEN: usize = 24;

/// A successful reply as it is written: the header's place, then what follows it.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

/// What is answered to a request that succeeded.
pub(crate) type Answer = Writer;

impl Writer {
    /// An answer without anything yet.
    pub(crate) fn new() -> Self {
        Self(vec![0; OUT_HEADER_LEN])
    }

    /// How long the reply is by now, its header included.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn u16(&mut self, number: u16) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(crate) fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// `struct fuse_attr_out`, valid for so long.
    pub(crate) fn attr_out(&mut self, attr: &Attr, valid: Duration) {
        self.u64(valid.as_secs());
        self.u32(valid.subsec_nanos());
        self.u32(0);
        self.attr(attr);
    }

    /// `struct fuse_entry_out`.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.u64(entry.node);
        // Node ids are never used again, so that there is one generation.
        self.u64(0);
        let valid = [entry.entry_valid, entry.attr_valid];
        for valid in valid {
            self.u64(valid.as_secs());
        }
        for valid in valid {
            self.u32(valid.subsec_nanos());
        }
        self.attr(&entry.attr);
    }

    /// `struct fuse_attr`.
    fn attr(&mut self, attr: &Attr) {
        for number in [attr.ino, attr.size, attr.blocks] {
            self.u64(number);
        }
        for (seconds, _) in attr.times {
            self.u64(seconds.cast_unsigned());
        }
        for (_, nanoseconds) in attr.times {
            self.u32(nanoseconds);
        }
        let Attr {
            mode, nlink, uid, ..
        } = *attr;
        for number in [mode, nlink, uid, attr.gid, attr.rdev, attr.blksize] {
            self.u32(number);
        }
        self.u32(if attr.submount { ATTR_SUBMOUNT } else { 0 });
    }

    /// The reply to the request `unique`.
    pub(crate) fn finish(mut self, unique: u64) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_le_bytes());
        self.0[8..16].copy_from_slice(&unique.to_le_bytes());
        self.0
    }

    /// The reply to a request that failed.
    pub(crate) fn failure(unique: u64, errno: Errno) -> Vec<u8> {
        let mut reply = Self::new().finish(unique);
        reply[4..8].copy_from_slice(&(-errno.raw_os_error()).to_le_bytes());
        reply
    }
}

/// What a guest may know of a file (`struct fuse_attr`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Attr {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    /// Of the last access, change of data and change of the inode: seconds and nanoseconds.
    pub(crate) times: [(i64, u32); 3],
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) blksize: u32,
    /// The guest's kernel is to mount here, with a device number of its own.
    pub(crate) submount: bool,
}

impl From<&Statx> for Attr {
    fn from(stat: &Statx) -> Self {
        let times = [stat.stx_atime, stat.stx_mtime, stat.stx_ctime];
        Self {
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            times: times.map(|time| (time.tv_sec, time.tv_nsec)),
            mode: stat.stx_mode.into(),
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: device_number(stat.stx_rdev_major, stat.stx_rdev_minor),
            blksize: stat.stx_blksize,
            submount: false,
        }
    }
}

/// Linux's encoding in 32 bits (include/linux/kdev_t.h, new_encode_dev).
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// A node that a guest has looked up (`struct fuse_entry_out`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// 0: there is none, and that may be remembered.
    pub(crate) node: u64,
    pub(crate) entry_valid: Duration,
    pub(crate) attr_valid: Duration,
    pub(crate) attr: Attr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_their_lengths() {
        let mut answer = Writer::new();
        answer.entry(&Entry::default());
        assert_eq!(answer.len() - OUT_HEADER_LEN, ENTRY_LEN);
        let mut answer = Writer::new();
        answer.attr_out(&Attr::default(), Duration::ZERO);
        assert_eq!(answer.len() - OUT_HEADER_LEN, 104);
    }

    #[test]
    fn a_reply_carries_its_length_its_error_and_its_request() {
        let reply = Writer::failure(0x1122, Errno::NOENT);
        assert_eq!(reply.len(), OUT_HEADER_LEN);
        assert_eq!(reply[..4], 16u32.to_le_bytes());
        assert_eq!(reply[4..8], (-2i32).to_le_bytes());
        assert_eq!(reply[8..], 0x1122u64.to_le_bytes());
    }

    #[test]
    fn device_numbers_are_linuxs() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(8, 0x12345), 0x1230_0845);
    }
}
