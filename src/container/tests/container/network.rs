//! The network interface.

use std::process::Command;

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
    let missing = Bundle::new("true")
        .option("--interface", "02:00:00:aa:bb:99,10.0.0.2/24,10.0.0.1")
        .run();
    assert_eq!(
        missing.err,
        "run-bundle: cannot set up the network interface 02:00:00:aa:bb:99: no interface has this address\n"
    );
}
