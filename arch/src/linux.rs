//! Linux's own boot protocol: the header of a bzImage and the zero page (BOOT; Documentation/arch/x86/zero-page.rst).

use memory::GuestAddress;

use crate::layout::{CMDLINE, KERNEL_START, ZERO_PAGE, ZERO_PAGE_LEN};
use crate::{Initramfs, Placed, e820};

/// Where the setup header lies, in a bzImage as in the zero page.
const HEADER: usize = 0x1f1;
/// Where it ends when nothing says otherwise.
const HEADER_END: usize = 0x280;
/// The bytes of a bzImage that [`Header::parse`] wants to see.
pub const HEADER_BYTES: usize = HEADER_END;

// Offsets in the setup header (BOOT, "The Real-Mode Kernel Header").
const SETUP_SECTS: usize = 0x1f1;
const JUMP_LEN: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
// Offsets in the zero page alone.
const EXT_RAMDISK_IMAGE: usize = 0x0c0;
const EXT_RAMDISK_SIZE: usize = 0x0c4;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY_LEN: usize = 20;

/// "HdrS"
const HDRS: u32 = 0x5372_6448;
/// The oldest protocol with a 64-bit entry point that says so.
const MIN_VERSION: u16 = 0x020c;
/// XLF_KERNEL_64: there is an entry point for long mode, 0x200 into the kernel.
const XLF_KERNEL_64: u16 = 1 << 0;
/// The kernel goes to 1 MiB or above (LOADED_HIGH).
const LOADED_HIGH: u8 = 1 << 0;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    bytes: Vec<u8>,
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
        if word(file, MAGIC) != HDRS {
            return Err(Error::NoHeader);
        }
        let version = half(file, VERSION);
        if version < MIN_VERSION {
            return Err(Error::TooOld(version));
        }
        if half(file, XLOADFLAGS) & XLF_KERNEL_64 == 0 {
            return Err(Error::Not64Bit);
        }
        let end = MAGIC + usize::from(file[JUMP_LEN]);
        let preferred =
            u64::from(word(file, PREF_ADDRESS)) | u64::from(word(file, PREF_ADDRESS + 4)) << 32;
        let alignment = u64::from(word(file, KERNEL_ALIGNMENT));
        let usable = |at: u64| at >= KERNEL_START && at <= u64::from(u32::MAX);
        if end <= INIT_SIZE + 3 || end > HEADER_END || file[LOADFLAGS] & LOADED_HIGH == 0 {
            return Err(Error::Damaged);
        }
        let movable = file[RELOCATABLE] != 0 && alignment.is_power_of_two();
        if !usable(preferred) || (movable && !preferred.is_multiple_of(alignment)) {
            return Err(Error::Damaged);
        }
        let setup_sectors = match file[SETUP_SECTS] {
            0 => 4, // BOOT, "setup_sects"
            count => u64::from(count),
        };
        Ok(Self {
            bytes: file[HEADER..end].to_vec(),
            kernel_offset: (setup_sectors + 1) * SECTOR,
            load_at: GuestAddress(preferred),
            init_size: word(file, INIT_SIZE).into(),
            initramfs_max: word(file, INITRD_ADDR_MAX).into(),
            cmdline_max: word(file, CMDLINE_SIZE).into(),
        })
    }

    /// One past the last byte of the file that the compressed kernel takes.
    pub fn payload_end(&self) -> u64 {
        let word = |at: usize| {
            let bytes = &self.bytes[at - HEADER..][..4];
            u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        self.kernel_offset + word(PAYLOAD_OFFSET) + word(PAYLOAD_LENGTH)
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
    let mut page = vec![0; ZERO_PAGE_LEN as usize];
    match header {
        Some(header) => page[HEADER..HEADER + header.bytes.len()].copy_from_slice(&header.bytes),
        None => {
            put(&mut page, 0x1fe, 0xaa55u16.to_le_bytes());
            put(&mut page, MAGIC, HDRS.to_le_bytes());
            put(&mut page, VERSION, MIN_VERSION.to_le_bytes());
            put(&mut page, LOADFLAGS, [LOADED_HIGH]);
            put(&mut page, KERNEL_ALIGNMENT, 0x0100_0000u32.to_le_bytes());
        }
    }
    put(&mut page, TYPE_OF_LOADER, [LOADER_UNDEFINED]);
    put(&mut page, CMD_LINE_PTR, (CMDLINE as u32).to_le_bytes());
    let (at, len) = initramfs.map_or((0, 0), |initramfs| (initramfs.at.0, initramfs.len));
    put(&mut page, RAMDISK_IMAGE, (at as u32).to_le_bytes());
    put(&mut page, RAMDISK_SIZE, (len as u32).to_le_bytes());
    put(
        &mut page,
        EXT_RAMDISK_IMAGE,
        ((at >> 32) as u32).to_le_bytes(),
    );
    put(
        &mut page,
        EXT_RAMDISK_SIZE,
        ((len >> 32) as u32).to_le_bytes(),
    );
    page[E820_ENTRIES] = map.len() as u8;
    for (index, entry) in map.iter().enumerate() {
        let at = E820_TABLE + index * E820_ENTRY_LEN;
        put(&mut page, at, entry.start.to_le_bytes());
        put(&mut page, at + 8, entry.len.to_le_bytes());
        put(&mut page, at + 16, (entry.kind as u32).to_le_bytes());
    }
    Placed {
        at: GuestAddress(ZERO_PAGE),
        bytes: page,
    }
}

fn put<const N: usize>(page: &mut [u8], at: usize, bytes: [u8; N]) {
    page[at..at + N].copy_from_slice(&bytes);
}

fn half(file: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([file[at], file[at + 1]])
}

fn word(file: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from(half(file, at)) | u32::from(half(file, at + 2)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage() -> [u8; HEADER_BYTES] {
        let mut file = [0; HEADER_BYTES];
        file[SETUP_SECTS] = 27;
        file[JUMP_LEN] = 0x6a;
        put(&mut file, MAGIC, HDRS.to_le_bytes());
        put(&mut file, VERSION, 0x020fu16.to_le_bytes());
        put(&mut file, LOADFLAGS, [LOADED_HIGH]);
        put(&mut file, XLOADFLAGS, XLF_KERNEL_64.to_le_bytes());
        put(&mut file, PREF_ADDRESS, 0x100_0000u64.to_le_bytes());
        put(&mut file, INIT_SIZE, 0x200_0000u32.to_le_bytes());
        put(&mut file, INITRD_ADDR_MAX, 0x7fff_ffffu32.to_le_bytes());
        file
    }

    #[test]
    fn a_bzimage_says_where_its_kernel_is_and_goes() {
        let header = Header::parse(&bzimage()).unwrap();
        assert_eq!(header.kernel_offset, 28 * 512);
        assert_eq!(header.entry(), 0x100_0200);
        assert_eq!(header.init_size, 0x200_0000);
    }

    #[test]
    fn what_hull_cannot_boot_is_told_apart() {
        assert_eq!(Header::parse(&[0; HEADER_BYTES]), Err(Error::NoHeader));
        let change = |at: usize, bytes: &[u8]| {
            let mut file = bzimage();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            Header::parse(&file)
        };
        assert_eq!(change(VERSION, &[4, 2]), Err(Error::TooOld(0x204)));
        assert_eq!(change(XLOADFLAGS, &[0, 0]), Err(Error::Not64Bit));
        assert_eq!(change(JUMP_LEN, &[0xff]), Err(Error::Damaged));
        assert_eq!(change(JUMP_LEN, &[0]), Err(Error::Damaged));
        assert_eq!(change(PREF_ADDRESS, &[0; 8]), Err(Error::Damaged));
        assert_eq!(change(PREF_ADDRESS, &[0xff; 8]), Err(Error::Damaged));
    }

    #[test]
    fn the_zero_page_carries_map_initramfs_and_command_line() {
        let initramfs = Initramfs {
            at: GuestAddress(0x1_2345_6000),
            len: 77,
        };
        let Placed { bytes, .. } = zero_page(None, &e820::map(64 << 20), Some(initramfs));
        assert_eq!(bytes[E820_ENTRIES], 3);
        assert_eq!(
            bytes[RAMDISK_IMAGE..RAMDISK_IMAGE + 4],
            0x2345_6000u32.to_le_bytes()
        );
        assert_eq!(bytes[EXT_RAMDISK_IMAGE], 1);
        assert_eq!(bytes[RAMDISK_SIZE], 77);
        assert_eq!(
            bytes[CMD_LINE_PTR..CMD_LINE_PTR + 4],
            (CMDLINE as u32).to_le_bytes()
        );
    }
}
