//! hull-net as a process: its sockets, its seccomp filter, its upstreams, and its end.

mod client;
mod datagrams;
mod device;
mod flows;
mod guest;
mod neighbours;
mod process;
mod switch;
mod upstream;

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use client::Client;
use process::Process;
use upstream::Upstream;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;

fn local(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

#[test]
fn containers_find_each_other_while_they_live() {
    let process = Process::start(&[]);
    let web = process.lease(20, &["web", "0123456789ab", "www"]);
    let _other = process.lease(21, &["other", "www"]);
    let client = Client::of(&process, 30);
    for name in ["web", "WEB.backend", "0123456789ab"] {
        assert_eq!(client.addresses(name), [local(20)], "{name}");
    }
    let (first, second) = (client.addresses("www"), client.addresses("www"));
    assert_eq!(first.len(), 2);
    assert_ne!(first[0], second[0]);
    assert_eq!(client.addresses("host.docker.internal"), [local(1)]);
    let none = client.ask("web", AAAA);
    assert_eq!((none.rcode(), none.answers()), (0, 0));
    let pointer = client.ask("20.0.0.127.in-addr.arpa", PTR);
    assert!(pointer.0.ends_with(b"\x03web\x07backend\0"));
    assert_eq!(client.ask("web.", A).rcode(), 0);
    assert_eq!(client.ask("nobody", A).rcode(), NXDOMAIN);
    drop(web);
    assert_eq!(client.ask("web", A).rcode(), NXDOMAIN);
    fs::remove_file(process.leases().join("127.0.0.20")).unwrap();
    let _late = process.lease(22, &["late"]);
    assert_eq!(client.addresses("late"), [local(22)]);
}

#[test]
fn everything_else_comes_from_the_upstream_unchanged() {
    let upstream = Upstream::start("127.0.0.1");
    let process = Process::start(&[upstream.address]);
    let client = Client::of(&process, 30);
    let answer = client.ask("small.example", 99);
    assert_eq!(answer.rcode(), 0);
    assert!(answer.0.ends_with(b"small"));
    assert_eq!(client.ask("missing.example", A).rcode(), NXDOMAIN);
    let cut = client.ask("large.example", A);
    assert!(cut.is_truncated());
    let whole = client.connect().ask("large.example", A);
    assert!(!whole.is_truncated());
    assert_eq!(whole.0.len(), upstream::LARGE + cut.0.len());
    // Identifiers and ports of what was asked: none is the client's, none comes twice in a row.
    let seen = upstream.seen();
    assert!(seen.windows(2).all(|pair| pair[0].port != pair[1].port));
    assert!(seen.windows(2).any(|pair| pair[0].id != pair[1].id));
}

#[test]
fn an_upstream_of_ipv6_is_asked_as_well() {
    let upstream = Upstream::start("::1");
    let process = Process::start(&[upstream.address]);
    let client = Client::of(&process, 30);
    assert!(client.ask("small.example", A).0.ends_with(b"small"));
    assert!(
        client
            .connect()
            .ask("small.example", A)
            .0
            .ends_with(b"small")
    );
}

#[test]
fn upstreams_that_fail_are_followed_by_the_next() {
    let (closed, silent) = (upstream::closed(), upstream::silent());
    let good = Upstream::start("127.0.0.1");
    let silent_address = silent.local_addr().unwrap();
    let process = Process::start(&[closed, silent_address, good.address]);
    let client = Client::of(&process, 30);
    let begun = Instant::now();
    assert_eq!(client.ask("small.example", A).rcode(), 0);
    let first = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&first));
    let begun = Instant::now();
    assert_eq!(client.ask("small.example", A).rcode(), 0);
    assert!(begun.elapsed() < Duration::from_secs(1), "asked last now");
    assert_eq!(client.connect().ask("small.example", A).rcode(), 0);
    let alone = Process::start(&[closed, upstream::closed()]);
    let client = Client::of(&alone, 30);
    assert_eq!(client.ask("small.example", A).rcode(), SERVFAIL);
    assert_eq!(client.connect().ask("small.example", A).rcode(), SERVFAIL);
}

#[test]
fn a_connection_carries_one_query_after_the_other() {
    let process = Process::start(&[]);
    let _held: Vec<_> = (100..200)
        .map(|last| process.lease(last, &["many"]))
        .collect();
    let client = Client::of(&process, 30);
    assert!(client.ask("many", A).is_truncated());
    let mut connection = client.connect();
    assert_eq!(connection.ask("many", A).answers(), 100);
    // Both at once, and in pieces.
    let two = [connection.framed("many", A), connection.framed("nobody", A)].concat();
    for piece in two.chunks(7) {
        connection.write(piece);
    }
    assert_eq!(connection.receive().answers(), 100);
    assert_eq!(connection.receive().rcode(), NXDOMAIN);
    connection.write(&[0xff, 0xff]);
    assert!(connection.is_closed());
    let mut other = client.connect();
    other.write(&[0, 3, 1, 2, 3]);
    assert!(other.is_closed());
}

#[test]
fn a_client_that_holds_its_connections_leaves_room_for_others() {
    let process = Process::start(&[]);
    let _web = process.lease(20, &["web"]);
    let greedy = Client::of(&process, 30);
    let mut held: Vec<_> = (0..20).map(|_| greedy.connect()).collect();
    let served = held.iter_mut().map(|it| it.try_ask("web", A));
    assert_eq!(served.filter(Option::is_some).count(), 16);
    assert_eq!(
        Client::of(&process, 31).connect().ask("web", A).answers(),
        1
    );
}

#[test]
fn a_flood_of_queries_that_are_never_answered_does_not_starve_others() {
    let silent = upstream::silent();
    let process = Process::start(&[silent.local_addr().unwrap()]);
    let _web = process.lease(20, &["web"]);
    let client = Client::of(&process, 31);
    for last in 40..46 {
        let greedy = Client::of(&process, last);
        for sent in 0..300 {
            greedy.send("slow.example", A);
            // No more than the socket's buffer holds, so that the kernel drops nothing.
            if sent % 50 == 0 {
                assert_eq!(client.addresses("web"), [local(20)]);
            }
        }
    }
    // Its own query has a place until the upstream's time is over.
    client.send("slow.example", A);
    assert_eq!(client.receive(Duration::from_secs(1)), None);
    let failed = client.receive(Duration::from_secs(9)).unwrap();
    assert_eq!(failed.rcode(), SERVFAIL);
}

#[test]
fn hostile_messages_end_nothing() {
    let upstream = Upstream::start("127.0.0.1");
    let process = Process::start(&[upstream.address]);
    let client = Client::of(&process, 30);
    for len in [0, 1, 11, 12, 13, 4096, 4097, 60_000] {
        for byte in [0, 1, 0x3f, 0xc0, 0xff] {
            client.send_bytes(&vec![byte; len]);
            let mut connection = client.connect();
            connection.write(&vec![byte; len.min(5000)]);
            // One at a time, so that the socket's buffer holds them all.
            assert_eq!(client.ask_beside("small.example", A).rcode(), 0);
        }
    }
    // An upstream that answers something else says nothing.
    client.send("forged.example", A);
    assert_eq!(client.ask_beside("small.example", A).rcode(), 0);
}

#[test]
fn a_client_outside_of_the_network_is_not_answered() {
    let process = Process::start_in(&[], Ipv4Addr::new(127, 0, 0, 0), 28);
    let _web = process.lease(5, &["web"]);
    assert_eq!(Client::of(&process, 14).addresses("web"), [local(5)]);
    let stranger = Client::of(&process, 16);
    stranger.send("web", A);
    assert_eq!(stranger.receive(Duration::from_millis(300)), None);
    assert_eq!(stranger.connect().try_ask("web", A), None);
}

#[test]
fn it_has_no_rights_and_outlives_its_starter() {
    let mut process = Process::start(&[]);
    let status = process.status();
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Threads:\t1",
    ] {
        assert!(status.lines().any(|it| it == line), "{line} in {status}");
    }
    assert!(status.starts_with("Name:\thull-net"));
    process.hang_up();
    let _web = process.lease(20, &["web"]);
    assert_eq!(Client::of(&process, 30).addresses("web"), [local(20)]);
}

#[test]
fn killed_it_frees_its_lock_and_its_port_for_the_next() {
    let mut process = Process::start(&[]);
    let _web = process.lease(20, &["web"]);
    let client = Client::of(&process, 30);
    let _connection = client.connect().ask("web", A);
    assert!(!process.lock_is_free());
    process.kill();
    assert!(process.lock_is_free());
    process.start_again();
    assert!(!process.lock_is_free());
    assert_eq!(client.addresses("web"), [local(20)]);
    assert_eq!(client.connect().ask("web", A).answers(), 1);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let refused = Process::refusal("another");
    assert!(refused.contains("install both from one build"), "{refused}");
}

#[test]
fn by_hand_it_says_that_it_is_started_by_hull() {
    let run = Command::new(env!("CARGO_BIN_EXE_hull-net"))
        .arg("--help")
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("started by hull"));
}
