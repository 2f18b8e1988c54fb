//! A hull-net that is a whole network, and the host around it. Servers of the tests are at the host's primary address:
//! those of loopback cannot be reached, which is tested too.

use std::fs::{self, File};
use std::io::PipeReader;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;

use protocol::net::{Descriptor, FromNet, MAX_PACKET_LEN, Names, Switch, ToNet};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use sys::packet;

use crate::guest::PATIENCE;
use crate::process::launch;

pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const PREFIX_LEN: u8 = 24;
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub(crate) struct Net {
    child: Child,
    words: PipeReader,
    folder: tempfile::TempDir,
}

impl Net {
    pub(crate) fn start() -> Net {
        Net::start_with(false)
    }

    pub(crate) fn start_with(internal: bool) -> Net {
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

    /// A lease in the network's folder, or in another one; it lives as long as the value.
    pub(crate) fn lease(&self, other: Option<&Path>, address: &str, text: &str) -> File {
        let own = self.folder.path().join("leases");
        let folder = other.unwrap_or(&own);
        let new = folder.join(".new");
        fs::write(&new, text).unwrap();
        let file = File::open(&new).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        fs::rename(new, folder.join(address)).unwrap();
        file
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
pub(crate) fn primary() -> Ipv4Addr {
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
pub(crate) fn server() -> (TcpListener, SocketAddrV4) {
    let listener = TcpListener::bind((primary(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, SocketAddrV4::new(primary(), port))
}

pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(crate) fn same(a: &[u8], b: &[u8]) {
    assert_eq!(a.len(), b.len());
    let differs = a.iter().zip(b).position(|(a, b)| a != b);
    assert_eq!(differs, None);
}
