//! hull-net as a whole network: guests on its wires, and the host's own sockets around it. Servers of the tests are at
//! the host's primary address: those of loopback cannot be reached, which is tested too.

use std::fs;
use std::io::{PipeReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use protocol::net::{Descriptor, FromNet, FromSwitch, MAX_PACKET_LEN, Names, Switch, ToNet};
use protocol::record::Transport;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen,
    socket_with,
};
use smoltcp::socket::tcp::{Socket as Tcp, State};
use sys::packet;

use crate::guest::{self, Guest, PATIENCE, v4};
use crate::process::launch;

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const PREFIX_LEN: u8 = 24;
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// More than all buffers on the way hold.
const BULK: usize = 24 << 20;

pub(crate) struct Net {
    child: Child,
    words: PipeReader,
    folder: tempfile::TempDir,
}

impl Net {
    fn start() -> Net {
        Net::start_with(false)
    }

    fn start_with(internal: bool) -> Net {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("leases")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let leases = openat(CWD, folder.path().join("leases"), flags, Mode::empty()).unwrap();
        let members = packets();
        bind(
            &members,
            &SocketAddrUnix::new(folder.path().join("members")).unwrap(),
        )
        .unwrap();
        listen(&members, 16).unwrap();
        let (child, control, words) = launch();
        let start = ToNet::Switch {
            build: protocol::BUILD.to_owned(),
            names: Names {
                leases: Descriptor(0),
                network: Ipv4Addr::new(10, 99, 0, 0),
                prefix_len: PREFIX_LEN,
                gateway: GATEWAY,
                domain: "backend".to_owned(),
                resolvers: Vec::new(),
            },
            switch: Switch {
                members: Descriptor(1),
                mac: GATEWAY_MAC,
                mtu: 1500,
                internal,
            },
            locks: Vec::new(),
        };
        let bytes = serde_json::to_vec(&start).unwrap();
        packet::send(&control, &bytes, &[leases.as_fd(), members.as_fd()]).unwrap();
        let mut buffer = [0; MAX_PACKET_LEN];
        let len = packet::receive(&control, &mut buffer).unwrap().len;
        let answer: FromNet = serde_json::from_slice(&buffer[..len]).unwrap();
        assert_eq!(answer, FromNet::Ready);
        Net {
            child,
            words,
            folder,
        }
    }

    pub(crate) fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, last)
    }

    /// A sandbox's connection.
    pub(crate) fn connect(&self) -> OwnedFd {
        let socket = packets();
        connect(
            &socket,
            &SocketAddrUnix::new(self.folder.path().join("members")).unwrap(),
        )
        .unwrap();
        socket
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(Some(words)) = sys::last_words::read(&self.words) {
            eprintln!("hull-net ended: {words:?}");
        }
    }
}

fn packets() -> OwnedFd {
    socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

/// The host's own address.
fn primary() -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .connect("198.51.100.1:9")
        .expect("these tests need a default route");
    match socket.local_addr().unwrap().ip() {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(address) => panic!("{address}"),
    }
}

/// A server of the host's.
fn server() -> (TcpListener, SocketAddrV4) {
    let listener = TcpListener::bind((primary(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, SocketAddrV4::new(primary(), port))
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn same(a: &[u8], b: &[u8]) {
    assert_eq!(a.len(), b.len());
    let differs = a.iter().zip(b).position(|(a, b)| a != b);
    assert_eq!(differs, None);
}

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
fn the_gateway_answers_echoes() {
    let net = Net::start();
    let mut guest = Guest::join(&net, 2);
    let request = [
        8, 0, 0x6d, 0x6a, 0, 9, 0, 1, b'h', b'u', b'l', b'l', b'!', b'!',
    ];
    guest.inject(&guest.packet(GATEWAY, 0, 0, 1, &request));
    let reply = guest.next_frame(|frame| frame[12..14] == [8, 0] && frame[23] == 1);
    assert_eq!(reply[26..30], GATEWAY.octets());
    assert_eq!((&reply[34..36], &reply[38..]), (&[0, 0][..], &request[4..]));
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
    while let Ok((len, _)) =
        rustix::net::recv(&b.wire.socket, &mut message[..], RecvFlags::DONTWAIT)
    {
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
