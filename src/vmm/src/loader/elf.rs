//! An uncompressed Linux kernel: a vmlinux (ELF-64; System V ABI, chapters 4 and 5).

use arch::registers::Entry;
use memory::{GuestAddress, Ram};

use super::{Error, Kernel, Source, check_room};

pub(super) const MAGIC: &[u8; 4] = b"\x7fELF";

const HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
/// e_ident: 64-bit, little-endian, version 1.
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
/// e_type: an executable, and what a relocatable kernel may be.
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// The most program headers that are looked at; Linux has five.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// The longest note segment that is looked at; Linux's has some hundred bytes.
const MAX_NOTES: u64 = 64 << 10;
/// p_flags: the segment holds code; it is written to.
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const SECTION_HEADER_LEN: usize = 64;
/// The most section headers that are looked at; Linux has some forty.
const MAX_SECTIONS: u16 = 1024;
/// sh_type: no bytes in the file.
const SHT_NOBITS: u32 = 8;
/// sh_flags: code.
const SHF_EXECINSTR: u64 = 4;
/// XEN_ELFNOTE_PHYS32_ENTRY: the PVH entry point (xen.git, xen/include/public/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// Where in the file code lies.
struct Code {
    start: u64,
    end: u64,
}

struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_len: u64,
    memory_len: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_len)
    }
}

pub(super) fn load(source: &Source, ram: &mut Ram) -> Result<Kernel, Error> {
    let mut header = [0; HEADER_LEN];
    source.read(0, &mut header)?;
    let kind = half(&header, 16);
    if [header[4], header[5], header[6]] != [CLASS_64, LITTLE_ENDIAN, 1]
        || (kind != ET_EXEC && kind != ET_DYN)
        || half(&header, 18) != EM_X86_64
    {
        return Err(Error::Foreign);
    }
    let segments = program_headers(source, &header)?;
    let mut pvh = None;
    for notes in segments.iter().filter(|segment| segment.kind == PT_NOTE) {
        pvh = pvh.or(pvh_entry(source, notes)?);
    }
    let mut loads: Vec<_> = segments
        .into_iter()
        .filter(|segment| segment.kind == PT_LOAD)
        .collect();
    loads.sort_by_key(|segment| segment.address);
    check(&loads, ram)?;

    let start = long(&header, 24);
    let entry = match pvh {
        Some(address) => Entry::Pvh(address),
        None => Entry::Linux64(start),
    };
    let address = match entry {
        Entry::Pvh(address) => address.into(),
        Entry::Linux64(address) => address,
    };
    let has_entry = |segment: &&Segment| {
        address >= segment.address && address - segment.address < segment.file_len
    };
    if !loads.iter().any(|segment| has_entry(&segment)) {
        return Err(Error::DamagedElf);
    }
    place(source, &loads, &code(source, &header)?, ram)?;
    let image = loads
        .iter()
        .filter_map(|segment| ram.host_range(GuestAddress(segment.address), segment.file_len))
        .collect();
    let end = loads.iter().map(Segment::end).max().unwrap_or(0);
    Ok(Kernel {
        entry,
        header: None,
        end,
        image,
    })
}

fn program_headers(source: &Source, header: &[u8; HEADER_LEN]) -> Result<Vec<Segment>, Error> {
    let offset = long(header, 32);
    let count = half(header, 56);
    if half(header, 54) as usize != PROGRAM_HEADER_LEN || count > MAX_PROGRAM_HEADERS {
        return Err(Error::DamagedElf);
    }
    let mut bytes = vec![0; usize::from(count) * PROGRAM_HEADER_LEN];
    source.read(offset, &mut bytes)?;
    let segment = |bytes: &[u8]| Segment {
        kind: word(bytes, 0),
        flags: word(bytes, 4),
        offset: long(bytes, 8),
        address: long(bytes, 24), // p_paddr
        file_len: long(bytes, 32),
        memory_len: long(bytes, 40),
    };
    Ok(bytes
        .chunks_exact(PROGRAM_HEADER_LEN)
        .map(segment)
        .collect())
}

/// Segments in ascending order must lie in the file and in memory, and apart from each other: what a segment has beyond
/// its bytes in the file is memory that nobody has written, so it is zero.
fn check(loads: &[Segment], ram: &Ram) -> Result<(), Error> {
    for segment in loads {
        if segment.file_len > segment.memory_len {
            return Err(Error::DamagedElf);
        }
        check_room(ram, segment.address, segment.end())?;
    }
    if loads.windows(2).any(|pair| pair[0].end() > pair[1].address) {
        return Err(Error::DamagedElf);
    }
    Ok(())
}

/// Code that fills huge pages is copied into them, and so is what is written to: a kernel patches nearly every page of its
/// code at boot and writes to nearly every page of its data, and would take each through a fault or three. The rest is
/// mapped.
fn place(source: &Source, loads: &[Segment], code: &[Code], ram: &mut Ram) -> Result<(), Error> {
    // All of it must be there before anything is placed.
    for segment in loads {
        source.end_of(segment.offset, segment.file_len)?;
    }
    let is_written = |segment: &&Segment| segment.flags & PF_W != 0;
    let mut written = loads.iter().filter(is_written);
    if let Some(first) = written.next() {
        let end = written.next_back().unwrap_or(first).end();
        ram.advise_huge_pages(GuestAddress(first.address), end - first.address);
    }
    for segment in loads {
        let (offset, len) = (segment.offset, segment.file_len);
        match segment.flags & (PF_W | PF_X) {
            0 => source.map(offset, len, ram, segment.address)?,
            PF_X => place_code(source, segment, code, ram)?,
            _ => source.copy(offset, len, ram, segment.address)?,
        }
    }
    Ok(())
}

/// A segment with code in it, which Linux's linker script puts together with data that is only read.
fn place_code(
    source: &Source,
    segment: &Segment,
    code: &[Code],
    ram: &mut Ram,
) -> Result<(), Error> {
    let (mut done, end) = (segment.offset, segment.offset + segment.file_len);
    let address = |offset| segment.address + (offset - segment.offset);
    for code in code {
        let (from, to) = (code.start.max(done), code.end.min(end));
        if from < to {
            source.map(done, from - done, ram, address(done))?;
            source.place_code(from, to - from, ram, address(from))?;
            done = to;
        }
    }
    source.map(done, end - done, ram, address(done))
}

/// Where in the file code lies, in ascending order: the executable sections, or everything if the sections were stripped.
fn code(source: &Source, header: &[u8; HEADER_LEN]) -> Result<Vec<Code>, Error> {
    let count = half(header, 60);
    if count == 0 {
        return Ok(vec![Code {
            start: 0,
            end: source.len,
        }]);
    }
    if half(header, 58) as usize != SECTION_HEADER_LEN || count > MAX_SECTIONS {
        return Err(Error::DamagedElf);
    }
    let mut bytes = vec![0; usize::from(count) * SECTION_HEADER_LEN];
    source.read(long(header, 40), &mut bytes)?;
    let mut code: Vec<Code> = bytes
        .chunks_exact(SECTION_HEADER_LEN)
        .filter(|section| word(section, 4) != SHT_NOBITS && long(section, 8) & SHF_EXECINSTR != 0)
        .map(|section| Code {
            start: long(section, 24),
            end: long(section, 24).saturating_add(long(section, 32)),
        })
        .collect();
    code.sort_by_key(|code| code.start);
    Ok(code)
}

/// The PVH entry point, if these notes have it. A note that is cut short ends the search.
fn pvh_entry(source: &Source, notes: &Segment) -> Result<Option<u32>, Error> {
    if notes.file_len > MAX_NOTES {
        return Err(Error::DamagedElf);
    }
    let mut bytes = vec![0; notes.file_len as usize];
    source.read(notes.offset, &mut bytes)?;
    let mut rest = bytes.as_slice();
    while rest.len() >= 12 {
        let (name_len, value_len) = (word(rest, 0) as usize, word(rest, 4) as usize);
        let kind = word(rest, 8);
        let name_end = 12 + name_len;
        let value = 12 + name_len.next_multiple_of(4);
        let Some(value_bytes) = rest.get(value..value + value_len) else {
            break;
        };
        if kind == PHYS32_ENTRY && &rest[12..name_end] == b"Xen\0" && value_len >= 4 {
            return Ok(Some(word(value_bytes, 0)));
        }
        rest = rest
            .get(value + value_len.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(None)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}
