//! A guest: a TCP/IP stack of others' on a wire of hull-net's.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::BUILD;
use protocol::net::{Adjacent, Descriptor, FromSwitch, ListeningPort, MAX_PACKET_LEN, ToSwitch};
use protocol::record::Transport;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendFlags, send};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket as Tcp, SocketBuffer, State};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket as Udp};
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use sys::packet;

use crate::device::{HEADER, Wire};
use crate::switch::{GATEWAY, GATEWAY_MAC, Net, PREFIX_LEN};

/// Longer than anything takes that is to succeed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const BUFFER: usize = 256 << 10;

pub(crate) struct Guest {
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: [u8; 6],
    /// The warden's connection.
    pub(crate) connection: OwnedFd,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) wire: Wire,
}

pub(crate) fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

/// A socket of the host's, and the port of the guest for which it stands.
pub(crate) type Published<'a> = (&'a dyn AsFd, Transport, u16);

/// Asks to join.
pub(crate) fn join(
    connection: &OwnedFd,
    (mac, address): ([u8; 6], Ipv4Addr),
    ports: &[Published<'_>],
) -> (FromSwitch, OwnedFd) {
    let (wire, theirs) = packet::pair().unwrap();
    let join = ToSwitch::Join {
        build: BUILD.to_owned(),
        wire: Descriptor(0),
        mac,
        address,
        ports: listening(1, ports),
    };
    let mut descriptors = vec![theirs.as_fd()];
    descriptors.extend(ports.iter().map(|(socket, ..)| socket.as_fd()));
    (ask(connection, &join, &descriptors), wire)
}

/// Asks for more ports.
pub(crate) fn ports(connection: &OwnedFd, ports: &[Published<'_>]) -> FromSwitch {
    let descriptors: Vec<_> = ports.iter().map(|(socket, ..)| socket.as_fd()).collect();
    let message = ToSwitch::Ports {
        ports: listening(0, ports),
    };
    ask(connection, &message, &descriptors)
}

/// Says that a member is on another network, 10.98.0.0/24, with this folder of leases.
pub(crate) fn adjacent(connection: &OwnedFd, leases: &std::path::Path) -> FromSwitch {
    let leases = std::fs::File::open(leases).unwrap();
    let adjacent = Adjacent {
        id: "other".to_owned(),
        leases: Descriptor(0),
        network: Ipv4Addr::new(10, 98, 0, 0),
        prefix_len: PREFIX_LEN,
        gateway: Ipv4Addr::new(10, 98, 0, 1),
        domain: "other".to_owned(),
    };
    ask(
        connection,
        &ToSwitch::Adjacent { adjacent },
        &[leases.as_fd()],
    )
}

fn listening(first: u32, ports: &[Published<'_>]) -> Vec<ListeningPort> {
    let ports = ports.iter().zip(first..);
    let ports = ports.map(|((_, transport, port), index)| ListeningPort {
        socket: Descriptor(index),
        transport: *transport,
        container_port: *port,
    });
    ports.collect()
}

fn ask(connection: &OwnedFd, message: &ToSwitch, descriptors: &[BorrowedFd<'_>]) -> FromSwitch {
    let bytes = serde_json::to_vec(message).unwrap();
    packet::send(connection, &bytes, descriptors).unwrap();
    let mut buffer = [0; MAX_PACKET_LEN];
    let len = packet::receive(connection, &mut buffer).unwrap().len;
    serde_json::from_slice(&buffer[..len]).unwrap()
}

impl Guest {
    /// The one at `last` of the network.
    pub(crate) fn join(net: &Net, last: u8) -> Guest {
        Guest::join_with(net, last, &[])
    }

    pub(crate) fn join_with(net: &Net, last: u8, ports: &[Published<'_>]) -> Guest {
        let connection = net.connect();
        let address = net.address(last);
        let (answer, wire) = join(&connection, (mac(last), address), ports);
        assert_eq!(answer, FromSwitch::Joined);
        let mut wire = Wire::new(wire);
        let hardware = HardwareAddress::Ethernet(EthernetAddress(mac(last)));
        let mut config = Config::new(hardware);
        config.random_seed = u64::from(last);
        let mut interface = Interface::new(config, &mut wire, StackTime::now());
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(address.into(), PREFIX_LEN))
                .unwrap();
        });
        interface
            .routes_mut()
            .add_default_ipv4_route(GATEWAY)
            .unwrap();
        Guest {
            address,
            mac: mac(last),
            connection,
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
        }
    }

    /// One turn of the stack.
    pub(crate) fn turn(&mut self) {
        self.wire.take();
        self.interface
            .poll(StackTime::now(), &mut self.wire, &mut self.sockets);
    }

    /// Waits until something comes, or the stack has something to do.
    fn wait(&mut self) {
        let delay = self.interface.poll_delay(StackTime::now(), &self.sockets);
        let delay = delay.map_or(10_000, |it| it.total_micros().min(10_000));
        let timeout = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: delay as i64 * 1000,
        };
        let mut fds = [PollFd::new(&self.wire.socket, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timeout));
    }

    /// Lets the stack work until `done` says so.
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut SocketSet<'static>) -> bool,
    ) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.turn();
            if done(&mut self.sockets) {
                return;
            }
            assert!(Instant::now() < end, "in vain: {what}");
            self.wait();
        }
    }

    /// Lets the stack work for a while.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn();
            self.wait();
        }
    }

    fn tcp_socket(&mut self) -> SocketHandle {
        let [rx, tx] = [(); 2].map(|()| SocketBuffer::new(vec![0; BUFFER]));
        let mut socket = Tcp::new(rx, tx);
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    /// A connection that is being made.
    pub(crate) fn dial(&mut self, to: SocketAddrV4, port: u16) -> SocketHandle {
        let handle = self.tcp_socket();
        let socket = self.sockets.get_mut::<Tcp>(handle);
        let to = IpEndpoint::from(to);
        socket.connect(self.interface.context(), to, port).unwrap();
        handle
    }

    /// A connection.
    pub(crate) fn connect(&mut self, to: SocketAddrV4) -> SocketHandle {
        let handle = self.dial(to, 40_000 + self.sockets.iter().count() as u16);
        self.until("a connection", |sockets| {
            sockets.get::<Tcp>(handle).may_send()
        });
        handle
    }

    pub(crate) fn listen(&mut self, port: u16) -> SocketHandle {
        let handle = self.tcp_socket();
        self.sockets.get_mut::<Tcp>(handle).listen(port).unwrap();
        handle
    }

    pub(crate) fn udp(&mut self, port: u16) -> SocketHandle {
        let [rx, tx] =
            [(); 2].map(|()| PacketBuffer::new(vec![PacketMetadata::EMPTY; 64], vec![0; 65_536]));
        let mut socket = Udp::new(rx, tx);
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn send_to(&mut self, socket: SocketHandle, to: SocketAddrV4, bytes: &[u8]) {
        let socket = self.sockets.get_mut::<Udp>(socket);
        socket.send_slice(bytes, IpEndpoint::from(to)).unwrap();
    }

    /// The next datagram, and its sender.
    pub(crate) fn receive_from(&mut self, socket: SocketHandle) -> (Vec<u8>, SocketAddrV4) {
        let mut received = None;
        self.until("a datagram", |sockets| {
            if let Ok((bytes, meta)) = sockets.get_mut::<Udp>(socket).recv() {
                received = Some((bytes.to_vec(), v4(meta.endpoint)));
            }
            received.is_some()
        });
        received.unwrap()
    }

    /// Sends bytes, all of them.
    pub(crate) fn send(&mut self, socket: SocketHandle, bytes: &[u8]) {
        let mut sent = 0;
        self.until("the sending", |sockets| {
            sent += sockets
                .get_mut::<Tcp>(socket)
                .send_slice(&bytes[sent..])
                .unwrap();
            sent == bytes.len()
        });
        // What the stack has taken is on its way.
        self.turn();
    }

    /// Receives until the other side ends.
    pub(crate) fn receive_all(&mut self, socket: SocketHandle) -> Vec<u8> {
        let mut received = Vec::new();
        self.until("the end", |sockets| {
            let socket = sockets.get_mut::<Tcp>(socket);
            while socket.can_recv() {
                let taken = socket.recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
                taken.unwrap();
            }
            let begun = !matches!(socket.state(), State::Listen | State::SynReceived);
            begun && !socket.may_recv()
        });
        received
    }

    /// Receives this many bytes.
    pub(crate) fn receive(&mut self, socket: SocketHandle, len: usize) -> Vec<u8> {
        let mut received = vec![0; len];
        let mut count = 0;
        self.until("bytes", |sockets| {
            let socket = sockets.get_mut::<Tcp>(socket);
            if socket.can_recv() {
                count += socket.recv_slice(&mut received[count..]).unwrap();
            }
            count == len
        });
        received
    }

    pub(crate) fn close(&mut self, socket: SocketHandle) {
        self.sockets.get_mut::<Tcp>(socket).close();
    }

    pub(crate) fn tcp(&mut self, socket: SocketHandle) -> &mut Tcp<'static> {
        self.sockets.get_mut::<Tcp>(socket)
    }

    /// The next frame on the wire that `wanted` takes, without the stack.
    pub(crate) fn next_frame(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        loop {
            self.wire.take();
            while let Some(frame) = self.wire.pop() {
                if wanted(&frame) {
                    return frame;
                }
            }
            assert!(Instant::now() < end, "in vain: a frame");
            self.wait();
        }
    }

    /// An IPv4 packet to the gateway's MAC address, in a frame: identification, place, protocol and payload.
    pub(crate) fn packet(
        &self,
        to: Ipv4Addr,
        id: u16,
        place: u16,
        protocol: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let len = (20 + payload.len()) as u16;
        let mut ip = vec![0x45, 0];
        ip.extend([len, id, place].map(u16::to_be_bytes).concat());
        ip.extend([64, protocol, 0, 0]);
        ip.extend(self.address.octets());
        ip.extend(to.octets());
        let words = ip
            .chunks(2)
            .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
        let sum: u32 = words.sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [&GATEWAY_MAC[..], &self.mac, &[8, 0], &ip, payload].concat()
    }

    /// Puts an Ethernet frame on the wire as it is.
    pub(crate) fn inject(&self, frame: &[u8]) {
        let message = [&[0; HEADER], frame].concat();
        send(&self.wire.socket, &message, SendFlags::NOSIGNAL).unwrap();
    }
}

pub(crate) fn v4(endpoint: IpEndpoint) -> SocketAddrV4 {
    let IpAddress::Ipv4(address) = endpoint.addr;
    SocketAddrV4::new(address, endpoint.port)
}
