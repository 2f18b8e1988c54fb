//! For `fuzz/` only: entry points to the crate's private parsers of untrusted input.

use std::fs::File;

use crate::compression::Decompressor;
use crate::import;
use crate::manifest::{self, Config, Document};

pub use crate::erofs::sign;
pub use crate::registry::fuzzing::{credentials, registry};

/// A manifest or index, and the choice among an index's entries.
pub fn manifest(bytes: &[u8]) {
    if let Ok(Document::Index(index)) = Document::parse(bytes) {
        // The error must be printable.
        if let Err(error) =
            manifest::candidates(&index.entries, Some(&manifest::Platform::native()))
        {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// An image's configuration.
pub fn config(bytes: &[u8]) {
    if let Ok(config) = Config::parse(bytes.to_vec()) {
        let ids = config.chain_ids();
        assert!(ids.len() == config.diff_ids.len() && !ids.is_empty());
        assert!(ids.len() <= manifest::MAX_LAYERS);
        assert_eq!(config.id(), crate::Digest::of(bytes));
    }
}

/// A tar of images: its index, and the images that it holds.
pub fn archive(tar: File) {
    import::fuzzing::archive(tar);
}

/// A packed stream, of which at most `max` bytes are unpacked. Returns how many there were.
pub fn unpack(packed: &[u8], max: u64) -> u64 {
    let Ok(unpacked) = Decompressor::new(packed) else {
        return 0;
    };
    let mut unpacked = std::io::Read::take(unpacked, max);
    // A damaged stream ends in an error; what came before it is counted by the writer.
    let mut sink = Counter(0);
    let _ = std::io::copy(&mut unpacked, &mut sink);
    sink.0
}

struct Counter(u64);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
