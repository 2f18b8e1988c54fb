//! The server over a folder of leases, with messages put together byte by byte.

mod fairness;
mod forwarding;
mod messages;
mod names;
mod streams;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use rustix::fs::{FlockOperation, flock};

use super::*;

/// A query for records of one kind, of class IN, with recursion desired.
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

/// The same with an OPT record: the longest answer by UDP, and the DO flag.
fn with_edns(mut query: Vec<u8>, size: u16) -> Vec<u8> {
    query[11] += 1;
    query.push(0);
    query.extend([41, size, 0, 0x8000, 0].map(u16::to_be_bytes).concat());
    query
}

/// An upstream's answer to what was sent to it: these flags, this many more bytes behind the question.
fn answer_to(message: &[u8], flags: u16, more: usize) -> Vec<u8> {
    let mut answer = message.to_vec();
    answer[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
    answer.extend(vec![7; more]);
    answer
}

fn u16_at(message: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([message[at], message[at + 1]])
}

/// Addresses in an answer of ours: records of 16 bytes behind the question.
fn addresses(message: &[u8], question: usize) -> Vec<Ipv4Addr> {
    let count = usize::from(u16_at(message, 6));
    let records = message[12 + question..].chunks(16).take(count);
    records
        .map(|record| <[u8; 4]>::try_from(&record[12..]).unwrap().into())
        .collect()
}

fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 0, last)
}

fn client(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(host(last), port)
}

fn upstream(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 53))
}

fn random() -> std::io::Result<u16> {
    Ok(0xbeef)
}

/// A network `backend`, 10.213.0.0/24 with the gateway 10.213.0.1.
struct Network {
    folder: tempfile::TempDir,
    dns: Dns,
    now: Instant,
}

impl Network {
    fn with_upstreams(count: u8) -> Network {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(open_folder(folder.path()).unwrap()).unwrap();
        let domain = Name::parse("backend");
        let part = Part::new(String::new(), leases, domain, (host(0), 24), host(1));
        let zone = Zone::new(part);
        let upstreams = (1..=count).map(upstream).collect();
        Network {
            dns: Dns::new(zone, Forwarder::new(upstreams, random)),
            folder,
            now: Instant::now(),
        }
    }

    /// A sandbox that lives as long as the value.
    fn lease(&self, last: u8, names: &[&str]) -> File {
        let new = self.folder.path().join(".new");
        fs::write(&new, format!("hullport\n{}\n", names.join("\n"))).unwrap();
        let file = File::open(&new).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        fs::rename(new, self.folder.path().join(host(last).to_string())).unwrap();
        file
    }

    fn ask(&mut self, message: &[u8]) -> Vec<Action> {
        self.dns.datagram(self.now, client(9, 1000), message)
    }

    /// The answer to a query that is not passed on.
    fn reply(&mut self, message: &[u8]) -> Vec<u8> {
        reply(self.ask(message))
    }

    /// The addresses that a name has, or the response code of the answer.
    fn look_up(&mut self, name: &str) -> Result<Vec<u8>, u16> {
        let message = query(1, name, wire::A);
        let reply = self.reply(&message);
        match reply[3] & 0xf {
            0 => Ok(addresses(&reply, message.len() - 12)
                .iter()
                .map(|address| address.octets()[3])
                .collect()),
            rcode => Err(u16::from(rcode)),
        }
    }
}

/// The one reply among actions.
fn reply(actions: Vec<Action>) -> Vec<u8> {
    let mut replies = actions.into_iter().filter_map(|action| match action {
        Action::Reply(_, message) => Some(message),
        _ => None,
    });
    let reply = replies.next().expect("a reply");
    assert_eq!(replies.next(), None);
    reply
}

/// What is sent to an upstream.
fn opened(actions: &[Action]) -> (Flight, SocketAddr, Transport, Vec<u8>) {
    let [
        Action::Open {
            flight,
            upstream,
            transport,
            message,
        },
    ] = actions
    else {
        panic!("one query to an upstream: {actions:?}");
    };
    (*flight, *upstream, *transport, message.clone())
}
