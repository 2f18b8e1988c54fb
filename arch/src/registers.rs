//! The boot vCPU's registers for each entry. Other vCPUs wait in the state after INIT, where KVM leaves them.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use crate::layout::{PAGE_TABLES, PVH_INFO, STACK_TOP, ZERO_PAGE};
use crate::tables::{CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR, gdt_register};

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Protected mode without paging, EBX points to the start info (PVH, "x86/HVM direct boot ABI").
    Pvh(u32),
    /// Long mode with memory mapped to itself, RSI points to the zero page (BOOT, "64-bit Boot Protocol").
    Linux64(u64),
}

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set; interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// Segment types (SDM vol. 3, tables 3-1 and 3-2), accessed or busy.
const CODE_READABLE: u8 = 0xb;
const DATA_WRITABLE: u8 = 0x3;
const TSS_BUSY: u8 = 0xb;

fn flat(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// General registers at the first instruction.
pub fn general(entry: Entry) -> kvm_regs {
    match entry {
        Entry::Pvh(rip) => kvm_regs {
            rip: rip.into(),
            rbx: PVH_INFO,
            rflags: RFLAGS,
            ..Default::default()
        },
        Entry::Linux64(rip) => kvm_regs {
            rip,
            rsi: ZERO_PAGE,
            rsp: STACK_TOP,
            rbp: STACK_TOP,
            rflags: RFLAGS,
            ..Default::default()
        },
    }
}

/// Changes the special registers, as KVM made them, for the first instruction.
pub fn special(sregs: &mut kvm_sregs, entry: Entry) {
    let code = flat(CODE_SELECTOR, CODE_READABLE);
    let data = kvm_segment {
        db: 1,
        ..flat(DATA_SELECTOR, DATA_WRITABLE)
    };
    sregs.cs = match entry {
        Entry::Pvh(_) => kvm_segment { db: 1, ..code },
        Entry::Linux64(_) => kvm_segment { l: 1, ..code },
    };
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.tr = kvm_segment {
        s: 0,
        g: 0,
        limit: 0x67,
        ..flat(TSS_SELECTOR, TSS_BUSY)
    };
    (sregs.gdt.base, sregs.gdt.limit) = gdt_register();
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    match entry {
        Entry::Pvh(_) => {
            sregs.cr0 = CR0_PE | CR0_ET;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
        Entry::Linux64(_) => {
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.cr3 = PAGE_TABLES;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pvh_begins_without_paging_and_with_its_start_info() {
        let mut sregs = kvm_sregs::default();
        special(&mut sregs, Entry::Pvh(0x100_0000));
        assert_eq!((sregs.cr0 & (CR0_PE | CR0_PG), sregs.efer), (CR0_PE, 0));
        assert_eq!((sregs.cs.db, sregs.cs.l), (1, 0));
        assert_eq!(general(Entry::Pvh(0x100_0000)).rbx, PVH_INFO);
    }

    #[test]
    fn the_64_bit_protocol_begins_in_long_mode_with_its_zero_page() {
        let mut sregs = kvm_sregs::default();
        special(&mut sregs, Entry::Linux64(0x10_0200));
        assert_eq!(sregs.efer, EFER_LME | EFER_LMA);
        assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.selector), (0, 1, 0x10));
        assert_eq!(general(Entry::Linux64(0x10_0200)).rsi, ZERO_PAGE);
    }
}
