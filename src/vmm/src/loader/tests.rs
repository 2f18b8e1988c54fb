use std::io::Write;

use arch::linux::HEADER_BYTES;
use memory::Bytes;

use super::*;

const MIB: u64 = 1 << 20;

fn ram(mib: u64) -> Ram {
    Ram::new(&arch::layout::ram(mib * MIB)).unwrap()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A vmlinux with one segment of two pages and some bytes at 2 MiB, and a note.
fn vmlinux() -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    put(&mut bytes, 16, &2u16.to_le_bytes());
    put(&mut bytes, 18, &62u16.to_le_bytes());
    put(&mut bytes, 24, &0x20_0000u64.to_le_bytes());
    put(&mut bytes, 32, &64u64.to_le_bytes());
    put(&mut bytes, 54, &56u16.to_le_bytes());
    put(&mut bytes, 56, &2u16.to_le_bytes());
    segment(&mut bytes, 0, [1, 0x1000, 0x20_0000, 0x2010, 0x5000]);
    segment(&mut bytes, 1, [4, 0x200, 0, 20, 20]);
    put(&mut bytes, 0x200, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    put(&mut bytes, 0x20c, b"Xen\0\x10\0\x20\0");
    bytes.resize(0x3000, 0xaa);
    bytes.resize(0x3010, 0xbb);
    bytes
}

fn segment(
    bytes: &mut [u8],
    index: usize,
    [kind, offset, address, file_len, memory_len]: [u64; 5],
) {
    let at = 64 + index * 56;
    put(bytes, at, &(kind as u32).to_le_bytes());
    for (field, value) in [
        (8, offset),
        (16, address),
        (24, address),
        (32, file_len),
        (40, memory_len),
    ] {
        put(bytes, at + field, &value.to_le_bytes());
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn changed(at: usize, value: &[u8]) -> Result<Kernel, Error> {
    let mut bytes = vmlinux();
    put(&mut bytes, at, value);
    load_kernel(&file(&bytes), &mut ram(32))
}

#[test]
fn whole_pages_are_mapped_and_the_rest_is_copied() {
    let mut ram = ram(32);
    let kernel = load_kernel(&file(&vmlinux()), &mut ram).unwrap();
    assert_eq!(kernel.entry, Entry::Pvh(0x20_0010));
    assert_eq!(kernel.end, 0x20_5000);
    assert_eq!(len(&kernel.image), 0x2010);
    assert_eq!(len(ram.file_ranges()), 0x2000);
    let byte = |at| ram.memory().read_obj::<u8>(GuestAddress(at)).unwrap();
    assert_eq!(
        [byte(0x20_0000), byte(0x20_1fff), byte(0x20_2000)],
        [0xaa, 0xaa, 0xbb]
    );
    assert_eq!(
        [byte(0x20_200f), byte(0x20_2010), byte(0x20_4fff)],
        [0xbb, 0, 0]
    );
}

fn len(ranges: &[HostRange]) -> u64 {
    ranges.iter().map(|range| range[1] - range[0]).sum()
}

/// As Linux links itself: a segment of code, of what fills it up and of data, and a segment of data that is written to. Some
/// code lies before the first huge page and behind the last, which is not full.
fn linked_like_linux() -> Vec<u8> {
    let mut bytes = vmlinux();
    bytes.truncate(0x1000);
    let code: Vec<u8> = (0..MIB as usize + 0x1000 + 2 * HUGE_PAGE_BYTES as usize)
        .map(|at| at as u8)
        .collect();
    bytes.extend(code);
    bytes.resize(0x1000 + 4 * HUGE_PAGE_BYTES as usize - MIB as usize, 0xcc);
    bytes.extend([7; 0x4000]);
    bytes.extend([9; 0x2000]);
    segment(
        &mut bytes,
        0,
        [1, 0x1000, 3 * MIB, 7 * MIB + 0x4000, 7 * MIB + 0x4000],
    );
    put(&mut bytes, 64 + 4, &5u32.to_le_bytes());
    put(&mut bytes, 56, &3u16.to_le_bytes());
    put(&mut bytes, 0x210, &(3 * MIB as u32 + 0x10).to_le_bytes());
    let data = [1, 7 * MIB + 0x5000, 10 * MIB + 0x4000, 0x2000, 0x2000];
    segment(&mut bytes, 2, data);
    put(&mut bytes, 64 + 2 * 56 + 4, &6u32.to_le_bytes());
    // Section headers: one that is empty, the code, the data.
    put(&mut bytes, 58, &64u16.to_le_bytes());
    put(&mut bytes, 60, &3u16.to_le_bytes());
    put(&mut bytes, 40, &0x400u64.to_le_bytes());
    let sections = [[1, 6, 0x1000, 7 * MIB], [1, 2, 7 * MIB + 0x1000, 0x4000]];
    for (index, [kind, flags, offset, len]) in sections.into_iter().enumerate() {
        let at = 0x440 + index * 64;
        put(&mut bytes, at + 4, &(kind as u32).to_le_bytes());
        for (field, value) in [(8, flags), (24, offset), (32, len)] {
            put(&mut bytes, at + field, &u64::to_le_bytes(value));
        }
    }
    bytes
}

#[test]
fn full_pages_of_code_and_what_is_written_to_are_copied_and_the_rest_is_mapped() {
    let bytes = linked_like_linux();
    let mut ram = ram(32);
    let kernel = load_kernel(&file(&bytes), &mut ram).unwrap();
    assert_eq!(len(&kernel.image), 7 * MIB + 0x6000);
    assert_eq!(len(ram.file_ranges()), 3 * MIB + 0x4000);
    let mut loaded = vec![0; 7 * MIB as usize + 0x6000];
    ram.memory()
        .read_slice(&mut loaded, GuestAddress(3 * MIB))
        .unwrap();
    assert!(loaded == bytes[0x1000..]);
}

#[test]
fn without_sections_all_of_a_segment_with_code_is_code() {
    let mut bytes = linked_like_linux();
    put(&mut bytes, 60, &0u16.to_le_bytes());
    let mut ram = ram(32);
    load_kernel(&file(&bytes), &mut ram).unwrap();
    assert_eq!(len(ram.file_ranges()), 3 * MIB + 0x4000);
}

#[test]
fn damaged_section_headers_are_called_that() {
    let changed = |at, value: &[u8]| {
        let mut bytes = linked_like_linux();
        put(&mut bytes, at, value);
        load_kernel(&file(&bytes), &mut ram(32))
    };
    assert!(matches!(changed(58, &[63, 0]), Err(Error::DamagedElf)));
    assert!(matches!(changed(60, &[0xff; 2]), Err(Error::DamagedElf)));
    assert!(matches!(
        changed(40, &[0xff; 8]),
        Err(Error::Truncated { .. })
    ));
    // A section that lies far outside of the file is no part of any segment.
    assert!(changed(0x440 + 24, &[0xff; 16]).is_ok());
}

#[test]
fn a_segment_off_the_page_is_copied_whole() {
    let mut bytes = vmlinux();
    segment(&mut bytes, 0, [1, 0x1000, 0x20_0010, 0x2010, 0x5000]);
    let mut ram = ram(32);
    let kernel = load_kernel(&file(&bytes), &mut ram).unwrap();
    assert_eq!(len(&kernel.image), 0x2010);
    assert!(ram.file_ranges().is_empty());
    assert_eq!(
        ram.memory()
            .read_obj::<u8>(GuestAddress(0x20_0010))
            .unwrap(),
        0xaa
    );
}

#[test]
fn without_a_note_the_64_bit_entry_is_taken() {
    assert_eq!(
        changed(0x20c, b"Xxx").unwrap().entry,
        Entry::Linux64(0x20_0000)
    );
    // A note that claims more than there is ends the search.
    assert_eq!(
        changed(0x204, &[0xff; 4]).unwrap().entry,
        Entry::Linux64(0x20_0000)
    );
}

#[test]
fn a_truncated_kernel_is_called_that() {
    let bytes = vmlinux();
    for len in [8, 63, 100, 0x210, 0x1000, 0x300f] {
        let result = load_kernel(&file(&bytes[..len]), &mut ram(32));
        assert!(
            matches!(result, Err(Error::Truncated { .. })),
            "{len}: {result:?}"
        );
    }
}

#[test]
fn what_is_no_kernel_is_told_apart() {
    assert!(matches!(
        load_kernel(&file(&[0; 8192]), &mut ram(32)),
        Err(Error::NotAKernel)
    ));
    assert!(matches!(
        load_kernel(&file(b"#!/bin/sh\n"), &mut ram(32)),
        Err(Error::NotAKernel)
    ));
    assert!(matches!(
        load_kernel(&file(b""), &mut ram(32)),
        Err(Error::Truncated { .. })
    ));
    assert!(matches!(
        changed(18, &183u16.to_le_bytes()),
        Err(Error::Foreign)
    )); // aarch64
    assert!(matches!(changed(4, &[1]), Err(Error::Foreign))); // 32-bit
}

#[test]
fn impossible_structures_are_refused() {
    let segment_field = |field: usize, value: u64| changed(64 + field, &value.to_le_bytes());
    assert!(matches!(
        segment_field(24, 0x1000),
        Err(Error::NoRoom { .. })
    ));
    assert!(matches!(
        segment_field(24, 1 << 40),
        Err(Error::NoRoom { .. })
    ));
    assert!(matches!(
        segment_field(24, u64::MAX - 8),
        Err(Error::NoRoom { .. })
    ));
    assert!(matches!(
        segment_field(40, 1 << 40),
        Err(Error::NoRoom { .. })
    ));
    assert!(matches!(
        segment_field(40, u64::MAX),
        Err(Error::NoRoom { .. })
    ));
    assert!(matches!(segment_field(40, 1), Err(Error::DamagedElf)));
    assert!(matches!(
        segment_field(8, u64::MAX),
        Err(Error::Truncated { .. })
    ));
    assert!(matches!(
        changed(56, &0xffffu16.to_le_bytes()),
        Err(Error::DamagedElf)
    ));
    assert!(matches!(
        changed(32, &u64::MAX.to_le_bytes()),
        Err(Error::Truncated { .. })
    ));
    // The entry is outside of every segment.
    assert!(matches!(
        changed(0x20c + 4, &[0; 4]),
        Err(Error::DamagedElf)
    ));
    // Notes without a bound.
    assert!(matches!(
        changed(64 + 56 + 32, &u64::MAX.to_le_bytes()),
        Err(Error::DamagedElf)
    ));
}

#[test]
fn overlapping_segments_are_refused() {
    let mut bytes = vmlinux();
    segment(&mut bytes, 1, [1, 0x1000, 0x20_4000, 0x10, 0x10]);
    assert!(matches!(
        load_kernel(&file(&bytes), &mut ram(32)),
        Err(Error::DamagedElf)
    ));
}

#[test]
fn a_bzimage_that_needs_more_memory_than_there_is_says_so() {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0x1f1] = 1;
    bytes[0x201] = 0x6a;
    put(&mut bytes, 0x202, b"HdrS\x0f\x02");
    bytes[0x211] = 1;
    put(&mut bytes, 0x236, &[1, 0]);
    put(&mut bytes, 0x258, &0x20_0000u64.to_le_bytes());
    put(&mut bytes, 0x260, &0x10_0000u32.to_le_bytes());
    bytes.resize(0x400 + 0x100, 0xcc);
    let kernel = load_kernel(&file(&bytes), &mut ram(32)).unwrap();
    assert_eq!(kernel.entry, Entry::Linux64(0x20_0200));
    assert_eq!(kernel.end, 0x30_0000);
    put(&mut bytes, 0x260, &u32::MAX.to_le_bytes());
    assert!(matches!(
        load_kernel(&file(&bytes), &mut ram(32)),
        Err(Error::NoRoom { .. })
    ));
    assert!(matches!(
        load_kernel(&file(&bytes[..0x300]), &mut ram(32)),
        Err(Error::Truncated { .. })
    ));
}

#[test]
fn an_initramfs_lies_at_the_end_of_low_memory() {
    let mut ram = ram(32);
    let kernel = load_kernel(&file(&vmlinux()), &mut ram).unwrap();
    let mut archive = b"070701".to_vec();
    archive.resize(5000, b'x');
    let initramfs = load_initramfs(&file(&archive), &kernel, &mut ram).unwrap();
    assert_eq!((initramfs.at.0, initramfs.len), (32 * MIB - 0x2000, 5000));
    let byte = |at: u64| {
        ram.memory()
            .read_obj::<u8>(GuestAddress(initramfs.at.0 + at))
            .unwrap()
    };
    assert_eq!([byte(0), byte(4999), byte(5000)], [b'0', b'x', 0]);
}

#[test]
fn an_initramfs_that_is_none_or_does_not_fit_is_refused() {
    let mut ram = ram(32);
    let kernel = load_kernel(&file(&vmlinux()), &mut ram).unwrap();
    let load = |bytes: &[u8], ram: &mut Ram| load_initramfs(&file(bytes), &kernel, ram);
    assert!(matches!(
        load(b"garbage", &mut ram),
        Err(Error::NotAnInitramfs)
    ));
    assert!(matches!(load(b"", &mut ram), Err(Error::Truncated { .. })));
    let large = file(b"070701");
    large.set_len(40 * MIB).unwrap();
    assert!(matches!(
        load_initramfs(&large, &kernel, &mut ram),
        Err(Error::InitramfsTooLarge { .. })
    ));
}
