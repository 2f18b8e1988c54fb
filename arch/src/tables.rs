//! The descriptor and page tables of a vCPU that begins in long mode, or in protected mode without paging.

use memory::GuestAddress;

use crate::Placed;
use crate::layout::{GDT, PAGE_TABLES};

/// Selectors that the 64-bit boot protocol fixes (BOOT, "64-bit Boot Protocol": __BOOT_CS, __BOOT_DS).
pub const CODE_SELECTOR: u16 = 0x10;
/// The data segments' selector.
pub const DATA_SELECTOR: u16 = 0x18;
/// The task state segment's selector.
pub const TSS_SELECTOR: u16 = 0x20;

/// Present and writable (SDM vol. 3, 4.5).
const PRESENT_WRITABLE: u64 = 0b11;
/// A 2 MiB page in a page directory (SDM vol. 3, table 4-18).
const LARGE: u64 = 1 << 7;
const TABLE_LEN: u64 = 0x1000;
const DIRECTORIES: u64 = 4;

/// Base address of the GDT and its limit, for the descriptor-table register.
pub fn gdt_register() -> (u64, u16) {
    (GDT, (descriptors().len() * 8 - 1) as u16)
}

/// Flat code and data segments (SDM vol. 3, 3.4.5): what each selector names, for a vCPU that reloads it.
fn descriptors() -> [u64; 5] {
    [
        0,
        0,
        0x00af_9b00_0000_ffff, // code, 64 bit
        0x00cf_9300_0000_ffff, // data
        0x008f_8b00_0000_ffff, // TSS, busy
    ]
}

/// The GDT in its place.
pub fn gdt() -> Placed {
    let bytes = descriptors()
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect();
    Placed {
        at: GuestAddress(GDT),
        bytes,
    }
}

/// Page tables that map the first 4 GiB to themselves in pages of 2 MiB; CR3 is [`PAGE_TABLES`].
pub fn identity_map() -> Placed {
    let pdpt = PAGE_TABLES + TABLE_LEN;
    let directory = |number| pdpt + TABLE_LEN + number * TABLE_LEN;
    let mut entries = vec![0u64; ((2 + DIRECTORIES) * TABLE_LEN / 8) as usize];
    let (pml4_entries, rest) = entries.split_at_mut(512);
    let (pdpt_entries, directory_entries) = rest.split_at_mut(512);
    pml4_entries[0] = pdpt | PRESENT_WRITABLE;
    for number in 0..DIRECTORIES {
        pdpt_entries[number as usize] = directory(number) | PRESENT_WRITABLE;
    }
    for (number, entry) in directory_entries.iter_mut().enumerate() {
        *entry = (number as u64) << 21 | LARGE | PRESENT_WRITABLE;
    }
    let bytes = entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect();
    Placed {
        at: GuestAddress(PAGE_TABLES),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{GDT_LEN, PAGE_TABLES_LEN};

    #[test]
    fn the_tables_fit_their_places() {
        assert!(gdt().bytes.len() as u64 <= GDT_LEN);
        assert_eq!(identity_map().bytes.len() as u64, PAGE_TABLES_LEN);
    }

    #[test]
    fn a_walk_finds_each_address_at_itself() {
        let tables = identity_map().bytes;
        let entry = |table: u64, index: u64| {
            let at = (table - PAGE_TABLES + index * 8) as usize;
            u64::from_le_bytes(tables[at..at + 8].try_into().unwrap())
        };
        for address in [0u64, 0x10_0000, 0xd000_0000, 0xffff_ffff] {
            let pdpt = entry(PAGE_TABLES, address >> 39 & 511) & !0xfff;
            let directory = entry(pdpt, address >> 30 & 511) & !0xfff;
            let page = entry(directory, address >> 21 & 511);
            assert_eq!((page & !0x1f_ffff) | (address & 0x1f_ffff), address);
            assert_eq!(page & 0x83, 0x83);
        }
    }
}
