//! A kernel and its initramfs: from open files into guest memory.
//!
//! What an uncompressed vmlinux only reads is mapped: whole pages become private mappings of the file, so that VMs share
//! them. What it writes to, its code included, is copied, as is a bzImage. Neither file is trusted: every offset is
//! checked against the file's length and every address against the guest's memory before it is used.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use arch::layout::{KERNEL_START, MMIO32_START};
use arch::linux::Header;
use arch::registers::Entry;
use memory::{
    ByteValued, GuestAddress, GuestMemoryBackend, HUGE_PAGE_BYTES, HostRange, PAGE_BYTES, Ram,
    Segments,
};

mod bzimage;
mod elf;
mod initramfs;
#[cfg(test)]
mod tests;

pub use initramfs::load as load_initramfs;

/// Why a kernel or an initramfs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("it could not be read")]
    Read(#[from] io::Error),
    /// The file ends before what it announces.
    #[error("the file is truncated: it ends at byte {len}, before byte {needed}")]
    Truncated {
        /// Length of the file.
        len: u64,
        /// What should have been there.
        needed: u64,
    },
    /// Neither vmlinux nor bzImage.
    #[error("the file is neither a vmlinux nor a bzImage")]
    NotAKernel,
    /// An ELF file of another kind of machine.
    #[error("the file is an ELF file, but not a 64-bit x86 executable")]
    Foreign,
    /// An ELF file with structures that contradict each other.
    #[error("the file's ELF structures are damaged")]
    DamagedElf,
    /// A bzImage that cannot be booted.
    #[error(transparent)]
    BzImage(#[from] arch::linux::Error),
    /// It is to be loaded where the guest has no memory.
    #[error(
        "it needs memory from {start:#x} to {end:#x}, and this VM's reaches from {KERNEL_START:#x} to {limit:#x}"
    )]
    NoRoom {
        /// First address.
        start: u64,
        /// One past the last.
        end: u64,
        /// End of the guest's low memory.
        limit: u64,
    },
    /// Its command line is shorter than what is asked of it.
    #[error("it takes a command line of {max} bytes, and {len} are asked for")]
    CommandLine {
        /// The kernel's limit.
        max: u64,
        /// The command line's length.
        len: u64,
    },
    /// The file is not an initramfs.
    #[error("the file is neither a cpio archive nor a compressed one")]
    NotAnInitramfs,
    /// There is no room for it above the kernel.
    #[error("it has {len} bytes, and {room} are free above the kernel: give the VM more memory")]
    InitramfsTooLarge {
        /// Length of the file.
        len: u64,
        /// What is free.
        room: u64,
    },
    /// Guest memory.
    #[error(transparent)]
    Map(#[from] memory::Error),
    /// Guest memory could not be written, although its addresses were checked.
    #[error("guest memory could not be written")]
    Write(#[from] vm_memory::GuestMemoryError),
}

/// A kernel in guest memory.
#[derive(Debug)]
pub struct Kernel {
    /// How it is entered.
    pub entry: Entry,
    /// A bzImage's setup header.
    pub header: Option<Header>,
    /// One past the last address that it takes before it has read the memory map.
    pub end: u64,
    /// Where its file's content lies.
    pub image: Vec<HostRange>,
}

/// Loads a kernel of any kind that hull boots.
pub fn load_kernel(file: &File, ram: &mut Ram) -> Result<Kernel, Error> {
    let source = Source::new(file)?;
    let mut magic = [0; 4];
    source.read(0, &mut magic)?;
    if &magic == elf::MAGIC {
        return elf::load(&source, ram);
    }
    bzimage::load(&source, ram)
}

/// A file of a length that is known, so that nothing beyond it is asked for or mapped.
struct Source<'a> {
    file: &'a File,
    len: u64,
}

impl<'a> Source<'a> {
    fn new(file: &'a File) -> Result<Self, Error> {
        Ok(Self {
            file,
            len: file.metadata()?.len(),
        })
    }

    /// `offset + len`, if the file has it.
    fn end_of(&self, offset: u64, len: u64) -> Result<u64, Error> {
        let needed = offset.saturating_add(len);
        if needed > self.len {
            return Err(Error::Truncated {
                len: self.len,
                needed,
            });
        }
        Ok(needed)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.end_of(offset, bytes.len() as u64)?;
        self.file.read_exact_at(bytes, offset)?;
        Ok(())
    }

    /// Reads a structure. x86 is little-endian, as the files are.
    fn read_value<T: ByteValued>(&self, offset: u64) -> Result<T, Error> {
        let mut value = T::zeroed();
        self.read(offset, value.as_mut_slice())?;
        Ok(value)
    }

    /// Copies `len` bytes of the file into guest memory.
    fn copy(&self, offset: u64, len: u64, ram: &Ram, at: u64) -> Result<(), Error> {
        self.end_of(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let mut rest = Segments::new();
        rest.push(ram.memory().get_slice(GuestAddress(at), len as usize)?)
            .expect("one piece");
        rest.fill_from_at(self.file.as_fd(), offset)?;
        match rest.is_empty() {
            true => Ok(()),
            // It was longer a moment ago.
            false => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Puts `len` bytes of the file at `at`: whole pages are mapped where file and guest agree about where pages begin,
    /// the rest is copied.
    fn map(&self, offset: u64, len: u64, ram: &mut Ram, at: u64) -> Result<(), Error> {
        let end = self.end_of(offset, len)? - offset + at;
        let (first, last) = (
            at.next_multiple_of(PAGE_BYTES),
            end / PAGE_BYTES * PAGE_BYTES,
        );
        if offset % PAGE_BYTES != at % PAGE_BYTES || first >= last {
            return self.copy(offset, len, ram, at);
        }
        ram.map_file(
            GuestAddress(first),
            self.file,
            offset + (first - at),
            last - first,
        )?;
        self.copy(offset, first - at, ram, at)?;
        self.copy(offset + (last - at), end - last, ram, last)
    }

    /// Puts code at `at`: what fills a huge page is copied into one, the rest is mapped, with what a linker filled to begin
    /// the next part at a round address.
    fn place_code(&self, offset: u64, len: u64, ram: &mut Ram, at: u64) -> Result<(), Error> {
        let mut last = [0; PAGE_BYTES as usize];
        let mut done = 0;
        let mut huge = at.next_multiple_of(HUGE_PAGE_BYTES) - at;
        while huge + HUGE_PAGE_BYTES <= len {
            let next = huge + HUGE_PAGE_BYTES;
            self.read(offset + next - PAGE_BYTES, &mut last)?;
            if !is_filler(&last) {
                self.map(offset + done, huge - done, ram, at + done)?;
                ram.advise_huge_pages(GuestAddress(at + huge), HUGE_PAGE_BYTES);
                self.copy(offset + huge, HUGE_PAGE_BYTES, ram, at + huge)?;
                done = next;
            }
            huge = next;
        }
        self.map(offset + done, len - done, ram, at + done)
    }
}

/// Whether it is one byte, repeated.
fn is_filler(bytes: &[u8]) -> bool {
    bytes.windows(2).all(|pair| pair[0] == pair[1])
}

/// End of the memory that a kernel may be loaded to.
fn low_memory_end(ram: &Ram) -> u64 {
    ram.slots()
        .first()
        .map_or(0, |slot| slot.len.min(MMIO32_START))
}

/// Checks that `[start, end)` is memory above the legacy hole.
fn check_room(ram: &Ram, start: u64, end: u64) -> Result<(), Error> {
    let limit = low_memory_end(ram);
    if start < KERNEL_START || end > limit || start > end {
        return Err(Error::NoRoom { start, end, limit });
    }
    Ok(())
}
