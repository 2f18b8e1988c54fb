//! Many connections, and many bytes.

use std::io::{Read, Write};

use super::guest::{GUEST_BUFFER, Guest, expect_end, read};
use crate::virtio::vsock::spec::{Header, Op, shutdown};

#[test]
fn two_thousand_connections_live_at_once() {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limits.maximum,
        ..limits
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let count = limits
        .maximum
        .map_or(2000, |max| 2000.min(max as u32 / 2 - 100));
    let mut guest = Guest::receiving();
    let mut streams = Vec::new();
    for port in 0..count {
        streams.push(guest.connect(port, port));
    }
    for port in 0..count {
        guest.send_data(port, port, &port.to_le_bytes());
    }
    for (port, mut stream) in streams.iter().enumerate() {
        assert_eq!(read(stream, 4), (port as u32).to_le_bytes());
        stream.write_all(&[port as u8]).unwrap();
    }
    let mut seen = vec![false; count as usize];
    for _ in 0..count {
        let packet = guest.receive();
        assert_eq!(
            (packet.header.op, packet.data[0]),
            (Op::RW, packet.header.dst_port as u8)
        );
        assert!(!std::mem::replace(
            &mut seen[packet.header.dst_port as usize],
            true
        ));
    }
    for port in 0..count {
        let both = shutdown::SEND | shutdown::RECEIVE;
        guest.send(
            Header {
                flags: both,
                ..Guest::header(port, port, Op::SHUTDOWN)
            },
            &[],
        );
        guest.expect(port, port, Op::RST);
        expect_end(&streams[port as usize]);
    }
}

/// A byte of the stream at a place in it.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

#[test]
fn every_byte_arrives_both_ways_while_both_sides_are_slow() {
    const TOTAL: usize = 8 << 20;
    let mut guest = Guest::receiving();
    let stream = guest.offer(7);
    let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
    let reading = std::thread::spawn(move || {
        let mut at = 0;
        let mut bytes = vec![0; 50_000];
        loop {
            let count = reader.read(&mut bytes).unwrap();
            if count == 0 {
                return at;
            }
            assert!(
                bytes[..count]
                    .iter()
                    .enumerate()
                    .all(|(i, &byte)| byte == pattern(at + i))
            );
            at += count;
            if at % 7 == 0 {
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        }
    });
    let writing = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..TOTAL).map(pattern).collect();
        for chunk in bytes.chunks(33_333) {
            writer.write_all(chunk).unwrap();
        }
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });

    guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
    let mut host_buffer = guest.expect(9, 7, Op::RESPONSE).header.buf_alloc as usize;
    let (mut sent, mut acknowledged) = (0, 0);
    let (mut received, mut told) = (0, 0);
    let mut host_ended = false;
    while sent < TOTAL || !host_ended {
        let credit = host_buffer - (sent - acknowledged);
        let len = credit.min(TOTAL - sent).min(64 << 10);
        if len > 0 {
            let bytes: Vec<u8> = (sent..sent + len).map(pattern).collect();
            let header = Guest::header(9, 7, Op::RW);
            let header = Header {
                len: len as u32,
                fwd_cnt: received as u32,
                ..header
            };
            guest.send(header, &bytes);
            (sent, told) = (sent + len, received);
        }
        while let Some(packet) = guest.try_receive() {
            acknowledged = packet.header.fwd_cnt as usize;
            host_buffer = packet.header.buf_alloc as usize;
            match packet.header.op {
                Op::RW => {
                    let data = packet.data.iter().enumerate();
                    assert!(
                        data.into_iter()
                            .all(|(i, &byte)| byte == pattern(received + i))
                    );
                    received += packet.data.len();
                    assert!(received - told <= GUEST_BUFFER as usize);
                }
                Op::SHUTDOWN => host_ended = true,
                Op::CREDIT_UPDATE | Op::CREDIT_REQUEST => {}
                op => panic!("unexpected {op:?}"),
            }
        }
        if received - told > GUEST_BUFFER as usize / 2 {
            let update = Guest::header(9, 7, Op::CREDIT_UPDATE);
            guest.send(
                Header {
                    fwd_cnt: received as u32,
                    ..update
                },
                &[],
            );
            told = received;
        }
    }
    assert_eq!(received, TOTAL);
    let end = Guest::header(9, 7, Op::SHUTDOWN);
    guest.send(
        Header {
            flags: shutdown::SEND,
            fwd_cnt: received as u32,
            ..end
        },
        &[],
    );
    assert_eq!(reading.join().unwrap(), TOTAL);
    writing.join().unwrap();
}
