//! The RAM of a guest and its backings.

#![expect(
    unsafe_code,
    reason = "places file mappings over RAM that this module owns"
)]

use std::io;
use std::os::fd::AsFd;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress,
};

use crate::{Memory, PAGE_BYTES};

/// Why RAM could not be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has no room for the mapping.
    #[error("{bytes} bytes of guest memory could not be mapped")]
    Reserve {
        /// Size of all regions.
        bytes: u64,
        /// What the mapping said.
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
    /// The file could not be mapped.
    #[error("a file could not be mapped at guest address {at:#x}")]
    MapFile {
        /// Start of the range.
        at: u64,
        /// What mmap said.
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
/// The mapping lives as long as any clone of [`Ram::memory`]: whoever tells KVM of the slots keeps one.
#[derive(Debug)]
pub struct Ram {
    memory: Memory,
    files: Vec<HostRange>,
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
    /// of [`PAGE_BYTES`]; the last page may reach beyond the end of the file and reads as zeros there.
    ///
    /// The guest's first write to a page copies it; the file never changes. Whoever owns the file must not shorten it
    /// while the VM runs: a page that is gone ends the VMM (SIGBUS), and harms nobody else.
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
        // SAFETY: [host, host + len) lies inside one region's mapping, which `memory` owns and keeps until it is
        // dropped; `&mut self` and the absence of a running guest at load time leave nobody who relies on its former
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
        let range = [host as u64, host as u64 + len];
        self.files.push(range);
        Ok(range)
    }

    /// The host ranges that were mapped from files, in the order of mapping.
    pub fn file_ranges(&self) -> &[HostRange] {
        &self.files
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use vm_memory::Bytes;

    use super::*;

    fn ram() -> Ram {
        Ram::new(&[
            (GuestAddress(0), 0x10000),
            (GuestAddress(0x1_0000_0000), 0x4000),
        ])
        .unwrap()
    }

    #[test]
    fn slots_name_every_region_once_and_in_order() {
        let slots = ram().slots();
        assert_eq!(
            slots.iter().map(|s| (s.guest.0, s.len)).collect::<Vec<_>>(),
            [(0, 0x10000), (0x1_0000_0000, 0x4000)]
        );
        assert!(slots.iter().all(|slot| slot.host != 0));
    }

    #[test]
    fn a_mapped_file_is_seen_and_never_changed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let mut ram = ram();
        let range = ram
            .map_file(GuestAddress(0x2000), &file, 0, 0x2000)
            .unwrap();
        assert_eq!(range[1] - range[0], 0x2000);
        let byte = |at| ram.memory().read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!([byte(0x1fff), byte(0x2000), byte(0x2000 + 4999)], [0, 7, 7]);
        assert_eq!([byte(0x2000 + 5000), byte(0x4000)], [0, 0]);
        ram.memory().write_obj(9u8, GuestAddress(0x2000)).unwrap();
        file.rewind().unwrap();
        let mut first = [0];
        file.read_exact(&mut first).unwrap();
        assert_eq!(first, [7]);
    }

    #[test]
    fn a_mapping_outside_one_region_or_off_a_page_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let mut ram = ram();
        for (at, offset, len) in [
            (0xf000, 0, 0x2000),
            (0x8_0000, 0, 0x1000),
            (0x10, 0, 0x1000),
            (0, 0x10, 0x1000),
            (0, 0, 0x10),
            (0, 0, 0),
            (0x1000, 0, !0xfff),
        ] {
            let result = ram.map_file(GuestAddress(at), &file, offset, len);
            assert!(
                matches!(result, Err(Error::Range { .. })),
                "{at:#x} {offset:#x} {len:#x}"
            );
        }
    }
}
