//! Records that are damaged. That good ones rebuild every tar is checked by all of the layer's tests.

use std::io::Write;

use super::*;
use crate::layer::{Limits, LowerLayers, convert_recorded};

/// An image with one file of 8 KiB, its record, and the tar.
fn sample() -> (File, Vec<u8>, Vec<u8>) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(8192);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "file", &[b'x'; 8192][..])
        .unwrap();
    let tar = builder.into_inner().unwrap();
    let (image, record) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut copy = record.try_clone().unwrap();
    let lower = LowerLayers::none();
    convert_recorded(&tar[..], &image, &lower, &Limits::default(), record).unwrap();
    let mut bytes = Vec::new();
    copy.rewind().unwrap();
    copy.read_to_end(&mut bytes).unwrap();
    (image, bytes, tar)
}

fn rebuild(image: &File, record: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(record).unwrap();
    let mut tar = Vec::new();
    RebuiltTar::open(image.try_clone().unwrap(), file)?.read_to_end(&mut tar)?;
    Ok(tar)
}

/// A record with these operations, of a tar of this length.
fn record(tar_bytes: u64, operations: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(tar_bytes.to_le_bytes());
    bytes.extend(zstd::encode_all(operations, 1).unwrap());
    bytes
}

#[track_caller]
fn assert_wrong(result: io::Result<Vec<u8>>, expected: RecordError) {
    let error = result.unwrap_err();
    let source = error.get_ref().unwrap().downcast_ref::<RecordError>();
    assert_eq!(source, Some(&expected));
}

#[test]
fn file_data_is_not_in_the_record() {
    let (image, record, tar) = sample();
    assert!(record.len() < 300, "{} bytes", record.len());
    assert_eq!(rebuild(&image, &record).unwrap(), tar);
}

#[test]
fn a_record_that_is_cut_off_or_of_another_version_is_refused() {
    let (image, good, _) = sample();
    for len in [0, 7, 15, 20, good.len() - 1] {
        assert!(rebuild(&image, &good[..len]).is_err(), "{len} bytes");
    }
    let mut later = good;
    later[7] = b'2';
    assert_wrong(rebuild(&image, &later), RecordError::Magic);
    let bytes = u64::MAX;
    assert_wrong(
        rebuild(&image, &record(bytes, &[])),
        RecordError::Size { bytes },
    );
}

#[test]
fn operations_that_are_malformed_are_refused() {
    let (image, ..) = sample();
    let endless = [0xff; 12];
    let too_big = [
        tag::ZEROS,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        0xff,
        0x02,
    ];
    // A copy that begins before the image, or ends beyond all numbers.
    let before = [tag::COPY, 0xff, 0xff, 0x03, 1];
    let mut beyond = vec![tag::COPY, 0];
    beyond.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    for operations in [&[9][..], &endless, &too_big, &before, &beyond] {
        assert_wrong(
            rebuild(&image, &record(100, operations)),
            RecordError::Operation,
        );
    }
    // A place that the image does not have.
    let error = rebuild(
        &image,
        &record(100, &[tag::COPY, 0x80, 0x80, 0x80, 0x10, 100]),
    );
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_record_makes_just_the_length_that_it_says() {
    let (image, ..) = sample();
    let zeros = [tag::ZEROS, 10];
    assert_eq!(rebuild(&image, &record(10, &zeros)).unwrap(), [0; 10]);
    for stated in [9, 11] {
        let expected = RecordError::Length { expected: stated };
        assert_wrong(rebuild(&image, &record(stated, &zeros)), expected);
    }
}
