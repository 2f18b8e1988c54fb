//! The 512-byte header of a tar entry: ustar (POSIX.1-2017, pax, "ustar Interchange Format"), GNU's
//! and that of V7.

use super::tar::TarError;

/// Bytes of a header, and what everything is padded to.
pub(super) const BLOCK: usize = 512;

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

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header([u8; BLOCK]);

impl Header {
    /// Checks a block's checksum; `None` for a block of zeros, which ends an archive.
    pub(super) fn new(block: [u8; BLOCK]) -> Result<Option<Header>, TarError> {
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum = |value: fn(u8) -> i128| -> i128 {
            let in_checksum = |at: usize| (148..156).contains(&at);
            block
                .iter()
                .enumerate()
                .map(|(at, &byte)| value(if in_checksum(at) { b' ' } else { byte }))
                .sum()
        };
        let stored = number(&block[148..156]);
        // Old tars summed signed characters.
        if stored != Some(sum(i128::from)) && stored != Some(sum(|byte| i128::from(byte as i8))) {
            return Err(TarError::Checksum);
        }
        Ok(Some(Header(block)))
    }

    /// `typeflag`
    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.field(124, 12, Field::Size)
    }

    pub(super) fn permissions(&self) -> Result<u16, TarError> {
        Ok((self.field::<u64>(100, 8, Field::Mode)? & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Result<u32, TarError> {
        self.field(108, 8, Field::Uid)
    }

    pub(super) fn gid(&self) -> Result<u32, TarError> {
        self.field(116, 8, Field::Gid)
    }

    /// Seconds since 1970.
    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.field(136, 12, Field::Mtime)
    }

    /// Major and minor number.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        Ok((
            self.field(329, 8, Field::Device)?,
            self.field(337, 8, Field::Device)?,
        ))
    }

    /// `name`, after `prefix`, which only POSIX's ustar has.
    pub(super) fn path(&self) -> Vec<u8> {
        let (name, prefix) = (until_nul(&self.0[..100]), until_nul(&self.0[345..500]));
        if &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    /// `linkname`
    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    /// Of a GNU sparse file: the four segments in the header, 24 bytes each.
    pub(super) fn sparse_map(&self) -> &[u8] {
        &self.0[386..482]
    }

    /// Of a GNU sparse file: whether blocks with more segments follow.
    pub(super) fn sparse_map_continues(&self) -> bool {
        self.0[482] != 0
    }

    /// Of a GNU sparse file: its size with its holes.
    pub(super) fn sparse_size(&self) -> Result<u64, TarError> {
        self.field(483, 12, Field::Size)
    }

    fn field<T: TryFrom<i128>>(&self, at: usize, len: usize, field: Field) -> Result<T, TarError> {
        number(&self.0[at..at + len])
            .and_then(|n| T::try_from(n).ok())
            .ok_or(TarError::Number(field))
    }
}

/// A string that NUL ends, or the field does.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len())]
}

/// A header's number: octal digits between blanks, or GNU's base-256 in two's complement.
pub(super) fn number(field: &[u8]) -> Option<i128> {
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
