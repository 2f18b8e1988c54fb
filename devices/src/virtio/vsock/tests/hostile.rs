//! A guest that lies, and what it can make the device hold.

use std::io::Read;

use super::guest::{Guest, expect_end};
use crate::virtio::vsock::Worker;
use crate::virtio::vsock::spec::{Header, Op, TX};
use crate::virtio::vsock::worker::{LARGE_BUFFER, MANY, MAX_CONNECTIONS, MAX_RESETS, SMALL_BUFFER};

/// Takes the worker off the main loop, for a look at what it holds.
fn worker(guest: &mut Guest) -> Worker {
    while guest.tx_in_flight > 0 {
        guest.driver.wait_used(TX);
        guest.tx_in_flight -= 1;
    }
    guest.driver.stopped_by_hand();
    guest.driver.device.running.take().unwrap().stop()
}

#[test]
fn all_that_a_guest_can_make_the_device_hold_is_128_mib() {
    let buffers = MANY * LARGE_BUFFER as usize + (MAX_CONNECTIONS - MANY) * SMALL_BUFFER as usize;
    assert!(buffers + MAX_RESETS * size_of::<Header>() <= 128 << 20);
}

#[test]
fn connections_that_come_and_go_without_receive_buffers_leave_nothing() {
    let mut guest = Guest::new();
    for round in 0..1000 {
        let stream = guest.offer(7);
        guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
        // Reset by the guest, or by the device for what it sends.
        let op = if round % 2 == 0 { Op::RST } else { Op(99) };
        guest.send(Guest::header(9, 7, op), &[]);
        if round / 2 < MAX_RESETS {
            expect_end(&stream);
        } else {
            // The device holds as many resets as it holds, and looks at nothing more.
            break;
        }
    }
    guest.tx_in_flight = 0;
    let worker = worker(&mut guest);
    assert!(worker.due.is_empty(), "{} are due", worker.due.len());
    assert!(worker.resets.len() <= MAX_RESETS);
    assert!(worker.table.len() <= 1);
}

#[test]
fn a_buffer_that_fills_in_small_pieces_is_no_larger_than_it_says() {
    let mut guest = Guest::receiving();
    let mut stream = guest.connect(9, 7);
    // Until the stream is full, and then until its buffer is.
    let mut sent = 0;
    for round in 0.. {
        let len = 1 + round * 7 % 4000;
        guest.send_data(9, 7, &vec![1; len]);
        if guest
            .try_receive()
            .is_some_and(|packet| packet.header.op == Op::RST)
        {
            break;
        }
        sent += len;
    }
    let worker = worker(&mut guest);
    let held = worker.table.held();
    assert!(held.0 >= LARGE_BUFFER as usize - 4000, "{held:?}");
    assert!(held.1 <= LARGE_BUFFER as usize, "{held:?}");
    drop(worker);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() <= sent);
}

#[test]
fn a_guest_without_room_is_sent_nothing_and_asked_once() {
    let mut guest = Guest::receiving();
    let stream = guest.offer(7);
    super::write(&stream, b"data");
    let nothing = Header {
        buf_alloc: 0,
        ..Guest::header(9, 7, Op::REQUEST)
    };
    guest.send(nothing, &[]);
    guest.expect(9, 7, Op::RESPONSE);
    guest.expect(9, 7, Op::CREDIT_REQUEST);
    // It has been given 4 GiB, or taken more than was ever sent: neither is room.
    for fwd_cnt in [1, 4, u32::MAX / 2, u32::MAX] {
        let lie = Header {
            op: Op::CREDIT_UPDATE,
            fwd_cnt,
            ..nothing
        };
        guest.send(lie, &[]);
    }
    guest.expect_silence();
}

#[test]
fn requests_by_the_thousand_are_answered_one_by_one() {
    let mut guest = Guest::receiving();
    for port in 0..5000 {
        guest.send(Guest::header(port, port % 7, Op::REQUEST), &[]);
        guest.expect(port, port % 7, Op::RST);
    }
    let worker = worker(&mut guest);
    assert_eq!((worker.table.len(), worker.resets.len()), (0, 0));
}
