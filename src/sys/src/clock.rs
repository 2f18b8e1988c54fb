//! The clock of every stamp: CLOCK_MONOTONIC, in nanoseconds. And CLOCK_REALTIME, for guests to be told.

use std::io;
use std::time::Instant;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Now. Comparable between processes of one host.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // CLOCK_MONOTONIC counts from the boot: neither field is ever negative.
    now.tv_sec as u64 * NANOS_PER_SEC + now.tv_nsec as u64
}

/// Nanoseconds since 1970; 0 on a host that believes to be before.
pub fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    // A u64 of nanoseconds lasts until 2554, which the kernel's own clock does not.
    u64::try_from(now.tv_sec).unwrap_or(0) * NANOS_PER_SEC + now.tv_nsec as u64
}

/// Sets CLOCK_REALTIME to so many nanoseconds since 1970. Needs CAP_SYS_TIME.
pub fn set_realtime_ns(ns: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: (ns / NANOS_PER_SEC) as i64,
        tv_nsec: (ns % NANOS_PER_SEC) as i64,
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// How long to wait for events at most, to be woken at `deadline` and not before: rounded up to milliseconds, in which
/// every kernel's epoll counts.
pub fn time_until(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    let ms = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
    Timespec {
        tv_sec: ms / 1000,
        tv_nsec: ms % 1000 * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_after_2020_and_no_clock_can_be_set_to_2554() {
        assert!(realtime_ns() > 1_577_836_800 * NANOS_PER_SEC);
        assert!(set_realtime_ns(u64::MAX).is_err());
    }
}
