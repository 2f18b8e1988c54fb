use std::io::{Read, Write};
use std::net::Shutdown;

use self::guest::{GUEST_BUFFER, Guest, expect_end, read, write};
use super::spec::{Header, Op, TX, Type, shutdown};
use super::*;
use crate::virtio::testing::{Buffer, Driver};

mod guest;
mod hostile;
mod load;
mod loss;

#[test]
fn bytes_flow_both_ways_on_an_offered_stream() {
    let mut guest = Guest::receiving();
    let stream = guest.connect(5000, 1024);
    guest.send_data(5000, 1024, b"hello, host");
    assert_eq!(read(&stream, 11), b"hello, host");
    write(&stream, b"hello, guest");
    assert_eq!(guest.expect(5000, 1024, Op::RW).data, b"hello, guest");
    guest.expect_silence();
}

#[test]
fn an_offered_stream_is_taken_once_and_no_other_port_answers() {
    let mut guest = Guest::receiving();
    let _stream = guest.connect(5000, 1024);
    for (guest_port, host_port) in [(5001, 1024), (5001, 1025), (5001, 0), (5001, u32::MAX)] {
        guest.send(Guest::header(guest_port, host_port, Op::REQUEST), &[]);
        guest.expect(guest_port, host_port, Op::RST);
    }
    let again = guest.offer(1024);
    assert!(matches!(
        guest.offers.offer(1024, again.try_clone().unwrap().into()),
        Err(OfferError::Taken(1024))
    ));
    guest.send(Guest::header(5001, 1024, Op::REQUEST), &[]);
    guest.expect(5001, 1024, Op::RESPONSE);
}

#[test]
fn bytes_that_waited_in_the_stream_come_after_the_response() {
    let mut guest = Guest::receiving();
    let stream = guest.offer(7);
    write(&stream, b"early");
    drop(stream);
    guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
    guest.expect(9, 7, Op::RESPONSE);
    assert_eq!(guest.expect(9, 7, Op::RW).data, b"early");
    let end = guest.expect(9, 7, Op::SHUTDOWN).header.flags;
    assert_ne!(end & shutdown::SEND, 0);
}

#[test]
fn the_host_sends_no_more_than_the_guest_has_room_for() {
    let mut guest = Guest::receiving();
    let stream = guest.offer(7);
    write(&stream, b"0123456789abcdef");
    let small = Header {
        buf_alloc: 10,
        ..Guest::header(9, 7, Op::REQUEST)
    };
    guest.send(small, &[]);
    guest.expect(9, 7, Op::RESPONSE);
    assert_eq!(guest.expect(9, 7, Op::RW).data, b"0123456789");
    guest.expect(9, 7, Op::CREDIT_REQUEST);
    // An answer without credit is not asked again, and a count beyond what was sent is not believed.
    let answer = Header {
        buf_alloc: 10,
        ..Guest::header(9, 7, Op::CREDIT_UPDATE)
    };
    guest.send(answer, &[]);
    guest.send(
        Header {
            fwd_cnt: 11,
            ..answer
        },
        &[],
    );
    guest.send(
        Header {
            fwd_cnt: u32::MAX,
            ..answer
        },
        &[],
    );
    guest.expect_silence();
    guest.send(
        Header {
            fwd_cnt: 4,
            ..answer
        },
        &[],
    );
    assert_eq!(guest.expect(9, 7, Op::RW).data, b"abcd");
    guest.expect(9, 7, Op::CREDIT_REQUEST);
    // Nor is one that has been overtaken.
    guest.send(
        Header {
            fwd_cnt: 2,
            ..answer
        },
        &[],
    );
    guest.expect_silence();
    guest.send(
        Header {
            buf_alloc: 12,
            fwd_cnt: 4,
            ..answer
        },
        &[],
    );
    assert_eq!(guest.expect(9, 7, Op::RW).data, b"ef");
}

#[test]
fn what_the_host_does_not_read_waits_and_holds_the_guest_back() {
    let mut guest = Guest::receiving();
    let stream = guest.offer(7);
    guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
    let room = guest.expect(9, 7, Op::RESPONSE).header.buf_alloc as usize;
    // As much as the socketpair takes, and then as much as the connection's buffer takes.
    let mut sent = Vec::new();
    let mut forwarded = 0;
    let mut number = 0u32;
    while sent.len() - forwarded < room {
        let len = (room - (sent.len() - forwarded)).min(60_000);
        let bytes: Vec<u8> = (0..len).map(|i| (i as u32 ^ number) as u8).collect();
        number += 1;
        guest.send_data(9, 7, &bytes);
        sent.extend(bytes);
        guest.driver.wait_used(TX);
        guest.tx_in_flight -= 1;
        while let Some(packet) = guest.try_receive() {
            assert_eq!(packet.header.op, Op::CREDIT_UPDATE);
            forwarded = packet.header.fwd_cnt as usize;
        }
    }
    assert!(sent.len() > room, "the socketpair took something");
    // The host reads: everything arrives in order, and the guest hears of the room.
    assert_eq!(read(&stream, sent.len()), sent);
    let packet = guest.expect(9, 7, Op::CREDIT_UPDATE);
    assert!(packet.header.fwd_cnt as usize > forwarded);
    // The guest asks: the answer is exact.
    guest.send(Guest::header(9, 7, Op::CREDIT_REQUEST), &[]);
    loop {
        let packet = guest.expect(9, 7, Op::CREDIT_UPDATE);
        if packet.header.fwd_cnt as usize == sent.len() {
            break;
        }
    }
}

#[test]
fn a_guest_that_sends_more_than_there_is_room_for_is_reset() {
    let mut guest = Guest::receiving();
    let stream = guest.offer(7);
    guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
    guest.expect(9, 7, Op::RESPONSE);
    let chunk = vec![1; 64 << 10];
    for _ in 0..100 {
        guest.send_data(9, 7, &chunk);
    }
    let mut ops = Vec::new();
    while ops.last() != Some(&Op::RST) {
        ops.push(guest.receive().header.op);
    }
    // The host still gets what fitted, and then the end.
    let mut all = Vec::new();
    (&stream).read_to_end(&mut all).unwrap();
    assert!(all.len() >= 256 << 10);
    assert!(all.iter().all(|&byte| byte == 1));
}

#[test]
fn the_host_may_end_its_direction_and_the_guest_goes_on() {
    let mut guest = Guest::receiving();
    let stream = guest.connect(9, 7);
    write(&stream, b"last");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.expect(9, 7, Op::RW).data, b"last");
    assert_eq!(
        guest.expect(9, 7, Op::SHUTDOWN).header.flags,
        shutdown::SEND
    );
    guest.send_data(9, 7, b"still here");
    assert_eq!(read(&stream, 10), b"still here");
    let both = Header {
        flags: shutdown::RECEIVE | shutdown::SEND,
        ..Guest::header(9, 7, Op::SHUTDOWN)
    };
    guest.send(both, &[]);
    guest.expect(9, 7, Op::RST);
    expect_end(&stream);
    guest.expect_silence();
}

#[test]
fn the_guest_may_end_its_direction_and_the_host_goes_on() {
    let mut guest = Guest::receiving();
    let stream = guest.connect(9, 7);
    guest.send_data(9, 7, b"last");
    guest.send(
        Header {
            flags: shutdown::SEND,
            ..Guest::header(9, 7, Op::SHUTDOWN)
        },
        &[],
    );
    assert_eq!(read(&stream, 4), b"last");
    expect_end(&stream);
    write(&stream, b"an answer");
    assert_eq!(guest.expect(9, 7, Op::RW).data, b"an answer");
    drop(stream);
    assert_eq!(
        guest.expect(9, 7, Op::SHUTDOWN).header.flags & shutdown::SEND,
        shutdown::SEND
    );
    // Data after the end of data breaks the protocol.
    guest.send_data(9, 7, b"no");
    loop {
        match guest.receive().header.op {
            Op::SHUTDOWN => {}
            op => break assert_eq!(op, Op::RST),
        }
    }
}

#[test]
fn a_guest_that_does_not_receive_ends_the_hosts_writes() {
    let mut guest = Guest::receiving();
    let stream = guest.connect(9, 7);
    guest.send(
        Header {
            flags: shutdown::RECEIVE,
            ..Guest::header(9, 7, Op::SHUTDOWN)
        },
        &[],
    );
    guest
        .driver
        .wait_until("the host's writes fail", |_| (&stream).write(b"x").is_err());
    guest.send_data(9, 7, b"yet it sends");
    assert_eq!(read(&stream, 12), b"yet it sends");
}

#[test]
fn a_host_that_closes_is_reported_in_both_directions() {
    let mut guest = Guest::receiving();
    drop(guest.connect(9, 7));
    let mut flags = guest.expect(9, 7, Op::SHUTDOWN).header.flags;
    if flags != shutdown::SEND | shutdown::RECEIVE {
        flags = guest.expect(9, 7, Op::SHUTDOWN).header.flags;
    }
    assert_eq!(flags, shutdown::SEND | shutdown::RECEIVE);
    // What the guest sends before it has heard of that is dropped, and counts as received.
    guest.send_data(9, 7, &[1; 60_000]);
    guest.send(Guest::header(9, 7, Op::CREDIT_REQUEST), &[]);
    assert_eq!(guest.expect(9, 7, Op::CREDIT_UPDATE).header.fwd_cnt, 60_000);
    guest.send(Guest::header(9, 7, Op::RST), &[]);
    guest.expect_silence();
}

#[test]
fn a_guest_that_closes_at_once_still_delivers_what_it_sent() {
    let mut guest = Guest::receiving();
    let stream = guest.connect(9, 7);
    // More than the socketpair holds.
    let mut sent = 0;
    for _ in 0..4 {
        guest.send_data(9, 7, &[5; 60_000]);
        sent += 60_000;
    }
    let both = Header {
        flags: shutdown::RECEIVE | shutdown::SEND,
        ..Guest::header(9, 7, Op::SHUTDOWN)
    };
    guest.send(both, &[]);
    while guest.receive().header.op != Op::RST {}
    // The same ports can be used again while the rest waits for the host.
    let second = guest.connect(9, 7);
    guest.send_data(9, 7, b"new");
    assert_eq!(read(&second, 3), b"new");
    assert_eq!(read(&stream, sent), vec![5; sent]);
    expect_end(&stream);
}

#[test]
fn packets_that_break_the_protocol_are_reset_or_ignored() {
    let mut guest = Guest::receiving();
    let plain = Guest::header(9, 7, Op::REQUEST);
    // Reset: not a connection, or no such type or context.
    for (header, src_cid) in [
        (Guest::header(9, 7, Op::RW), 2),
        (Guest::header(9, 7, Op::RESPONSE), 2),
        (Guest::header(9, 7, Op(99)), 2),
        (Guest::header(9, 7, Op(0)), 2),
    ] {
        guest.send(header, &[]);
        assert_eq!(guest.expect(9, 7, Op::RST).header.src_cid, src_cid);
    }
    guest.send(
        Header {
            kind: Type(2),
            ..plain
        },
        &[],
    );
    assert_eq!(guest.expect(9, 7, Op::RST).header.kind, Type(2));
    // Ignored: a reset of nothing, another guest's packet, fewer bytes than announced.
    guest.send(Guest::header(9, 7, Op::RST), &[]);
    guest.send(
        Header {
            src_cid: 4,
            ..plain
        },
        &[],
    );
    guest.send(Header { len: 1, ..plain }, &[]);
    guest.send(
        Header {
            len: u32::MAX,
            ..plain
        },
        &[0; 100],
    );
    guest.expect_silence();
    // A connection that receives nonsense is reset, and its stream ends.
    for op in [Op::REQUEST, Op::RESPONSE, Op(0), Op(8), Op(u16::MAX)] {
        let stream = guest.connect(9, 7);
        guest.send(Guest::header(9, 7, op), &[]);
        guest.expect(9, 7, Op::RST);
        expect_end(&stream);
    }
    // Bytes behind the announced ones are not data.
    let stream = guest.connect(9, 7);
    guest.send(
        Header {
            len: 2,
            ..Guest::header(9, 7, Op::RW)
        },
        b"abcd",
    );
    guest.send_data(9, 7, b"ef");
    assert_eq!(read(&stream, 4), b"abef");
}

#[test]
fn chains_without_room_for_a_header_come_back_empty() {
    let mut guest = Guest::new();
    let header = guest
        .driver
        .readable(&Guest::header(9, 7, Op::REQUEST).encode());
    let short = Buffer { len: 43, ..header };
    assert_eq!(guest.driver.submit(TX, &[short]).len, 0);
    // Too small for a header. Then a usable one, and one without room for data.
    let stream = guest.offer(7);
    write(&stream, b"data");
    let small = guest.driver.writable(43);
    let exact = guest.driver.writable(44);
    let roomy = guest.driver.writable(64);
    for chain in [small, exact, exact, roomy] {
        guest.driver.queues[RX].add(&[chain]);
    }
    guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
    let used: Vec<u32> = (0..4).map(|_| guest.driver.wait_used(RX).len).collect();
    assert_eq!(used, [0, 44, 0, 48]);
}

#[test]
fn resets_without_receive_buffers_hold_the_guest_back() {
    let mut guest = Guest::new();
    let flood = 600;
    // With no receive buffer, the device stops taking packets long before that.
    let header = guest
        .driver
        .readable(&Guest::header(9, 7, Op::REQUEST).encode());
    let mut taken = 0;
    for _ in 0..16 {
        guest.driver.queues[TX].add(&[header]);
    }
    guest.driver.queues[TX].kick();
    let mut silence = 0;
    while taken < flood && silence < 200 {
        match guest.driver.queues[TX].next_used() {
            Some(_) => {
                (taken, silence) = (taken + 1, 0);
                guest.driver.queues[TX].add(&[header]);
                guest.driver.queues[TX].kick();
            }
            None => {
                silence += 1;
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        }
    }
    assert_eq!(taken, 256);
    // With buffers, every packet is taken and answered.
    guest.post_rx(16);
    for _ in 0..taken + 16 {
        guest.expect(9, 7, Op::RST);
    }
}

#[test]
fn a_restored_device_tells_its_driver_that_connections_are_gone() {
    let mut guest = Guest::receiving();
    let stream = guest.connect(9, 7);
    let state = guest.driver.device.state();
    let queues = guest.driver.stop();
    expect_end(&stream);
    // While the device is stopped, the guest sends.
    let header = guest.driver.readable(&Guest::header(9, 7, Op::RW).encode());
    guest.driver.queues[TX].add(&[header]);
    let (device, offers) = Vsock::restore(state);
    guest.driver.device = device;
    guest.offers = offers;
    let event = guest.driver.writable(4);
    guest.driver.queues[EVENT].add(&[event]);
    guest.driver.start(&queues);
    guest.expect_transport_reset(event);
    guest.expect(9, 7, Op::RST);
    let stream = guest.connect(10, 7);
    guest.send_data(10, 7, b"again");
    assert_eq!(read(&stream, 5), b"again");
}

#[test]
fn the_event_waits_for_a_buffer() {
    let (device, offers) = Vsock::restore(VsockState { guest_cid: 3 });
    let mut guest = Guest::with_device(device, offers);
    let small = guest.driver.writable(3);
    let event = guest.driver.writable(4);
    assert_eq!(guest.driver.submit(EVENT, &[small]).len, 0);
    guest.driver.queues[EVENT].add(&[event]);
    guest.driver.queues[EVENT].kick();
    guest.expect_transport_reset(event);
}

#[test]
fn a_stop_ends_every_stream_and_offers_remain() {
    let mut guest = Guest::receiving();
    let stream = guest.connect(9, 7);
    let waiting = guest.offer(8);
    let queues = guest.driver.stop();
    expect_end(&stream);
    guest.driver.start(&queues);
    guest.send(Guest::header(9, 8, Op::REQUEST), &[]);
    guest.expect(9, 8, Op::RESPONSE);
    guest.send_data(9, 8, b"x");
    assert_eq!(read(&waiting, 1), b"x");
}

#[test]
fn the_configuration_is_the_context_id() {
    let (device, _offers) = Vsock::new(77);
    let driver = Driver::new(device);
    assert_eq!(driver.config(), [77, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(GUEST_BUFFER, 256 << 10);
}
