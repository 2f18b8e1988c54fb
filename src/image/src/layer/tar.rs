//! The tar stream: ustar, PAX and GNU, entry by entry, within bounds.
//!
//! The `tar` crate is not used: it reads extended headers of any length into memory, drops the maps
//! of sparse files and does not know PAX's.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::erofs::{FileData, Timestamp};

use super::header::{BLOCK, Field, Header, until_nul};
use super::pax::Pax;
use super::record::Recorder;
use super::sparse::{self, Segment};
use super::{Error, Unit};

/// The largest extended header, in bytes; Go's archive/tar, and so Docker, has the same.
const MAX_EXTENDED: u64 = 1 << 20;
/// The most bytes of global extended headers: they are applied to every entry.
const MAX_GLOBAL: u64 = 64 << 10;

/// Why a tar cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// It ends within an entry.
    #[error("it ends too early")]
    Truncated,
    /// A header's checksum does not match.
    #[error("a header's checksum is wrong")]
    Checksum,
    /// A single block of zeros with data after it: two blocks end an archive, and readers disagree
    /// about one.
    #[error("a single block of zeros is followed by data")]
    LoneZeros,
    /// A header's number is not one, or out of range.
    #[error("a header's {0} is not a valid number")]
    Number(Field),
    /// A PAX header is malformed.
    #[error("an extended header is malformed")]
    Pax,
    /// A PAX header or long name is larger than any that is needed.
    #[error("an extended header is too large")]
    ExtendedSize,
    /// A sparse file's map is malformed.
    #[error("the map of a sparse file is malformed")]
    Sparse,
    /// Multi-volume archives, incremental dumps, or an unknown type.
    #[error("entries of type {:?} are not supported", char::from(*.0))]
    Type(u8),
}

/// An entry. Its path and link are as the tar has them.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) permissions: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) kind: EntryKind,
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum EntryKind {
    /// A regular file; [`TarReader::read`] returns its data.
    File {
        size: u64,
        /// For a sparse file, which parts of it are given.
        segments: Option<Vec<Segment>>,
    },
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Directory,
    Fifo,
}

/// Reads a tar.
#[derive(Debug)]
pub(super) struct TarReader<R> {
    input: R,
    /// Bytes read.
    position: u64,
    limit: u64,
    /// Bytes of the current entry's data that were not read yet, and its padding.
    data_left: u64,
    padding: u64,
    /// Where the current header begins.
    header_at: u64,
    global: Pax,
    global_bytes: u64,
    /// Takes all that [`TarReader::read`] does not give.
    recorder: Option<Recorder>,
}

/// Extended headers that apply to the next entry.
#[derive(Debug, Default)]
struct Extended {
    pax: Pax,
    /// GNU's `L` and `K`.
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    any: bool,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R, limit: u64, recorder: Option<Recorder>) -> Self {
        TarReader {
            input,
            position: 0,
            limit,
            data_left: 0,
            padding: 0,
            header_at: 0,
            global: Pax::default(),
            global_bytes: 0,
            recorder,
        }
    }

    /// The next entry; `None` at the archive's end, after which [`Self::finish`] reads the rest of
    /// the stream.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut extended = Extended::default();
        loop {
            self.discard(self.data_left + self.padding)?;
            (self.data_left, self.padding) = (0, 0);
            self.header_at = self.position;
            let Some(header) = self.header()? else {
                return if extended.any {
                    Err(self.damaged(TarError::Truncated))
                } else {
                    Ok(None)
                };
            };
            let size = header.size().map_err(|error| self.damaged(error))?;
            match header.type_flag() {
                b'x' | b'X' => {
                    extended.pax = Pax::default();
                    let body = self.extended(size, MAX_EXTENDED)?;
                    extended
                        .pax
                        .add(&body)
                        .map_err(|error| self.damaged(error))?;
                }
                b'g' => {
                    let body = self.extended(size, MAX_GLOBAL - self.global_bytes)?;
                    self.global_bytes += size;
                    self.global.add(&body).map_err(|source| Error::Tar {
                        offset: self.header_at,
                        source,
                    })?;
                    continue;
                }
                b'L' => {
                    extended.name = Some(until_nul(&self.extended(size, MAX_EXTENDED)?).to_vec())
                }
                b'K' => {
                    extended.link = Some(until_nul(&self.extended(size, MAX_EXTENDED)?).to_vec())
                }
                // A name for the archive.
                b'V' => {
                    self.begin_data(size);
                    continue;
                }
                _ => return self.entry(&header, extended).map(Some),
            }
            extended.any = true;
        }
    }

    /// Reads data of the current entry; panics beyond its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        assert!(
            buffer.len() as u64 <= self.data_left,
            "reading beyond an entry's data"
        );
        let read = self.read_input(buffer)?;
        if read == 0 && !buffer.is_empty() {
            return Err(self.damaged(TarError::Truncated));
        }
        self.data_left -= read as u64;
        Ok(read)
    }

    /// Records where the image has the data that [`Self::read`] gave: these segments of a file.
    pub(super) fn record(&mut self, data: &FileData, segments: &[Segment]) -> Result<(), Error> {
        match &mut self.recorder {
            Some(recorder) => recorder.data(data, segments).map_err(Error::Record),
            None => Ok(()),
        }
    }

    /// Reads what follows the archive's end, to the end of the stream, and returns the number of
    /// bytes of it all.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        let mut buffer = vec![0; 64 << 10];
        while self.read_some(&mut buffer)? > 0 {}
        if let Some(recorder) = self.recorder {
            recorder.finish(self.position).map_err(Error::Record)?;
        }
        Ok(self.position)
    }

    fn damaged(&self, source: TarError) -> Error {
        Error::Tar {
            offset: self.header_at,
            source,
        }
    }

    /// Reads what is not an entry's data.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let read = self.read_input(buffer)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.literal(&buffer[..read]).map_err(Error::Record)?;
        }
        Ok(read)
    }

    fn read_input(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.input.read(buffer) {
                Ok(read) => {
                    self.position += read as u64;
                    if self.position > self.limit {
                        return Err(Error::Limit {
                            unit: Unit::TarBytes,
                            limit: self.limit,
                        });
                    }
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
    }

    /// Fills the buffer; `false` if the stream ends where it begins.
    fn read_full(&mut self, buffer: &mut [u8]) -> Result<bool, Error> {
        let mut len = 0;
        while len < buffer.len() {
            match self.read_some(&mut buffer[len..])? {
                0 if len == 0 => return Ok(false),
                0 => return Err(self.damaged(TarError::Truncated)),
                read => len += read,
            }
        }
        Ok(true)
    }

    /// The next block, which must be there.
    fn block(&mut self) -> Result<[u8; BLOCK], Error> {
        let mut block = [0; BLOCK];
        match self.read_full(&mut block)? {
            true => Ok(block),
            false => Err(self.damaged(TarError::Truncated)),
        }
    }

    fn discard(&mut self, mut count: u64) -> Result<(), Error> {
        let mut buffer = [0; 8 << 10];
        while count > 0 {
            let len = count.min(buffer.len() as u64) as usize;
            match self.read_some(&mut buffer[..len])? {
                0 => return Err(self.damaged(TarError::Truncated)),
                read => count -= read as u64,
            }
        }
        Ok(())
    }

    /// A header, or `None` at the end: two blocks of zeros, or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let mut block = [0; BLOCK];
        if !self.read_full(&mut block)? {
            return Ok(None);
        }
        let header = Header::new(block).map_err(|error| self.damaged(error))?;
        if header.is_none() && self.read_full(&mut block)? && block != [0; BLOCK] {
            return Err(self.damaged(TarError::LoneZeros));
        }
        Ok(header)
    }

    fn begin_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The data of an extended header.
    fn extended(&mut self, size: u64, max: u64) -> Result<Vec<u8>, Error> {
        if size > max {
            return Err(self.damaged(TarError::ExtendedSize));
        }
        self.begin_data(size);
        let mut body = vec![0; size as usize];
        if !self.read_full(&mut body)? && size > 0 {
            return Err(self.damaged(TarError::Truncated));
        }
        self.data_left = 0;
        Ok(body)
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<Entry, Error> {
        let pax = self.global.overridden_by(extended.pax);
        let at = self.header_at;
        let damaged = |source| Error::Tar { offset: at, source };
        let path = pax.path.or(extended.name).unwrap_or_else(|| header.path());
        let link = || pax.link.or(extended.link).unwrap_or_else(|| header.link());
        let mut sparse_name = None;
        let kind = match header.type_flag() {
            // As V7 wrote directories.
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            b'S' => {
                self.begin_data(
                    pax.size
                        .map_or_else(|| header.size(), Ok)
                        .map_err(damaged)?,
                );
                self.gnu_sparse(header)?
            }
            b'0' | 0 | b'7' => {
                self.begin_data(
                    pax.size
                        .map_or_else(|| header.size(), Ok)
                        .map_err(damaged)?,
                );
                if pax.sparse == Default::default() {
                    EntryKind::File {
                        size: self.data_left,
                        segments: None,
                    }
                } else {
                    sparse_name = pax.sparse.name;
                    self.pax_sparse(pax.sparse.size, pax.sparse.major, pax.sparse.map)?
                }
            }
            // Other types have no data, whatever their size field says.
            b'1' => EntryKind::HardLink(link()),
            b'2' => EntryKind::Symlink(link()),
            b'3' => header
                .device()
                .map(|(major, minor)| EntryKind::CharDevice(major, minor))
                .map_err(damaged)?,
            b'4' => header
                .device()
                .map(|(major, minor)| EntryKind::BlockDevice(major, minor))
                .map_err(damaged)?,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(damaged(TarError::Type(other))),
        };
        let seconds = || {
            header.mtime().map(|seconds| Timestamp {
                seconds,
                nanoseconds: 0,
            })
        };
        Ok(Entry {
            path: sparse_name.unwrap_or(path),
            permissions: header.permissions().map_err(damaged)?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok).map_err(damaged)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok).map_err(damaged)?,
            mtime: pax.mtime.map_or_else(seconds, Ok).map_err(damaged)?,
            xattrs: pax.xattrs,
            kind,
        })
    }

    /// A sparse file of GNU's own format: segments in the header, and more in the blocks after it.
    fn gnu_sparse(&mut self, header: &Header) -> Result<EntryKind, Error> {
        let size = header.sparse_size().map_err(|error| self.damaged(error))?;
        let mut map = Vec::new();
        let mut add = |at: &Self, bytes: &[u8]| {
            sparse::add_gnu(&mut map, bytes).ok_or_else(|| at.damaged(TarError::Sparse))
        };
        add(self, header.sparse_map())?;
        let mut continues = header.sparse_map_continues();
        while continues {
            let block = self.block()?;
            add(self, &block[..504])?;
            continues = block[504] != 0;
        }
        self.sparse_file(size, &map)
    }

    /// A sparse file of one of PAX's formats. In 1.0 the map stands before the data.
    fn pax_sparse(
        &mut self,
        size: Option<u64>,
        major: Option<u64>,
        mut map: Vec<u64>,
    ) -> Result<EntryKind, Error> {
        let size = size.ok_or_else(|| self.damaged(TarError::Sparse))?;
        if major == Some(1) {
            let mut text = sparse::MapText::default();
            while !text.is_complete() {
                if self.data_left < BLOCK as u64 {
                    return Err(self.damaged(TarError::Sparse));
                }
                let block = self.block()?;
                self.data_left -= BLOCK as u64;
                text.add(&block)
                    .ok_or_else(|| self.damaged(TarError::Sparse))?;
            }
            map = text.into_map();
        }
        self.sparse_file(size, &map)
    }

    fn sparse_file(&self, size: u64, map: &[u64]) -> Result<EntryKind, Error> {
        let segments = sparse::segments(map, size, self.data_left)
            .ok_or_else(|| self.damaged(TarError::Sparse))?;
        Ok(EntryKind::File {
            size,
            segments: Some(segments),
        })
    }
}
