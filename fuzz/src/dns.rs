//! The DNS server of a network: what clients send by datagram and by connection, and what upstreams answer.
//!
//! Whatever comes, in whatever order: each query is answered once, an answer has its query's identifier and is one,
//! what goes to an upstream is a query, and nothing is left once everything has had its time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use usernet::dns::{
    Action, Client, Dns, Flight, Forwarder, Incoming, Leases, MAX_QUERY, Name, Outcome, Part,
    Query, Zone,
};

use crate::input::Input;
use crate::places;

/// Most steps of an input.
const MAX_STEPS: usize = 200;
const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 0);
/// Leases: addresses, and names as a warden may write them.
const LEASES: [(u8, &str); 3] = [
    (2, "port\nweb\n0123456789ab\nwww\n"),
    (3, "port\nWWW\nweb.backend\n.\n\na..b"),
    (4, "port"),
];

thread_local! {
    static IDS: Cell<u16> = const { Cell::new(0) };
}

/// The server, and what the loop around it would know.
struct World {
    dns: Dns,
    now: Instant,
    /// What upstreams were asked and have not been told to forget.
    open: BTreeMap<Flight, Vec<u8>>,
    /// Clients that wait for an answer, by how they have asked and the identifier.
    waiting: BTreeSet<(String, u16)>,
    connections: BTreeMap<u64, Incoming>,
}

/// The target. The first byte says how many upstreams there are; then follow steps: what happens, to which client or
/// query in flight, and bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let upstreams = input.u8() % 4;
    let (leases, _held) = leases();
    let domain = Name::parse("backend");
    let gateway = Ipv4Addr::from_bits(NETWORK.to_bits() + 1);
    let part = Part::new(String::new(), leases, domain, (NETWORK, 24), gateway);
    let zone = Zone::new(part);
    let upstreams = (0..upstreams).map(|it| SocketAddr::from(([192, 0, 2, it], 53)));
    let forwarder = Forwarder::new(upstreams.collect(), id);
    let mut world = World {
        dns: Dns::new(zone, forwarder),
        now: Instant::now(),
        open: BTreeMap::new(),
        waiting: BTreeSet::new(),
        connections: BTreeMap::new(),
    };
    for _ in 0..MAX_STEPS {
        let Some(op) = input.op() else {
            break;
        };
        let which = input.u8();
        let bytes = input.short().to_vec();
        world.step(op, which, &bytes);
    }
    world.finish();
}

fn id() -> std::io::Result<u16> {
    IDS.set(IDS.get().wrapping_add(0x9e37));
    Ok(IDS.get())
}

/// Sandboxes that live as long as the files.
fn leases() -> (Leases, Vec<File>) {
    let folder = places::folder().join("leases");
    fs::create_dir_all(&folder).expect("room in memory");
    let held = LEASES.map(|(last, text)| {
        let path =
            folder.join(Ipv4Addr::from_bits(NETWORK.to_bits() + u32::from(last)).to_string());
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(&path, text).expect("room in memory");
        }
        let file = File::open(path).expect("it was written");
        // Where inputs are replayed in threads, another one may hold it.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        file
    });
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder: OwnedFd = openat(CWD, folder, flags, Mode::empty()).expect("a folder");
    (Leases::open(folder).expect("a folder"), held.into())
}

impl World {
    fn step(&mut self, op: u8, which: u8, bytes: &[u8]) {
        match op % 6 {
            0 => {
                // Some are of another network.
                let address = Ipv4Addr::new(10, 213, which >> 7, which & 7);
                let from = SocketAddrV4::new(address, 1000);
                if self.dns.serves(address) {
                    self.expect(Client::Udp(from), bytes);
                }
                let actions = self.dns.datagram(self.now, from, bytes);
                self.act(actions);
            }
            1 => self.connection(u64::from(which & 7), bytes),
            2 => {
                // An answer: the bytes replace what follows the header's first four.
                let Some((flight, mut message)) = self.nth(which) else {
                    return;
                };
                message[2] |= 0x80;
                if let Some((&rcode, rest)) = bytes.split_first() {
                    message[3] = rcode;
                    let end = message.len().min(4 + rest.len());
                    message[4..end].copy_from_slice(&rest[..end - 4]);
                    message.extend(&rest[end - 4..]);
                }
                let actions = self.dns.answer(self.now, flight, &message);
                self.act(actions);
            }
            3 => {
                if let Some((flight, _)) = self.nth(which) {
                    let actions = self.dns.answer(self.now, flight, bytes);
                    self.act(actions);
                }
            }
            4 => {
                if let Some((flight, _)) = self.nth(which) {
                    let actions = self.dns.failed(self.now, flight);
                    self.act(actions);
                }
            }
            _ => {
                self.now += Duration::from_millis(50 * u64::from(which));
                let actions = self.dns.expire(self.now);
                self.act(actions);
            }
        }
    }

    /// Bytes on a connection, which is closed by what is too long or no query.
    fn connection(&mut self, number: u64, bytes: &[u8]) {
        let peer = Ipv4Addr::new(10, 213, 0, 200);
        let client = Client::Tcp(number, peer);
        let mut rest = bytes;
        while !rest.is_empty() {
            let incoming = self.connections.entry(number);
            let incoming = incoming.or_insert_with(|| Incoming::new(MAX_QUERY));
            let message = incoming.wanted().and_then(|wanted| {
                let (now, later) = rest.split_at(wanted.min(rest.len()));
                rest = later;
                incoming.take(now)
            });
            let outcome = match message {
                Ok(None) => continue,
                Ok(Some(message)) => {
                    assert!(message.len() <= MAX_QUERY);
                    self.expect(client, &message);
                    self.dns.message(self.now, client, &message)
                }
                Err(_) => Outcome::Silence,
            };
            match outcome {
                Outcome::Actions(actions) => self.act(actions),
                Outcome::Silence => {
                    self.connections.remove(&number);
                    let name = format!("{client:?}");
                    self.waiting.retain(|(client, _)| *client != name);
                    let actions = self.dns.forget(number);
                    self.act(actions);
                    return;
                }
            }
        }
    }

    /// A message that has a header and is no answer is answered.
    fn expect(&mut self, client: Client, message: &[u8]) {
        if message.len() >= 12 && message[2] & 0x80 == 0 {
            let id = u16::from_be_bytes([message[0], message[1]]);
            self.waiting.insert((format!("{client:?}"), id));
        }
    }

    fn nth(&self, which: u8) -> Option<(Flight, Vec<u8>)> {
        let place = usize::from(which) % self.open.len().max(1);
        let (flight, message) = self.open.iter().nth(place)?;
        Some((*flight, message.clone()))
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open {
                    flight, message, ..
                } => {
                    assert!(Query::parse(&message).is_ok(), "an upstream gets queries");
                    self.open.insert(flight, message);
                }
                Action::Close(flight) => assert!(self.open.remove(&flight).is_some()),
                Action::Reply(client, message) => {
                    assert!(message.len() >= 12 && message[2] & 0x80 != 0, "an answer");
                    let id = u16::from_be_bytes([message[0], message[1]]);
                    // Queries of one identifier may differ: each of them is answered.
                    let name = format!("{client:?}");
                    let waited = self.waiting.iter().any(|it| *it == (name.clone(), id));
                    assert!(waited, "answered without a query");
                }
            }
        }
    }

    fn finish(mut self) {
        while let Some(deadline) = self.dns.deadline() {
            self.now = deadline;
            let actions = self.dns.expire(deadline);
            assert!(!actions.is_empty(), "it would wait for ever");
            self.act(actions);
        }
        assert!(self.open.is_empty());
    }
}
