//! No byte of a stream is lost in silence: not when either side closes at once, nor when the host's kernel fails.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

use super::guest::{Guest, expect_end, read, write};
use crate::virtio::testing::PATIENCE;
use crate::virtio::vsock::spec::{Header, Op, shutdown};
use crate::virtio::vsock::{Offers, StreamError};

/// More than a socketpair, a connection's buffer and the guest's receive buffer hold together.
const MOST: usize = 700 << 10;

/// A byte of a stream, by its place.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(pattern).collect()
}

fn failures(offers: &Offers) -> Receiver<(u32, StreamError)> {
    let (sender, receiver) = channel();
    offers.on_failure(move |port, error| {
        // A test that is over hears nothing more.
        let _ = sender.send((port, error));
    });
    receiver
}

/// Sends bytes as a guest does: no more than there is room for, and in pieces of at most `piece`.
fn send_all(guest: &mut Guest, room: usize, bytes: &[u8], piece: usize) {
    let (mut sent, mut forwarded) = (0, 0);
    while sent < bytes.len() {
        let len = (room - (sent - forwarded))
            .min(bytes.len() - sent)
            .min(piece);
        if len > 0 {
            guest.send_data(9, 7, &bytes[sent..sent + len]);
            sent += len;
        }
        let packet = match len {
            0 => Some(guest.receive()),
            _ => guest.try_receive(),
        };
        if let Some(packet) = packet {
            assert_eq!(packet.header.op, Op::CREDIT_UPDATE);
            forwarded = packet.header.fwd_cnt as usize;
        }
    }
}

/// Takes data until the host has ended its direction; says what is taken only now and then.
fn receive_all(guest: &mut Guest, buf_alloc: u32) -> Vec<u8> {
    let (mut taken, mut told) = (Vec::new(), 0);
    loop {
        let packet = guest.receive();
        match packet.header.op {
            Op::RW => taken.extend(packet.data),
            Op::SHUTDOWN if packet.header.flags & shutdown::SEND != 0 => return taken,
            Op::SHUTDOWN | Op::CREDIT_REQUEST | Op::CREDIT_UPDATE => {}
            op => panic!("{op:?} after {} bytes", taken.len()),
        }
        if packet.header.op == Op::CREDIT_REQUEST || taken.len() - told > buf_alloc as usize / 2 {
            told = taken.len();
            let update = Header {
                buf_alloc,
                fwd_cnt: told as u32,
                ..Guest::header(9, 7, Op::CREDIT_UPDATE)
            };
            guest.send(update, &[]);
        }
    }
}

/// How a guest lets go of a socket.
#[derive(Debug, Clone, Copy)]
enum Close {
    /// shutdown(SHUT_WR)
    Shutdown,
    /// close(2)
    Both,
    /// It has forgotten the connection.
    Reset,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_guest_sends_before_it_closes_reaches_a_slow_host(
        len in 0..MOST,
        piece in prop_oneof![1000..5000usize, Just(60_000usize)],
        close in prop_oneof![Just(Close::Shutdown), Just(Close::Both), Just(Close::Reset)],
        part in 1000..100_000usize,
        pause_us in 0..2000u64,
    ) {
        let mut guest = Guest::receiving();
        let failures = failures(&guest.offers);
        let mut host = guest.offer(7);
        guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
        let room = guest.expect(9, 7, Op::RESPONSE).header.buf_alloc as usize;
        let reading = std::thread::spawn(move || {
            let (mut all, mut chunk) = (Vec::<u8>::new(), vec![0; part]);
            loop {
                std::thread::sleep(Duration::from_micros(pause_us));
                match host.read(&mut chunk).unwrap() {
                    0 => return all,
                    count => all.extend(&chunk[..count]),
                }
            }
        });
        let sent = bytes(len);
        send_all(&mut guest, room, &sent, piece);
        let (op, flags) = match close {
            Close::Shutdown => (Op::SHUTDOWN, shutdown::SEND),
            Close::Both => (Op::SHUTDOWN, shutdown::SEND | shutdown::RECEIVE),
            Close::Reset => (Op::RST, 0),
        };
        guest.send(Header { flags, ..Guest::header(9, 7, op) }, &[]);
        let arrived = reading.join().unwrap();
        prop_assert!(arrived == sent, "{} of {} bytes", arrived.len(), sent.len());
        prop_assert!(failures.try_recv().is_err());
    }

    #[test]
    fn what_the_host_wrote_before_it_closed_reaches_a_guest_that_dials_late(
        len in 0..MOST,
        buf_alloc in prop_oneof![1..3000u32, 4096..300_000u32],
        unread in 0..3usize,
    ) {
        let mut guest = Guest::receiving();
        let failures = failures(&guest.offers);
        let mut host = guest.offer(7);
        // As much as fits: the guest takes nothing yet.
        host.set_nonblocking(true).unwrap();
        let all = bytes(len);
        let mut written = 0;
        while written < len && let Ok(count) = host.write(&all[written..]) {
            written += count;
        }
        let connect = Header { buf_alloc, ..Guest::header(9, 7, Op::REQUEST) };
        let mut closed = Some(host);
        if unread == 0 {
            closed.take();
        }
        guest.send(connect, &[]);
        guest.expect(9, 7, Op::RESPONSE);
        if unread > 0 {
            // The host closes with bytes of the guest's unread: its kernel calls that a reset.
            let header = Guest::header(9, 7, Op::RW);
            guest.send(Header { buf_alloc, len: unread as u32, ..header }, &bytes(unread));
            let deadline = std::time::Instant::now() + PATIENCE;
            while rustix::io::ioctl_fionread(closed.as_ref().unwrap()).unwrap() == 0 {
                prop_assert!(std::time::Instant::now() < deadline);
            }
            closed.take();
        }
        let taken = receive_all(&mut guest, buf_alloc);
        prop_assert!(taken == all[..written], "{} of {written} bytes", taken.len());
        prop_assert!(failures.try_recv().is_err());
    }
}

/// A descriptor that can be waited for, and fails to be read or written with less than eight bytes (EINVAL).
fn counter(value: u32) -> OwnedFd {
    eventfd(value, EventfdFlags::NONBLOCK).unwrap()
}

/// Joins the guest's connection to this descriptor.
fn joined_to(guest: &mut Guest, descriptor: impl Into<OwnedFd>) {
    guest.offers.offer(7, descriptor.into()).unwrap();
    guest.send(Guest::header(9, 7, Op::REQUEST), &[]);
}

fn neighbour_works(guest: &mut Guest, stream: &UnixStream) {
    guest.send_data(10, 8, b"on");
    assert_eq!(read(stream, 2), b"on");
    write(stream, b"and on");
    assert_eq!(guest.expect(10, 8, Op::RW).data, b"and on");
}

#[test]
fn a_stream_that_cannot_be_written_ends_alone_and_is_told() {
    let mut guest = Guest::receiving();
    let failures = failures(&guest.offers);
    let neighbour = guest.connect(10, 8);
    joined_to(&mut guest, counter(0));
    guest.expect(9, 7, Op::RESPONSE);
    guest.send_data(9, 7, b"lost");
    guest.expect(9, 7, Op::RST);
    let (port, error) = failures.recv_timeout(PATIENCE).unwrap();
    assert_eq!(port, 7);
    assert!(matches!(error, StreamError::Write(_)), "{error:?}");
    neighbour_works(&mut guest, &neighbour);
    // The port can be offered and taken again.
    let again = guest.connect(9, 7);
    guest.send_data(9, 7, b"x");
    assert_eq!(read(&again, 1), b"x");
    assert!(failures.try_recv().is_err());
}

#[test]
fn a_stream_that_fails_as_its_guest_closes_is_told_all_the_same() {
    let mut guest = Guest::receiving();
    let failures = failures(&guest.offers);
    joined_to(&mut guest, counter(0));
    guest.send_data(9, 7, b"lost");
    let both = Header {
        flags: shutdown::SEND | shutdown::RECEIVE,
        ..Guest::header(9, 7, Op::SHUTDOWN)
    };
    guest.send(both, &[]);
    while guest.receive().header.op != Op::RST {}
    assert_eq!(failures.recv_timeout(PATIENCE).unwrap().0, 7);
    assert!(failures.recv_timeout(Duration::from_millis(10)).is_err());
}

#[test]
fn a_stream_that_cannot_be_read_ends_alone_and_is_told() {
    let mut guest = Guest::receiving();
    let failures = failures(&guest.offers);
    let neighbour = guest.connect(10, 8);
    guest.offers.offer(7, counter(1)).unwrap();
    // With room for less than eight bytes.
    let request = Header {
        buf_alloc: 4,
        ..Guest::header(9, 7, Op::REQUEST)
    };
    guest.send(request, &[]);
    guest.expect(9, 7, Op::RESPONSE);
    guest.expect(9, 7, Op::RST);
    let (port, error) = failures.recv_timeout(PATIENCE).unwrap();
    assert_eq!(port, 7);
    assert!(matches!(error, StreamError::Read(_)), "{error:?}");
    neighbour_works(&mut guest, &neighbour);
}

#[test]
fn a_descriptor_that_cannot_be_waited_for_is_told() {
    let mut guest = Guest::receiving();
    let failures = failures(&guest.offers);
    let full = std::fs::File::options().write(true).open("/dev/full");
    joined_to(&mut guest, full.unwrap());
    guest.expect(9, 7, Op::RST);
    let (port, error) = failures.recv_timeout(PATIENCE).unwrap();
    assert_eq!(port, 7);
    assert!(matches!(error, StreamError::Watch(_)), "{error:?}");
}

#[test]
fn a_stop_tells_of_what_the_host_had_not_read() {
    let mut guest = Guest::receiving();
    let failures = failures(&guest.offers);
    let read_all = guest.connect(10, 8);
    guest.send_data(10, 8, b"all");
    assert_eq!(read(&read_all, 3), b"all");
    let unread = guest.connect(9, 7);
    // More than the socketpair takes, less than the device's buffer and that.
    for _ in 0..7 {
        guest.send_data(9, 7, &[1; 60_000]);
    }
    while guest.tx_in_flight > 0 {
        guest.driver.wait_used(crate::virtio::vsock::spec::TX);
        guest.tx_in_flight -= 1;
    }
    guest.driver.stop();
    let (port, error) = failures.recv_timeout(PATIENCE).unwrap();
    assert_eq!(port, 7);
    let StreamError::Stopped(lost) = error else {
        panic!("{error:?}");
    };
    let mut got = Vec::new();
    (&unread).read_to_end(&mut got).unwrap();
    assert_eq!(got.len() + lost, 7 * 60_000);
    expect_end(&read_all);
    assert!(failures.try_recv().is_err());
}
