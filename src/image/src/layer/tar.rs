//! The tar stream: ustar, PAX and GNU, entry by entry, within bounds.
//!
//! The `tar` crate is not used: it reads extended headers of any length into memory, drops the maps of sparse files
//! and does not know PAX's.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::erofs::Timestamp;

use super::pax::{Pax, decimal};
use super::sparse::{MAX_SEGMENTS, Segment, segments};
use super::{Error, Unit};

/// Bytes of a header, and what everything is padded to.
const BLOCK: usize = 512;
/// The largest extended header, in bytes; Go's archive/tar, and so Docker, has the same.
const MAX_EXTENDED: u64 = 1 << 20;
/// The most bytes of global extended headers: they are applied to every entry.
const MAX_GLOBAL: u64 = 64 << 10;

/// What is wrong with a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// It ends within an entry.
    #[error("it ends too early")]
    Truncated,
    /// A header's checksum does not match.
    #[error("a header's checksum is wrong")]
    Checksum,
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
    /// Parts of archives on several tapes, incremental dumps, or something unknown.
    #[error("entries of type {:?} are not supported", char::from(*.0))]
    Type(u8),
}

/// A number in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Permissions.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Length.
    Size,
    /// Time.
    Mtime,
    /// Device number.
    Device,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Field::Mode => "mode",
            Field::Uid => "uid",
            Field::Gid => "gid",
            Field::Size => "size",
            Field::Mtime => "mtime",
            Field::Device => "device number",
        })
    }
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
    /// A regular file, whose data [`TarReader::read`] gives.
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
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R, limit: u64) -> Self {
        TarReader {
            input,
            position: 0,
            limit,
            data_left: 0,
            padding: 0,
            header_at: 0,
            global: Pax::default(),
            global_bytes: 0,
        }
    }

    /// The next entry; `None` at the archive's end, after which [`Self::finish`] reads the rest of the stream.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let (mut pax, mut long_name, mut long_link) = (Pax::default(), None, None);
        let mut extended = false;
        loop {
            self.discard(self.data_left + self.padding)?;
            (self.data_left, self.padding) = (0, 0);
            self.header_at = self.position;
            let Some(header) = self.header()? else {
                return if extended {
                    Err(self.damaged(TarError::Truncated))
                } else {
                    Ok(None)
                };
            };
            let field = |at: usize, len: usize, field| {
                number(&header[at..at + len]).ok_or(TarError::Number(field))
            };
            let size = field(124, 12, Field::Size)
                .and_then(|size| u64::try_from(size).map_err(|_| TarError::Number(Field::Size)))
                .map_err(|error| self.damaged(error))?;
            extended = true;
            match header[156] {
                b'x' | b'X' => {
                    pax = Pax::default();
                    let body = self.extended(size, MAX_EXTENDED)?;
                    pax.add(&body).map_err(|error| self.damaged(error))?;
                }
                b'g' => {
                    extended = false;
                    let body = self.extended(size, MAX_GLOBAL - self.global_bytes)?;
                    self.global_bytes += size;
                    let mut global = std::mem::take(&mut self.global);
                    global.add(&body).map_err(|error| self.damaged(error))?;
                    self.global = global;
                }
                b'L' => long_name = Some(until_nul(&self.extended(size, MAX_EXTENDED)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.extended(size, MAX_EXTENDED)?).to_vec()),
                b'V' => {
                    // A volume label: a name for the archive.
                    extended = false;
                    self.begin_data(size);
                }
                _ => {
                    let pax = self.global.overridden_by(pax);
                    return self
                        .entry(&header, size, pax, long_name, long_link)
                        .map(Some);
                }
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let len = self.data_left.min(buffer.len() as u64) as usize;
        if len == 0 {
            return Ok(0);
        }
        let read = self.read_some(&mut buffer[..len])?;
        if read == 0 {
            return Err(self.damaged(TarError::Truncated));
        }
        self.data_left -= read as u64;
        Ok(read)
    }

    /// Reads what follows the archive's end, to the end of the stream, and returns the number of bytes of it all.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        let mut buffer = vec![0; 64 << 10];
        while self.read_some(&mut buffer)? > 0 {}
        Ok(self.position)
    }

    fn damaged(&self, source: TarError) -> Error {
        Error::Tar {
            offset: self.header_at,
            source,
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
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

    /// Fills the buffer, or returns how much there was before the end of the stream.
    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut len = 0;
        while len < buffer.len() {
            match self.read_some(&mut buffer[len..])? {
                0 => break,
                read => len += read,
            }
        }
        Ok(len)
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

    /// A header with a right checksum, or `None` at the end: a block of zeros or the end of the stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut header = [0; BLOCK];
        match self.read_full(&mut header)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(self.damaged(TarError::Truncated)),
        }
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum = |signed: bool| -> i128 {
            let value = |byte: u8| {
                if signed {
                    i128::from(byte as i8)
                } else {
                    i128::from(byte)
                }
            };
            header
                .iter()
                .enumerate()
                .map(|(at, &byte)| value(if (148..156).contains(&at) { b' ' } else { byte }))
                .sum()
        };
        // Old tars summed signed characters.
        let stored = number(&header[148..156]);
        if stored != Some(sum(false)) && stored != Some(sum(true)) {
            return Err(self.damaged(TarError::Checksum));
        }
        Ok(Some(header))
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
        if self.read_full(&mut body)? < body.len() {
            return Err(self.damaged(TarError::Truncated));
        }
        self.data_left = 0;
        Ok(body)
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        header_size: u64,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Error> {
        let damaged = |source| Error::Tar {
            offset: self.header_at,
            source,
        };
        let field = |at: usize, len: usize, field| {
            number(&header[at..at + len]).ok_or(damaged(TarError::Number(field)))
        };
        let id =
            |at, of| u32::try_from(field(at, 8, of)?).map_err(|_| damaged(TarError::Number(of)));
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => Timestamp {
                seconds: i64::try_from(field(136, 12, Field::Mtime)?)
                    .map_err(|_| damaged(TarError::Number(Field::Mtime)))?,
                nanoseconds: 0,
            },
        };
        let mut entry = Entry {
            path: pax
                .path
                .or(long_name)
                .unwrap_or_else(|| header_path(header)),
            permissions: (field(100, 8, Field::Mode)? & 0o7777) as u16,
            uid: pax.uid.map_or_else(|| id(108, Field::Uid), Ok)?,
            gid: pax.gid.map_or_else(|| id(116, Field::Gid), Ok)?,
            mtime,
            xattrs: pax.xattrs,
            kind: EntryKind::Directory,
        };
        let link = || {
            pax.link
                .or(long_link)
                .unwrap_or_else(|| until_nul(&header[157..257]).to_vec())
        };
        let device = || Ok::<_, Error>((id(329, Field::Device)?, id(337, Field::Device)?));
        entry.kind = match header[156] {
            b'0' | 0 | b'7' if entry.path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' | b'S' => {
                let stored = pax.size.unwrap_or(header_size);
                self.begin_data(stored);
                let old_gnu = header[156] == b'S';
                let (size, segments) = if old_gnu {
                    let (size, map) = self.old_gnu_map(header)?;
                    (
                        size,
                        Some(segments(&map, size, stored).map_err(|e| self.damaged(e))?),
                    )
                } else if pax.sparse != Default::default() {
                    let size = pax
                        .sparse
                        .size
                        .ok_or_else(|| self.damaged(TarError::Sparse))?;
                    let map = if pax.sparse.major == Some(1) {
                        self.map_in_data()?
                    } else {
                        pax.sparse.map
                    };
                    entry.path = pax.sparse.name.unwrap_or(entry.path);
                    (
                        size,
                        Some(segments(&map, size, self.data_left).map_err(|e| self.damaged(e))?),
                    )
                } else {
                    (stored, None)
                };
                EntryKind::File { size, segments }
            }
            // The sizes of the others mean nothing: no data follows.
            b'1' => EntryKind::HardLink(link()),
            b'2' => EntryKind::Symlink(link()),
            b'3' => device().map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(damaged(TarError::Type(other))),
        };
        Ok(entry)
    }

    /// The file's size and map of an old GNU sparse header: four segments in the header, more in the blocks after it.
    fn old_gnu_map(&mut self, header: &[u8; BLOCK]) -> Result<(u64, Vec<u64>), Error> {
        let damaged = Error::Tar {
            offset: self.header_at,
            source: TarError::Sparse,
        };
        let Some(size) = number(&header[483..495]).and_then(|size| u64::try_from(size).ok()) else {
            return Err(damaged);
        };
        let mut map = Vec::new();
        let mut add = |bytes: &[u8]| {
            for pair in bytes.chunks_exact(24).take_while(|pair| pair[0] != 0) {
                for field in [&pair[..12], &pair[12..]] {
                    map.push(number(field).and_then(|n| u64::try_from(n).ok())?);
                }
            }
            (map.len() / 2 <= MAX_SEGMENTS).then_some(())
        };
        let mut more = header[482] != 0;
        if add(&header[386..482]).is_none() {
            return Err(damaged);
        }
        while more {
            let mut block = [0; BLOCK];
            if self.read_full(&mut block)? < BLOCK || add(&block[..504]).is_none() {
                return Err(damaged);
            }
            more = block[504] != 0;
        }
        Ok((size, map))
    }

    /// The map of PAX's sparse format 1.0, which stands before the data: numbers, a line each, padded to a block.
    fn map_in_data(&mut self) -> Result<Vec<u64>, Error> {
        let (mut numbers, mut line) = (Vec::new(), Vec::new());
        let mut wanted = 1;
        while numbers.len() < wanted {
            let mut block = [0; BLOCK];
            if self.data_left < BLOCK as u64 {
                return Err(self.damaged(TarError::Sparse));
            }
            if self.read_full(&mut block)? < BLOCK {
                return Err(self.damaged(TarError::Truncated));
            }
            self.data_left -= BLOCK as u64;
            for byte in block {
                if numbers.len() == wanted {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    // No number is longer.
                    if line.len() > 20 {
                        return Err(self.damaged(TarError::Sparse));
                    }
                    continue;
                }
                let number = decimal(&line).ok_or_else(|| self.damaged(TarError::Sparse))?;
                line.clear();
                if numbers.is_empty() {
                    if number > MAX_SEGMENTS as u64 {
                        return Err(self.damaged(TarError::Sparse));
                    }
                    wanted += 2 * number as usize;
                }
                numbers.push(number);
            }
        }
        numbers.remove(0);
        Ok(numbers)
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len())]
}

/// The path of a header; only POSIX's ustar has a prefix.
fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (until_nul(&header[..100]), until_nul(&header[345..500]));
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// A header's number: octal digits between blanks, or GNU's base-256 in two's complement.
fn number(field: &[u8]) -> Option<i128> {
    if field[0] & 0x80 != 0 {
        // The topmost bit is a mark, the next the sign; 12 bytes have 95 bits.
        let start = if field[0] & 0x40 != 0 { -1 << 7 } else { 0 } | i128::from(field[0] & 0x7f);
        return Some(
            field[1..]
                .iter()
                .fold(start, |value, &byte| value << 8 | i128::from(byte)),
        );
    }
    let text = field.trim_ascii_start();
    let text = &text[..text
        .iter()
        .position(|&byte| byte == 0 || byte == b' ')
        .unwrap_or(text.len())];
    text.iter().try_fold(0, |value, &byte| {
        (b'0'..=b'7')
            .contains(&byte)
            .then(|| value << 3 | i128::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77777777));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-000644\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0
            ]),
            Some(-256)
        );
    }
}
