//! Linux's own boot protocol: the header of a bzImage and the zero page (BOOT; Documentation/arch/x86/zero-page.rst).

use std::mem::{offset_of, size_of};

use linux_loader::bootparam::{
    LOADED_HIGH, XLF_KERNEL_64, boot_e820_entry, boot_params, setup_header,
};
use memory::{ByteValued, GuestAddress};

use crate::layout::{CMDLINE, KERNEL_START, ZERO_PAGE};
use crate::{Initramfs, Placed, e820};

/// Where the setup header lies, in a bzImage as in the zero page.
const HEADER: usize = offset_of!(boot_params, hdr);
/// The end of the jump over the rest of the header, from where its distance counts.
const JUMP_END: usize = HEADER + offset_of!(setup_header, header);
/// What comes behind the header in the zero page.
const MAX_END: usize = offset_of!(boot_params, edd_mbr_sig_buffer);
/// The bytes of a bzImage that [`Header::parse`] wants to see.
pub const HEADER_BYTES: usize = HEADER + size_of::<setup_header>();

/// "HdrS"
const HDRS: u32 = 0x5372_6448;
/// The last two bytes of a boot sector.
const BOOT_FLAG: u16 = 0xaa55;
/// The oldest protocol that announces a 64-bit entry point.
const MIN_VERSION: u16 = 0x020c;
const ENTRY_64: u64 = 0x200;
/// type_of_loader: no number assigned.
const LOADER_UNDEFINED: u8 = 0xff;
const SECTOR: u64 = 512;

/// Why a file is not a bzImage that hull can boot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No "HdrS" where it should be.
    #[error("it has no Linux setup header")]
    NoHeader,
    /// The boot protocol is too old.
    #[error("it speaks boot protocol {}.{:02}, and 2.12 is the oldest with a 64-bit entry", .0 >> 8, .0 & 0xff)]
    TooOld(u16),
    /// A 32-bit kernel.
    #[error("it is a 32-bit kernel, and a 64-bit one is needed")]
    Not64Bit,
    /// The header contradicts itself.
    #[error("its setup header is damaged")]
    Damaged,
}

/// What hull needs of a bzImage's setup header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    setup: setup_header,
    /// Where the protected-mode kernel begins in the file.
    pub kernel_offset: u64,
    /// Where it goes.
    pub load_at: GuestAddress,
    /// How much memory it needs from there until it has read the memory map, in bytes.
    pub init_size: u64,
    /// The last address that an initramfs may touch.
    pub initramfs_max: u64,
    /// The longest command line, without its final zero.
    pub cmdline_max: u64,
}

impl Header {
    /// Reads the header from the first [`HEADER_BYTES`] bytes of a file.
    pub fn parse(file: &[u8; HEADER_BYTES]) -> Result<Self, Error> {
        let mut setup = setup_header::default();
        setup.as_mut_slice().copy_from_slice(&file[HEADER..]);
        if setup.header != HDRS {
            return Err(Error::NoHeader);
        }
        if setup.version < MIN_VERSION {
            return Err(Error::TooOld(setup.version));
        }
        if setup.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(Error::Not64Bit);
        }
        // A short jump over the header: its second byte is its distance.
        let end = JUMP_END + usize::from(setup.jump >> 8);
        let least_end = HEADER + offset_of!(setup_header, handover_offset);
        if end < least_end || end > MAX_END || setup.loadflags & LOADED_HIGH == 0 {
            return Err(Error::Damaged);
        }
        let alignment = setup.kernel_alignment;
        let preferred = setup.pref_address;
        let usable = (KERNEL_START..=u64::from(u32::MAX)).contains(&preferred);
        let movable = setup.relocatable_kernel != 0 && alignment.is_power_of_two();
        if !usable || (movable && !preferred.is_multiple_of(alignment.into())) {
            return Err(Error::Damaged);
        }
        // Behind the header of an older protocol lies code.
        if let Some(code) = setup.as_mut_slice().get_mut(end - HEADER..) {
            code.fill(0);
        }
        let setup_sectors = match setup.setup_sects {
            0 => 4, // BOOT, "setup_sects"
            count => u64::from(count),
        };
        Ok(Self {
            setup,
            kernel_offset: (setup_sectors + 1) * SECTOR,
            load_at: GuestAddress(preferred),
            init_size: setup.init_size.into(),
            initramfs_max: setup.initrd_addr_max.into(),
            cmdline_max: setup.cmdline_size.into(),
        })
    }

    /// One past the last byte of the file that the compressed kernel takes.
    pub fn payload_end(&self) -> u64 {
        let (offset, len) = (self.setup.payload_offset, self.setup.payload_length);
        self.kernel_offset + u64::from(offset) + u64::from(len)
    }

    /// Where the kernel is entered in long mode.
    pub fn entry(&self) -> u64 {
        self.load_at.0 + ENTRY_64
    }
}

/// The zero page in its place. Without a `header` (a vmlinux) it holds what the kernel reads of one.
pub fn zero_page(
    header: Option<&Header>,
    map: &[e820::Entry],
    initramfs: Option<Initramfs>,
) -> Placed {
    let hdr = match header {
        Some(header) => header.setup,
        None => setup_header {
            boot_flag: BOOT_FLAG,
            header: HDRS,
            version: MIN_VERSION,
            loadflags: LOADED_HIGH,
            kernel_alignment: 0x0100_0000,
            ..Default::default()
        },
    };
    let (at, len) = initramfs.map_or((0, 0), |initramfs| (initramfs.at.0, initramfs.len));
    let mut page = boot_params {
        hdr: setup_header {
            type_of_loader: LOADER_UNDEFINED,
            cmd_line_ptr: CMDLINE as u32,
            ramdisk_image: at as u32,
            ramdisk_size: len as u32,
            ..hdr
        },
        ext_ramdisk_image: (at >> 32) as u32,
        ext_ramdisk_size: (len >> 32) as u32,
        e820_entries: map.len() as u8,
        ..Default::default()
    };
    for (index, entry) in map.iter().enumerate() {
        page.e820_table[index] = boot_e820_entry {
            addr: entry.start,
            size: entry.len,
            r#type: entry.kind as u32,
        };
    }
    Placed {
        at: GuestAddress(ZERO_PAGE),
        bytes: page.as_slice().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot sector with this header.
    fn bzimage(change: impl FnOnce(&mut setup_header)) -> [u8; HEADER_BYTES] {
        let mut setup = setup_header {
            setup_sects: 27,
            jump: 0x6aeb,
            header: HDRS,
            version: 0x020f,
            loadflags: LOADED_HIGH,
            xloadflags: XLF_KERNEL_64,
            pref_address: 0x100_0000,
            init_size: 0x200_0000,
            initrd_addr_max: 0x7fff_ffff,
            ..Default::default()
        };
        change(&mut setup);
        let mut file = [0; HEADER_BYTES];
        file[HEADER..].copy_from_slice(setup.as_slice());
        file
    }

    fn page(placed: &Placed) -> boot_params {
        let mut page = boot_params::default();
        page.as_mut_slice().copy_from_slice(&placed.bytes);
        page
    }

    #[test]
    fn a_bzimage_says_where_its_kernel_is_and_goes() {
        let header = Header::parse(&bzimage(|_| ())).unwrap();
        assert_eq!(header.kernel_offset, 28 * 512);
        assert_eq!(header.entry(), 0x100_0200);
        assert_eq!(header.init_size, 0x200_0000);
    }

    #[test]
    fn what_hull_cannot_boot_is_told_apart() {
        assert_eq!(Header::parse(&[0; HEADER_BYTES]), Err(Error::NoHeader));
        let parse = |change: fn(&mut setup_header)| Header::parse(&bzimage(change)).unwrap_err();
        assert_eq!(parse(|setup| setup.version = 0x204), Error::TooOld(0x204));
        assert_eq!(parse(|setup| setup.xloadflags = 0), Error::Not64Bit);
        assert_eq!(parse(|setup| setup.jump = 0xffeb), Error::Damaged);
        assert_eq!(parse(|setup| setup.jump = 0x00eb), Error::Damaged);
        assert_eq!(parse(|setup| setup.pref_address = 0), Error::Damaged);
        assert_eq!(parse(|setup| setup.pref_address = u64::MAX), Error::Damaged);
    }

    #[test]
    fn a_header_is_passed_on_without_the_code_behind_it() {
        // Of protocol 2.12: it ends behind kernel_info's place.
        let file = bzimage(|setup| {
            setup.jump = 0x66eb;
            setup.kernel_info_offset = 0x1234_5678;
            setup.handover_offset = 0x190;
        });
        let header = Header::parse(&file).unwrap();
        let setup = page(&zero_page(Some(&header), &e820::map(64 << 20), None)).hdr;
        let (handover, code) = (setup.handover_offset, setup.kernel_info_offset);
        assert_eq!((setup.setup_sects, handover, code), (27, 0x190, 0));
    }

    #[test]
    fn the_zero_page_carries_map_initramfs_and_command_line() {
        let initramfs = Initramfs {
            at: GuestAddress(0x1_2345_6000),
            len: 77,
        };
        let page = page(&zero_page(None, &e820::map(64 << 20), Some(initramfs)));
        let (entries, setup, high) = (page.e820_entries, page.hdr, page.ext_ramdisk_image);
        let first = page.e820_table[0];
        assert_eq!((entries, { first.size }), (3, 0x9_fc00));
        assert_eq!(({ setup.ramdisk_image }, high), (0x2345_6000, 1));
        assert_eq!({ setup.ramdisk_size }, 77);
        assert_eq!({ setup.cmd_line_ptr }, CMDLINE as u32);
    }
}
