//! Extents added to a device, at rest and with requests in flight.

use proptest::prelude::*;

use super::super::disk::Error as DiskError;
use super::*;

/// Sectors of the devices here.
const SECTORS: u64 = 64;
const LEN_BYTES: u64 = SECTORS * 512;

/// A read-only device of [`SECTORS`] sectors, aligned to 4 KiB.
fn layers(extents: Vec<Extent>) -> Block {
    Block::new(BlockConfig {
        serial: "layers".to_owned(),
        read_only: true,
        extents,
        align_bytes: 4096,
        min_len_bytes: LEN_BYTES,
    })
    .unwrap()
}

fn at(offset_bytes: u64, extent: Extent) -> PlacedExtent {
    PlacedExtent {
        offset_bytes,
        extent,
    }
}

#[test]
fn a_gap_reads_as_zeros_until_an_extent_is_added() {
    let mut driver = Driver::new(layers(vec![numbered(1, 3)]));
    let handle = driver.device.handle();
    assert_eq!(handle.serial(), "layers");
    assert_eq!(read(&mut driver, 16, 1024), (OK, vec![0; 1024]));
    driver.interrupts();
    driver.take_status();
    // Not in their order, and two at once.
    handle
        .add(vec![
            at(16 * 512, numbered(20, 2)),
            at(8 * 512, numbered(30, 1)),
        ])
        .unwrap();
    assert_eq!(
        (driver.interrupts(), driver.take_status()),
        (0, 0),
        "the capacity is what it was"
    );
    let config: [u8; config::LEN] = driver.config();
    assert_eq!(config[..8], SECTORS.to_le_bytes());
    let (status, bytes) = read(&mut driver, 0, 18 * 512);
    assert_eq!(status, OK);
    let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
    let expected = [1, 2, 3, 0, 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 20, 21];
    assert_eq!(sectors, expected);
}

#[test]
fn extents_added_while_a_device_is_stopped_are_there_when_it_starts() {
    let mut driver = Driver::new(layers(vec![]));
    let handle = driver.device.handle();
    let states = driver.stop();
    handle.add(vec![at(4096, numbered(7, 1))]).unwrap();
    driver.start(&states);
    assert_eq!(read(&mut driver, 8, 512), (OK, vec![7; 512]));
    // A driver that resets the device and begins anew keeps them.
    driver.reset();
    assert_eq!(read(&mut driver, 8, 512), (OK, vec![7; 512]));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut driver = Driver::new(layers(vec![numbered(1, 9)]));
    let handle = driver.device.handle();
    let refused = |offset_bytes, extent| {
        // Behind one that would fit: neither of the two is taken.
        let fits = at(6 * 4096, numbered(99, 1));
        match handle.add(vec![fits, at(offset_bytes, extent)]) {
            Err(Error::Disk(error)) => error,
            other => panic!("at {offset_bytes}: {other:?}"),
        }
    };
    for offset in [0, 4096] {
        let error = refused(offset, numbered(2, 1));
        assert!(matches!(error, DiskError::Overlap { .. }), "{error}");
    }
    let error = refused(6 * 4096, numbered(2, 1));
    assert!(matches!(error, DiskError::Overlap { .. }), "{error}");
    let error = refused(5 * 4096, numbered(2, 9));
    assert!(matches!(error, DiskError::Overlap { .. }), "{error}");
    for offset in [512, 4095, u64::MAX] {
        let error = refused(offset, numbered(2, 1));
        assert!(matches!(error, DiskError::Unaligned { .. }), "{error}");
    }
    for (offset, sectors) in [(LEN_BYTES, 1), (7 * 4096, 9), (u64::MAX - 4095, 9)] {
        let error = refused(offset, numbered(2, sectors));
        assert!(matches!(error, DiskError::BeyondEnd { .. }), "{error}");
    }
    let mut empty = numbered(2, 1);
    empty.len_bytes = 0;
    assert!(matches!(refused(3 * 4096, empty), DiskError::Length(0)));
    let mut short = numbered(2, 1);
    short.len_bytes = 1024;
    let error = refused(3 * 4096, short);
    assert!(matches!(error, DiskError::Short { .. }), "{error}");
    for sector in [9, 24, 48] {
        assert_eq!(read(&mut driver, sector, 512), (OK, vec![0; 512]));
    }
}

#[test]
fn a_writable_disk_is_never_extended() {
    let block = disk(vec![numbered(1, 1)], false);
    let added = block.handle().add(vec![at(4096, numbered(2, 1))]);
    assert!(matches!(added, Err(Error::Writable)));
}

#[test]
fn the_number_of_extents_is_bounded() {
    let block = Block::new(BlockConfig {
        serial: String::new(),
        read_only: true,
        extents: vec![],
        align_bytes: 512,
        min_len_bytes: 1 << 30,
    })
    .unwrap();
    let handle = block.handle();
    let file = numbered(1, 1).file;
    let one = |index: u64| {
        let extent = Extent {
            file: file.try_clone().unwrap(),
            len_bytes: 512,
        };
        at(index * 512, extent)
    };
    // In several calls, as in several packets.
    for part in 0..4 {
        let indices = part * 256..(part + 1) * 256;
        handle.add(indices.map(one).collect()).unwrap();
    }
    assert!(matches!(
        handle.add(vec![one(4000)]),
        Err(Error::Disk(DiskError::TooMany))
    ));
}

#[test]
fn requests_in_flight_see_zeros_or_the_extent_and_later_ones_the_extent() {
    let mut driver = Driver::new(layers(vec![]));
    let handle = driver.device.handle();
    for number in 0..SECTORS as u8 / 8 {
        let sector = u64::from(number) * 8;
        let head = driver.readable(&header(0, sector));
        let requests: Vec<_> = (0..4)
            .map(|_| (driver.writable(4096), driver.writable(1)))
            .collect();
        for &(data, status) in &requests {
            driver.queues[0].add(&[head, data, status]);
        }
        driver.queues[0].kick();
        handle
            .add(vec![at(sector * 512, numbered(100 + number, 8))])
            .unwrap();
        // As soon as the addition has returned, whatever is under way.
        let expected: Vec<u8> = (0..8u8).flat_map(|i| [100 + number + i; 512]).collect();
        let late = (driver.writable(4096), driver.writable(1));
        driver.queues[0].add(&[head, late.0, late.1]);
        driver.queues[0].kick();
        for (data, status) in requests {
            driver.wait_used(0);
            assert_eq!(driver.bytes(status), [OK]);
            let bytes = driver.bytes(data);
            assert!(bytes == expected || bytes == [0; 4096], "half of an extent");
        }
        driver.wait_used(0);
        assert_eq!(driver.bytes(late.0), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model that fills an array of sectors: an extent is taken if it fits, and every sector is what it was
    /// set to last.
    #[test]
    fn a_device_is_what_a_model_with_an_array_of_sectors_says(
        additions in prop::collection::vec((0..10u64, 0..20u8), 0..12),
    ) {
        let mut driver = Driver::new(layers(vec![]));
        let handle = driver.device.handle();
        let mut model = [0u8; SECTORS as usize];
        for (index, (place, sectors)) in additions.into_iter().enumerate() {
            let first = index as u8 + 1;
            let range = place as usize * 8..place as usize * 8 + usize::from(sectors);
            let fits = sectors > 0
                && model.get(range.clone()).is_some_and(|part| part.iter().all(|&byte| byte == 0));
            let added = handle.add(vec![at(place * 4096, numbered(first, sectors))]);
            prop_assert_eq!(added.is_ok(), fits);
            if fits {
                for (byte, number) in model[range].iter_mut().zip(first..) {
                    *byte = number;
                }
            }
        }
        let (status, bytes) = read(&mut driver, 0, LEN_BYTES as usize);
        prop_assert_eq!(status, OK);
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        prop_assert_eq!(&sectors[..], &model[..]);
    }
}
