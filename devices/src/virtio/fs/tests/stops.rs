//! Resets and saves.

use std::time::Instant;

use super::*;
use crate::virtio::testing::PATIENCE;

#[test]
fn what_comes_back_in_time_is_given_to_the_guest_before_a_stop() {
    let (mut driver, peer, _) = mounted();
    let asked = driver.ask(LOOKUP, 4, b"x\0", 40);
    peer.expect(LOOKUP);
    let late = std::thread::spawn(move || {
        std::thread::sleep(STOP_TIMEOUT / 4);
        peer.reply(4, &[1, 2, 3]);
        peer
    });
    let states = driver.stop();
    assert_eq!(driver.answer(asked), (0, vec![1, 2, 3]));
    assert_eq!(states[1].next_avail, states[1].next_used);
    let peer = late.join().unwrap();
    peer.expect(Opcode::DESTROY);
}

#[test]
fn what_does_not_come_back_fails_in_bounded_time() {
    let (mut driver, peer, _) = mounted();
    driver.open(&peer, 1, &tempfile::tempfile().unwrap());
    let asked: Vec<_> = (0..5)
        .map(|i| driver.ask(LOOKUP, 4 + 2 * i, b"x\0", 40))
        .collect();
    for _ in &asked {
        peer.expect(LOOKUP);
    }
    let begun = Instant::now();
    let states = driver.stop();
    assert!(begun.elapsed() >= STOP_TIMEOUT && begun.elapsed() < PATIENCE / 2);
    for asked in asked {
        assert_eq!(driver.answer(asked), (EIO, vec![]));
    }
    assert_eq!(states[1].next_avail, states[1].next_used);
    peer.expect(Opcode::DESTROY);
}

#[test]
fn a_reply_from_before_a_reset_answers_nothing_after_it() {
    let (mut driver, peer, _) = mounted();
    let file = tempfile::tempfile().unwrap();
    driver.open(&peer, 1, &file);
    driver.ask(Opcode::OPEN, 4, &[0; 8], 40);
    peer.expect(Opcode::OPEN);
    driver.reset();
    // The same number again, before the reply to the first.
    let init = driver.ask(Opcode::INIT, 4, &[0; 64], 40);
    let destroy = peer.expect(Opcode::DESTROY);
    assert!(destroy.header.unique >> 63 == 1);
    peer.expect(Opcode::INIT);
    peer.reply_with(4, &open_out(9), &file);
    peer.reply(destroy.header.unique, &[]);
    peer.reply(4, &[7]);
    assert_eq!(driver.answer(init), (0, vec![7]));
    for handle in [1, 9] {
        assert_eq!(driver.read(handle, 0, 1), (EBADF, vec![]), "{handle}");
    }
    driver.open(&peer, 1, &file);
    // Without anything that hull-fs could have kept there is nothing to destroy.
    let destroy = driver.ask(Opcode::DESTROY, 6, &[], 16);
    peer.expect(Opcode::DESTROY);
    peer.reply(6, &[]);
    driver.answer(destroy);
    driver.reset();
    assert!(peer.has_nothing());
}

#[test]
fn a_reset_with_a_full_socket_ends_and_is_told_later() {
    let (mut driver, peer, _) = mounted();
    let name = vec![b'x'; 60 << 10];
    for i in 0..7 {
        driver.ask(LOOKUP, 4 + 2 * i, &name, 40);
    }
    driver.wait_until("the socket is full", |_| {
        let taken = rustix::io::ioctl_fionread(&peer.0).unwrap();
        taken > 0
    });
    driver.reset();
    let init = driver.ask(Opcode::INIT, 2, &[0; 64], 40);
    let opcodes = std::iter::repeat_with(|| peer.receive().header);
    let mut after = opcodes.skip_while(|header| header.opcode == LOOKUP);
    let destroy = after.next().unwrap();
    assert_eq!(destroy.opcode, Opcode::DESTROY);
    assert_eq!(after.next().unwrap().opcode, Opcode::INIT);
    peer.reply(destroy.unique, &[]);
    peer.reply(2, &[]);
    assert_eq!(driver.answer(init), (0, vec![]));
}

#[test]
fn a_saved_queue_is_finished_by_a_device_that_has_no_hull_fs_yet() {
    let (mut driver, _peer, _) = mounted();
    let states = driver.stop();
    // The kicks are lost with the old device.
    let asked = driver.ask(LOOKUP, 4, b"x\0", 40);
    let forget = driver.readable(&InHeader::request(Opcode::FORGET, 6, 1, &[0; 8]));
    driver.queues[0].add(&[forget]);
    let fs = device();
    let handle = fs.handle();
    driver.device = fs;
    for queue in &driver.queues {
        let _ = queue.kick.read();
    }
    driver.start(&states);
    assert_eq!(driver.answer(asked), (ENOTCONN, vec![]));
    assert_eq!(driver.wait_used(0).len, 0);
    let peer = Peer::of(&handle);
    mount(&mut driver, &peer);
}

#[test]
fn a_device_can_be_stopped_and_started_many_times_under_load() {
    let (mut driver, peer, _) = mounted();
    let serving = std::thread::spawn(move || {
        let mut buffer = vec![0; MAX_MESSAGE_LEN];
        while let Ok(packet) = sys::packet::receive(&peer.0, &mut buffer)
            && packet.len > 0
        {
            let header = InHeader::parse(buffer.first_chunk().unwrap());
            let _ = sys::packet::send(&peer.0, &reply(header.unique, 0, &[]), &[]);
        }
    });
    let init = driver.readable(&InHeader::request(Opcode::INIT, 2, 1, &[0; 64]));
    let lookup = driver.readable(&InHeader::request(LOOKUP, 4, 1, b"x\0"));
    let rooms: Vec<_> = (0..3).map(|_| driver.writable(16)).collect();
    for _ in 0..100 {
        for (request, &room) in [init, lookup, init].into_iter().zip(&rooms) {
            driver.queues[1].add(&[request, room]);
        }
        driver.queues[1].kick();
        let states = driver.stop();
        driver.start(&states);
        for _ in &rooms {
            assert_eq!(driver.wait_used(1).len, 16);
        }
    }
    driver.stop();
    driver.device = device();
    serving.join().unwrap();
}
