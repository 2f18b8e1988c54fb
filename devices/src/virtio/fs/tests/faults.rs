//! Guests that lie, and a hull-fs in a guest's hands.

use std::os::fd::AsFd;

use super::*;

#[test]
fn a_chain_without_a_whole_header_is_a_fault() {
    let (mut driver, _peer, _) = mounted();
    let short = driver.readable(&InHeader::request(LOOKUP, 4, 1, &[])[..39]);
    let room = driver.writable(64);
    for queue in [0, 1] {
        driver.expect_fault(queue, &[room]);
        driver.expect_fault(queue, &[short, room]);
        driver.expect_fault(queue, &[short]);
    }
    // Its own reset was a fresh start: the guest has to mount anew.
    assert_eq!(driver.refused(LOOKUP, 4, b"x\0"), ENOTCONN);
}

#[test]
fn a_request_without_room_for_a_reply_is_consumed_unread() {
    let (mut driver, peer, _) = mounted();
    let request = driver.readable(&InHeader::request(LOOKUP, 4, 1, b"x\0"));
    let room = driver.writable(15);
    assert_eq!(driver.submit(1, &[request]).len, 0);
    assert_eq!(driver.submit(1, &[request, room]).len, 0);
    assert_eq!(driver.bytes(room), [0xee; 15]);
    assert!(peer.has_nothing());
}

#[test]
fn requests_that_lie_are_refused_and_hull_fs_never_sees_them() {
    let (mut driver, peer, _) = mounted();
    for lie in [0, 39, 41, 43, u32::MAX] {
        let mut request = InHeader::request(LOOKUP, 4, 1, b"x\0");
        request[..4].copy_from_slice(&lie.to_le_bytes());
        let chain = [driver.readable(&request), driver.writable(16)];
        assert_eq!(driver.submit(1, &chain).len, 16);
        assert_eq!(driver.bytes(chain[1]), reply(4, -EINVAL, &[]));
    }
    // The device's own numbers, and one that is in flight.
    assert_eq!(driver.refused(LOOKUP, 1 << 63, b"x\0"), EINVAL);
    assert_eq!(driver.refused(LOOKUP, u64::MAX, b"x\0"), EINVAL);
    assert!(peer.has_nothing());
    let first = driver.ask(LOOKUP, 4, b"x\0", 16);
    peer.expect(LOOKUP);
    assert_eq!(driver.refused(LOOKUP, 4, b"y\0"), EINVAL);
    peer.reply(4, &[]);
    assert_eq!(driver.answer(first), (0, vec![]));
    // One byte more than a message may have.
    let most = MAX_MESSAGE_LEN - InHeader::LEN;
    assert_eq!(driver.refused(LOOKUP, 6, &vec![0; most + 1]), E2BIG);
    assert!(peer.has_nothing());
    let asked = driver.ask(LOOKUP, 8, &vec![0; most], 16);
    assert_eq!(peer.receive().bytes.len(), MAX_MESSAGE_LEN);
    peer.reply(8, &[]);
    assert_eq!(driver.answer(asked), (0, vec![]));
}

#[test]
fn a_reply_that_cannot_be_is_an_io_error_and_the_next_is_none() {
    let (mut driver, peer, _) = mounted();
    let file = tempfile::tempfile().unwrap();
    let long = |len: u32| {
        let mut bytes = reply(4, 0, &[0; 8]);
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    for bytes in [
        // Too long for the guest's 40 bytes, and for any message.
        reply(4, 0, &[0; 25]),
        reply(4, 0, &vec![0; MAX_MESSAGE_LEN]),
        // Lengths that lie.
        long(0),
        long(23),
        long(25),
        long(u32::MAX),
        // No errors of Linux's, and an error with more than that.
        reply(4, 1, &[]),
        reply(4, -512, &[]),
        reply(4, i32::MIN, &[]),
        reply(4, -2, &[0; 8]),
    ] {
        let asked = driver.ask(LOOKUP, 4, b"x\0", 40);
        peer.expect(LOOKUP);
        peer.send(&bytes, &[]);
        assert_eq!(driver.answer(asked), (EIO, vec![]), "{:?}", &bytes[..16]);
    }
    let asked = driver.ask(LOOKUP, 4, b"x\0", 40);
    peer.expect(LOOKUP);
    // Of nothing that was asked, or not even a header.
    peer.reply(6, &[]);
    peer.send(&[0; 15], &[file.as_fd()]);
    peer.reply(4, &[1]);
    assert_eq!(driver.answer(asked), (0, vec![1]));
    // Twice.
    peer.reply(4, &[1]);
    let asked = driver.ask(LOOKUP, 6, b"x\0", 40);
    peer.expect(LOOKUP);
    peer.reply(6, &[2]);
    assert_eq!(driver.answer(asked), (0, vec![2]));
}

#[test]
fn descriptors_come_with_open_files_one_each_and_with_nothing_else() {
    let (mut driver, peer, _) = mounted();
    let file = tempfile::tempfile().unwrap();
    let fd = file.as_fd();
    driver.open(&peer, 1, &file);
    let opens = Opcode::OPEN;
    for (opcode, bytes, count, undone) in [
        (LOOKUP, reply(4, 0, &open_out(2)), 1, false),
        (opens, reply(4, -2, &[]), 1, false),
        (opens, reply(4, 0, &open_out(2)), 0, true),
        (opens, reply(4, 0, &open_out(2)), 2, true),
        (opens, reply(4, 0, &open_out(2)), 253, true),
        (opens, reply(4, 0, &open_out(1)), 1, false),
        (opens, reply(4, 0, &[0; 15]), 1, false),
        (opens, reply(4, 0, &[]), 1, false),
        (Opcode::CREATE, reply(4, 0, &open_out(2)), 1, false),
        (Opcode::TMPFILE, reply(4, 0, &[0; 143]), 1, false),
        (Opcode::TMPFILE, reply(4, 0, &create_out(9, 2)), 0, true),
    ] {
        let asked = driver.ask(opcode, 4, b"x\0", 160);
        peer.expect(opcode);
        peer.send(&bytes, &vec![fd; count]);
        assert_eq!(driver.answer(asked), (EIO, vec![]), "{opcode:?} {count}");
        if undone {
            peer.expect(Opcode::RELEASE);
        }
        if opcode == Opcode::TMPFILE && undone {
            peer.expect(Opcode::FORGET);
        }
        assert!(peer.has_nothing(), "{opcode:?} {count}");
    }
    // A guest with too little room for the handle has no open file.
    let asked = driver.ask(Opcode::OPEN, 4, &[0; 8], 31);
    peer.expect(Opcode::OPEN);
    peer.reply_with(4, &open_out(2), &file);
    assert_eq!(driver.answer(asked), (EIO, vec![]));
    peer.expect(Opcode::RELEASE);
    assert_eq!(driver.read(2, 0, 1), (EBADF, vec![]));
    assert_eq!(driver.read(1, 0, 1), (0, vec![]), "the first is as it was");
}

#[test]
fn an_empty_packet_is_the_end() {
    let (mut driver, peer, _) = mounted();
    let asked = driver.ask(LOOKUP, 4, b"x\0", 40);
    peer.expect(LOOKUP);
    peer.send(&[], &[]);
    assert_eq!(driver.answer(asked), (ENOTCONN, vec![]));
}
