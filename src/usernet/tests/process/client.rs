//! A container that asks.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::process::Process;

/// Longer than hull-net takes for anything, and shorter than a test may.
const PATIENCE: Duration = Duration::from_secs(12);

pub(crate) struct Client {
    address: Ipv4Addr,
    socket: UdpSocket,
    server: SocketAddr,
    id: Cell<u16>,
}

/// An answer's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn rcode(&self) -> u8 {
        self.0[3] & 0xf
    }

    pub(crate) fn answers(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.0[2] & 2 != 0
    }
}

fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([kind, 1].map(u16::to_be_bytes).concat());
    message
}

impl Client {
    /// The one at 127.0.0.`last`.
    pub(crate) fn of(process: &Process, last: u8) -> Client {
        let address = Ipv4Addr::new(127, 0, 0, last);
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.connect(process.address).unwrap();
        Client {
            address,
            socket,
            server: process.address,
            id: Cell::new(1),
        }
    }

    fn next_id(&self) -> u16 {
        self.id.set(self.id.get() + 1);
        self.id.get()
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap();
    }

    /// The query's identifier.
    pub(crate) fn send(&self, name: &str, kind: u16) -> u16 {
        let id = self.next_id();
        self.send_bytes(&query(id, name, kind));
        id
    }

    pub(crate) fn receive(&self, patience: Duration) -> Option<Answer> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 65_535];
        let len = self.socket.recv(&mut buffer).ok()?;
        Some(Answer(buffer[..len].to_vec()))
    }

    pub(crate) fn ask(&self, name: &str, kind: u16) -> Answer {
        let id = self.send(name, kind);
        let answer = self.receive(PATIENCE).expect("an answer");
        assert_eq!(answer.0[..2], id.to_be_bytes());
        answer
    }

    /// As [`Client::ask`] while other answers may come.
    pub(crate) fn ask_beside(&self, name: &str, kind: u16) -> Answer {
        let id = self.send(name, kind);
        loop {
            let answer = self.receive(PATIENCE).expect("an answer");
            if answer.0[..2] == id.to_be_bytes() {
                return answer;
            }
        }
    }

    pub(crate) fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        let answer = self.ask(name, 1);
        assert_eq!(answer.rcode(), 0, "{name}");
        let records = answer.0[answer.0.len() - 16 * usize::from(answer.answers())..].chunks(16);
        records
            .map(|record| <[u8; 4]>::try_from(&record[12..]).unwrap().into())
            .collect()
    }

    /// A connection from the same address.
    pub(crate) fn connect(&self) -> Connection {
        let socket: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((self.address, 0))).unwrap();
        connect(&socket, &self.server).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection { stream, id: 0 }
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    id: u16,
}

impl Connection {
    pub(crate) fn framed(&mut self, name: &str, kind: u16) -> Vec<u8> {
        self.id += 1;
        let message = query(self.id, name, kind);
        let len = message.len() as u16;
        [&len.to_be_bytes()[..], &message].concat()
    }

    /// A server that has closed the connection does not read it: no error.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn receive(&mut self) -> Answer {
        self.try_receive().expect("an answer")
    }

    fn try_receive(&mut self) -> Option<Answer> {
        let mut len = [0; 2];
        self.stream.read_exact(&mut len).ok()?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
        self.stream.read_exact(&mut message).ok()?;
        Some(Answer(message))
    }

    pub(crate) fn ask(&mut self, name: &str, kind: u16) -> Answer {
        self.try_ask(name, kind).expect("an answer")
    }

    /// `None` if the connection is closed.
    pub(crate) fn try_ask(&mut self, name: &str, kind: u16) -> Option<Answer> {
        let framed = self.framed(name, kind);
        self.write(&framed);
        self.try_receive()
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
