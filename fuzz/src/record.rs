//! A tar rebuilt from an image and a record that somebody else wrote. Checked: it ends, and is as long as is said if it
//! ends well.

use std::io::Read;
use std::os::unix::fs::FileExt;

use image::layer::RebuiltTar;

use crate::input::Input;
use crate::{layer, memfd};

/// How much of the tar is read: a few bytes of a record can mean many gigabytes of zeros.
const MAX_BYTES: u64 = 1 << 20;

/// Runs an input: a length and operations, which are packed as a record has them, or a whole record.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let record = match input.u8() & 1 {
        0 => record(u64::from(input.u32()), input.rest()),
        _ => input.rest().to_vec(),
    };
    let file = memfd();
    file.write_all_at(&record, 0).expect("room in memory");
    let image = layer::lower().try_clone().expect("a descriptor");
    let Ok(tar) = RebuiltTar::open(image, file) else {
        return;
    };
    let said = tar.tar_bytes();
    let mut sink = Vec::new();
    let result = tar.take(MAX_BYTES).read_to_end(&mut sink);
    assert!(sink.len() as u64 <= said);
    match result {
        Ok(count) => assert!(count as u64 == said.min(MAX_BYTES)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A record with these operations, of a tar of this length.
pub fn record(tar_bytes: u64, operations: &[u8]) -> Vec<u8> {
    let mut bytes = b"HULLTAR1".to_vec();
    bytes.extend(tar_bytes.to_le_bytes());
    bytes.extend(zstd::stream::encode_all(operations, 1).expect("into memory"));
    bytes
}
