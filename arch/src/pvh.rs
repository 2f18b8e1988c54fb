//! The PVH start info (PVH; xen.git, xen/include/public/arch-x86/hvm/start_info.h), version 1.

use memory::GuestAddress;

use crate::layout::{CMDLINE, PVH_INFO, PVH_INFO_LEN};
use crate::{Initramfs, Placed, e820};

/// "xEn3" with the high bit of the E set.
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const START_INFO_LEN: u64 = 56;
const MODULE_LEN: u64 = 32;

/// Start info, module list and memory map in their place. The command line is in its own.
pub fn start_info(map: &[e820::Entry], initramfs: Option<Initramfs>) -> Placed {
    let modules = PVH_INFO + START_INFO_LEN.next_multiple_of(8);
    let memory_map = modules + MODULE_LEN;
    let mut bytes = Vec::new();
    let mut word = |value: u32| bytes.extend(value.to_le_bytes());
    word(MAGIC);
    word(VERSION);
    word(0); // flags
    word(initramfs.is_some().into());
    let mut long = |value: u64| bytes.extend(value.to_le_bytes());
    long(if initramfs.is_some() { modules } else { 0 });
    long(CMDLINE);
    long(0); // no RSDP
    long(memory_map);
    long(map.len() as u64); // and a reserved word
    let module = initramfs.unwrap_or(Initramfs {
        at: GuestAddress(0),
        len: 0,
    });
    long(module.at.0);
    long(module.len);
    long(0); // no command line of its own
    long(0);
    for entry in map {
        long(entry.start);
        long(entry.len);
        long(entry.kind as u64); // and a reserved word
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
        assert_eq!(long(0), (VERSION as u64) << 32 | MAGIC as u64);
        let modules = long(16) - PVH_INFO;
        assert_eq!((long(modules), long(modules + 8)), (0x700_0000, 1234));
        assert_eq!(long(24), CMDLINE);
        let map = long(40) - PVH_INFO;
        assert_eq!((long(map), long(map + 8), long(map + 16)), (0, 0x9_fc00, 1));
        assert_eq!(long(48), 3);
    }
}
