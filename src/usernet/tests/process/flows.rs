//! TCP between guests and the host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use protocol::record::Transport;
use smoltcp::socket::tcp::{Socket as Tcp, State};

use crate::guest::{Guest, v4};
use crate::switch::{GATEWAY, Net, accept, pattern, primary, same, server};

/// More than all buffers on the way hold.
const BULK: usize = 24 << 20;

#[test]
fn what_a_guest_sends_arrives_and_its_end_leaves_the_other_way_open() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let (listener, address) = server();
    let host = thread::spawn(move || {
        let mut stream = accept(&listener);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(b"after the end").unwrap();
        received
    });
    let socket = guest.connect(address);
    let sent = pattern(BULK);
    guest.send(socket, &sent);
    guest.close(socket);
    assert_eq!(guest.receive_all(socket), b"after the end");
    same(&host.join().unwrap(), &sent);
}

#[test]
fn what_a_host_sends_arrives_and_its_end_leaves_the_other_way_open() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let (listener, address) = server();
    let host = thread::spawn(move || {
        let mut stream = accept(&listener);
        stream.write_all(&pattern(BULK)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let socket = guest.connect(address);
    same(&guest.receive_all(socket), &pattern(BULK));
    guest.send(socket, b"after the end");
    guest.close(socket);
    guest.until("the close", |sockets| {
        !sockets.get::<Tcp>(socket).is_open()
            || sockets.get::<Tcp>(socket).state() == State::TimeWait
    });
    assert_eq!(host.join().unwrap(), b"after the end");
}

#[test]
fn connections_that_cannot_be_are_refused() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let closed = server().1;
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = loopback.local_addr().unwrap().port();
    let refused = [
        closed,
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, local),
        // The host, by the gateway's address, and not its loopback.
        SocketAddrV4::new(GATEWAY, local),
        SocketAddrV4::new(Ipv4Addr::new(0, 0, 0, 1), local),
        SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80),
        SocketAddrV4::new(Ipv4Addr::new(10, 99, 0, 77), 80),
    ];
    for (i, to) in refused.into_iter().enumerate() {
        // The gateway is asked to route what the stack would not.
        let socket = guest.dial(to, 41_000 + i as u16);
        if to.ip().octets()[0] == 10 && *to.ip() != GATEWAY {
            guest.run_for(Duration::from_millis(100));
            assert!(!guest.tcp(socket).may_send(), "{to}");
            guest.tcp(socket).abort();
            continue;
        }
        guest.until("a refusal", |sockets| {
            sockets.get::<Tcp>(socket).state() == State::Closed
        });
    }
}

#[test]
fn the_host_is_reached_by_the_gateways_address() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let (listener, address) = server();
    let socket = guest.connect(SocketAddrV4::new(GATEWAY, address.port()));
    let mut stream = accept(&listener);
    stream.write_all(b"hello").unwrap();
    assert_eq!(guest.receive(socket, 5), b"hello");
}

#[test]
fn resets_go_through_both_ways() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let (listener, address) = server();
    let socket = guest.connect(address);
    let mut stream = accept(&listener);
    guest.send(socket, b"x");
    stream.read_exact(&mut [0]).unwrap();
    guest.tcp(socket).abort();
    guest.run_for(Duration::from_millis(50));
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let socket = guest.connect(address);
    let stream = accept(&listener);
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("a reset", |sockets| {
        sockets.get::<Tcp>(socket).state() == State::Closed
    });
}

#[test]
fn a_host_that_does_not_read_holds_the_guest_back_until_it_does() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let (listener, address) = server();
    let socket = guest.connect(address);
    let mut stream = accept(&listener);
    let sent = pattern(BULK);
    let mut count = 0;
    let mut progress = Instant::now();
    guest.until("the guest to be held back", |sockets| {
        let more = sockets
            .get_mut::<Tcp>(socket)
            .send_slice(&sent[count..])
            .unwrap();
        count += more;
        if more > 0 {
            progress = Instant::now();
        }
        progress.elapsed() > Duration::from_secs(1)
    });
    assert!(count < BULK, "nothing held it back");
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    guest.send(socket, &sent[count..]);
    guest.close(socket);
    guest.until("the close", |sockets| {
        sockets.get::<Tcp>(socket).state() == State::FinWait2
            || !sockets.get::<Tcp>(socket).is_open()
            || sockets.get::<Tcp>(socket).state() == State::TimeWait
    });
    same(&reader.join().unwrap(), &sent);
}

#[test]
fn a_guest_that_does_not_read_holds_the_host_back_until_it_does() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let (listener, address) = server();
    let socket = guest.connect(address);
    let mut stream = accept(&listener);
    stream.set_nonblocking(true).unwrap();
    let sent = pattern(BULK);
    let mut count = 0;
    let mut progress = Instant::now();
    guest.until("the host to be held back", |_| {
        if let Ok(more) = stream.write(&sent[count..]) {
            count += more;
            progress = Instant::now();
        }
        progress.elapsed() > Duration::from_secs(1)
    });
    assert!(count < BULK, "nothing held it back");
    stream.set_nonblocking(false).unwrap();
    let writer = thread::spawn(move || {
        stream.write_all(&pattern(BULK)[count..]).unwrap();
    });
    same(&guest.receive_all(socket), &sent);
    writer.join().unwrap();
}

#[test]
fn a_published_port_shows_its_clients_own_address() {
    let net = Net::start();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut guest = Guest::join_with(&net, 2, &[(&listener, Transport::Tcp, 80)]);
    for (to, seen) in [(primary(), primary()), (Ipv4Addr::LOCALHOST, GATEWAY)] {
        let socket = guest.listen(80);
        let client = thread::spawn(move || {
            let mut client = TcpStream::connect((to, port)).unwrap();
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            (client.local_addr().unwrap().port(), answer)
        });
        assert_eq!(guest.receive_all(socket), b"question");
        let remote = v4(guest.tcp(socket).remote_endpoint().unwrap());
        guest.send(socket, b"answer");
        guest.close(socket);
        guest.until("the end", |sockets| !sockets.get::<Tcp>(socket).is_open());
        let (port, answer) = client.join().unwrap();
        assert_eq!(
            (remote, answer.as_str()),
            (SocketAddrV4::new(seen, port), "answer")
        );
    }
    // Nobody listens any more.
    let client = thread::spawn(move || {
        let mut client = TcpStream::connect((primary(), port)).unwrap();
        client.read(&mut [0]).unwrap_err().kind()
    });
    while !client.is_finished() {
        guest.run_for(Duration::from_millis(10));
    }
    assert_eq!(client.join().unwrap(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_guest_that_takes_all_its_connections_leaves_others_theirs() {
    let net = Net::start();
    let mut greedy = Guest::join(&net, 2);
    let (listener, address) = server();
    let accepting = thread::spawn(move || {
        let accepted = (0..1025).map(|_| listener.accept().unwrap().0);
        accepted.collect::<Vec<_>>()
    });
    let syn = |guest: &Guest, port: u16| {
        let ports = [port, address.port()].map(u16::to_be_bytes).concat();
        let tcp = [
            &ports[..],
            &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0],
        ]
        .concat();
        guest.inject(&guest.packet(primary(), 0, 0, 6, &tcp));
    };
    let answer = |guest: &mut Guest, port: u16| {
        let port = port.to_be_bytes();
        let of_port =
            |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 6 && frame[36..38] == port;
        guest.next_frame(of_port)[47]
    };
    for port in 2000..3024 {
        syn(&greedy, port);
        assert_eq!(answer(&mut greedy, port), 0x12, "of SYN and ACK, {port}");
    }
    syn(&greedy, 3024);
    assert_eq!(answer(&mut greedy, 3024), 0x14, "RST and ACK");
    let mut other = Guest::join(&net, 3);
    syn(&other, 2000);
    assert_eq!(answer(&mut other, 2000), 0x12);
    assert_eq!(accepting.join().unwrap().len(), 1025);
}
