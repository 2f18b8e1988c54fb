//! Decompression of layers and archives. The format is detected from the first bytes: media types
//! and file names may be wrong.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    /// RFC 1952, section 2.3.1.
    Gzip,
    /// RFC 8878, section 3.1.1.
    Zstd,
    /// RFC 8878, section 3.1.2: a skippable frame, which may come first.
    ZstdSkippable,
    Xz,
    Bzip2,
}

/// Length of the longest magic number.
const MAGIC_LEN: usize = 6;
const BUFFER_LEN: usize = 128 << 10;

/// A compression format that is not supported; the source of an [`io::Error`] of kind
/// `Unsupported`.
#[derive(Debug, thiserror::Error)]
#[error("{packing} compression is not supported: only gzip, zstd and none are")]
pub(crate) struct Unsupported {
    /// The format's name.
    pub(crate) packing: &'static str,
}

fn packing(magic: &[u8]) -> Packing {
    match magic {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::ZstdSkippable,
        [0xfd, b'7', b'z', b'X', b'Z', 0x00] => Packing::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
        _ => Packing::None,
    }
}

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A reader of the decompressed contents of `R`.
pub(crate) enum Decompressor<R: Read> {
    None(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
}

impl<R: Read> Decompressor<R> {
    /// Detects the format from the first bytes. Errors are the source's, or [`Unsupported`].
    pub(crate) fn new(mut source: R) -> io::Result<Decompressor<R>> {
        let mut magic = Vec::with_capacity(MAGIC_LEN);
        source
            .by_ref()
            .take(MAGIC_LEN as u64)
            .read_to_end(&mut magic)?;
        let packing = packing(&magic);
        let source = BufReader::with_capacity(BUFFER_LEN, Cursor::new(magic).chain(source));
        let refuse = |packing| {
            Err(io::Error::new(
                io::ErrorKind::Unsupported,
                Unsupported { packing },
            ))
        };
        match packing {
            Packing::None => Ok(Decompressor::None(source)),
            Packing::Gzip => Ok(Decompressor::Gzip(Box::new(MultiGzDecoder::new(source)))),
            // The decoder's own bound on a frame's window, 128 MiB, is the bound on its memory.
            Packing::Zstd | Packing::ZstdSkippable => Ok(Decompressor::Zstd(Box::new(
                zstd::stream::read::Decoder::with_buffer(source)?,
            ))),
            Packing::Xz => refuse("xz"),
            Packing::Bzip2 => refuse("bzip2"),
        }
    }

    /// Whether the source is not compressed.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Decompressor::None(_))
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressor::None(reader) => reader.read(buffer),
            Decompressor::Gzip(reader) => reader.read(buffer),
            Decompressor::Zstd(reader) => reader.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompressor::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_gzip_and_zstd_read_alike() {
        let text = b"hull ".repeat(100_000);
        assert_eq!(unpack(&text).unwrap(), text);
        assert_eq!(unpack(&gzip(&text)).unwrap(), text);
        assert_eq!(
            unpack(&zstd::encode_all(&text[..], 1).unwrap()).unwrap(),
            text
        );
    }

    #[test]
    fn several_members_and_skippable_frames_are_one_stream() {
        assert_eq!(unpack(&[gzip(b"a"), gzip(b"b")].concat()).unwrap(), b"ab");
        let skip = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let frame = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        assert_eq!(
            unpack(&[&skip[..], &frame(b"a"), &frame(b"b")].concat()).unwrap(),
            b"ab"
        );
    }

    #[test]
    fn truncated_streams_are_errors() {
        let text = b"hull ".repeat(1000);
        for packed in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            assert!(unpack(&packed[..packed.len() - 3]).is_err());
        }
    }

    #[test]
    fn short_streams_are_plain_and_xz_is_named() {
        assert_eq!(unpack(b"").unwrap(), b"");
        assert_eq!(unpack(b"\x1f").unwrap(), b"\x1f");
        let error = unpack(b"\xfd7zXZ\0....").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("xz"));
    }
}
