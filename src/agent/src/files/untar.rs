//! Archives, read: ustar, pax and GNU's long names. They come from a user, so every length in them is bounded before it is
//! believed.

use std::io::{self, Read};

use super::Error;
use super::tar::BLOCK_LEN;

/// The longest name or link (PATH_MAX).
pub(super) const MAX_NAME_LEN: usize = 4096;
/// Bytes of an extended header: several attributes of the largest size.
const MAX_EXTENSION_LEN: u64 = 1 << 20;
/// The largest file: offsets are signed.
const MAX_LEN: u64 = i64::MAX as u64;

/// An entry's header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    /// ustar's typeflag; a zero byte, of older archives, is a file.
    pub(super) kind: u8,
    /// Permissions.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of content, to be read from the reader.
    pub(super) len: u64,
    /// Seconds since the epoch.
    pub(super) modified_s: i64,
    pub(super) link: Vec<u8>,
    /// Major and minor number.
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    len: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified_s: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries one after the other. Reading from it gives the content of the last one.
#[derive(Debug)]
pub(super) struct Reader<R: Read> {
    from: R,
    /// Bytes of content that have not been read.
    left: u64,
    /// Bytes that fill the content's last block.
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(from: R) -> Reader<R> {
        Reader {
            from,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; what is left of the last one's content is skipped. `None` at the archive's end, after which the stream
    /// has been read to its own.
    pub(super) fn next(&mut self) -> Result<Option<Header>, Error> {
        let mut extension = Extension::default();
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            if block.iter().all(|byte| *byte == 0) {
                io::copy(&mut self.from, &mut io::sink()).map_err(Error::Receive)?;
                return Ok(None);
            }
            let mut header = header(&block)?;
            match header.kind {
                b'x' => extension.read(&self.extension(header.len)?)?,
                b'L' => extension.name = Some(long_name(self.extension(header.len)?)),
                b'K' => extension.link = Some(long_name(self.extension(header.len)?)),
                // It says something of all entries: their time, their packer. None of that is kept.
                b'g' => drop(self.extension(header.len)?),
                _ => {
                    extension.apply(&mut header);
                    if header.name.len() > MAX_NAME_LEN || header.link.len() > MAX_NAME_LEN {
                        return Err(Error::Archive("a name is too long"));
                    }
                    self.expect(header.len)?;
                    return Ok(Some(header));
                }
            }
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK_LEN]>, Error> {
        let mut block = [0; BLOCK_LEN];
        let mut filled = 0;
        while filled < BLOCK_LEN {
            match self.from.read(&mut block[filled..]) {
                // Some writers leave the end's zeros out.
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Archive("it ends inside a header")),
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Receive(error)),
            }
        }
        Ok(Some(block))
    }

    fn expect(&mut self, len: u64) -> Result<(), Error> {
        if len > MAX_LEN {
            return Err(Error::Archive("an entry is larger than any file"));
        }
        self.left = len;
        self.padding = len.next_multiple_of(BLOCK_LEN as u64) - len;
        Ok(())
    }

    /// The content of an entry that describes another.
    fn extension(&mut self, len: u64) -> Result<Vec<u8>, Error> {
        if len > MAX_EXTENSION_LEN {
            return Err(Error::Archive("an extended header is too long"));
        }
        self.expect(len)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(Error::Receive)?;
        Ok(bytes)
    }

    fn skip(&mut self, len: u64) -> Result<(), Error> {
        let mut skipped = self.from.by_ref().take(len);
        let count = io::copy(&mut skipped, &mut io::sink()).map_err(Error::Receive)?;
        if count < len {
            return Err(Error::Archive("it ends inside an entry"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if len == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut buffer[..len])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn header(block: &[u8; BLOCK_LEN]) -> Result<Header, Error> {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            u64::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        })
        .sum();
    if number(&block[148..156]) != Some(sum) {
        return Err(Error::Archive("a header's checksum is wrong"));
    }
    let number = |field: &[u8]| number(field).ok_or(Error::Archive("a number is not one"));
    let id = |field: &[u8]| {
        u32::try_from(number(field)?).map_err(|_| Error::Archive("a number is out of range"))
    };
    let mut name = text(&block[..100]).to_vec();
    let prefix = text(&block[345..500]);
    // GNU's own format has other things where ustar has the prefix.
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        name = [prefix, b"/", &name].concat();
    }
    Ok(Header {
        name,
        kind: block[156],
        mode: (number(&block[100..108])? & 0o7777) as u32,
        uid: id(&block[108..116])?,
        gid: id(&block[116..124])?,
        len: number(&block[124..136])?,
        modified_s: number(&block[136..148])?.min(MAX_LEN) as i64,
        link: text(&block[157..257]).to_vec(),
        device: (id(&block[329..337])?, id(&block[337..345])?),
        xattrs: Vec::new(),
    })
}

/// Octal digits with spaces or zeros around them, or (GNU) a big-endian number behind a byte of 0x80. Negative ones, which
/// only times can be, are taken for 0.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0xff {
        return Some(0);
    }
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        let is_large = high
            .iter()
            .enumerate()
            .any(|(at, byte)| *byte & if at == 0 { 0x7f } else { 0xff } != 0);
        let first = if high.is_empty() { 0x7f } else { 0xff };
        let mut value = u64::from(low[0] & first);
        for byte in &low[1..] {
            value = value << 8 | u64::from(*byte);
        }
        return (!is_large).then_some(value);
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ');
    let mut value = 0u64;
    let mut rest = digits.skip_while(|byte| **byte == 0).peekable();
    while let Some(byte) = rest.next_if(|byte| (b'0'..=b'7').contains(byte)) {
        value = value.checked_mul(8)?.checked_add(u64::from(byte - b'0'))?;
    }
    rest.all(|byte| matches!(byte, 0 | b' ')).then_some(value)
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

fn long_name(mut name: Vec<u8>) -> Vec<u8> {
    let len = text(&name).len();
    name.truncate(len);
    name
}

impl Extension {
    /// Reads the records of a pax header.
    fn read(&mut self, mut records: &[u8]) -> Result<(), Error> {
        const MALFORMED: Error = Error::Archive("an extended header is malformed");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ');
            let space = space.ok_or(MALFORMED)?;
            let len = decimal(&records[..space]).ok_or(MALFORMED)?;
            let len = usize::try_from(len).map_err(|_| MALFORMED)?;
            let record = records.get(space + 1..len).ok_or(MALFORMED)?;
            let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or(MALFORMED)?);
            self.set(key, &value[1..])?;
            records = &records[len..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        const BAD: Error = Error::Archive("a value of an extended header is malformed");
        let id = || decimal(value).and_then(|id| u32::try_from(id).ok());
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.len = Some(decimal(value).ok_or(BAD)?),
            b"uid" => self.uid = Some(id().ok_or(BAD)?),
            b"gid" => self.gid = Some(id().ok_or(BAD)?),
            b"mtime" => self.modified_s = Some(seconds(value).ok_or(BAD)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn apply(self: &mut Extension, header: &mut Header) {
        let Extension {
            name,
            link,
            len,
            uid,
            gid,
            modified_s,
            xattrs,
        } = std::mem::take(self);
        header.name = name.unwrap_or(std::mem::take(&mut header.name));
        header.link = link.unwrap_or(std::mem::take(&mut header.link));
        header.len = len.unwrap_or(header.len);
        header.uid = uid.unwrap_or(header.uid);
        header.gid = gid.unwrap_or(header.gid);
        header.modified_s = modified_s.unwrap_or(header.modified_s);
        header.xattrs = xattrs;
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

/// Whole seconds of a time that may have a fraction.
fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tar::{Entry, Kind, Writer};
    use super::*;

    fn written(entry: &Entry<'_>, content: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.entry(entry).unwrap();
        writer.content(content, entry.len).unwrap();
        writer.finish().unwrap()
    }

    const PLAIN: Entry<'static> = Entry {
        name: b"a",
        kind: Kind::File,
        mode: 0o640,
        uid: 1,
        gid: 2,
        len: 3,
        modified_s: 1_700_000_000,
        link: b"",
        device: (0, 0),
        xattrs: &[],
    };

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0\0\0\0\0"), Some(1 << 40));
        assert_eq!(number(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(number(b"12x45678"), None);
    }

    #[test]
    fn an_archive_that_is_cut_is_told_from_one_that_ends() {
        let archive = written(&PLAIN, b"abc");
        for len in [1, 511, 513, 1023] {
            let mut reader = Reader::new(&archive[..len]);
            let mut last = reader.next();
            while let Ok(Some(_)) = last {
                last = reader.next();
            }
            assert!(last.is_err(), "{len}");
        }
        let mut reader = Reader::new(&archive[..1024]);
        assert!(reader.next().unwrap().is_some());
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn a_header_that_announces_more_than_is_allowed_is_refused_before_it_is_read() {
        let mut archive = written(&PLAIN, b"abc");
        archive[124..136].copy_from_slice(b"77777777777\0");
        archive[156] = b'L';
        let sum: u64 = archive[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                u64::from(if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                })
            })
            .sum();
        archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let refused = Reader::new(&archive[..]).next().unwrap_err();
        assert!(refused.to_string().contains("too long"), "{refused}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            name in prop::collection::vec(1..=255u8, 1..300),
            link in prop::collection::vec(1..=255u8, 0..300),
            ids in any::<(u32, u32)>(),
            content in prop::collection::vec(any::<u8>(), 0..2000),
            modified_s in prop_oneof![0..4_000_000_000i64, any::<i64>()],
            xattrs in prop::collection::vec(
                (prop::collection::vec(b'a'..=b'z', 1..20), prop::collection::vec(any::<u8>(), 0..200)), 0..4),
        ) {
            let entry = Entry {
                name: &name, link: &link, uid: ids.0, gid: ids.1, len: content.len() as u64, modified_s, xattrs: &xattrs,
                ..PLAIN
            };
            let archive = written(&entry, &content);
            prop_assert_eq!(archive.len() % BLOCK_LEN, 0);
            let mut reader = Reader::new(&archive[..]);
            let header = reader.next().unwrap().unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, content);
            prop_assert_eq!(&header.name, &name);
            prop_assert_eq!(&header.link, &link);
            prop_assert_eq!((header.uid, header.gid, header.mode), (ids.0, ids.1, 0o640));
            prop_assert_eq!(header.modified_s, modified_s);
            prop_assert_eq!(&header.xattrs, &xattrs);
            prop_assert!(reader.next().unwrap().is_none());
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
