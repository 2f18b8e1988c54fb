//! The RAM of a guest and its backings.

#![expect(
    unsafe_code,
    reason = "places file mappings over RAM that this module owns"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use sys::sparse;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress,
};

use crate::{Memory, PAGE_BYTES, Segments};

/// Why RAM could not be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has no room for the mapping.
    #[error("{bytes} bytes of guest memory could not be mapped")]
    Reserve {
        /// Size of all regions.
        bytes: u64,
        /// The error.
        #[source]
        source: vm_memory::mmap::FromRangesError,
    },
    /// A range of guest memory is not wholly inside one region, or not made of pages.
    #[error("{len} bytes at {at:#x} are not whole pages of guest memory")]
    Range {
        /// Start of the range.
        at: u64,
        /// Its length.
        len: u64,
    },
    /// The file of a saved memory is not of its size.
    #[error("a saved memory has {found} bytes, and the VM's has {wanted}")]
    SavedLength {
        /// Of the file.
        found: u64,
        /// Of the RAM.
        wanted: u64,
    },
    /// The file of a saved memory could not be examined, or a file not be read.
    #[error("a file for the VM's memory could not be read")]
    Read(#[from] io::Error),
    /// The file could not be mapped.
    #[error("a file could not be mapped at guest address {at:#x}")]
    MapFile {
        /// Start of the range.
        at: u64,
        /// The error.
        #[source]
        source: io::Error,
    },
}

/// Addresses of this process, `[start, end)`: what a report names and nothing dereferences.
pub type HostRange = [u64; 2];

/// A region as KVM wants to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Where the guest sees it.
    pub guest: GuestAddress,
    /// Its length in bytes.
    pub len: u64,
    /// Where it lies in this process.
    pub host: u64,
}

/// The RAM of a guest.
///
/// The mapping lives as long as any clone of [`Ram::memory`]: the owner of KVM's memory slots keeps one.
#[derive(Debug)]
pub struct Ram {
    memory: Memory,
    files: Vec<HostRange>,
    shared: bool,
}

impl Ram {
    /// RAM of zeros at `regions` (start and length in bytes), of which nothing is resident yet.
    pub fn new(regions: &[(GuestAddress, u64)]) -> Result<Self, Error> {
        let ranges: Vec<_> = regions
            .iter()
            .map(|&(at, len)| (at, len as usize))
            .collect();
        let bytes = regions.iter().map(|region| region.1).sum();
        // Private, anonymous, MAP_NORESERVE: vm-memory's default.
        let memory = GuestMemoryMmap::<()>::from_ranges(&ranges)
            .map_err(|source| Error::Reserve { bytes, source })?;
        let ram = Self {
            memory: Memory::new(memory),
            files: Vec::new(),
            shared: false,
        };
        for slot in ram.slots() {
            // SAFETY: the range is the mapping of one region, which `memory` owns; the advice changes no content.
            // A kernel without transparent huge pages refuses it, and then there is nothing to switch off.
            let _ = unsafe {
                madvise(
                    slot.host as *mut _,
                    slot.len as usize,
                    Advice::LinuxNoHugepage,
                )
            };
        }
        Ok(ram)
    }

    /// RAM that is `file`, one region after the other: what the guest writes is in the file. It has their length.
    pub fn shared(regions: &[(GuestAddress, u64)], file: File) -> Result<Self, Error> {
        let bytes = regions.iter().map(|region| region.1).sum();
        check_len(&file, bytes)?;
        let file = Arc::new(file);
        let mut offset = 0;
        let range = |&(at, len): &(GuestAddress, u64)| {
            let part = FileOffset::from_arc(file.clone(), offset);
            offset += len;
            (at, len as usize, Some(part))
        };
        let ranges: Vec<_> = regions.iter().map(range).collect();
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files(&ranges)
            .map_err(|source| Error::Reserve { bytes, source })?;
        Ok(Self {
            memory: Memory::new(memory),
            files: Vec::new(),
            shared: true,
        })
    }

    /// Takes up what [`Ram::shared`] left in `file`, copy-on-write: see [`Ram::map_file`]. What is a hole there is RAM of
    /// this VM's own from the start.
    pub fn map_saved(&mut self, file: &File) -> Result<(), Error> {
        let slots = self.slots();
        check_len(file, slots.iter().map(|slot| slot.len).sum())?;
        let mut first = 0;
        for slot in slots {
            let last = first + slot.len;
            let mut done = first;
            while let Some((start, end)) = next_data_pages(file, done, last)? {
                let at = GuestAddress(slot.guest.0 + (start - first));
                self.map_file(at, file, start, end - start)?;
                done = end;
            }
            first = last;
        }
        Ok(())
    }

    /// Asks the host to back `len` bytes at `at` with huge pages: for what a guest is known to fill, where they cost no
    /// memory and save a fault for each page. Advice only: where it does not fit, small pages do.
    pub fn advise_huge_pages(&self, at: GuestAddress, len: u64) {
        let Ok(slice) = self.memory.get_slice(at, len as usize) else {
            return;
        };
        let host = slice.ptr_guard_mut().as_ptr();
        if !(host as u64).is_multiple_of(PAGE_BYTES) {
            return;
        }
        // SAFETY: the slice lies inside one region's mapping, which `memory` owns; the advice changes no content.
        // One that the host does not know is refused, and the memory works without it.
        let _ = unsafe { madvise(host.cast(), len as usize, Advice::LinuxHugepage) };
    }

    /// Asks the host to make `len` bytes at `at` the VM's own now, in one go: for what a guest is known to write soon, in memory
    /// that is a file's until then. Advice only: what is not taken is copied page by page, as the guest writes.
    pub fn advise_own(&self, at: GuestAddress, len: u64) {
        let Some([start, end]) = self.host_range(at, len) else {
            return;
        };
        // SAFETY: the range lies inside one region's mapping, which `memory` owns; the advice changes no content. A kernel that
        // does not know it (before 5.14) refuses it.
        let _ = unsafe {
            madvise(
                start as *mut _,
                (end - start) as usize,
                Advice::LinuxPopulateWrite,
            )
        };
    }

    /// The memory, to read and write.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The regions, in ascending order.
    pub fn slots(&self) -> Vec<Slot> {
        let slot = |region: &vm_memory::GuestRegionMmap| Slot {
            guest: region.start_addr(),
            len: region.len(),
            host: region.as_ptr() as u64,
        };
        self.memory.iter().map(slot).collect()
    }

    /// Every host address that is guest memory.
    pub fn host_ranges(&self) -> Vec<HostRange> {
        self.slots()
            .iter()
            .map(|slot| [slot.host, slot.host + slot.len])
            .collect()
    }

    /// Where `len` bytes at `at` lie, if they are memory of one region.
    pub fn host_range(&self, at: GuestAddress, len: u64) -> Option<HostRange> {
        let slice = self.memory.get_slice(at, len as usize).ok()?;
        let start = slice.ptr_guard().as_ptr() as u64;
        Some([start, start + len])
    }

    /// Maps `len` bytes of `file` from `offset` at `at`, copy-on-write, over the RAM there. All three are multiples
    /// of [`PAGE_BYTES`]; the last page may reach beyond the end of the file and reads as zeros there. RAM that is shared gets
    /// a copy.
    ///
    /// The guest's first write to a page copies it; the file never changes. The file must not be shortened while the VM
    /// runs: a page that is gone ends the VMM (SIGBUS), and no other process.
    pub fn map_file(
        &mut self,
        at: GuestAddress,
        file: impl AsFd,
        offset: u64,
        len: u64,
    ) -> Result<HostRange, Error> {
        let range_error = Error::Range {
            at: at.raw_value(),
            len,
        };
        let aligned = |value: u64| value.is_multiple_of(PAGE_BYTES);
        if len == 0 || !aligned(at.raw_value()) || !aligned(offset) || !aligned(len) {
            return Err(range_error);
        }
        let Some((region, inside)) = self.memory.to_region_addr(at) else {
            return Err(range_error);
        };
        if inside
            .raw_value()
            .checked_add(len)
            .is_none_or(|end| end > region.len())
        {
            return Err(range_error);
        }
        let host = region
            .get_host_address(MemoryRegionAddress(inside.raw_value()))
            .map_err(|_| range_error)?;
        let range = [host as u64, host as u64 + len];
        if self.shared {
            self.copy_file(at, file.as_fd(), offset, len)?;
            return Ok(range);
        }
        // SAFETY: [host, host + len) lies inside one region's mapping, which `memory` owns and keeps until it is
        // dropped; `&mut self` and the absence of a running guest at load time leave nothing that relies on its former
        // content. Guest memory is only ever accessed as volatile bytes, so that the new content needs no validity.
        unsafe {
            mmap(
                host.cast(),
                len as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                file,
                offset,
            )
        }
        .map_err(|errno| Error::MapFile {
            at: at.raw_value(),
            source: errno.into(),
        })?;
        self.files.push(range);
        Ok(range)
    }

    fn copy_file(
        &self,
        at: GuestAddress,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<(), Error> {
        let Ok(slice) = self.memory.get_slice(at, len as usize) else {
            let at = at.raw_value();
            return Err(Error::Range { at, len });
        };
        let mut rest = Segments::new();
        rest.push(slice).expect("one piece");
        // What is left lies behind the file's end.
        Ok(rest.fill_from_at(file, offset)?)
    }

    /// The host ranges that were mapped from files, in the order of mapping.
    pub fn file_ranges(&self) -> &[HostRange] {
        &self.files
    }
}

fn check_len(file: &File, wanted: u64) -> Result<(), Error> {
    let found = fstat(file).map_err(io::Error::from)?.st_size as u64;
    match found == wanted {
        true => Ok(()),
        false => Err(Error::SavedLength { found, wanted }),
    }
}

/// The first stretch of whole pages in `[from, to)` that has data in it.
fn next_data_pages(file: &File, from: u64, to: u64) -> io::Result<Option<(u64, u64)>> {
    let Some((start, end)) = sparse::next_data(file, from)? else {
        return Ok(None);
    };
    let start = (start / PAGE_BYTES * PAGE_BYTES).max(from);
    let end = end.next_multiple_of(PAGE_BYTES).min(to);
    Ok((start < to).then_some((start, end)))
}

#[cfg(test)]
mod tests;
