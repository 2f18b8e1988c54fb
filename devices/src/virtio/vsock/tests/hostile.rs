//! A guest that lies, and what it can make the device hold.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::guest::{Guest, expect_end};
use crate::virtio::vsock::Worker;
use crate::virtio::vsock::spec::{HOST_CID, Header, Op, TX, Type};
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

/// What the guest, or the host at the other end of its streams, does.
#[derive(Debug, Clone)]
enum Step {
    Packet(Header, usize),
    Offer(u32),
    PostRx,
    HostReads(usize, usize),
    HostWrites(usize, usize),
    HostCloses(usize),
}

fn packet() -> impl Strategy<Value = Header> {
    let op = prop_oneof![3 => Just(1), 1 => Just(3), 1 => Just(4), 5 => Just(5), 1 => 0..10u16];
    let kind = prop_oneof![20 => Just(1), 1 => any::<u16>()];
    let cids = prop_oneof![20 => Just((3, HOST_CID)), 1 => (0..5u64, any::<u64>())];
    let credit = (
        prop_oneof![Just(0), Just(1 << 16), any::<u32>()],
        any::<u32>(),
    );
    (op, kind, cids, (0..3u32, 0..4u32), 0..4u32, credit).prop_map(
        |(op, kind, (src_cid, dst_cid), (src_port, dst_port), flags, (buf_alloc, fwd_cnt))| {
            Header {
                src_cid,
                dst_cid,
                src_port,
                dst_port,
                len: 0,
                kind: Type(kind),
                op: Op(op),
                flags,
                buf_alloc,
                fwd_cnt,
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (packet(), 0..60_000usize).prop_map(|(header, len)| Step::Packet(header, len)),
        3 => (0..4u32).prop_map(Step::Offer),
        1 => Just(Step::PostRx),
        2 => (any::<usize>(), 0..100_000usize).prop_map(|(which, len)| Step::HostReads(which, len)),
        2 => (any::<usize>(), 0..100_000usize).prop_map(|(which, len)| Step::HostWrites(which, len)),
        1 => any::<usize>().prop_map(Step::HostCloses),
    ]
}

/// One of the host's ends, if there is any.
fn one_of(streams: &mut [UnixStream], which: usize) -> Option<&mut UnixStream> {
    let count = streams.len().max(1);
    streams.get_mut(which % count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_both_sides_do_the_device_holds_what_it_may_and_goes_on(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut guest = Guest::new();
        let (mut streams, mut rx_posts) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Packet(header, len) => {
                    // The length of the data, or another one.
                    let told = if header.flags == 3 { header.fwd_cnt } else { len as u32 };
                    guest.send(Header { len: told, ..header }, &vec![7; len]);
                }
                Step::Offer(port) => {
                    let (ours, theirs) = UnixStream::pair().unwrap();
                    ours.set_nonblocking(true).unwrap();
                    if guest.offers.offer(port, theirs.into()).is_ok() {
                        streams.push(ours);
                    }
                }
                // Never more than the queue is long: that is another test's fault.
                Step::PostRx => {
                    rx_posts += 1;
                    if rx_posts <= 8 {
                        guest.post_rx(2);
                    }
                }
                // Nothing to read, a full stream and a closed one are all as good.
                Step::HostReads(which, len) => {
                    let _ = one_of(&mut streams, which).map(|stream| stream.read(&mut vec![0; len]));
                }
                Step::HostWrites(which, len) => {
                    let _ = one_of(&mut streams, which).map(|stream| stream.write(&vec![8; len]));
                }
                Step::HostCloses(which) if !streams.is_empty() => {
                    let which = which % streams.len();
                    drop(streams.swap_remove(which));
                }
                Step::HostCloses(_) => {}
            }
        }
        let worker = worker(&mut guest);
        let (held, capacity) = worker.table.held();
        let connections = worker.table.len();
        prop_assert!(connections <= 80 && worker.due.len() <= connections);
        prop_assert!(worker.resets.len() <= MAX_RESETS);
        prop_assert!(held <= capacity && capacity <= connections * LARGE_BUFFER as usize);
    }
}
