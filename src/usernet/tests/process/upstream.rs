//! A resolver of the host's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a large answer holds behind the question.
pub(crate) const LARGE: usize = 30_000;

/// What was asked by datagram: the identifier, and from which port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) id: u16,
    pub(crate) port: u16,
}

/// It ends with the test's process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Answers by datagram and connection, by the name's first label:
    /// - `small`: these five letters behind the question.
    /// - `missing`: NXDOMAIN.
    /// - `large`: truncated by datagram, with [`LARGE`] bytes by connection.
    /// - `forged`: an answer to something else.
    pub(crate) fn start(host: &str) -> Upstream {
        let (datagrams, listener) = loop {
            let listener = TcpListener::bind((host, 0)).unwrap();
            if let Ok(datagrams) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (datagrams, listener);
            }
        };
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let noted = seen.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((len, from)) = datagrams.recv_from(&mut buffer) {
                let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                noted.lock().unwrap().push(Seen {
                    id,
                    port: from.port(),
                });
                let answer = answer(&buffer[..len], false);
                datagrams.send_to(&answer, from).unwrap();
            }
        });
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
                stream.read_exact(&mut message).unwrap();
                let answer = answer(&message, true);
                let len = (answer.len() as u16).to_be_bytes();
                // In pieces.
                for piece in [&len[..], &answer].concat().chunks(1000) {
                    stream.write_all(piece).unwrap();
                }
            }
        });
        Upstream { address, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(query: &[u8], whole: bool) -> Vec<u8> {
    let label = &query[13..13 + usize::from(query[12])];
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    match label {
        b"small" => answer.extend(b"small"),
        b"missing" => answer[3] |= 3,
        b"large" if whole => answer.extend(vec![7; LARGE]),
        b"large" => answer[2] |= 2,
        b"forged" => answer[0] ^= 1,
        other => panic!("{} is asked for", other.escape_ascii()),
    }
    answer
}

/// An address without a socket.
pub(crate) fn closed() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A resolver that never answers.
pub(crate) fn silent() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}
