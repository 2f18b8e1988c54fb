//! The network interface.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use sys::tap::HEADER_LEN;

use crate::fixture::Bundle;

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "needs root"]
fn loopback_is_up_and_alone_without_an_interface() {
    let out = Bundle::new(
        "ip -o link | awk '{print $2,$3}'; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up",
    )
    .run()
    .ok();
    assert!(out.starts_with("lo: <LOOPBACK,UP,LOWER_UP>\n"), "{out}");
    assert!(out.ends_with("up\n"), "{out}");
}

#[test]
#[ignore = "needs root"]
fn an_interface_is_moved_in_and_set_up() {
    ip("link add hulltest0 type veth peer name hulltest1");
    ip("link set hulltest1 address 02:00:00:aa:bb:01");
    ip("address add 10.231.7.1/24 dev hulltest0");
    ip("link set hulltest0 up");
    let script = "ip -o -4 address show eth0; ip route; ip link show eth0; ping -c 1 -W 2 10.231.7.1 > /dev/null && echo reached";
    let bundle =
        Bundle::new(script).option("--interface", "02:00:00:aa:bb:01,10.231.7.2/24,10.231.7.1");
    let run = bundle.run();
    // The pair goes with its inner end.
    assert!(
        run.out.contains("inet 10.231.7.2/24 brd 10.231.7.255"),
        "{}{}",
        run.out,
        run.err
    );
    assert!(
        run.out.contains("default via 10.231.7.1 dev eth0"),
        "{}",
        run.out
    );
    assert!(
        run.out.contains("mtu 1400") && run.out.contains("reached"),
        "{}",
        run.out
    );
    assert!(run.out.contains("02:00:00:aa:bb:01"), "{}", run.out);
    let missing = Bundle::new("true")
        .option("--interface", "02:00:00:aa:bb:99,10.0.0.2/24,10.0.0.1")
        .run();
    assert_eq!(
        missing.err,
        "run-bundle: cannot set up the network interface 02:00:00:aa:bb:99: no interface has this address\n"
    );
}

/// The senders of the frames on this tap, until it is removed.
fn senders(tap: OwnedFd) -> Vec<[u8; 6]> {
    let mut senders = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match rustix::io::read(&tap, &mut buffer) {
            // After the header comes the frame: destination address, then source address.
            Ok(len) => senders.push(buffer[HEADER_LEN + 6..len][..6].try_into().unwrap()),
            Err(errno) if errno.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => return senders,
        }
    }
}

#[test]
#[ignore = "needs root"]
fn an_interface_sends_nothing_before_it_has_its_own_address() {
    let tap = sys::tap::create("hulltest2").unwrap();
    ip("link set hulltest2 address 02:00:00:aa:bb:02");
    let senders = std::thread::spawn(|| senders(tap));
    let option = "02:00:00:aa:bb:02=02:00:00:aa:bb:03,10.231.8.2/24,10.231.8.1";
    let run = Bundle::new("ip link show eth0; ping -c 1 -W 1 10.231.8.1 > /dev/null; true")
        .option("--interface", option)
        .run();
    assert!(
        run.out.contains("link/ether 02:00:00:aa:bb:03"),
        "{}{}",
        run.out,
        run.err
    );
    let senders = senders.join().unwrap();
    assert!(!senders.is_empty());
    assert!(
        senders.iter().all(|mac| *mac == [2, 0, 0, 0xaa, 0xbb, 3]),
        "{senders:x?}"
    );
}
