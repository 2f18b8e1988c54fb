//! An uncompressed Linux kernel: a vmlinux (ELF-64; System V ABI, chapters 4 and 5).

use std::mem::offset_of;

use arch::registers::Entry;
use linux_loader::elf::{
    EI_CLASS, EI_DATA, EI_VERSION, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_DYN, ET_EXEC, EV_CURRENT,
    Elf64_Ehdr, Elf64_Nhdr, Elf64_Phdr, Elf64_Shdr, PF_W, PF_X, PT_LOAD, PT_NOTE, SHF_EXECINSTR,
    SHT_NOBITS,
};
use memory::{ByteValued, GuestAddress, Ram};

use super::{Error, Kernel, Source, check_room};

pub(super) const MAGIC: &[u8; 4] = b"\x7fELF";

/// The most program headers that are looked at; Linux has five.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// The longest note segment that is looked at; Linux's has some hundred bytes.
const MAX_NOTES: u64 = 64 << 10;
/// The most section headers that are looked at; Linux has some forty.
const MAX_SECTIONS: u16 = 1024;
/// XEN_ELFNOTE_PHYS32_ENTRY: the PVH entry point (xen.git, xen/include/public/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// Where in the file code lies.
struct Code {
    start: u64,
    end: u64,
}

/// Where a segment ends in memory.
fn end(segment: &Elf64_Phdr) -> u64 {
    segment.p_paddr.saturating_add(segment.p_memsz)
}

pub(super) fn load(source: &Source, ram: &mut Ram) -> Result<Kernel, Error> {
    let header: Elf64_Ehdr = source.read_value(0)?;
    let ident = [EI_CLASS, EI_DATA, EI_VERSION].map(|index| header.e_ident[index]);
    if ident != [ELFCLASS64, ELFDATA2LSB, EV_CURRENT]
        || ![ET_EXEC, ET_DYN].contains(&header.e_type)
        || header.e_machine != EM_X86_64
    {
        return Err(Error::Foreign);
    }
    let segments = program_headers(source, &header)?;
    let mut pvh = None;
    for notes in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
        pvh = pvh.or(pvh_entry(source, notes)?);
    }
    let mut loads: Vec<_> = segments
        .into_iter()
        .filter(|segment| segment.p_type == PT_LOAD)
        .collect();
    loads.sort_by_key(|segment| segment.p_paddr);
    check(&loads, ram)?;

    let entry = match pvh {
        Some(address) => Entry::Pvh(address),
        None => Entry::Linux64(header.e_entry),
    };
    let address = match entry {
        Entry::Pvh(address) => address.into(),
        Entry::Linux64(address) => address,
    };
    let has_entry = |segment: &Elf64_Phdr| {
        address >= segment.p_paddr && address - segment.p_paddr < segment.p_filesz
    };
    if !loads.iter().any(has_entry) {
        return Err(Error::DamagedElf);
    }
    place(source, &loads, &code(source, &header)?, ram)?;
    let image = loads
        .iter()
        .filter_map(|segment| ram.host_range(GuestAddress(segment.p_paddr), segment.p_filesz))
        .collect();
    let end = loads.iter().map(end).max().unwrap_or(0);
    Ok(Kernel {
        entry,
        header: None,
        end,
        image,
    })
}

fn program_headers(source: &Source, header: &Elf64_Ehdr) -> Result<Vec<Elf64_Phdr>, Error> {
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>()
        || header.e_phnum > MAX_PROGRAM_HEADERS
    {
        return Err(Error::DamagedElf);
    }
    values(source, header.e_phoff, header.e_phnum)
}

/// A table of `count` structures.
fn values<T: ByteValued>(source: &Source, offset: u64, count: u16) -> Result<Vec<T>, Error> {
    let offsets = (0..u64::from(count)).map(|index| {
        let at = index * size_of::<T>() as u64;
        offset.saturating_add(at)
    });
    offsets.map(|offset| source.read_value(offset)).collect()
}

/// Segments in ascending order must lie in the file and in memory, and apart from each other: what a segment has beyond
/// its bytes in the file is memory that has not been written, so it is zero.
fn check(loads: &[Elf64_Phdr], ram: &Ram) -> Result<(), Error> {
    for segment in loads {
        if segment.p_filesz > segment.p_memsz {
            return Err(Error::DamagedElf);
        }
        check_room(ram, segment.p_paddr, end(segment))?;
    }
    if loads.windows(2).any(|pair| end(&pair[0]) > pair[1].p_paddr) {
        return Err(Error::DamagedElf);
    }
    Ok(())
}

/// Code that fills huge pages is copied into them, and so is what is written to: a kernel patches nearly every page of its
/// code at boot and writes to nearly every page of its data, and would take each through a fault or three. The rest is
/// mapped.
fn place(source: &Source, loads: &[Elf64_Phdr], code: &[Code], ram: &mut Ram) -> Result<(), Error> {
    // All of it must be there before anything is placed.
    for segment in loads {
        source.end_of(segment.p_offset, segment.p_filesz)?;
    }
    let is_written = |segment: &&Elf64_Phdr| segment.p_flags & PF_W != 0;
    let mut written = loads.iter().filter(is_written);
    if let Some(first) = written.next() {
        let end = end(written.next_back().unwrap_or(first));
        ram.advise_huge_pages(GuestAddress(first.p_paddr), end - first.p_paddr);
    }
    for segment in loads {
        let (offset, len) = (segment.p_offset, segment.p_filesz);
        match segment.p_flags & (PF_W | PF_X) {
            0 => source.map(offset, len, ram, segment.p_paddr)?,
            PF_X => place_code(source, segment, code, ram)?,
            _ => source.copy(offset, len, ram, segment.p_paddr)?,
        }
    }
    Ok(())
}

/// A segment with code in it, which Linux's linker script puts together with data that is only read.
fn place_code(
    source: &Source,
    segment: &Elf64_Phdr,
    code: &[Code],
    ram: &mut Ram,
) -> Result<(), Error> {
    let (mut done, end) = (segment.p_offset, segment.p_offset + segment.p_filesz);
    let address = |offset| segment.p_paddr + (offset - segment.p_offset);
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
fn code(source: &Source, header: &Elf64_Ehdr) -> Result<Vec<Code>, Error> {
    if header.e_shnum == 0 {
        return Ok(vec![Code {
            start: 0,
            end: source.len,
        }]);
    }
    if usize::from(header.e_shentsize) != size_of::<Elf64_Shdr>() || header.e_shnum > MAX_SECTIONS {
        return Err(Error::DamagedElf);
    }
    let mut bytes = vec![0; usize::from(header.e_shnum) * size_of::<Elf64_Shdr>()];
    source.read(header.e_shoff, &mut bytes)?;
    let mut code: Vec<Code> = bytes
        .chunks_exact(size_of::<Elf64_Shdr>())
        .filter_map(code_of_section)
        .collect();
    code.sort_by_key(|code| code.start);
    Ok(code)
}

/// The code of a section, if it is executable and in the file. (linux-loader does not let a section header be read as its
/// bytes.)
fn code_of_section(header: &[u8]) -> Option<Code> {
    let word = |at: usize| {
        header[at..]
            .first_chunk()
            .map(|bytes| u32::from_le_bytes(*bytes))
    };
    let long = |at: usize| {
        header[at..]
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes))
    };
    let kind = word(offset_of!(Elf64_Shdr, sh_type))?;
    let flags = long(offset_of!(Elf64_Shdr, sh_flags))?;
    let start = long(offset_of!(Elf64_Shdr, sh_offset))?;
    let len = long(offset_of!(Elf64_Shdr, sh_size))?;
    (kind != SHT_NOBITS && flags & SHF_EXECINSTR != 0).then_some(Code {
        start,
        end: start.saturating_add(len),
    })
}

/// The PVH entry point, if these notes have it. A note that is cut short ends the search.
fn pvh_entry(source: &Source, notes: &Elf64_Phdr) -> Result<Option<u32>, Error> {
    if notes.p_filesz > MAX_NOTES {
        return Err(Error::DamagedElf);
    }
    let mut bytes = vec![0; notes.p_filesz as usize];
    source.read(notes.p_offset, &mut bytes)?;
    let mut rest = bytes.as_slice();
    while let Some((head, body)) = rest.split_at_checked(size_of::<Elf64_Nhdr>()) {
        let mut note = Elf64_Nhdr::default();
        note.as_mut_slice().copy_from_slice(head);
        let [name_len, value_len] = [note.n_namesz, note.n_descsz].map(|len| len as usize);
        let value = name_len.next_multiple_of(4);
        let Some(value_bytes) = body.get(value..value + value_len) else {
            break;
        };
        if note.n_type == PHYS32_ENTRY
            && &body[..name_len] == b"Xen\0"
            && let Some(entry) = value_bytes.first_chunk()
        {
            return Ok(Some(u32::from_le_bytes(*entry)));
        }
        rest = body
            .get(value + value_len.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(None)
}
