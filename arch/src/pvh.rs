//! The PVH start info (PVH; xen.git, xen/include/public/arch-x86/hvm/start_info.h), version 1.

use linux_loader::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use memory::{ByteValued, GuestAddress};

use crate::layout::{CMDLINE, PVH_INFO, PVH_INFO_LEN};
use crate::{Initramfs, Placed, e820};

const VERSION: u32 = 1;
const MODULES: u64 = PVH_INFO + size_of::<hvm_start_info>() as u64;
const MEMORY_MAP: u64 = MODULES + size_of::<hvm_modlist_entry>() as u64;

/// Start info, module list and memory map in their place. The command line is in its own.
pub fn start_info(map: &[e820::Entry], initramfs: Option<Initramfs>) -> Placed {
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        nr_modules: initramfs.is_some().into(),
        modlist_paddr: if initramfs.is_some() { MODULES } else { 0 },
        cmdline_paddr: CMDLINE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let module = initramfs.map_or_else(Default::default, |initramfs| hvm_modlist_entry {
        paddr: initramfs.at.0,
        size: initramfs.len,
        ..Default::default()
    });
    let mut bytes = [info.as_slice(), module.as_slice()].concat();
    for entry in map {
        let entry = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.len,
            type_: entry.kind as u32,
            reserved: 0,
        };
        bytes.extend(entry.as_slice());
    }
    assert!(
        bytes.len() as u64 <= PVH_INFO_LEN,
        "the memory map has few entries"
    );
    Placed {
        at: GuestAddress(PVH_INFO),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointers_lead_to_the_module_and_the_map() {
        let initramfs = Initramfs {
            at: GuestAddress(0x700_0000),
            len: 1234,
        };
        let Placed { bytes, .. } = start_info(&e820::map(128 << 20), Some(initramfs));
        let long =
            |at: u64| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap());
        assert_eq!(long(0), 1 << 32 | 0x336e_c578);
        let modules = long(16) - PVH_INFO;
        assert_eq!((long(modules), long(modules + 8)), (0x700_0000, 1234));
        assert_eq!(long(24), CMDLINE);
        let map = long(40) - PVH_INFO;
        assert_eq!((long(map), long(map + 8), long(map + 16)), (0, 0x9_fc00, 1));
        assert_eq!(long(48), 3);
    }
}
