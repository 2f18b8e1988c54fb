//! Seeds for the DNS server: see `dns.rs` for their coding.

use super::Seeds;

const DATAGRAM: u8 = 0;
const CONNECTION: u8 = 1;
const ANSWER: u8 = 2;
const OTHER_ANSWER: u8 = 3;
const FAILURE: u8 = 4;
const WAIT: u8 = 5;

fn step(op: u8, which: u8, bytes: &[u8]) -> Vec<u8> {
    [&[op, which, bytes.len() as u8][..], bytes].concat()
}

/// A query for records of one kind, with an OPT record.
fn query(id: u8, name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, kind, 0, 1]);
    message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

pub(super) fn all() -> Seeds {
    let ask = |which, id, name, kind| step(DATAGRAM, which, &query(id, name, kind));
    let own = [
        ask(5, 1, "web", 1),
        ask(5, 2, "WWW.backend", 1),
        ask(5, 3, "www", 28),
        ask(5, 4, "2.0.213.10.in-addr.arpa", 12),
        ask(5, 5, "77.0.213.10.in-addr.arpa", 12),
        ask(5, 6, "host.docker.internal", 255),
        ask(0x85, 7, "web", 1),
        ask(5, 8, "nobody", 1),
    ];
    let forwarded = [
        ask(5, 1, "example.org", 1),
        ask(5, 1, "example.org", 1),
        ask(6, 2, "example.com", 16),
        step(ANSWER, 0, &[0x80]),
        step(ANSWER, 0, &[0x82]),
        step(FAILURE, 0, b""),
        step(WAIT, 50, b""),
        step(ANSWER, 0, &[0x85]),
        ask(6, 3, "example.net", 65),
        step(OTHER_ANSWER, 0, &query(3, "example.net", 65)),
        step(ANSWER, 0, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0]),
        step(WAIT, 200, b""),
    ];
    let both = [query(1, "web", 1), query(2, "example.org", 1)].map(|it| framed(&it));
    let connections = [
        step(CONNECTION, 1, &both.concat()[..40]),
        step(CONNECTION, 1, &both.concat()[40..]),
        step(ANSWER, 0, &[0x80]),
        step(CONNECTION, 2, &both[1]),
        step(CONNECTION, 2, &[0xff, 0xff, 0]),
        step(CONNECTION, 3, &framed(&[0; 12])),
    ];
    let mut pointer = query(9, "web", 1);
    pointer[12] = 0xc0;
    let odd = [
        step(DATAGRAM, 5, &pointer),
        step(DATAGRAM, 5, &query(9, "web", 1)[..30]),
        step(DATAGRAM, 5, &[&query(9, "web", 1)[..], b"x"].concat()),
        step(DATAGRAM, 5, &[0; 12]),
    ];
    let seed = |upstreams: u8, steps: &[Vec<u8>]| [&[upstreams][..], &steps.concat()].concat();
    vec![(
        "dns",
        vec![
            seed(0, &own),
            seed(1, &own),
            seed(2, &forwarded),
            seed(3, &forwarded),
            seed(2, &connections),
            seed(1, &odd),
        ],
    )]
}
