//! Guests among each other, and how they come and go.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use protocol::net::FromSwitch;
use protocol::record::Transport;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use smoltcp::socket::tcp::Socket as Tcp;

use crate::guest::{self, Guest, v4};
use crate::switch::{GATEWAY, GATEWAY_MAC, Net, accept, pattern, same, server};

#[test]
fn guests_reach_each_other() {
    let net = Net::start();
    let mut a = Guest::join(&net, 2);
    let mut b = Guest::join(&net, 3);
    let server = b.listen(80);
    let to = SocketAddrV4::new(b.address, 80);
    let address = a.address;
    let other = thread::spawn(move || {
        let received = b.receive_all(server);
        let remote = v4(b.tcp(server).remote_endpoint().unwrap());
        assert_eq!(*remote.ip(), address);
        b.close(server);
        b.until("the end", |sockets| !sockets.get::<Tcp>(server).is_open());
        received
    });
    let socket = a.connect(to);
    let sent = pattern(4 << 20);
    a.send(socket, &sent);
    a.close(socket);
    assert_eq!(a.receive_all(socket), b"");
    a.run_for(Duration::from_millis(100));
    same(&other.join().unwrap(), &sent);
}

#[test]
fn a_neighbour_that_takes_no_frames_holds_nobody_up() {
    let net = Net::start();
    let mut a = Guest::join(&net, 2);
    let b = Guest::join(&net, 3);
    let datagram = [&[0x13, 0x88, 0x1b, 0x58, 0x05, 0x80, 0, 0][..], &[0; 1400]].concat();
    let mut frame = a.packet(b.address, 0, 0, 17, &datagram);
    frame[..6].copy_from_slice(&b.mac);
    // Several times what may wait for it.
    for _ in 0..5000 {
        a.inject(&frame);
    }
    let (listener, address) = server();
    let socket = a.connect(address);
    accept(&listener).write_all(b"hello").unwrap();
    assert_eq!(a.receive(socket, 5), b"hello");
    // What it takes in the end is what came first, and whole.
    let mut count = 0;
    let mut message = vec![0; 70_000];
    while let Ok((len, _)) = recv(&b.wire.socket, &mut message[..], RecvFlags::DONTWAIT) {
        assert_eq!(message[12..len], frame);
        count += 1;
        // Frames that have waited follow when there is room.
        a.turn();
    }
    assert!((100..5000).contains(&count), "{count}");
}

#[test]
fn frames_in_the_name_of_another_go_nowhere() {
    let net = Net::start();
    let mut a = Guest::join(&net, 2);
    let mut b = Guest::join(&net, 3);
    let socket = b.udp(7000);
    let datagram = |source_mac: [u8; 6], source: Ipv4Addr, text: &[u8]| {
        let mut ip = vec![
            0x45,
            0,
            0,
            (28 + text.len()) as u8,
            0,
            0,
            0,
            0,
            64,
            17,
            0,
            0,
        ];
        ip.extend(source.octets());
        ip.extend(b_address().octets());
        let sum: u32 = ip
            .chunks(2)
            .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
            .sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend([0x13, 0x88, 0x1b, 0x58, 0, (8 + text.len()) as u8, 0, 0]);
        ip.extend(text);
        [&guest::mac(3)[..], &source_mac, &[8, 0], &ip].concat()
    };
    a.inject(&datagram(a.mac, GATEWAY, b"forged"));
    a.inject(&datagram(guest::mac(9), a.address, b"forged"));
    a.inject(&datagram(a.mac, net.address(9), b"forged"));
    a.inject(&datagram(a.mac, a.address, b"honest"));
    assert_eq!(b.receive_from(socket).0, b"honest");
    a.turn();
}

fn b_address() -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 3)
}

#[test]
fn hostile_frames_end_nothing() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let (listener, address) = server();
    let mut random = pattern(1 << 20).into_iter().cycle();
    let mut next = move || random.next().unwrap_or_default();
    for round in 0..4000u32 {
        // A packet to the gateway of a kind that it looks at, with some bytes of it replaced.
        let protocol = [1, 6, 17, 6][round as usize % 4];
        let len = usize::from(next()) + 8;
        let mut payload: Vec<u8> = (0..len).map(|_| next()).collect();
        if protocol == 6 && len >= 20 {
            payload[2..4].copy_from_slice(&address.port().to_be_bytes());
            (payload[12], payload[13]) = (0x50, [2, 0x10, 0x11, 4][usize::from(next()) % 4]);
        }
        let to = [*address.ip(), GATEWAY, Ipv4Addr::LOCALHOST][usize::from(next()) % 3];
        let place = [0, 0, 0x2000, 0x1fff][usize::from(next()) % 4];
        let mut frame = guest.packet(to, 1, place, protocol, &payload);
        let mut header = [0; 12];
        for _ in 0..next() / 64 * (next() / 192) {
            header[usize::from(next()) % 12] = next();
            let at = usize::from(next()) % frame.len();
            frame[at] = next();
        }
        if next() < 32 {
            frame.truncate(usize::from(next()) % frame.len());
        }
        let message = [&header[..], &frame].concat();
        send(&guest.wire.socket, &message, SendFlags::NOSIGNAL).unwrap();
        // What is answered is as well formed as ever.
        guest.turn();
    }
    drop(listener);
    let (listener, address) = server();
    let socket = guest.connect(address);
    accept(&listener).write_all(b"hello").unwrap();
    assert_eq!(guest.receive(socket, 5), b"hello");
}

#[test]
fn a_member_that_goes_leaves_nothing() {
    let net = Net::start();
    let (listener, address) = server();
    for by_wire in [false, true] {
        let mut guest = Guest::join(&net, 2);
        let socket = guest.connect(address);
        guest.send(socket, b"x");
        let mut stream = accept(&listener);
        stream.read_exact(&mut [0]).unwrap();
        let taken = net.connect();
        let (answer, _) = guest::join(&taken, (guest::mac(2), net.address(7)), &[]);
        assert!(matches!(answer, FromSwitch::Refused { .. }), "{answer:?}");
        let Guest {
            connection, wire, ..
        } = guest;
        // One of the two is enough.
        let _kept: Box<dyn std::any::Any> = match by_wire {
            true => {
                drop(wire);
                Box::new(connection)
            }
            false => {
                drop(connection);
                Box::new(wire)
            }
        };
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    Guest::join(&net, 2);
}

#[test]
fn joins_that_cannot_be_are_refused_with_the_reason() {
    let net = Net::start();
    let _guest = Guest::join(&net, 2);
    let refused = |mac, address| {
        let (answer, _) = guest::join(&net.connect(), (mac, address), &[]);
        match answer {
            FromSwitch::Refused { message } => message,
            FromSwitch::Joined => panic!("{mac:?} {address} has joined"),
        }
    };
    assert!(refused(guest::mac(2), net.address(9)).contains("another member"));
    assert!(refused(guest::mac(9), net.address(2)).contains("another member"));
    assert!(refused(guest::mac(9), GATEWAY).contains("not an address for members"));
    assert!(refused(guest::mac(9), Ipv4Addr::new(10, 98, 0, 2)).contains("not an address"));
    assert!(refused(GATEWAY_MAC, net.address(9)).contains("cannot be a member's"));
    assert!(refused([3, 0, 0, 0, 0, 9], net.address(9)).contains("cannot be a member's"));
}

#[test]
fn ports_may_follow_the_join() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let listeners: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("0.0.0.0:0").unwrap())
        .collect();
    for (i, listener) in listeners.iter().enumerate() {
        let more = [(listener as &dyn AsFd, Transport::Tcp, 8000 + i as u16)];
        assert_eq!(guest::ports(&guest.connection, &more), FromSwitch::Joined);
    }
    for (i, listener) in listeners.iter().enumerate() {
        let socket = guest.listen(8000 + i as u16);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"hello").unwrap();
        assert_eq!(guest.receive(socket, 5), b"hello");
    }
    // Who has not joined has no ports.
    let port = [(&listeners[0] as &dyn AsFd, Transport::Tcp, 80)];
    let answer = guest::ports(&net.connect(), &port);
    assert!(matches!(answer, FromSwitch::Refused { .. }), "{answer:?}");
}
