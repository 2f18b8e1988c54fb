//! A pair of datagram sockets plays the tap: packets keep their borders, and what a reader has no room for is cut off.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::spec::{MAX_PACKET, header};
use super::*;
use crate::virtio::testing::{Buffer, Driver, EVENT_IDX, PATIENCE, VERSION_1};

const MAC: [u8; 6] = [2, 0, 0, 1, 2, 3];

/// A device on one end of the wire, and the other end.
fn wired(mtu: u16) -> (Net, UnixDatagram) {
    let (tap, wire) = UnixDatagram::pair().unwrap();
    tap.set_nonblocking(true).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = NetConfig {
        descriptor: Some(tap.into()),
        wire: Wire::Plain,
        mac: MAC,
        mtu,
    };
    (Net::new(config).unwrap(), wire)
}

/// A packet of `len` bytes, its header of zeros included.
fn packet(len: usize, seed: u8) -> Vec<u8> {
    let body = (header::LEN..len).map(|i| (i as u8).wrapping_mul(31) ^ seed);
    std::iter::repeat_n(0, header::LEN).chain(body).collect()
}

/// Waits for a packet in receive buffers of `len` bytes that were added in this order; says how many it took.
fn received(driver: &mut Driver<Net>, buffers: &[Buffer]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    for (i, buffer) in buffers.iter().enumerate() {
        let used = driver.wait_used(RX);
        bytes.extend(&driver.bytes(*buffer)[..used.len as usize]);
        let count = u16::from_le_bytes([bytes[10], bytes[11]]);
        if i + 1 == usize::from(count) {
            bytes[10..12].fill(0);
            return (bytes, i + 1);
        }
    }
    panic!("the packet claims more buffers than there were");
}

fn add_rx(driver: &mut Driver<Net>, lens: &[usize]) -> Vec<Buffer> {
    let buffers: Vec<_> = lens.iter().map(|&len| driver.writable(len)).collect();
    for buffer in &buffers {
        driver.queues[RX].add(&[*buffer]);
    }
    driver.queues[RX].kick();
    buffers
}

#[test]
fn packets_go_out_as_the_guest_wrote_them() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    let sent = packet(1000, 1);
    let parts = [
        driver.readable(&sent[..5]),
        driver.readable(&sent[5..12]),
        driver.readable(&sent[12..600]),
        driver.readable(&sent[600..]),
    ];
    assert_eq!(driver.submit(TX, &parts).len, 0);
    let mut bytes = vec![0; 2000];
    let count = wire.recv(&mut bytes).unwrap();
    assert_eq!(bytes[..count], sent);
}

#[test]
fn a_small_packet_takes_one_buffer_and_a_large_one_several() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    let buffers = add_rx(&mut driver, &[1600, 1600]);
    wire.send(&packet(60, 2)).unwrap();
    assert_eq!(received(&mut driver, &buffers), (packet(60, 2), 1));
    wire.send(&packet(1500, 3)).unwrap();
    assert_eq!(received(&mut driver, &buffers[1..]), (packet(1500, 3), 1));
    // Larger than was expected: the rest is copied on. Then as expected.
    for round in 0..3 {
        let buffers = add_rx(&mut driver, &[1600, 100, 1, 1600, 1600]);
        wire.send(&packet(4700, round)).unwrap();
        assert_eq!(received(&mut driver, &buffers), (packet(4700, round), 5));
    }
    let buffers = add_rx(&mut driver, &[1600]);
    wire.send(&packet(60, 4)).unwrap();
    assert_eq!(received(&mut driver, &buffers), (packet(60, 4), 1));
}

#[test]
fn the_largest_packet_passes_both_ways() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    let largest = packet(MAX_PACKET, 9);
    let buffers = add_rx(&mut driver, &[5000; 14]);
    wire.send(&largest).unwrap();
    assert!(received(&mut driver, &buffers) == (largest.clone(), 14));
    let out = driver.readable(&largest);
    driver.submit(TX, &[out]);
    let mut bytes = vec![0; MAX_PACKET + 1];
    assert_eq!(wire.recv(&mut bytes).unwrap(), MAX_PACKET);
    assert!(bytes[..MAX_PACKET] == largest);
}

#[test]
fn packets_wait_until_the_guest_has_buffers() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    for number in 0..5 {
        wire.send(&packet(3000, number)).unwrap();
    }
    // Too little for the first packet: it is kept whole, and nothing is given to the guest.
    let first = add_rx(&mut driver, &[1000]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(driver.queues[RX].next_used(), None);
    let mut buffers = first;
    buffers.extend(add_rx(&mut driver, &[1000, 1000]));
    assert_eq!(received(&mut driver, &buffers), (packet(3000, 0), 3));
    for number in 1..5 {
        let buffers = add_rx(&mut driver, &[3000]);
        assert_eq!(received(&mut driver, &buffers), (packet(3000, number), 1));
    }
    // A packet that comes later is noticed again.
    let buffers = add_rx(&mut driver, &[3000]);
    wire.send(&packet(100, 7)).unwrap();
    assert_eq!(received(&mut driver, &buffers), (packet(100, 7), 1));
}

#[test]
fn without_merging_a_packet_takes_one_buffer_or_is_dropped() {
    let (net, wire) = wired(1500);
    let features = net.features() & !feature::MRG_RXBUF | VERSION_1;
    let mut driver = Driver::with_features(net, features);
    let buffers = add_rx(&mut driver, &[1530, 1530]);
    wire.send(&packet(4000, 1)).unwrap();
    wire.send(&packet(1530, 2)).unwrap();
    assert_eq!(received(&mut driver, &buffers), (packet(1530, 2), 1));
}

#[test]
fn what_cannot_be_a_packet_is_dropped() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    wire.set_nonblocking(true).unwrap();
    let short = driver.readable(&packet(25, 1));
    let long = Buffer::readable(0x10_0000, MAX_PACKET as u32 + 1);
    for chain in [&[short][..], &[long]] {
        assert_eq!(driver.submit(TX, chain).len, 0, "{chain:?}");
    }
    let writable = driver.writable(100);
    for chain in [&[writable][..], &[short, writable]] {
        driver.expect_fault(TX, chain);
    }
    let error = wire.recv(&mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "nothing was sent");
}

#[test]
fn a_packet_that_no_queue_of_buffers_can_hold_is_dropped_and_the_next_arrives() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    // As many buffers as the queue is long, and all of them are less than the packet.
    let tiny = add_rx(&mut driver, &[100; 16]);
    wire.send(&packet(4000, 1)).unwrap();
    wire.send(&packet(60, 2)).unwrap();
    assert_eq!(received(&mut driver, &tiny), (packet(60, 2), 1));
}

#[test]
fn too_few_buffers_for_a_packet_do_not_keep_the_main_loop_busy() {
    let (net, wire) = wired(1500);
    let features = net.features() | VERSION_1 | EVENT_IDX;
    let mut driver = Driver::with_features(net, features);
    let mut buffers = add_rx(&mut driver, &[1000]);
    wire.send(&packet(3000, 1)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let before = driver.main_loop.processor_time();
    std::thread::sleep(Duration::from_millis(300));
    let spent = driver.main_loop.processor_time() - before;
    assert!(spent < Duration::from_millis(100), "{spent:?}");
    // The device wants a kick for the next buffer, not for the one that it has seen.
    assert_eq!(driver.queues[RX].avail_event(), 1);
    buffers.extend(add_rx(&mut driver, &[1000, 1000]));
    assert_eq!(received(&mut driver, &buffers), (packet(3000, 1), 3));
}

#[test]
fn a_full_wire_holds_the_guest_back_until_it_is_read() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    let out = driver.readable(&packet(1400, 1));
    let mut added = 0;
    // The socketpair takes some packets; the rest stays in the queue.
    for _ in 0..16 {
        driver.queues[TX].add(&[out]);
        added += 1;
    }
    driver.queues[TX].kick();
    let mut bytes = [0; 2000];
    for _ in 0..100 {
        driver.wait_used(TX);
        driver.queues[TX].add(&[out]);
        driver.queues[TX].kick();
        added += 1;
        assert_eq!(wire.recv(&mut bytes).unwrap(), 1400);
    }
    for _ in 100..added {
        assert_eq!(wire.recv(&mut bytes).unwrap(), 1400);
        driver.wait_used(TX);
    }
}

#[test]
fn saved_queues_are_finished_by_a_rebuilt_device() {
    let (net, wire) = wired(1500);
    let mut driver = Driver::new(net);
    let out = driver.readable(&packet(100, 1));
    driver.submit(TX, &[out]);
    let buffers = add_rx(&mut driver, &[200, 200, 200]);
    wire.send(&packet(120, 2)).unwrap();
    assert_eq!(received(&mut driver, &buffers).0, packet(120, 2));
    let queues = driver.stop();
    // While the device is stopped, a packet comes each way, and the kick is lost.
    let second = driver.readable(&packet(100, 3));
    driver.queues[TX].add(&[second]);
    wire.send(&packet(140, 4)).unwrap();
    driver.device = Net::new(NetConfig {
        descriptor: Some(driver.device.plug.wire().unwrap().try_clone().unwrap()),
        wire: Wire::Plain,
        mac: MAC,
        mtu: 1500,
    })
    .unwrap();
    driver.start(&queues);
    driver.wait_used(TX);
    let mut bytes = [0; 200];
    wire.recv(&mut bytes).unwrap();
    assert_eq!(wire.recv(&mut bytes).unwrap(), 100);
    assert_eq!(bytes[..100], packet(100, 3));
    assert_eq!(received(&mut driver, &buffers[1..]).0, packet(140, 4));
}

#[test]
fn the_configuration_says_what_was_asked_for() {
    let (net, _wire) = wired(1400);
    assert_eq!(net.features() & OFFLOADS, 0);
    let driver = Driver::new(net);
    let [mac @ .., s0, s1, _, _, m0, m1]: [u8; config::LEN] = driver.config();
    assert_eq!(
        (mac, [s0, s1], u16::from_le_bytes([m0, m1])),
        (MAC, [1, 0], 1400)
    );
    let (tap, _wire) = UnixDatagram::pair().unwrap();
    let small = NetConfig {
        descriptor: Some(tap.into()),
        wire: Wire::Tap,
        mac: MAC,
        mtu: 67,
    };
    assert!(matches!(Net::new(small), Err(Error::Mtu(67))));
}

#[test]
fn segmentation_is_accepted_only_with_checksums() {
    assert_eq!(accepted(0), Offload::default());
    assert_eq!(accepted(feature::GUEST_TSO4), Offload::default());
    assert_eq!(accepted(feature::GUEST_CSUM), Offload::CSUM);
    let all = feature::GUEST_CSUM | feature::GUEST_TSO4 | feature::GUEST_TSO6;
    assert_eq!(
        accepted(all),
        Offload::CSUM.and(Offload::TSO4).and(Offload::TSO6)
    );
}

#[test]
#[ignore = "needs root"]
fn a_real_tap_takes_and_gives_packets_with_offloads() {
    let name = format!("hulltest{}", std::process::id());
    let tap = sys::tap::create(&name[..name.len().min(15)]).unwrap();
    let net = Net::new(NetConfig {
        descriptor: Some(tap),
        wire: Wire::Tap,
        mac: MAC,
        mtu: 1500,
    })
    .unwrap();
    assert_eq!(net.features() & OFFLOADS, OFFLOADS);
    // An interface that is down refuses packets: they are dropped, and the queue goes on.
    let mut driver = Driver::new(net);
    let out = driver.readable(&packet(100, 1));
    for _ in 0..3 {
        assert_eq!(driver.submit(TX, &[out]).len, 0);
    }
}

#[test]
fn a_device_without_a_wire_drops_what_the_guest_sends() {
    let net = Net::new(NetConfig {
        descriptor: None,
        wire: Wire::Plain,
        mac: MAC,
        mtu: 1500,
    })
    .unwrap();
    let mut driver = Driver::new(net);
    let [_, _, _, _, _, _, s0, s1, ..]: [u8; config::LEN] = driver.config();
    assert_eq!([s0, s1], [0, 0], "the link is down");
    let buffers = add_rx(&mut driver, &[1600]);
    let out = driver.readable(&packet(100, 1));
    for _ in 0..300 {
        assert_eq!(driver.submit(TX, &[out]).len, 0);
    }
    assert_eq!(driver.queues[RX].next_used(), None);
    drop(buffers);
}

#[test]
fn a_wire_can_be_changed_while_the_guest_runs() {
    let (net, first) = wired(1500);
    let handle = net.handle();
    let mut driver = Driver::new(net);
    let buffers = add_rx(&mut driver, &[1600; 3]);
    first.send(&packet(60, 1)).unwrap();
    assert_eq!(received(&mut driver, &buffers).0, packet(60, 1));
    // Taken away: once the device has let go of it, nobody listens there.
    assert!(handle.plug(None));
    while first.send(&packet(60, 2)).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let [_, _, _, _, _, _, s0, ..]: [u8; config::LEN] = driver.config();
    assert_eq!(s0, 0);
    let out = driver.readable(&packet(100, 3));
    driver.submit(TX, &[out]);
    // Another one in its place.
    let (tap, second) = UnixDatagram::pair().unwrap();
    tap.set_nonblocking(true).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(!handle.plug(Some((tap.try_clone().unwrap().into(), Wire::Switch))));
    assert!(handle.plug(Some((tap.into(), Wire::Plain))));
    let [_, _, _, _, _, _, s0, ..]: [u8; config::LEN] = driver.config();
    assert_eq!(s0, 1);
    second.send(&packet(60, 4)).unwrap();
    let buffer = driver.wait_used(RX);
    assert_eq!(buffer.len, 60);
    driver.submit(TX, &[out]);
    let mut bytes = [0; 200];
    assert_eq!(second.recv(&mut bytes).unwrap(), 100);
    assert_eq!(bytes[..100], packet(100, 3));
}
