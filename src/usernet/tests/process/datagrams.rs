//! What guests send without a connection, and the names of the network.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use protocol::net::FromSwitch;
use protocol::record::Transport;
use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use smoltcp::socket::tcp::{Socket as Tcp, State};

use crate::guest::{Guest, PATIENCE, adjacent};
use crate::switch::{GATEWAY, Net, pattern, primary, same, server};

#[test]
fn datagrams_go_out_and_come_back() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let host = UdpSocket::bind((primary(), 0)).unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = host.local_addr().unwrap().port();
    let socket = guest.udp(5000);
    let mut seen = Vec::new();
    for address in [primary(), GATEWAY, primary()] {
        let to = SocketAddrV4::new(address, port);
        guest.send_to(socket, to, b"question");
        guest.turn();
        // The first waits for the answer of ARP.
        guest.run_for(Duration::from_millis(50));
        let mut buffer = [0; 100];
        let (len, from) = host.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"question");
        seen.push(from);
        host.send_to(b"answer", from).unwrap();
        let (answer, from) = guest.receive_from(socket);
        assert_eq!(answer, b"answer");
        // Once the host is known by the gateway's address, it is the gateway.
        let expected = if seen.len() == 1 { primary() } else { GATEWAY };
        assert_eq!(from, SocketAddrV4::new(expected, port));
    }
    assert!(
        seen.iter().all(|from| *from == seen[0]),
        "one socket for one port"
    );
    // Of an endpoint that was not asked.
    let other = UdpSocket::bind((primary(), 0)).unwrap();
    other.send_to(b"call", seen[0]).unwrap();
    assert_eq!(guest.receive_from(socket).0, b"call");
}

#[test]
fn long_datagrams_go_in_parts_both_ways() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let host = UdpSocket::bind((primary(), 0)).unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = host.local_addr().unwrap().port();
    let data = pattern(4000);
    let ports = [5000, port, 4008, 0].map(u16::to_be_bytes).concat();
    let datagram = [&ports[..], &data].concat();
    let parts: Vec<_> = datagram.chunks(1480).enumerate().collect();
    let part = |(i, bytes): (usize, &[u8])| {
        let more = if i < 2 { 0x2000 } else { 0 };
        guest.packet(primary(), 7, (i * 185) as u16 | more, 17, bytes)
    };
    // One is missing, then all come.
    for i in [0, 2, 0, 1, 2] {
        guest.inject(&part(parts[i]));
    }
    let mut buffer = vec![0; 70_000];
    let (len, from) = host.recv_from(&mut buffer).unwrap();
    same(&buffer[..len], &data);
    host.send_to(&data, from).unwrap();
    let mut answer = Vec::new();
    while answer.len() < datagram.len() {
        let frame = guest.next_frame(|frame| frame[12..14] == [8, 0] && frame[23] == 17);
        assert_eq!(
            usize::from(u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff) * 8,
            answer.len()
        );
        answer.extend(&frame[34..]);
    }
    same(&answer[8..], &data);
}

#[test]
fn echoes_are_answered_by_the_gateway_and_where_this_user_may_ping_by_hosts() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let request = [
        8, 0, 0x6d, 0x6a, 0, 9, 0, 1, b'h', b'u', b'l', b'l', b'!', b'!',
    ];
    let datagram = SocketType::DGRAM;
    let may_ping = socket(AddressFamily::INET, datagram, Some(ipproto::ICMP)).is_ok();
    for to in [primary(), GATEWAY] {
        guest.inject(&guest.packet(to, 0, 0, 1, &request));
        if to != GATEWAY && !may_ping {
            // The next answer is the gateway's.
            continue;
        }
        let reply = guest.next_frame(|frame| frame[12..14] == [8, 0] && frame[23] == 1);
        assert_eq!(reply[26..30], to.octets());
        assert_eq!((&reply[34..36], &reply[38..]), (&[0, 0][..], &request[4..]));
    }
}

#[test]
fn a_published_port_of_udp_answers_its_clients() {
    let net = Net::start();
    let published = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = published.local_addr().unwrap().port();
    let mut guest = Guest::join_with(&net, 2, &[(&published, Transport::Udp, 53)]);
    let socket = guest.udp(53);
    for (address, seen) in [(primary(), primary()), (Ipv4Addr::LOCALHOST, GATEWAY)] {
        let client = UdpSocket::bind((address, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect((address, port)).unwrap();
        client.send(b"question").unwrap();
        let (question, from) = guest.receive_from(socket);
        assert_eq!(question, b"question");
        assert_eq!(
            from,
            SocketAddrV4::new(seen, client.local_addr().unwrap().port())
        );
        guest.send_to(socket, from, b"answer");
        // The first waits for the answer of ARP.
        guest.run_for(Duration::from_millis(50));
        let mut buffer = [0; 100];
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"answer");
    }
}

#[test]
fn names_are_answered_by_the_gateway_over_both_transports() {
    let net = Net::start_with(true);
    let mut guest = Guest::join(&net, 2);
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04host\x06docker\x08internal\x00\x00\x01\x00\x01";
    let dns = SocketAddrV4::new(GATEWAY, 53);
    let socket = guest.udp(5000);
    guest.send_to(socket, dns, query);
    let (answer, from) = guest.receive_from(socket);
    assert_eq!(from, dns);
    assert_eq!(answer[..2], [0x12, 0x34]);
    assert!(answer.ends_with(&GATEWAY.octets()));
    let socket = guest.connect(dns);
    for _ in 0..2 {
        guest.send(
            socket,
            &[&(query.len() as u16).to_be_bytes()[..], query].concat(),
        );
        assert_eq!(guest.receive(socket, 2 + answer.len())[2..], answer);
    }
    guest.close(socket);
    guest.until("the end", |sockets| {
        matches!(
            sockets.get::<Tcp>(socket).state(),
            State::TimeWait | State::Closed
        )
    });
    // The network is internal: that is all.
    let (_listener, address) = server();
    let socket = guest.dial(address, 45_000);
    guest.until("a refusal", |sockets| {
        sockets.get::<Tcp>(socket).state() == State::Closed
    });
}

#[test]
fn names_of_another_network_are_told_to_a_member_that_is_on_it() {
    let net = Net::start_with(true);
    let other = tempfile::tempdir().unwrap();
    let mut guest = Guest::join(&net, 2);
    let mut stranger = Guest::join(&net, 3);
    let _held = [
        net.lease(None, "10.99.0.2", "hull0123456789a\nme\n"),
        net.lease(None, "10.99.0.3", "hull0000000000a\nstranger\n"),
        net.lease(Some(other.path()), "10.98.0.5", "hull9999999999a\ndb\n"),
        net.lease(Some(other.path()), "10.98.0.6", "hull0123456789g\nme\n"),
    ];
    let refused = adjacent(&net.connect(), other.path());
    assert!(matches!(refused, FromSwitch::Refused { .. }), "{refused:?}");
    assert_eq!(
        adjacent(&guest.connection, other.path()),
        FromSwitch::Joined
    );
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01";
    let ask = |guest: &mut Guest| {
        let socket = guest.udp(5000);
        guest.send_to(socket, SocketAddrV4::new(GATEWAY, 53), query);
        guest.receive_from(socket).0
    };
    assert!(ask(&mut guest).ends_with(&[10, 98, 0, 5]));
    // Another member is not on it: there is no such name.
    assert_eq!(ask(&mut stranger)[3] & 0xf, 3);
}
