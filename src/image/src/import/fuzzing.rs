//! For `fuzz/` only.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::contents::Contents;
use super::tar_index::{self, TarIndex, Verdict};
use super::{docker, oci};
use crate::manifest::{MAX_LAYERS, MAX_MANIFEST_LEN};

/// As an import of this tar goes, up to its first layer.
pub(crate) fn archive(tar: File) {
    let mut head = vec![0; tar_index::HEAD_LEN];
    let len = tar.read_at(&mut head, 0).unwrap_or(0);
    head.truncate(len);
    let _ = tar_index::begins_archive(&head);
    let Ok(Ok(Verdict::Archive(index))) = TarIndex::read(&tar) else {
        return;
    };
    let contents = Contents::Tar(index, tar);
    let found = match contents.read(docker::MANIFEST, MAX_MANIFEST_LEN) {
        Ok(Some(manifest)) => docker::images(&contents, &manifest, None),
        Ok(None) => oci::images(&contents, None),
        Err(_) => return,
    };
    for image in found.unwrap_or_default().found {
        assert_eq!(image.layers.len(), image.config.diff_ids.len());
        assert!(image.layers.len() <= MAX_LAYERS);
        for layer in &image.layers {
            if let Ok(Some((mut reader, size))) = contents.open(&layer.path) {
                let mut sink = Vec::new();
                let read = reader.by_ref().take(1 << 20).read_to_end(&mut sink);
                assert!(read.map_or(true, |read| read as u64 <= size));
            }
        }
    }
}
