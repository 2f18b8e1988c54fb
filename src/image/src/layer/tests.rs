//! Layers made from tars that the tests put together byte by byte, read back by our reader.

mod archive;
mod bounds;
mod entries;
mod gnu_tar;
mod hostile;
mod lower;
mod model;
mod overlay;
mod stack;
mod symlinks;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;
use crate::erofs::{Node, NodeKind, Reader, Timestamp};
use archive::{Archive, E};
use model::Random;

fn convert_over(tar: &[u8], lower: &LowerLayers) -> Result<(Converted, File), Error> {
    let (file, record) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let record_copy = record.try_clone().unwrap();
    let converted = convert_recorded(tar, &file, lower, &Limits::default(), record)?;
    let mut rebuilt = RebuiltTar::open(file.try_clone().unwrap(), record_copy).unwrap();
    assert_eq!(rebuilt.tar_bytes(), tar.len() as u64);
    let mut again = Vec::new();
    rebuilt.read_to_end(&mut again).unwrap();
    assert!(again == tar, "the tar is rebuilt to the byte");
    assert_eq!(
        converted.tar_bytes,
        tar.len() as u64,
        "the tar is read to its end"
    );
    assert_eq!(converted.image_bytes, file.metadata().unwrap().len());
    Ok((converted, file))
}

/// Converts a layer that has none below it, and has fsck.erofs look at it.
fn image(archive: Archive) -> (Converted, Reader) {
    let (converted, file) = convert_over(&archive.finish(), &LowerLayers::none()).unwrap();
    fsck(&file);
    (converted, Reader::open(file).unwrap())
}

fn refusal(archive: Archive) -> Error {
    convert_over(&archive.finish(), &LowerLayers::none())
        .map(|(converted, _)| converted)
        .unwrap_err()
}

#[track_caller]
fn assert_refused(archive: Archive, expected: Problem) {
    match refusal(archive) {
        Error::Entry { source, .. } => assert_eq!(source, expected),
        other => panic!("refused for another reason: {other:?}"),
    }
}

/// Runs Debian's fsck.erofs. If it is not installed, this fails in CI only.
fn fsck(image: &File) {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    match Command::new("fsck.erofs").arg(path).output() {
        Ok(output) => assert!(output.status.success(), "fsck.erofs: {output:?}"),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("not checked by fsck.erofs: {error}")
        }
        Err(error) => panic!("fsck.erofs: {error}"),
    }
}

fn node(reader: &Reader, path: &str) -> Node {
    reader
        .lookup(path.as_bytes())
        .unwrap()
        .unwrap_or_else(|| panic!("{path} is not there"))
}

fn exists(reader: &Reader, path: &str) -> bool {
    reader.lookup(path.as_bytes()).unwrap().is_some()
}

fn contents(reader: &Reader, path: &str) -> Vec<u8> {
    let node = node(reader, path);
    let mut bytes = vec![0xaa; node.size() as usize];
    assert_eq!(reader.read_at(&node, &mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn is_whiteout(reader: &Reader, path: &str) -> bool {
    node(reader, path).kind == NodeKind::CharDevice(crate::erofs::Device::WHITEOUT)
}

fn is_opaque(reader: &Reader, path: &str) -> bool {
    node(reader, path)
        .metadata
        .xattrs
        .get(b"trusted.overlay.opaque")
        == Some(b"y")
}
