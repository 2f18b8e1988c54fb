//! READ and WRITE, which hull-fs never sees.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::peer::transfer_in;
use super::*;
use crate::virtio::testing::REGION_BORDER;

/// Bytes that differ from their neighbours.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8)) as u8).collect()
}

fn file(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// A request with its headers in buffers of their own, as Linux makes it.
fn chain_of(driver: &mut Driver<Fs>, opcode: Opcode, arguments: &[u8], data: usize) -> Vec<Buffer> {
    let mut request = InHeader::request(opcode, 4, 1, arguments);
    let len = (request.len() + data) as u32;
    request[..4].copy_from_slice(&len.to_le_bytes());
    vec![
        driver.readable(&request[..InHeader::LEN]),
        driver.readable(&request[InHeader::LEN..]),
    ]
}

#[test]
fn a_file_is_read_into_many_buffers_and_across_regions() {
    let (mut driver, peer, _) = mounted();
    let bytes = pattern(10_000);
    driver.open(&peer, 7, &file(&bytes));
    let arguments = transfer_in(7, 123, 5000);
    let mut chain = chain_of(&mut driver, Opcode::READ, &arguments, 0);
    let header = driver.writable(OutHeader::LEN);
    let parts = [
        driver.writable(1),
        driver.writable(999),
        Buffer::writable(REGION_BORDER - 1000, 3000),
        // Only as much of it as was asked for.
        driver.writable(3000),
    ];
    chain.push(header);
    chain.extend(parts);
    assert_eq!(driver.submit(1, &chain).len, 16 + 5000);
    let got: Vec<u8> = parts.iter().flat_map(|&part| driver.bytes(part)).collect();
    assert_eq!(got[..5000], bytes[123..5123]);
    assert!(got[5000..].iter().all(|&byte| byte == 0xee));
    assert_eq!(driver.bytes(header)[..8], [0x98, 0x13, 0, 0, 0, 0, 0, 0]);
    assert!(peer.has_nothing());
}

#[test]
fn a_read_ends_with_the_file_or_the_room_for_it() {
    let (mut driver, peer, _) = mounted();
    let bytes = pattern(1000);
    driver.open(&peer, 7, &file(&bytes));
    assert_eq!(driver.read(7, 900, 500), (0, bytes[900..].to_vec()));
    assert_eq!(driver.read(7, 1000, 500), (0, vec![]));
    assert_eq!(driver.read(7, 1 << 40, 500), (0, vec![]));
    let asked = driver.ask(Opcode::READ, 4, &transfer_in(7, 10, 500), 16 + 30);
    assert_eq!(driver.answer(asked), (0, bytes[10..40].to_vec()));
    let asked = driver.ask(Opcode::READ, 4, &transfer_in(7, 10, 500), 16);
    assert_eq!(driver.answer(asked), (0, vec![]));
}

#[test]
fn the_most_data_that_there_may_be_goes_both_ways() {
    let (mut driver, peer, _) = mounted();
    let bytes = pattern(MAX_DATA_BYTES as usize);
    let file = file(&[]);
    driver.open(&peer, 7, &file);
    assert_eq!(driver.write(7, 5, &bytes), Ok(MAX_DATA_BYTES));
    assert_eq!(driver.read(7, 5, MAX_DATA_BYTES), (0, bytes));
    assert_eq!(
        file.metadata().unwrap().len(),
        5 + u64::from(MAX_DATA_BYTES)
    );
}

#[test]
fn many_buffers_are_written_to_a_file() {
    let (mut driver, peer, _) = mounted();
    let bytes = pattern(7000);
    let mut file = file(b"0123456789");
    driver.open(&peer, 7, &file);
    let arguments = transfer_in(7, 3, 6000);
    let mut chain = chain_of(&mut driver, Opcode::WRITE, &arguments, bytes.len());
    for part in [&bytes[..1], &bytes[1..4096], &bytes[4096..]] {
        chain.push(driver.readable(part));
    }
    let (header, answer) = (driver.writable(OutHeader::LEN), driver.writable(8));
    chain.extend([header, answer]);
    assert_eq!(driver.submit(1, &chain).len, 24);
    assert_eq!(driver.bytes(answer), 6000u64.to_le_bytes());
    let mut got = Vec::new();
    file.read_to_end(&mut got).unwrap();
    assert_eq!(got, [b"012", &bytes[..6000]].concat());
}

#[test]
fn what_is_written_to_the_end_of_a_file_stays_there() {
    let (mut driver, peer, _) = mounted();
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), "host ").unwrap();
    let append = File::options().append(true).open(path.path()).unwrap();
    driver.open(&peer, 7, &append);
    assert_eq!(driver.write(7, 0, b"guest"), Ok(5));
    assert_eq!(std::fs::read(path.path()).unwrap(), b"host guest");
}

#[test]
fn what_the_host_refuses_is_refused_with_its_number() {
    let (mut driver, peer, _) = mounted();
    let path = tempfile::NamedTempFile::new().unwrap();
    driver.open(&peer, 1, &File::open(path.path()).unwrap());
    let write_only = File::options().write(true).open(path.path()).unwrap();
    driver.open(&peer, 2, &write_only);
    assert_eq!(driver.write(1, 0, b"x"), Err(EBADF));
    assert_eq!(driver.read(2, 0, 10), (EBADF, vec![]));
    assert_eq!(driver.read(3, 0, 10), (EBADF, vec![]), "no such handle");
    assert_eq!(driver.write(3, 0, b"x"), Err(EBADF));
}

#[test]
fn sizes_and_offsets_that_lie_are_refused() {
    let (mut driver, peer, _) = mounted();
    let file = file(b"as it was");
    driver.open(&peer, 7, &file);
    for (offset, size) in [
        (0, MAX_DATA_BYTES + 1),
        (0, u32::MAX),
        (u64::MAX, 1),
        (u64::MAX, u32::MAX),
        (i64::MAX as u64, 1),
        (1 << 63, 0),
    ] {
        for opcode in [Opcode::READ, Opcode::WRITE] {
            let arguments = [transfer_in(7, offset, size), vec![b'!'; 100]].concat();
            assert_eq!(
                driver.refused(opcode, 4, &arguments),
                EINVAL,
                "{offset} {size}"
            );
        }
    }
    // Data shorter than its size, arguments cut short.
    let arguments = [transfer_in(7, 0, 101), vec![b'!'; 100]].concat();
    assert_eq!(driver.refused(Opcode::WRITE, 4, &arguments), EINVAL);
    for opcode in [Opcode::READ, Opcode::WRITE] {
        assert_eq!(driver.refused(opcode, 4, &[0; 39]), EINVAL);
    }
    // No room for the answer.
    let arguments = [transfer_in(7, 0, 5), b"wrong".to_vec()].concat();
    let asked = driver.ask(Opcode::WRITE, 4, &arguments, 23);
    assert_eq!(driver.answer(asked), (EINVAL, vec![]));
    let mut bytes = [0; 9];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"as it was");
    assert_eq!(file.metadata().unwrap().len(), 9);
}

#[test]
fn a_file_is_closed_with_its_release() {
    let (mut driver, peer, _) = mounted();
    let (mut reader, writer) = std::io::pipe().unwrap();
    // Not a file that hull-fs would pass, but one whose end can be seen.
    driver.open(&peer, 7, &File::from(std::os::fd::OwnedFd::from(writer)));
    let asked = driver.ask(Opcode::RELEASE, 6, &super::super::spec::release_in(7), 16);
    let release = peer.expect(Opcode::RELEASE);
    assert_eq!(release.arguments()[..8], 7u64.to_le_bytes());
    peer.reply(6, &[]);
    assert_eq!(driver.answer(asked), (0, vec![]));
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    assert_eq!(
        reader.read(&mut [0]).unwrap(),
        0,
        "nobody holds the other end"
    );
    assert_eq!(driver.read(7, 0, 10), (EBADF, vec![]));
}
