use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::spec::Range;
use super::*;
use crate::virtio::testing::{Buffer, Driver, EVENT_IDX, REGION_BORDER, VERSION_1};

mod extents;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// A file of `sectors` sectors, each filled with its number, counted from `first`.
fn numbered(first: u8, sectors: u8) -> Extent {
    let mut file = tempfile::tempfile().unwrap();
    for number in 0..sectors {
        file.write_all(&[first + number; 512]).unwrap();
    }
    Extent {
        file,
        len_bytes: u64::from(sectors) * 512,
    }
}

fn disk(extents: Vec<Extent>, read_only: bool) -> Block {
    let serial = "layers".to_owned();
    Block::new(BlockConfig {
        serial,
        read_only,
        extents,
        align_bytes: 4096,
        min_len_bytes: 0,
    })
    .unwrap()
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}

/// One request with its data in one buffer: its status and used length.
fn request(driver: &mut Driver<Block>, header: &[u8], data: Option<Buffer>) -> (u8, u32) {
    let header = driver.readable(header);
    let status = driver.writable(1);
    let mut chain = vec![header];
    chain.extend(data);
    chain.push(status);
    let used = driver.submit(0, &chain);
    (driver.bytes(status)[0], used.len)
}

fn read(driver: &mut Driver<Block>, sector: u64, len: usize) -> (u8, Vec<u8>) {
    let data = driver.writable(len);
    let (status, _) = request(driver, &header(0, sector), Some(data));
    (status, driver.bytes(data))
}

fn write(driver: &mut Driver<Block>, sector: u64, bytes: &[u8]) -> u8 {
    let data = driver.readable(bytes);
    request(driver, &header(1, sector), Some(data)).0
}

fn ranges(driver: &mut Driver<Block>, kind: u32, ranges: &[u8]) -> u8 {
    let data = driver.readable(ranges);
    request(driver, &header(kind, 0), Some(data)).0
}

#[test]
fn extents_are_read_as_one_disk_with_zeros_between_them() {
    let mut driver = Driver::new(disk(
        vec![numbered(1, 3), numbered(10, 9), numbered(30, 1)],
        true,
    ));
    let config: [u8; config::LEN] = driver.config();
    assert_eq!(
        config[..8],
        25u64.to_le_bytes(),
        "three extents at sectors 0, 8 and 24"
    );
    let (status, bytes) = read(&mut driver, 0, 25 * 512);
    assert_eq!(status, OK);
    let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
    let mut expected = vec![1, 2, 3, 0, 0, 0, 0, 0, 10, 11, 12, 13, 14, 15, 16, 17, 18];
    expected.extend([0; 7]);
    expected.push(30);
    assert_eq!(sectors, expected);
    assert!(
        bytes
            .chunks(512)
            .all(|sector| sector.iter().all(|&byte| byte == sector[0]))
    );
    assert_eq!(read(&mut driver, 4, 512), (OK, vec![0; 512]));
}

#[test]
fn what_is_written_in_many_odd_pieces_is_read_back() {
    let mut driver = Driver::new(disk(vec![numbered(0, 16)], false));
    let bytes: Vec<u8> = (0..2048u32).map(|i| i as u8 ^ (i >> 8) as u8).collect();
    let header = driver.readable(&header(1, 3));
    let mut chain = vec![header];
    for piece in [
        &bytes[..1],
        &bytes[1..700],
        &bytes[700..1536],
        &bytes[1536..],
    ] {
        chain.push(driver.readable(piece));
    }
    let status = driver.writable(1);
    chain.push(status);
    assert_eq!(driver.submit(0, &chain).len, 1);
    assert_eq!(driver.bytes(status), [OK]);
    assert_eq!(read(&mut driver, 3, 2048), (OK, bytes));
    assert_eq!(read(&mut driver, 7, 512), (OK, vec![7; 512]));
}

#[test]
fn header_data_and_status_may_share_buffers_and_regions() {
    let mut driver = Driver::new(disk(vec![numbered(40, 8)], true));
    let head = header(0, 2);
    let first = driver.readable(&head[..5]);
    let second = driver.readable(&head[5..]);
    // One writable buffer across the border of two memory regions, with the status as its last byte.
    let data = Buffer::writable(REGION_BORDER - 100, 513);
    let table = driver.alloc(64);
    driver.queues[0].add_indirect(table, &[first, second, data]);
    driver.queues[0].kick();
    assert_eq!(driver.wait_used(0).len, 513);
    let bytes = driver.bytes(data);
    assert_eq!(bytes[..512], [42; 512]);
    assert_eq!(bytes[512], OK);
}

#[test]
fn requests_beyond_the_end_or_of_odd_length_fail() {
    let mut driver = Driver::new(disk(vec![numbered(1, 8)], false));
    for (sector, len) in [
        (8, 512),
        (7, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512, 512),
        (0, 100),
    ] {
        let (status, bytes) = read(&mut driver, sector, len);
        assert_eq!(status, IOERR, "read of {len} bytes at sector {sector}");
        assert_eq!(bytes, vec![0xee; len], "nothing is written on failure");
        assert_eq!(write(&mut driver, sector, &vec![9; len]), IOERR);
    }
    assert_eq!(read(&mut driver, 7, 512), (OK, vec![8; 512]));
}

#[test]
fn a_request_of_more_data_than_its_buffers_may_hold_fails() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    let len_bytes = 1 << 30;
    let mut driver = Driver::new(disk(vec![Extent { file, len_bytes }], true));
    let head = driver.readable(&header(0, 0));
    let status = driver.writable(1);
    // The same memory many times over, in an indirect table.
    let mut chain = vec![head];
    chain.extend([Buffer::writable(REGION_BORDER - (4 << 20), 8 << 20); 32]);
    chain.push(status);
    let table = driver.alloc(16 * chain.len());
    driver.queues[0].add_indirect(table, &chain);
    driver.queues[0].kick();
    driver.wait_used(0);
    assert_eq!(driver.bytes(status), [IOERR]);
    assert_eq!(read(&mut driver, 0, 512), (OK, vec![0; 512]));
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let extent = numbered(1, 8);
    let file = extent.file.try_clone().unwrap();
    let mut driver = Driver::new(disk(vec![extent], true));
    assert_eq!(driver.device.features() & feature::RO, feature::RO);
    assert_eq!(write(&mut driver, 0, &[9; 512]), IOERR);
    assert_eq!(ranges(&mut driver, 11, &range(0, 8, 0)), IOERR);
    assert_eq!(ranges(&mut driver, 13, &range(0, 8, 0)), IOERR);
    assert_eq!(
        request(&mut driver, &header(4, 0), None),
        (OK, 1),
        "there is nothing to flush"
    );
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [1; 512]);
}

#[test]
fn the_serial_and_unknown_requests_are_answered() {
    let mut driver = Driver::new(disk(vec![numbered(1, 8)], false));
    let id = driver.writable(20);
    assert_eq!(request(&mut driver, &header(8, 0), Some(id)), (OK, 21));
    assert_eq!(driver.bytes(id), b"layers\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(request(&mut driver, &header(4, 0), None), (OK, 1));
    for unknown in [2, 3, 14, 0xffff_ffff] {
        assert_eq!(request(&mut driver, &header(unknown, 0), None), (UNSUPP, 1));
    }
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros() {
    let sparse = tempfile::tempfile().unwrap();
    sparse.write_all_at(&vec![7; 1 << 20], 0).unwrap();
    let file = sparse.try_clone().unwrap();
    let mut driver = Driver::new(disk(
        vec![Extent {
            file: sparse,
            len_bytes: 1 << 20,
        }],
        false,
    ));
    let blocks = file.metadata().unwrap().blocks();
    assert_eq!(
        ranges(
            &mut driver,
            11,
            &[range(0, 1024, 0), range(1032, 8, 0)].concat()
        ),
        OK
    );
    assert!(
        file.metadata().unwrap().blocks() <= blocks - 1024,
        "the space was given back"
    );
    assert_eq!(
        read(&mut driver, 1023, 1024),
        (OK, [[0; 512], [7; 512]].concat())
    );
    assert_eq!(ranges(&mut driver, 13, &range(1100, 3, 0)), OK);
    assert_eq!(ranges(&mut driver, 13, &range(1200, 8, Range::UNMAP)), OK);
    assert_eq!(
        read(&mut driver, 1099, 5 * 512)
            .1
            .iter()
            .filter(|&&byte| byte == 0)
            .count(),
        3 * 512
    );
    assert_eq!(read(&mut driver, 1200, 4096), (OK, vec![0; 4096]));
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
}

#[test]
fn ranges_that_overflow_or_exceed_the_limits_are_refused() {
    let mut driver = Driver::new(disk(vec![numbered(5, 16)], false));
    for kind in [11, 13] {
        for bad in [
            range(0, 17, 0),
            range(u64::MAX, 1, 0),
            range(u64::MAX - 3, 8, 0),
            range(u64::MAX / 512, 8, 0),
            range(0, u32::MAX, 0),
            [range(0, 8, 0), range(16, 1, 0)].concat(),
            vec![0; 15],
            vec![],
            range(0, 1, 0).repeat(17),
        ] {
            assert_eq!(ranges(&mut driver, kind, &bad), IOERR, "{bad:?}");
        }
        assert_eq!(ranges(&mut driver, kind, &range(0, 8, 2)), UNSUPP);
    }
    assert_eq!(
        ranges(&mut driver, 11, &range(0, 8, 1)),
        UNSUPP,
        "discard has no flags"
    );
    assert_eq!(
        read(&mut driver, 0, 512),
        (OK, vec![5; 512]),
        "no range was touched"
    );
}

#[test]
fn a_request_without_header_or_status_is_a_fault() {
    let mut driver = Driver::new(disk(vec![numbered(5, 16)], false));
    let head = driver.readable(&header(0, 0));
    let short = driver.readable(&header(0, 0)[..15]);
    let data = driver.writable(512);
    let status = driver.writable(1);
    let empty = Buffer::writable(0x1000, 0);
    for chain in [
        &[data, head, status][..],
        &[short, data, status],
        &[head],
        &[head, empty],
        &[status],
        &[empty],
    ] {
        driver.expect_fault(0, chain);
    }
    assert_eq!(read(&mut driver, 1, 512), (OK, vec![6; 512]));
}

#[test]
fn a_batch_gets_one_interrupt_and_event_idx_is_honoured() {
    let block = disk(vec![numbered(1, 16)], false);
    let features = block.features() | VERSION_1 | EVENT_IDX;
    let mut driver = Driver::with_features(block, features);
    // The driver wants to hear of the fourth chain, not of the first three.
    driver.queues[0].set_used_event(3);
    let head = driver.readable(&header(0, 0));
    for round in 1..=4u16 {
        let data = driver.writable(512);
        let status = driver.writable(1);
        driver.submit(0, &[head, data, status]);
        driver.wait_until("the device waits for kicks", |driver| {
            driver.queues[0].avail_event() == round
        });
        assert_eq!(driver.interrupts(), u64::from(round == 4), "round {round}");
    }
    assert_eq!(driver.take_status(), 1);
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    let mut driver = Driver::new(disk(vec![numbered(1, 16)], false));
    driver.queues[0].set_interrupts_unwanted(true);
    read(&mut driver, 0, 512);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(driver.interrupts(), 0);
    driver.queues[0].set_interrupts_unwanted(false);
    read(&mut driver, 0, 512);
    driver.wait_until("an interrupt comes", |driver| driver.interrupts() > 0);
}

#[test]
fn a_saved_queue_is_finished_by_a_rebuilt_device() {
    let extent = numbered(1, 16);
    let file = extent.file.try_clone().unwrap();
    let mut driver = Driver::new(disk(vec![extent], false));
    assert_eq!(write(&mut driver, 0, &[9; 512]), OK);
    let states = driver.stop();
    // While the device is stopped, the driver adds two requests and kicks; the kick is lost with the old device.
    let head = driver.readable(&header(0, 0));
    let (first, second) = (driver.writable(512), driver.writable(512));
    let status = driver.writable(1);
    for data in [first, second] {
        driver.queues[0].add(&[head, data, status]);
    }
    assert_eq!(driver.queues[0].next_used(), None);
    let extent = Extent {
        file,
        len_bytes: 16 * 512,
    };
    driver.device = disk(vec![extent], false);
    driver.start(&states);
    for data in [first, second] {
        assert_eq!(driver.wait_used(0).len, 513);
        assert_eq!(driver.bytes(data), [9; 512]);
    }
}

#[test]
fn a_device_can_be_stopped_and_started_many_times_under_load() {
    let mut driver = Driver::new(disk(vec![numbered(1, 16)], false));
    let head = driver.readable(&header(0, 3));
    let data = driver.writable(512);
    let status = driver.writable(1);
    for _ in 0..200 {
        for _ in 0..4 {
            driver.queues[0].add(&[head, data, status]);
        }
        driver.queues[0].kick();
        let states = driver.stop();
        driver.start(&states);
        for _ in 0..4 {
            assert_eq!(driver.wait_used(0).len, 513);
        }
    }
}

#[test]
fn without_flush_negotiated_a_write_is_still_answered() {
    let block = disk(vec![numbered(1, 16)], false);
    let features = (block.features() | VERSION_1) & !feature::FLUSH;
    let mut driver = Driver::with_features(block, features);
    assert_eq!(write(&mut driver, 2, &[9; 1024]), OK);
    assert_eq!(ranges(&mut driver, 13, &range(2, 1, 0)), OK);
    assert_eq!(
        read(&mut driver, 2, 1024),
        (OK, [[0; 512], [9; 512]].concat())
    );
}

#[test]
fn the_hosts_errors_reach_the_guest_as_io_errors() {
    let extent = numbered(1, 16);
    let truncated = extent.file.try_clone().unwrap();
    let mut driver = Driver::new(disk(vec![extent], false));
    truncated.set_len(1024).unwrap();
    assert_eq!(
        read(&mut driver, 1, 1024).0,
        IOERR,
        "the file is shorter than it was"
    );
    assert_eq!(read(&mut driver, 1, 512), (OK, vec![2; 512]));
}

#[test]
fn what_cannot_be_a_disk_is_refused() {
    let make = |serial: &str, extents, align_bytes| {
        Block::new(BlockConfig {
            serial: serial.to_owned(),
            read_only: true,
            extents,
            align_bytes,
            min_len_bytes: 0,
        })
        .map(|_| ())
        .unwrap_err()
    };
    assert!(matches!(
        make("a serial of 21 bytes.", vec![], 512),
        Error::Serial
    ));
    for align in [0, 256, 513] {
        assert!(matches!(
            make("", vec![], align),
            Error::Disk(disk::Error::Alignment(_))
        ));
    }
    let mut odd = numbered(1, 2);
    odd.len_bytes -= 1;
    assert!(matches!(
        make("", vec![odd], 512),
        Error::Disk(disk::Error::Length(1023))
    ));
    let mut long = numbered(1, 2);
    long.len_bytes += 512;
    assert!(matches!(
        make("", vec![long], 512),
        Error::Disk(disk::Error::Short { .. })
    ));
    let device = Extent {
        file: std::fs::File::open("/dev/null").unwrap(),
        len_bytes: 512,
    };
    assert!(matches!(
        make("", vec![device], 512),
        Error::Disk(disk::Error::NotAFile)
    ));
}

#[test]
fn accesses_outside_the_configuration_read_as_zero() {
    let driver = Driver::new(disk(vec![numbered(1, 8)], false));
    let mut bytes = [0xaa; 8];
    for offset in [60, 1000, u64::MAX] {
        driver.device.read_config(offset, &mut bytes);
        assert_eq!(bytes, [0; 8]);
    }
    driver.device.read_config(7, &mut bytes[..3]);
    assert_eq!(bytes[..3], [0, 0, 0]);
}
