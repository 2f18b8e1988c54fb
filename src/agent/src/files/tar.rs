//! Archives, written: POSIX.1-2001 (pax), as Docker and OCI layers have them. Times are whole seconds.
//!
//! An extended header stands before an entry only where the ustar header cannot hold what there is to say.

use std::io::{self, Read, Write};

/// Archives are made of these.
pub(super) const BLOCK_LEN: usize = 512;
/// Bytes of a name in a ustar header.
const NAME_LEN: usize = 100;
/// The largest number that a field of so many octal digits holds.
const MAX_7_DIGITS: u64 = 0o777_7777;
const MAX_11_DIGITS: u64 = 0o777_7777_7777;

/// Kinds of entries that are written: ustar's typeflag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    File = b'0',
    HardLink = b'1',
    Symlink = b'2',
    CharacterDevice = b'3',
    BlockDevice = b'4',
    Directory = b'5',
    Fifo = b'6',
}

/// An entry's header.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    /// Relative; a directory's ends in a slash.
    pub(super) name: &'a [u8],
    pub(super) kind: Kind,
    /// Permissions, without the type.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of content that follow.
    pub(super) len: u64,
    /// Seconds since the epoch.
    pub(super) modified_s: i64,
    /// Target of a link; empty otherwise.
    pub(super) link: &'a [u8],
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    /// Extended attributes.
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes entries one after the other.
#[derive(Debug)]
pub(super) struct Writer<W: Write>(W);

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W) -> Writer<W> {
        Writer(to)
    }

    /// Writes a header. As many bytes as it announces must follow by [`Writer::content`].
    pub(super) fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let mut header = header(b"pax", b'x', records.len() as u64);
            seal(&mut header);
            self.0.write_all(&header)?;
            self.0.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = header(cut(entry.name, NAME_LEN), entry.kind as u8, entry.len);
        octal(&mut header[100..108], u64::from(entry.mode & 0o7777));
        octal(&mut header[108..116], u64::from(entry.uid));
        octal(&mut header[116..124], u64::from(entry.gid));
        octal(
            &mut header[136..148],
            u64::try_from(entry.modified_s).unwrap_or(0),
        );
        let link = cut(entry.link, NAME_LEN);
        header[157..157 + link.len()].copy_from_slice(link);
        octal(&mut header[329..337], u64::from(entry.device.0));
        octal(&mut header[337..345], u64::from(entry.device.1));
        seal(&mut header);
        self.0.write_all(&header)
    }

    /// Writes `len` bytes of content: those of `from`, and zeros where it has fewer.
    pub(super) fn content(&mut self, from: impl Read, len: u64) -> io::Result<()> {
        let mut from = from.take(len);
        let mut buffer = vec![0; super::BUFFER_LEN];
        let mut left = len;
        while left > 0 {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            self.0.write_all(&buffer[..read])?;
            left -= read as u64;
        }
        io::copy(&mut io::repeat(0).take(left), &mut self.0)?;
        self.pad(len)
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.0.write_all(&[0; 2 * BLOCK_LEN])?;
        self.0.flush()?;
        Ok(self.0)
    }

    fn pad(&mut self, len: u64) -> io::Result<()> {
        let rest = (len % BLOCK_LEN as u64) as usize;
        if rest > 0 {
            self.0.write_all(&[0; BLOCK_LEN][rest..])?;
        }
        Ok(())
    }
}

/// What the ustar header cannot hold, as records of an extended header.
fn records(entry: &Entry<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.extend(record(key, value));
    if entry.name.len() > NAME_LEN {
        add(b"path", entry.name);
    }
    if entry.link.len() > NAME_LEN {
        add(b"linkpath", entry.link);
    }
    if entry.len > MAX_11_DIGITS {
        add(b"size", entry.len.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if u64::from(id) > MAX_7_DIGITS {
            add(key, id.to_string().as_bytes());
        }
    }
    if u64::try_from(entry.modified_s).is_ok_and(|time| time > MAX_11_DIGITS)
        || entry.modified_s < 0
    {
        add(b"mtime", entry.modified_s.to_string().as_bytes());
    }
    for (name, value) in entry.xattrs {
        add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    records
}

/// A record: its own length in decimal digits, a space, key=value and a line feed.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn header(name: &[u8], kind: u8, len: u64) -> [u8; BLOCK_LEN] {
    let mut header = [0; BLOCK_LEN];
    header[..name.len()].copy_from_slice(name);
    octal(&mut header[100..108], 0o644);
    octal(&mut header[108..116], 0);
    octal(&mut header[116..124], 0);
    octal(&mut header[124..136], len);
    octal(&mut header[136..148], 0);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

/// Puts the checksum in: the sum of all bytes, with the checksum's own taken for spaces.
fn seal(header: &mut [u8; BLOCK_LEN]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut header[148..155], sum);
}

/// Writes a number as octal digits and a zero; one that does not fit is in an extended header and zero here.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let text = if text.len() > digits {
        "0".repeat(digits)
    } else {
        text
    };
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
}

fn cut(bytes: &[u8], len: usize) -> &[u8] {
    &bytes[..bytes.len().min(len)]
}
