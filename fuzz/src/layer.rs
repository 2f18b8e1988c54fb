//! A layer's tar to an EROFS image, which is then read with our reader. Checked: the image can be read whole, is as large
//! as is said and no larger than allowed, and is the same the second time.

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;

use image::layer::{Converted, Limits, LowerLayers, RebuiltTar, convert_recorded};

use crate::input::Input;
use crate::{erofs, memfd, tar};

const LIMITS: Limits = Limits {
    entries: 2000,
    metadata_bytes: 1 << 20,
    tar_bytes: 4 << 20,
    image_bytes: 16 << 20,
};

/// Runs an input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let mut archive = input.rest().to_vec();
    if kind & 1 == 0 {
        tar::mend(&mut archive);
    }
    let lower = match kind & 2 {
        0 => LowerLayers::none(),
        _ => LowerLayers::open([lower().try_clone().expect("a descriptor")]).expect("our own"),
    };
    let Some((image, converted)) = converted(&archive, &lower) else {
        return;
    };
    assert_eq!(
        image.metadata().expect("a file").len(),
        converted.image_bytes
    );
    assert!(converted.image_bytes <= LIMITS.image_bytes);
    assert!(converted.entries <= LIMITS.entries + converted.tar_bytes / 512);
    let bytes = erofs::walk(image).expect("what we wrote can be read");
    assert_eq!(bytes.inodes, converted.inodes);
    if kind & 4 != 0 {
        let (again, _) = self::converted(&archive, &lower).expect("as before");
        assert_eq!(erofs::walk(again).expect("as before"), bytes);
    }
}

fn converted(archive: &[u8], lower: &LowerLayers) -> Option<(File, Converted)> {
    let (image, record) = (memfd(), memfd());
    let copy = record.try_clone().expect("a descriptor");
    match convert_recorded(archive, &image, lower, &LIMITS, record) {
        Ok(converted) => {
            let same = image.try_clone().expect("a descriptor");
            let mut tar = RebuiltTar::open(same, copy).expect("what we wrote can be read");
            let mut again = Vec::new();
            tar.read_to_end(&mut again).expect("what we wrote is whole");
            assert!(again == archive, "the tar is rebuilt to the byte");
            Some((image, converted))
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// A lower layer with what upper ones can run into.
pub fn lower() -> &'static File {
    static LOWER: OnceLock<File> = OnceLock::new();
    LOWER.get_or_init(|| {
        let archive = [
            tar::entry("d/", b'5', b"", ""),
            tar::entry("d/file", b'0', &[b'x'; 5000], ""),
            tar::entry("d/link", b'2', b"", "file"),
            tar::entry("d/e/", b'5', b"", ""),
            tar::entry("d/e/pipe", b'6', b"", ""),
            tar::entry("empty", b'0', b"", ""),
            tar::entry("same", b'1', b"", "d/file"),
            vec![0; 1024],
        ]
        .concat();
        let (image, _) = converted(&archive, &LowerLayers::none()).expect("a plain tar");
        image
    })
}
