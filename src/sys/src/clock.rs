//! The clock of every stamp: CLOCK_MONOTONIC, in nanoseconds.

/// Now. Comparable between processes of one host.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // CLOCK_MONOTONIC counts from the boot: neither field is ever negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
