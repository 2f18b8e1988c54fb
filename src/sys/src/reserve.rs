//! Room that stays free on a file system: what a container writes ends before the disk is full, so that there is room for
//! the records of who keeps it.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{StatVfs, fstatvfs};

/// The most that is kept free.
const MAX_BYTES: u64 = 1 << 30;
/// What is kept free of a small file system: one part in so many.
const SHARE: u64 = 20;
/// How much may be written between two looks, by each writer, and at most one part in so many of what there is.
const STEP_BYTES: u64 = 16 << 20;
const STEP_SHARE: u64 = 8;

/// A writer's knowledge of the room on the file system of its file.
#[derive(Debug, Default)]
pub struct Reserve {
    /// May be written before the next look.
    ahead_bytes: u64,
}

impl Reserve {
    /// Whether so many bytes may be written to the file, on its file system. Asks the kernel once in a while: more often as
    /// the room becomes less, and each time when there is none.
    pub fn allows(&mut self, file: impl AsFd, bytes: u64) -> io::Result<bool> {
        if bytes > self.ahead_bytes {
            let room = room(&fstatvfs(file)?);
            if bytes > room {
                self.ahead_bytes = 0;
                return Ok(false);
            }
            self.ahead_bytes = (room / STEP_SHARE).min(STEP_BYTES).max(bytes);
        }
        self.ahead_bytes -= bytes;
        Ok(true)
    }
}

/// Bytes beyond the reserve. A file system that has no size, as those of devices, has all the room.
fn room(of: &StatVfs) -> u64 {
    if of.f_blocks == 0 {
        return u64::MAX;
    }
    let unit = of.f_frsize.max(1);
    let kept = (of.f_blocks.saturating_mul(unit) / SHARE).min(MAX_BYTES);
    of.f_bavail.saturating_mul(unit).saturating_sub(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room_of(blocks: u64, available: u64) -> u64 {
        let mut stat = fstatvfs(std::fs::File::open("/").unwrap()).unwrap();
        (stat.f_frsize, stat.f_blocks, stat.f_bavail) = (4096, blocks, available);
        room(&stat)
    }

    #[test]
    fn a_twentieth_is_kept_and_never_more_than_a_gibibyte() {
        assert_eq!(room_of(20_000, 1010), 10 * 4096);
        assert_eq!(room_of(20_000, 999), 0);
        let gibibyte = 1 << 18;
        assert_eq!(room_of(1 << 30, gibibyte + 1), 4096);
        assert_eq!(room_of(1 << 30, gibibyte - 1), 0);
        assert_eq!(room_of(0, 0), u64::MAX);
    }

    #[test]
    fn the_kernel_is_asked_once_in_a_while() {
        let file = std::fs::File::open("/").unwrap();
        let mut reserve = Reserve::default();
        assert!(reserve.allows(&file, 4096).unwrap());
        let ahead = reserve.ahead_bytes;
        assert!(ahead > 0 && ahead <= STEP_BYTES, "{ahead}");
        assert!(reserve.allows(&file, ahead).unwrap());
        assert_eq!(reserve.ahead_bytes, 0);
        assert!(!reserve.allows(&file, u64::MAX).unwrap());
    }
}
