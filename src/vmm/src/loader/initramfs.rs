//! The initramfs: as high as possible in low memory, where the kernel's unpacking does not reach.

use std::fs::File;

use arch::Initramfs;
use memory::{GuestAddress, PAGE_BYTES, Ram};

use super::{Error, Kernel, Source, low_memory_end};

/// How an archive may begin: cpio (newc, with and without checksums), and what Linux unpacks (lib/decompress.c).
const MAGICS: [&[u8]; 8] = [
    b"07070",
    b"\x1f\x8b",         // gzip
    b"\x28\xb5\x2f\xfd", // zstd
    b"\xfd7zXZ\0",       // xz
    b"\x02\x21\x4c\x18", // lz4
    b"\x5d\0\0",         // lzma
    b"BZh",              // bzip2
    b"\x89LZO",          // lzo
];
const LONGEST_MAGIC: usize = 6;

/// Maps an initramfs above `kernel`. Its last page reads as zeros behind the end of the file.
pub fn load(file: &File, kernel: &Kernel, ram: &mut Ram) -> Result<Initramfs, Error> {
    let source = Source::new(file)?;
    let mut first = [0; LONGEST_MAGIC];
    source.read(0, &mut first)?;
    if !MAGICS.iter().any(|magic| first.starts_with(magic)) {
        return Err(Error::NotAnInitramfs);
    }
    let highest = kernel
        .header
        .as_ref()
        .map_or(u64::MAX, |header| header.initramfs_max.saturating_add(1));
    let limit = low_memory_end(ram).min(highest) / PAGE_BYTES * PAGE_BYTES;
    let bottom = kernel.end.next_multiple_of(PAGE_BYTES);
    let room = limit.saturating_sub(bottom);
    let too_large = Error::InitramfsTooLarge {
        len: source.len,
        room,
    };
    let Some(mapped) = source
        .len
        .checked_next_multiple_of(PAGE_BYTES)
        .filter(|&len| len <= room)
    else {
        return Err(too_large);
    };
    let at = GuestAddress(limit - mapped);
    ram.map_file(at, file, 0, mapped)?;
    Ok(Initramfs {
        at,
        len: source.len,
    })
}
