//! Every guest physical address that hull decides, in ascending order. A test asserts that nothing overlaps.
//!
//! RAM is all that the size asks for, from 0 to [`MMIO32_START`] and on from [`HIGH_RAM_START`]. What is below
//! [`KERNEL_START`] is written by hull before the first instruction and free for the guest afterwards, but for the
//! MP table.

use memory::{GuestAddress, HUGE_PAGE_BYTES};

/// Global descriptor table of the boot vCPU.
pub const GDT: u64 = 0x500;
/// Room for the table.
pub const GDT_LEN: u64 = 0x40;
/// PVH start info, its module list and its memory map.
pub const PVH_INFO: u64 = 0x6000;
/// Room for the three.
pub const PVH_INFO_LEN: u64 = 0x1000;
/// The "zero page" of the 64-bit boot protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// Its size.
pub const ZERO_PAGE_LEN: u64 = 0x1000;
/// The first stack pointer; the stack grows down. Linux sets up its own at once.
pub const STACK_TOP: u64 = 0x8ff0;
/// Page tables that map the first 4 GiB to themselves: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// Room for the six tables.
pub const PAGE_TABLES_LEN: u64 = 0x6000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// The longest command line with its final zero: COMMAND_LINE_SIZE of Linux on x86.
pub const CMDLINE_MAX_LEN: u64 = 0x800;
/// The MP table: the last KiB of the conventional 640 KiB, where Linux looks for it.
pub const MPTABLE: u64 = 0x9_fc00;
/// Room for the table.
pub const MPTABLE_LEN: u64 = 0x400;
/// The PC's hole between conventional and extended memory. RAM lies behind it, unused and untouched.
pub const LEGACY_HOLE: u64 = 0xa_0000;
/// Where a kernel may begin: the end of the hole.
pub const KERNEL_START: u64 = 0x10_0000;

/// End of low RAM and beginning of the 32-bit windows.
pub const MMIO32_START: u64 = 0xc000_0000;
/// virtio-mmio devices, [`VIRTIO_MMIO_STRIDE`] bytes each.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// The window of one device.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Length of all their windows.
pub const VIRTIO_MMIO_LEN: u64 = VIRTIO_MMIO_MAX_DEVICES as u64 * VIRTIO_MMIO_STRIDE;
/// The most virtio-mmio devices: as many as there are interrupts for them.
pub const VIRTIO_MMIO_MAX_DEVICES: usize = (GSI_END - GSI_START) as usize;
/// Reserved for PCI's enhanced configuration access (one segment of 256 buses).
pub const ECAM: u64 = 0xe000_0000;
/// Its length.
pub const ECAM_LEN: u64 = 0x1000_0000;
/// Reserved for 32-bit PCI BARs.
pub const BAR32: u64 = 0xf000_0000;
/// Its length.
pub const BAR32_LEN: u64 = 0x0800_0000;
/// The I/O APIC, served by KVM.
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local APIC, served by KVM.
pub const LOCAL_APIC: u64 = 0xfee0_0000;
/// Length of either APIC's window.
pub const APIC_LEN: u64 = 0x1000;
/// One page of KVM's own, for real mode without unrestricted guests (KVM_SET_IDENTITY_MAP_ADDR).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages of KVM's own, for the same (KVM_SET_TSS_ADDR).
pub const KVM_TSS: u64 = 0xfffb_d000;
/// Length of KVM's own pages.
pub const KVM_TSS_LEN: u64 = 0x3000;

/// Where RAM goes on that does not fit below [`MMIO32_START`].
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;
/// End of high RAM.
pub const HIGH_RAM_END: u64 = 0x40_0000_0000;
/// Reserved for windows of shared memory (DAX): pmem and virtio-fs.
pub const DAX: u64 = HIGH_RAM_END;
/// Its length.
pub const DAX_LEN: u64 = 0x10_0000_0000;
/// Reserved for 64-bit PCI BARs. All ends below 2^39: the narrowest physical addresses of x86-64 servers.
pub const BAR64: u64 = DAX + DAX_LEN;
/// Its length.
pub const BAR64_LEN: u64 = 0x10_0000_0000;

/// First interrupt (GSI) of a virtio-mmio device. Below are the PC's timer, keyboard, cascade and serial ports.
pub const GSI_START: u32 = 5;
/// One past the last: the end of the I/O APIC's pins.
pub const GSI_END: u32 = 24;

/// The first serial port.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Number of its ports.
pub const SERIAL_LEN: u16 = 8;
/// Interrupt of the first serial port.
pub const SERIAL_GSI: u32 = 4;
/// The keyboard controller: data at 0x60, command and status at 0x64.
pub const I8042_PORT: u16 = 0x60;
/// Number of its ports.
pub const I8042_LEN: u16 = 5;

/// The most RAM that the layout holds, in bytes.
pub const RAM_MAX: u64 = MMIO32_START + (HIGH_RAM_END - HIGH_RAM_START);

/// Where `bytes` of RAM lie, as start and length; at most [`RAM_MAX`].
pub fn ram(bytes: u64) -> Vec<(GuestAddress, u64)> {
    let low = bytes.min(MMIO32_START);
    let mut regions = vec![(GuestAddress(0), low)];
    if bytes > low {
        regions.push((GuestAddress(HIGH_RAM_START), bytes - low));
    }
    regions
}

/// Where Linux puts its page structures, which it fills at boot, and a little around them: 64 bytes for a page, allocated in
/// one piece from the top of memory, below an initramfs that lies there. Start and length in bytes, multiples of 2 MiB.
pub fn page_structures(bytes: u64, initramfs: Option<GuestAddress>) -> (GuestAddress, u64) {
    let high = bytes.saturating_sub(MMIO32_START);
    let top = match (high, initramfs) {
        (0, Some(initramfs)) => initramfs.0,
        (0, None) => bytes,
        (high, _) => HIGH_RAM_START + high,
    };
    let end = top / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    let room = if high == 0 { end } else { end - HIGH_RAM_START };
    let len = (bytes / 64).next_multiple_of(HUGE_PAGE_BYTES).min(room);
    (GuestAddress(end - len), len)
}

/// The window of virtio-mmio device number `index`.
pub fn virtio_mmio(index: usize) -> GuestAddress {
    GuestAddress(VIRTIO_MMIO + index as u64 * VIRTIO_MMIO_STRIDE)
}

/// The interrupt of virtio-mmio device number `index`.
pub fn virtio_gsi(index: usize) -> u32 {
    GSI_START + index as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_structures_lie_below_the_top_of_memory() {
        let at = |mib: u64, initramfs: Option<u64>| {
            let (at, len) =
                page_structures(mib << 20, initramfs.map(|mib| GuestAddress(mib << 20)));
            (at.0 >> 20, len >> 20)
        };
        assert_eq!(at(512, Some(511)), (502, 8));
        assert_eq!(at(32, None), (30, 2));
        assert_eq!(at(4096, Some(3071)).0, (5 << 10) - 64);
    }

    #[test]
    fn nothing_overlaps_and_the_order_is_ascending() {
        let ranges = [
            (GDT, GDT_LEN),
            (PVH_INFO, PVH_INFO_LEN),
            (ZERO_PAGE, ZERO_PAGE_LEN),
            (STACK_TOP - 0xff0, 0xff0),
            (PAGE_TABLES, PAGE_TABLES_LEN),
            (CMDLINE, CMDLINE_MAX_LEN),
            (MPTABLE, MPTABLE_LEN),
            (LEGACY_HOLE, KERNEL_START - LEGACY_HOLE),
            (KERNEL_START, MMIO32_START - KERNEL_START),
            (VIRTIO_MMIO, VIRTIO_MMIO_LEN),
            (ECAM, ECAM_LEN),
            (BAR32, BAR32_LEN),
            (IO_APIC, APIC_LEN),
            (LOCAL_APIC, APIC_LEN),
            (KVM_IDENTITY_MAP, 0x1000),
            (KVM_TSS, KVM_TSS_LEN),
            (HIGH_RAM_START, HIGH_RAM_END - HIGH_RAM_START),
            (DAX, DAX_LEN),
            (BAR64, BAR64_LEN),
        ];
        for pair in ranges.windows(2) {
            let ((start, len), next) = (pair[0], pair[1].0);
            assert!(
                start + len <= next,
                "{start:#x} + {len:#x} reaches into {next:#x}"
            );
        }
        const { assert!(BAR64 + BAR64_LEN <= 1 << 39) };
    }

    #[test]
    fn ram_goes_around_the_32_bit_hole() {
        assert_eq!(ram(32 << 20), [(GuestAddress(0), 32 << 20)]);
        assert_eq!(
            ram(4 << 30),
            [(GuestAddress(0), 3 << 30), (GuestAddress(1 << 32), 1 << 30)]
        );
    }

    #[test]
    fn the_last_device_has_the_last_pin() {
        assert_eq!(virtio_gsi(VIRTIO_MMIO_MAX_DEVICES - 1), 23);
    }
}
