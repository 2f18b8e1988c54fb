use std::io::{PipeReader, Read};

use super::*;
use crate::virtio::testing::{Buffer, Driver};

fn console() -> (Console, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (
        Console::new(Output::new(Some(writer.into())).unwrap()),
        reader,
    )
}

fn seen(reader: &mut PipeReader) -> Vec<u8> {
    let mut bytes = [0; 256];
    let count = reader.read(&mut bytes).unwrap();
    bytes[..count].to_vec()
}

#[test]
fn what_the_guest_sends_is_written_out() {
    let (console, mut reader) = console();
    let mut driver = Driver::new(console);
    let (first, second) = (driver.readable(b"hello, "), driver.readable(b"host\n"));
    assert_eq!(driver.submit(TRANSMIT, &[first, second]).len, 0);
    assert_eq!(seen(&mut reader), b"hello, host\n");
}

#[test]
fn receive_buffers_stay_with_the_device() {
    let (console, mut reader) = console();
    let mut driver = Driver::new(console);
    let buffer = driver.writable(64);
    driver.queues[RECEIVE].add(&[buffer]);
    driver.queues[RECEIVE].kick();
    let line = driver.readable(b"x\n");
    driver.submit(TRANSMIT, &[line]);
    assert_eq!(seen(&mut reader), b"x\n");
    assert_eq!(driver.queues[RECEIVE].next_used(), None);
}

#[test]
fn output_from_outside_of_memory_is_a_fault() {
    let (console, mut reader) = console();
    let mut driver = Driver::new(console);
    driver.expect_fault(TRANSMIT, &[Buffer::readable(u64::MAX, 16)]);
    let line = driver.readable(b"x\n");
    driver.submit(TRANSMIT, &[line]);
    assert_eq!(seen(&mut reader), b"x\n");
}

#[test]
fn an_endless_buffer_is_cut() {
    let (console, _reader) = console();
    let mut driver = Driver::new(console);
    let buffer = driver.readable(&vec![b'x'; 1 << 20]);
    driver.submit(TRANSMIT, &[buffer; 16]);
}

#[test]
fn a_device_saved_with_lines_waiting_is_rebuilt_and_writes_them() {
    let (console, mut reader) = console();
    let mut driver = Driver::new(console);
    let states = driver.stop();
    let line = driver.readable(b"after\n");
    driver.queues[TRANSMIT].add(&[line]);
    let output = driver.device.output.clone();
    driver.device = Console::new(output);
    driver.start(&states);
    driver.wait_used(TRANSMIT);
    assert_eq!(seen(&mut reader), b"after\n");
}
