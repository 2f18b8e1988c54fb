//! A guest that sends what it likes: what of it reaches its neighbour.

use std::io::ErrorKind::WouldBlock;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use network::{Attachment, Interface};

use super::*;

/// Before each frame on a tap.
const HEADER: [u8; 12] = [0; 12];
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const BROADCAST: [u8; 6] = [0xff; 6];

/// An Ethernet frame, padded to its least length.
fn frame(to: [u8; 6], from: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &ether_type.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An IPv4 packet of an experimental protocol (RFC 3692), long enough to need no padding, which bridges may cut off;
/// `mark` tells it from others.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr, mark: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 46, 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(from.octets().into_iter().chain(to.octets()));
    packet.extend([mark; 26]);
    let sum = packet[..20]
        .chunks(2)
        .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let sum: u32 = sum.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// An ARP packet of Ethernet and IPv4 (RFC 826): 1 asks, 2 answers.
fn arp(operation: u8, mac: [u8; 6], address: Ipv4Addr, target: &Interface) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(mac.into_iter().chain(address.octets()));
    packet.extend(target.mac.into_iter().chain(target.address.octets()));
    packet
}

/// An ICMPv6 router advertisement to all nodes (RFC 4861, section 4.2).
fn router_advertisement() -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
    packet.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend("ff02::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

fn send(tap: &OwnedFd, frame: &[u8]) {
    let packet = [&HEADER, frame].concat();
    assert_eq!(rustix::io::write(tap, &packet).unwrap(), packet.len());
}

/// All frames that come until `last` does.
fn received_until(tap: &OwnedFd, last: &[u8]) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut buffer = [0; 2048];
    while frames.last().is_none_or(|frame| frame != last) {
        match rustix::io::read(tap, &mut buffer) {
            Ok(len) => frames.push(buffer[HEADER.len()..len].to_vec()),
            Err(errno) if errno.kind() == WouldBlock => {
                assert!(
                    Instant::now() < deadline,
                    "the last frame never came: {frames:x?}"
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(errno) => panic!("{errno}"),
        }
    }
    frames
}

/// Whether the bridge believes that `mac` is behind `port` (linux/if_bridge.h, struct __fdb_entry).
fn is_learned(host: &Host, mac: [u8; 6], port: &str) -> bool {
    let number = read(&format!("/sys/class/net/{port}/brport/port_no"));
    let number = u8::from_str_radix(number.trim_start_matches("0x"), 16).unwrap();
    let table = std::fs::read(format!("/sys/class/net/{}/brforward", host.bridge)).unwrap();
    let mut entries = table.chunks(16);
    entries.any(|entry| entry[..6] == mac && entry[6] == number)
}

/// What nft has for `port`.
fn rules_of(port: &str) -> Option<String> {
    let output = Command::new("nft")
        .args(["list", "table", "netdev", port])
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

/// Every table of a port of this test's.
fn tables(ports: &[&str]) -> Vec<bool> {
    ports.iter().map(|port| rules_of(port).is_some()).collect()
}

#[test]
#[ignore = "needs root"]
fn only_honest_frames_reach_a_neighbour() {
    let host = Host::new(8);
    let attacker = host.network().attach(&id(0x80), &Claim::default()).unwrap();
    let victim = host.network().attach(&id(0x81), &Claim::default()).unwrap();
    let third = host.network().attach(&id(0x82), &Claim::default()).unwrap();
    let (me, you, other) = (attacker.interface, victim.interface, third.interface);
    let (port, gateway) = (attacker.lease.port(), me.gateway.unwrap());

    let honest = [
        frame(you.mac, me.mac, IPV4, &ipv4(me.address, you.address, 1)),
        frame(BROADCAST, me.mac, ARP, &arp(1, me.mac, me.address, &you)),
        frame(you.mac, me.mac, ARP, &arp(2, me.mac, me.address, &you)),
        frame(
            BROADCAST,
            me.mac,
            IPV4,
            &ipv4(me.address, Ipv4Addr::BROADCAST, 2),
        ),
    ];
    let packet = ipv4(me.address, you.address, 3);
    let mut tagged = vec![0, 1, 8, 0];
    tagged.extend(&packet);
    let mut foreign_arp = arp(2, me.mac, me.address, &you);
    foreign_arp[5] = 16;
    let forged = [
        (
            "ARP for a neighbour",
            frame(you.mac, me.mac, ARP, &arp(2, me.mac, other.address, &you)),
        ),
        (
            "ARP for the gateway",
            frame(you.mac, me.mac, ARP, &arp(2, me.mac, gateway, &you)),
        ),
        (
            "ARP with a neighbour's MAC inside",
            frame(you.mac, me.mac, ARP, &arp(2, other.mac, me.address, &you)),
        ),
        (
            "ARP from a neighbour's MAC",
            frame(you.mac, other.mac, ARP, &arp(2, me.mac, me.address, &you)),
        ),
        (
            "ARP from nobody",
            frame(
                BROADCAST,
                me.mac,
                ARP,
                &arp(1, me.mac, Ipv4Addr::UNSPECIFIED, &you),
            ),
        ),
        (
            "ARP of other addresses",
            frame(you.mac, me.mac, ARP, &foreign_arp),
        ),
        (
            "a neighbour's MAC",
            frame(you.mac, other.mac, IPV4, &packet),
        ),
        (
            "a neighbour's IP",
            frame(you.mac, me.mac, IPV4, &ipv4(other.address, you.address, 4)),
        ),
        (
            "the gateway's IP",
            frame(you.mac, me.mac, IPV4, &ipv4(gateway, you.address, 5)),
        ),
        (
            "an outsider's IP",
            frame(
                you.mac,
                me.mac,
                IPV4,
                &ipv4(Ipv4Addr::new(192, 0, 2, 1), you.address, 6),
            ),
        ),
        (
            "nobody's IP",
            frame(
                you.mac,
                me.mac,
                IPV4,
                &ipv4(Ipv4Addr::UNSPECIFIED, you.address, 7),
            ),
        ),
        (
            "all of a neighbour's",
            frame(
                you.mac,
                other.mac,
                IPV4,
                &ipv4(other.address, you.address, 8),
            ),
        ),
        (
            "half a packet",
            [&you.mac[..], &me.mac, &[8, 0, 0x45, 0]].concat(),
        ),
        (
            "an IPv6 router advertisement",
            frame(
                [0x33, 0x33, 0, 0, 0, 1],
                me.mac,
                IPV6,
                &router_advertisement(),
            ),
        ),
        ("a tagged frame", frame(you.mac, me.mac, VLAN, &tagged)),
        ("an LLC frame", frame(you.mac, me.mac, 40, &[0xaa; 40])),
        (
            "a spanning tree's message",
            frame([1, 0x80, 0xc2, 0, 0, 0], me.mac, 38, &[0x42; 38]),
        ),
        (
            "LLDP with a neighbour's MAC",
            frame([1, 0x80, 0xc2, 0, 0, 0xe], other.mac, 0x88cc, &[0; 46]),
        ),
        (
            "802.1X with a neighbour's MAC",
            frame([1, 0x80, 0xc2, 0, 0, 3], other.mac, 0x888e, &[0; 46]),
        ),
    ];
    for frame in &honest {
        send(&attacker.tap, frame);
    }
    let last = frame(you.mac, me.mac, IPV4, &ipv4(me.address, you.address, 9));
    for (_, frame) in &forged {
        send(&attacker.tap, frame);
    }
    send(&attacker.tap, &last);
    let received = received_until(&victim.tap, &last);
    for frame in &honest {
        assert!(
            received.contains(frame),
            "an honest frame was dropped: {frame:x?}"
        );
    }
    for (what, frame) in &forged {
        assert!(!received.contains(frame), "{what} came through");
    }
    let not_ours = |frame: &&Vec<u8>| frame[6..12] == me.mac;
    assert_eq!(
        received.iter().filter(not_ours).count(),
        honest.len() + 1,
        "{received:x?}"
    );
    assert!(is_learned(&host, me.mac, port));
    for mac in [other.mac, you.mac] {
        assert!(
            !is_learned(&host, mac, port),
            "the bridge believes a forged address"
        );
    }

    for Attachment { tap, lease, .. } in [attacker, victim, third] {
        drop(tap);
        lease.release().unwrap();
    }
    host.expect_nothing_left();
}

/// Not a test of its own: the process that [`a_kernel_without_the_means_goes_without_the_rules`] gives another nft.
#[test]
#[ignore = "a helper of another test"]
fn attach_and_release() {
    let Ok(dir) = std::env::var("HULL_TEST_DIR") else {
        return;
    };
    let network = Network::on_bridge(Path::new(&dir), "hulltest10");
    assert!(!network::can_forbid_spoofing().unwrap());
    let attachment = network.attach(&id(0xa0), &Claim::default()).unwrap();
    assert_eq!(rules_of(attachment.lease.port()), None);
    attachment.lease.release().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_kernel_without_the_means_goes_without_the_rules() {
    const NFT: &str = r#"#!/bin/sh
script=$(cat)
case "$script" in *"table netdev"*)
    echo "/dev/stdin:1:1-9: Error: Could not process rule: Operation not supported" >&2
    exit 1
esac
printf '%s\n' "$script" | PATH=$REST exec nft "$@"
"#;
    let host = Host::new(10);
    assert!(network::can_forbid_spoofing().unwrap());
    let nft = host.dir.path().join("nft");
    std::fs::write(&nft, NFT).unwrap();
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o700)).unwrap();
    let rest = std::env::var("PATH").unwrap();
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "spoofing::attach_and_release"])
        .env("HULL_TEST_DIR", host.dir.path())
        .env("PATH", format!("{}:{rest}", host.dir.path().display()))
        .env("REST", &rest)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn the_rules_of_a_port_go_with_it() {
    let host = Host::new(9);
    let tap = host.network().attach(&id(0x90), &Claim::default()).unwrap();
    let native = host
        .network()
        .attach_native(&id(0x91), &Claim::default())
        .unwrap();
    let ports = [tap.lease.port().to_owned(), native.lease.port().to_owned()];
    let ports = ports.each_ref().map(String::as_str);
    assert_eq!(tables(&ports), [true, true]);
    let rules = rules_of(ports[1]).unwrap();
    assert!(
        rules.contains(&native.interface.address.to_string()),
        "{rules}"
    );
    assert!(rules.contains("policy drop"), "{rules}");
    // A VM that ends takes its tap along; the rules go when its monitor has noticed.
    drop(tap.tap);
    tap.lease.release().unwrap();
    assert_eq!(tables(&ports), [false, true]);
    // As after a kill -9: the lease is stale.
    drop(native);
    assert_eq!(tables(&ports), [false, true]);
    host.network().sweep().unwrap();
    assert_eq!(tables(&ports), [false, false]);
    host.expect_nothing_left();
}
