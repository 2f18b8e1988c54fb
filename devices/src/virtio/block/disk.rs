//! The bytes of a block device: extents of files at aligned offsets, and zeros between them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use memory::Segments;
use rustix::fs::{FallocateFlags, FileType, fallocate, fstat};
use sys::reserve::Reserve;
use sys::sparse::next_data;

use super::spec::SECTOR_BYTES;

/// The most extents of a device. Each holds a descriptor, of which hull-vmm may have 4096 besides the guest's open files.
pub const MAX_EXTENTS: usize = 1024;

/// A part of a block device.
#[derive(Debug)]
pub struct Extent {
    /// A regular file or block device.
    pub file: File,
    /// Bytes of the file that belong to the device, from its start: a multiple of 512, not 0.
    pub len_bytes: u64,
}

impl Extent {
    /// Refuses a file that cannot be read at any offset, or that ends before its extent does.
    pub(super) fn check(&self) -> Result<(), Error> {
        let len_bytes = self.len_bytes;
        let stat = fstat(&self.file).map_err(|errno| Error::Stat(errno.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if (stat.st_size as u64) < len_bytes => Err(Error::Short {
                len_bytes,
                file_bytes: stat.st_size as u64,
            }),
            FileType::RegularFile | FileType::BlockDevice => Ok(()),
            _ => Err(Error::NotAFile),
        }
    }
}

/// An extent and where it goes.
#[derive(Debug)]
pub struct PlacedExtent {
    /// Where it begins in the device, in bytes: a multiple of the device's alignment.
    pub offset_bytes: u64,
    /// What lies there.
    pub extent: Extent,
}

/// Why files cannot make up a block device, or be added to one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The alignment of the extents.
    #[error("the alignment of a disk's extents is {0} bytes, not a power of two of at least 512")]
    Alignment(u64),
    /// The length of an extent.
    #[error("an extent is {0} bytes long, which is not a positive multiple of 512")]
    Length(u64),
    /// The least length of the whole.
    #[error("a disk is to be at least {0} bytes long, which is not a multiple of 512 below 2^63")]
    LeastLength(u64),
    /// The file ends before its extent does.
    #[error("an extent of {len_bytes} bytes lies in a file of {file_bytes}")]
    Short {
        /// Of the extent.
        len_bytes: u64,
        /// Of its file.
        file_bytes: u64,
    },
    /// Everything together.
    #[error("a disk's extents do not fit 2^63 bytes")]
    TooLarge,
    /// The number of extents.
    #[error("a disk has at most {MAX_EXTENTS} extents")]
    TooMany,
    /// Where an extent is to begin.
    #[error(
        "an extent is to begin at byte {offset_bytes}, which is not a multiple of {align_bytes}"
    )]
    Unaligned {
        /// The place.
        offset_bytes: u64,
        /// The device's alignment.
        align_bytes: u64,
    },
    /// An added extent goes beyond the end of the device, which never grows.
    #[error(
        "an extent of {len_bytes} bytes at byte {offset_bytes} does not fit a disk of {device_bytes}"
    )]
    BeyondEnd {
        /// Where it is to begin.
        offset_bytes: u64,
        /// Of the extent.
        len_bytes: u64,
        /// Of the device.
        device_bytes: u64,
    },
    /// There is an extent already.
    #[error("an extent at byte {offset_bytes} overlaps another one")]
    Overlap {
        /// Where it is to begin.
        offset_bytes: u64,
    },
    /// The file could not be examined.
    #[error("an extent's file could not be examined")]
    Stat(#[source] io::Error),
    /// Neither a regular file nor a block device.
    #[error("an extent is neither a regular file nor a block device")]
    NotAFile,
}

/// How the extents lie. A value: adding extents makes a new one, and requests under way keep the old one.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    /// In ascending order, disjoint.
    extents: Vec<Mapped>,
    align_bytes: u64,
    len_bytes: u64,
}

#[derive(Debug, Clone)]
struct Mapped {
    start: u64,
    len: u64,
    file: Arc<File>,
}

impl Mapped {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// A place in the device.
enum Place<'a> {
    /// Inside an extent: its file, the offset in it, and how much of it follows.
    File(&'a File, u64, u64),
    /// Between two extents: how much of the gap follows.
    Gap(u64),
}

impl Disk {
    /// The extents in their order, each at the next aligned offset, and at least `min_len_bytes`.
    pub(super) fn new(
        extents: Vec<Extent>,
        align_bytes: u64,
        min_len_bytes: u64,
    ) -> Result<Self, Error> {
        if !align_bytes.is_power_of_two() || align_bytes < SECTOR_BYTES {
            return Err(Error::Alignment(align_bytes));
        }
        if !min_len_bytes.is_multiple_of(SECTOR_BYTES) || min_len_bytes > i64::MAX as u64 {
            return Err(Error::LeastLength(min_len_bytes));
        }
        let mut disk = Self {
            extents: Vec::new(),
            align_bytes,
            len_bytes: 0,
        };
        for extent in extents {
            extent.check()?;
            let start = disk.len_bytes.checked_next_multiple_of(align_bytes);
            let end = start.and_then(|start| start.checked_add(extent.len_bytes));
            let (Some(start), Some(end)) = (start, end.filter(|&end| end <= i64::MAX as u64))
            else {
                return Err(Error::TooLarge);
            };
            disk.len_bytes = end;
            disk.insert(start, extent)?;
        }
        disk.len_bytes = disk.len_bytes.max(min_len_bytes);
        Ok(disk)
    }

    /// The same disk with more extents in its gaps, after [`Extent::check`]: all of them, or an error.
    pub(super) fn with(&self, added: Vec<PlacedExtent>) -> Result<Self, Error> {
        let mut disk = self.clone();
        for PlacedExtent {
            offset_bytes,
            extent,
        } in added
        {
            disk.insert(offset_bytes, extent)?;
        }
        Ok(disk)
    }

    /// Puts an extent into a gap.
    fn insert(&mut self, start: u64, extent: Extent) -> Result<(), Error> {
        let Extent {
            file,
            len_bytes: len,
        } = extent;
        if self.extents.len() >= MAX_EXTENTS {
            return Err(Error::TooMany);
        }
        if len == 0 || !len.is_multiple_of(SECTOR_BYTES) {
            return Err(Error::Length(len));
        }
        if !start.is_multiple_of(self.align_bytes) {
            return Err(Error::Unaligned {
                offset_bytes: start,
                align_bytes: self.align_bytes,
            });
        }
        let Some(end) = start.checked_add(len).filter(|&end| end <= self.len_bytes) else {
            return Err(Error::BeyondEnd {
                offset_bytes: start,
                len_bytes: len,
                device_bytes: self.len_bytes,
            });
        };
        let at = self.extents.partition_point(|other| other.start < start);
        let (before, after) = self.extents.split_at(at);
        let is_free = before.last().is_none_or(|other| other.end() <= start)
            && after.first().is_none_or(|other| end <= other.start);
        if !is_free {
            return Err(Error::Overlap {
                offset_bytes: start,
            });
        }
        let file = Arc::new(file);
        self.extents.insert(at, Mapped { start, len, file });
        Ok(())
    }

    pub(super) fn sectors(&self) -> u64 {
        self.len_bytes / SECTOR_BYTES
    }

    /// The byte offset of `sector`, if `len_bytes` from there are whole sectors inside the disk.
    pub(super) fn locate(&self, sector: u64, len_bytes: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR_BYTES)?;
        let end = offset.checked_add(len_bytes)?;
        (end <= self.len_bytes && len_bytes.is_multiple_of(SECTOR_BYTES)).then_some(offset)
    }

    /// Fills `data` from `offset`, which [`Disk::locate`] has found to be inside; gaps read as zeros.
    pub(super) fn read(&self, mut offset: u64, data: &mut Segments<'_>) -> io::Result<()> {
        while !data.is_empty() {
            match self.place(offset) {
                Place::File(file, at, room) => {
                    let count = within(data, room, |part| {
                        retry(|| part.read_from_at(file.as_fd(), at))
                    })?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    offset += count as u64;
                }
                Place::Gap(room) => {
                    let count = data.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                    data.put_zeros(count);
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }

    /// Writes `data` at `offset`, which [`Disk::locate`] has found to be inside. A gap cannot be written.
    pub(super) fn write(&self, mut offset: u64, data: &mut Segments<'_>) -> io::Result<()> {
        while !data.is_empty() {
            let Place::File(file, at, room) = self.place(offset) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let count = within(data, room, |part| {
                retry(|| part.write_to_at(file.as_fd(), at))
            })?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += count as u64;
        }
        Ok(())
    }

    /// Whether the range, which [`Disk::locate`] has found to be inside, may be written: where it takes room, its files'
    /// file systems have some beyond their reserve. What holds data already takes none.
    pub(super) fn has_room(
        &self,
        reserve: &mut Reserve,
        offset: u64,
        len: u64,
    ) -> io::Result<bool> {
        let mut has_room = true;
        self.for_each_file(offset, len, |file, at, count| {
            has_room = has_room && (reserve.allows(file, count)? || is_data(file, at, count)?);
            Ok(())
        })?;
        Ok(has_room)
    }

    /// Makes what was written durable (fdatasync), in every file.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.extents
            .iter()
            .try_for_each(|extent| retry(|| extent.file.sync_data()))
    }

    /// Gives the range's space back to the file system; it reads as zeros afterwards.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.for_each_file(offset, len, punch)
    }

    /// Makes the range read as zeros; with `unmap` it may give its space back.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.for_each_file(offset, len, |file, at, count| {
            let cheap = match unmap {
                true => punch(file, at, count),
                false => retry(|| {
                    Ok(fallocate(
                        file,
                        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
                        at,
                        count,
                    )?)
                }),
            };
            match cheap {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => zero(file, at, count),
                other => other,
            }
        })
    }

    /// Calls `act` for each part of the range that a file backs; in gaps there is nothing to do.
    fn for_each_file(
        &self,
        mut offset: u64,
        mut len: u64,
        mut act: impl FnMut(&File, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        while len > 0 {
            let count = match self.place(offset) {
                Place::File(file, at, room) => {
                    let count = room.min(len);
                    act(file, at, count)?;
                    count
                }
                Place::Gap(room) => room.min(len),
            };
            offset += count;
            len -= count;
        }
        Ok(())
    }

    /// What lies at `offset`; what follows of it is never empty.
    fn place(&self, offset: u64) -> Place<'_> {
        let next = self
            .extents
            .partition_point(|extent| extent.start <= offset);
        if let Some(extent) = next.checked_sub(1).map(|last| &self.extents[last]) {
            let at = offset - extent.start;
            if at < extent.len {
                return Place::File(&extent.file, at, extent.len - at);
            }
        }
        let end = self
            .extents
            .get(next)
            .map_or(u64::MAX, |extent| extent.start);
        Place::Gap(end - offset)
    }
}

/// Lets `transfer` work on the first `room` bytes of `data` and drops what it transferred.
fn within(
    data: &mut Segments<'_>,
    room: u64,
    transfer: impl FnOnce(&mut Segments<'_>) -> io::Result<usize>,
) -> io::Result<usize> {
    match usize::try_from(room) {
        Ok(room) if room < data.len() => {
            let count = transfer(&mut data.prefix(room))?;
            data.advance(count);
            Ok(count)
        }
        _ => transfer(data),
    }
}

/// Whether the range has no hole.
fn is_data(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    let data = next_data(file, offset)?;
    Ok(data.is_some_and(|(start, end)| start == offset && end - start >= len))
}

fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    retry(|| Ok(fallocate(file, flags, offset, len)?))
}

/// Writes zeros where the file system knows no better way. The range's length is bounded by the device's configuration.
fn zero(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while len > 0 {
        let count = len.min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..count as usize], offset)?;
        offset += count;
        len -= count;
    }
    Ok(())
}

/// Repeats what a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
