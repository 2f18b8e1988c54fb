use libc_errno::*;

use super::spec::{InHeader, Opcode, OutHeader, config};
use super::*;
use crate::virtio::testing::{Buffer, Driver};

mod data;
mod faults;
mod peer;
mod stops;

use peer::{LOOKUP, MAX_OPEN, Peer, create_out, device, mount, mounted, open_out, reply};

/// Numbers of errors as a guest reads them (Linux, include/uapi/asm-generic/errno.h).
mod libc_errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const E2BIG: i32 = 7;
    pub(super) const EBADF: i32 = 9;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const ENOTCONN: i32 = 107;
}

#[test]
fn the_configuration_is_the_tag_and_one_request_queue() {
    let driver = Driver::new(device());
    let space: [u8; config::LEN + 4] = driver.config();
    assert_eq!(&space[..5], b"hull\0");
    assert!(space[5..36].iter().all(|&byte| byte == 0));
    assert_eq!(space[36..], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(driver.device.id(), DeviceId(26));
    assert_eq!(driver.device.queue_max_sizes().len(), 2);
    for tag in [String::new(), "x".repeat(37)] {
        let config = FsConfig {
            tag,
            max_open_files: 1,
        };
        assert!(matches!(Fs::new(config), Err(Error::Tag)));
    }
}

#[test]
fn a_request_and_its_reply_go_as_they_came() {
    let (mut driver, peer, _) = mounted();
    let request = InHeader::request(LOOKUP, 8, 5, b"a name\0");
    // In odd pieces, both ways.
    let chain = [
        driver.readable(&request[..3]),
        driver.readable(&request[3..41]),
        driver.readable(&request[41..]),
        driver.writable(1),
        driver.writable(30),
        driver.writable(200),
    ];
    driver.queues[1].add(&chain);
    driver.queues[1].kick();
    let message = peer.expect(LOOKUP);
    assert_eq!(message.bytes, request);
    let sent = reply(8, 0, &(0..128).collect::<Vec<u8>>());
    peer.send(&sent, &[]);
    assert_eq!(driver.wait_used(1).len, 144);
    let got = chain[3..].iter().flat_map(|&part| driver.bytes(part));
    assert_eq!(got.take(144).collect::<Vec<_>>(), sent);
    // An error is a reply like any other.
    let asked = driver.ask(LOOKUP, 10, b"another\0", 144);
    peer.expect(LOOKUP);
    peer.send(&reply(10, -2, &[]), &[]);
    assert_eq!(driver.answer(asked), (2, vec![]));
}

#[test]
fn replies_come_in_any_order() {
    let (mut driver, peer, _) = mounted();
    let asked: Vec<_> = (0..6)
        .map(|i| driver.ask(LOOKUP, 100 + 2 * i, b"x\0", 40))
        .collect();
    for _ in &asked {
        peer.expect(LOOKUP);
    }
    for asked in asked.into_iter().rev() {
        peer.reply(asked.unique, &asked.unique.to_le_bytes());
        let expected = asked.unique.to_le_bytes().to_vec();
        assert_eq!(driver.answer(asked), (0, expected));
    }
}

#[test]
fn without_a_hull_fs_every_request_is_refused_and_a_forget_is_consumed() {
    let mut driver = Driver::new(device());
    assert_eq!(driver.refused(Opcode::INIT, 2, &[0; 64]), ENODEV);
    for opcode in [LOOKUP, Opcode::OPEN, Opcode::READ, Opcode::WRITE] {
        assert_eq!(driver.refused(opcode, 4, &[0; 40]), ENOTCONN);
    }
    for queue in [0, 1] {
        let forget = driver.readable(&InHeader::request(Opcode::FORGET, 6, 1, &[0; 8]));
        assert_eq!(driver.submit(queue, &[forget]).len, 0);
    }
}

#[test]
fn a_hull_fs_hears_nothing_before_the_guest_mounts() {
    let fs = device();
    let peer = Peer::of(&fs.handle());
    let mut driver = Driver::new(fs);
    assert_eq!(driver.refused(LOOKUP, 4, b"x\0"), ENOTCONN);
    mount(&mut driver, &peer);
    // Nor after the guest has unmounted.
    let destroy = driver.ask(Opcode::DESTROY, 6, &[], 16);
    peer.expect(Opcode::DESTROY);
    peer.reply(6, &[]);
    assert_eq!(driver.answer(destroy), (0, vec![]));
    assert_eq!(driver.refused(LOOKUP, 8, b"x\0"), ENOTCONN);
    assert!(peer.has_nothing());
}

#[test]
fn forgets_are_passed_on_and_interrupts_dropped_without_a_reply() {
    let (mut driver, peer, _) = mounted();
    for (queue, opcode) in [
        (0, Opcode::FORGET),
        (0, Opcode::BATCH_FORGET),
        (1, Opcode::FORGET),
    ] {
        let request = InHeader::request(opcode, 20, 9, &[1; 24]);
        let forget = driver.readable(&request);
        assert_eq!(driver.submit(queue, &[forget]).len, 0);
        assert_eq!(peer.receive().bytes, request);
    }
    // What is no such thing, or lies about its length, is consumed and goes nowhere.
    let mut short = InHeader::request(Opcode::FORGET, 22, 9, &[1; 8]);
    short.pop();
    let lookup = InHeader::request(LOOKUP, 24, 1, b"x\0");
    let interrupt = InHeader::request(Opcode::INTERRUPT, 26, 0, &[1; 8]);
    for request in [short, lookup, interrupt.clone()] {
        let chain = [driver.readable(&request), driver.writable(16)];
        assert_eq!(driver.submit(0, &chain).len, 0);
        assert_eq!(driver.bytes(chain[1]), [0xee; 16]);
    }
    let interrupt = driver.readable(&interrupt);
    assert_eq!(driver.submit(1, &[interrupt]).len, 0);
    assert!(peer.has_nothing());
}

#[test]
fn a_hull_fs_that_ends_takes_what_is_in_flight_with_it() {
    let (mut driver, peer, handle) = mounted();
    driver.open(&peer, 1, &tempfile::tempfile().unwrap());
    let asked: Vec<_> = [LOOKUP, Opcode::INIT, Opcode(3)]
        .into_iter()
        .zip([30, 32, 34])
        .map(|(opcode, unique)| driver.ask(opcode, unique, b"x\0", 40))
        .collect();
    for _ in &asked {
        peer.receive();
    }
    drop(peer);
    for (asked, error) in asked.into_iter().zip([ENOTCONN, ENODEV, ENOTCONN]) {
        assert_eq!(driver.answer(asked), (error, vec![]));
    }
    assert_eq!(driver.read(1, 0, 10), (ENOTCONN, vec![]));
    assert_eq!(driver.refused(Opcode::INIT, 36, &[]), ENODEV);
    // Another one may come.
    let peer = Peer::of(&handle);
    mount(&mut driver, &peer);
    assert_eq!(driver.read(1, 0, 10).0, EBADF, "files ended with the first");
}

#[test]
fn a_new_socket_takes_the_place_of_one_that_works() {
    let (mut driver, peer, handle) = mounted();
    let asked = driver.ask(LOOKUP, 40, b"x\0", 40);
    peer.expect(LOOKUP);
    let second = Peer::of(&handle);
    assert_eq!(driver.answer(asked), (ENOTCONN, vec![]));
    assert_eq!(driver.refused(LOOKUP, 42, b"x\0"), ENOTCONN);
    // The first is told by the end of its socket.
    let mut buffer = [0; 16];
    assert_eq!(sys::packet::receive(&peer.0, &mut buffer).unwrap().len, 0);
    mount(&mut driver, &second);
}

#[test]
fn more_files_than_there_may_be_are_refused_and_closed_in_hull_fs() {
    let (mut driver, peer, _) = mounted();
    let file = tempfile::tempfile().unwrap();
    for handle in 0..MAX_OPEN as u64 {
        driver.open(&peer, handle, &file);
    }
    let asked = driver.ask(Opcode::OPEN, 50, &[0; 8], 32);
    peer.expect(Opcode::OPEN);
    peer.reply_with(50, &open_out(77), &file);
    assert_eq!(driver.answer(asked), (ENFILE, vec![]));
    let release = peer.expect(Opcode::RELEASE);
    assert_eq!(release.arguments()[..8], 77u64.to_le_bytes());
    assert_eq!(release.header.nodeid, 1);
    assert!(release.header.unique >> 63 == 1);
    // Whatever comes of it is the device's own affair.
    peer.reply(release.header.unique, &[]);

    let asked = driver.ask(Opcode::CREATE, 52, &[0; 16], 160);
    peer.expect(Opcode::CREATE);
    peer.reply_with(52, &create_out(9, 78), &file);
    assert_eq!(driver.answer(asked), (ENFILE, vec![]));
    let release = peer.expect(Opcode::RELEASE);
    assert_eq!(release.arguments()[..8], 78u64.to_le_bytes());
    assert_eq!(release.header.nodeid, 9);
    // The lookup that the guest never hears of as well.
    let forget = peer.expect(Opcode::FORGET);
    assert_eq!(forget.header.nodeid, 9);
    assert_eq!(forget.arguments(), 1u64.to_le_bytes());

    let asked = driver.ask(Opcode::RELEASE, 54, &[0; 24], 16);
    peer.expect(Opcode::RELEASE);
    peer.reply(54, &[]);
    assert_eq!(driver.answer(asked), (0, vec![]));
    driver.open(&peer, 79, &file);
}

#[test]
fn a_socket_that_is_full_holds_requests_back_and_loses_none() {
    let (mut driver, peer, _) = mounted();
    let name = vec![b'x'; 60 << 10];
    // More than the socket takes: what waits is asked for again when there is room.
    let asked: Vec<_> = (0..7)
        .map(|i| driver.ask(LOOKUP, 60 + 2 * i, &name, 40))
        .collect();
    let forget = driver.readable(&InHeader::request(Opcode::FORGET, 90, 1, &[0; 8]));
    let forgotten = driver.queues[0].add(&[forget]);
    driver.queues[0].kick();
    // Nothing but room in the socket wakes the device: the replies come after all of it.
    let mut uniques = Vec::new();
    let mut forgets = 0;
    while uniques.len() < asked.len() || forgets == 0 {
        let message = peer.receive();
        match message.header.opcode {
            Opcode::FORGET => forgets += 1,
            _ => {
                assert_eq!(message.arguments(), name);
                uniques.push(message.header.unique);
            }
        }
    }
    assert!(uniques.is_sorted() && forgets == 1, "{uniques:?} {forgets}");
    for asked in asked {
        peer.reply(asked.unique, &[]);
        assert_eq!(driver.answer(asked), (0, vec![]));
    }
    assert_eq!(driver.wait_used(0).head, forgotten);
}
