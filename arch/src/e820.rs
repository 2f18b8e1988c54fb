//! The memory map for the kernel, independent of the boot protocol's encoding.

use crate::layout::{KERNEL_START, LEGACY_HOLE, MPTABLE, ram};

/// What a range of addresses is (ACPI 6.5, 15: "Address Range Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The guest may use it.
    Ram = 1,
    /// It may not.
    Reserved = 2,
}

/// A range of guest physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: Kind,
}

/// The map of a guest with `ram_bytes` of RAM, at least one MiB.
pub fn map(ram_bytes: u64) -> Vec<Entry> {
    let entry = |start, end, kind| Entry {
        start,
        len: end - start,
        kind,
    };
    let mut entries = vec![
        entry(0, MPTABLE, Kind::Ram),
        entry(MPTABLE, LEGACY_HOLE, Kind::Reserved),
    ];
    for (index, (start, len)) in ram(ram_bytes).into_iter().enumerate() {
        let first = if index == 0 { KERNEL_START } else { start.0 };
        entries.push(entry(first, start.0 + len, Kind::Ram));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_leaves_the_mp_table_and_the_legacy_hole_alone() {
        let map = map(5 << 30);
        assert_eq!(
            map.iter()
                .map(|e| (e.start, e.start + e.len, e.kind))
                .collect::<Vec<_>>(),
            [
                (0, 0x9_fc00, Kind::Ram),
                (0x9_fc00, 0xa_0000, Kind::Reserved),
                (0x10_0000, 3 << 30, Kind::Ram),
                (4 << 30, 6 << 30, Kind::Ram),
            ]
        );
    }
}
