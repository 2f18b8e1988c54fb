//! Archives of images: an OCI layout or what `docker save` writes. The digests that a stranger states are right more
//! often than a mutation would leave them, so documents name each other by place: `@2` is the digest of the third.

use image::Digest;

use crate::input::Input;
use crate::{file_of, tar};

/// Files whose names the formats fix; a document's own place is the last choice.
const NAMES: [&str; 6] = [
    "oci-layout",
    "index.json",
    "manifest.json",
    "config.json",
    "a/layer.tar",
    "",
];

/// Runs an input: a tar, or documents.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let archive = match input.u8() & 1 {
        0 => documents(&mut input),
        _ => {
            let mut bytes = input.rest().to_vec();
            tar::mend(&mut bytes);
            bytes
        }
    };
    image::fuzzing::archive(file_of(&archive));
}

/// A tar of documents, the last one first, since each may name those behind it.
fn documents(input: &mut Input<'_>) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(place) = input.op() {
        let len = usize::from(input.u16());
        found.push((place, input.bytes(len).to_vec()));
    }
    let mut digests: Vec<(String, String)> = Vec::new();
    let mut entries = Vec::new();
    for (index, (place, bytes)) in found.iter().enumerate().rev() {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for (mark, digest) in &digests {
            text = text.replace(mark, digest);
        }
        let digest = Digest::of(text.as_bytes());
        if index < 10 {
            digests.push((format!("@{index}"), digest.to_string()));
            // A size that is right is as hard to guess.
            digests.push((format!("#{index}"), text.len().to_string()));
        }
        let name = match NAMES[usize::from(*place) % NAMES.len()] {
            "" => format!("blobs/sha256/{}", digest.hex()),
            name => name.to_owned(),
        };
        let kind = if place & 0x80 == 0 { b'0' } else { b'2' };
        entries.push(tar::entry(&name, kind, text.as_bytes(), ""));
    }
    entries.reverse();
    entries.push(vec![0; 1024]);
    entries.concat()
}
