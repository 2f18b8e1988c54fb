use super::*;
use crate::virtio::testing::{Buffer, Driver};

#[test]
fn a_request_is_filled_with_random_bytes() {
    let mut driver = Driver::new(Rng::new());
    let buffer = driver.writable(64);
    assert_eq!(driver.submit(0, &[buffer]).len, 64);
    assert_ne!(driver.bytes(buffer), [0xee; 64]);
    assert_eq!(driver.interrupts(), 1);
}

#[test]
fn a_huge_request_gets_a_bounded_answer() {
    let mut driver = Driver::new(Rng::new());
    let buffer = driver.writable(1 << 20);
    assert_eq!(driver.submit(0, &[buffer]).len as usize, MAX_BYTES);
    assert_eq!(
        driver.bytes(buffer)[MAX_BYTES..],
        vec![0xee; (1 << 20) - MAX_BYTES]
    );
}

#[test]
fn a_request_to_be_written_with_nothing_is_a_fault() {
    let mut driver = Driver::new(Rng::new());
    driver.expect_fault(0, &[Buffer::writable(1 << 40, 16)]);
    let readable = driver.readable(b"not for writing");
    driver.expect_fault(0, &[readable]);
    assert_eq!(driver.bytes(readable), b"not for writing");
    let buffer = driver.writable(8);
    assert_eq!(driver.submit(0, &[buffer]).len, 8);
}

#[test]
fn a_device_saved_with_requests_waiting_is_rebuilt_and_serves_them() {
    let mut driver = Driver::new(Rng::new());
    let first = driver.writable(8);
    driver.submit(0, &[first]);
    let states = driver.stop();
    let second = driver.writable(8);
    driver.queues[0].add(&[second]);
    driver.device = Rng::new();
    driver.start(&states);
    assert_eq!(driver.wait_used(0).len, 8);
    assert_ne!(driver.bytes(second), [0xee; 8]);
}
