//! Room that stays free on a file system: what a container writes ends before the disk is full, so that there is room for
//! logs, and what is logged ends before there is no room for records.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{StatVfs, fstatvfs};

/// What is kept free by writable layers: one part in so many, and at most so many bytes.
const LAYERS: Kept = Kept {
    share: 20,
    max_bytes: 1 << 30,
};
/// By logs: half of that, so that one container's files leave room for what the others print.
const LOGS: Kept = Kept {
    share: 40,
    max_bytes: 1 << 29,
};
/// How much may be written between two looks, by each writer, and at most one part in so many of what there is.
const STEP_BYTES: u64 = 16 << 20;
const STEP_SHARE: u64 = 8;

#[derive(Debug, Clone, Copy)]
struct Kept {
    share: u64,
    max_bytes: u64,
}

/// A writer's knowledge of the room on the file system of its file.
#[derive(Debug)]
pub struct Reserve {
    kept: Kept,
    /// May be written before the next look.
    ahead_bytes: u64,
}

impl Reserve {
    /// What writable layers leave free.
    pub fn of_layers() -> Reserve {
        Reserve {
            kept: LAYERS,
            ahead_bytes: 0,
        }
    }

    /// What logs leave free.
    pub fn of_logs() -> Reserve {
        Reserve {
            kept: LOGS,
            ahead_bytes: 0,
        }
    }

    /// Whether so many bytes may be written to the file, on its file system. Asks the kernel once in a while: more often as
    /// the room becomes less, and each time when there is none.
    pub fn allows(&mut self, file: impl AsFd, bytes: u64) -> io::Result<bool> {
        if bytes > self.ahead_bytes {
            let room = room(&fstatvfs(file)?, self.kept);
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
fn room(of: &StatVfs, kept: Kept) -> u64 {
    if of.f_blocks == 0 {
        return u64::MAX;
    }
    let unit = of.f_frsize.max(1);
    let kept = (of.f_blocks.saturating_mul(unit) / kept.share).min(kept.max_bytes);
    of.f_bavail.saturating_mul(unit).saturating_sub(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room_of(blocks: u64, available: u64, kept: Kept) -> u64 {
        let mut stat = fstatvfs(std::fs::File::open("/").unwrap()).unwrap();
        (stat.f_frsize, stat.f_blocks, stat.f_bavail) = (4096, blocks, available);
        room(&stat, kept)
    }

    #[test]
    fn a_twentieth_is_kept_and_never_more_than_a_gibibyte() {
        assert_eq!(room_of(20_000, 1010, LAYERS), 10 * 4096);
        assert_eq!(room_of(20_000, 999, LAYERS), 0);
        let gibibyte = 1 << 18;
        assert_eq!(room_of(1 << 30, gibibyte + 1, LAYERS), 4096);
        assert_eq!(room_of(1 << 30, gibibyte - 1, LAYERS), 0);
        assert_eq!(room_of(0, 0, LAYERS), u64::MAX);
    }

    #[test]
    fn what_layers_leave_has_room_for_logs() {
        assert_eq!(room_of(20_000, 1000, LAYERS), 0);
        assert_eq!(room_of(20_000, 1000, LOGS), 500 * 4096);
        let gibibyte = 1 << 18;
        assert_eq!(room_of(1 << 30, gibibyte, LOGS), gibibyte / 2 * 4096);
    }

    #[test]
    fn the_kernel_is_asked_once_in_a_while() {
        let file = std::fs::File::open("/").unwrap();
        let mut reserve = Reserve::of_layers();
        assert!(reserve.allows(&file, 4096).unwrap());
        let ahead = reserve.ahead_bytes;
        assert!(ahead > 0 && ahead <= STEP_BYTES, "{ahead}");
        assert!(reserve.allows(&file, ahead).unwrap());
        assert_eq!(reserve.ahead_bytes, 0);
        assert!(!reserve.allows(&file, u64::MAX).unwrap());
    }
}
