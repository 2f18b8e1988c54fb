//! Namespaces that containers share.

use std::os::fd::AsFd;

use container::{Network, PidNamespace, network_namespace, pid_namespace};
use serde_json::json;

use crate::Test;
use crate::driver::{Container, request, sweep_all, wait};
use crate::fixture::Bundle;

pub(crate) const TESTS: &[Test] = &[
    ("containers_share_a_network", network),
    ("containers_share_a_pid_namespace", pids),
];

fn network() {
    let namespace = network_namespace(&[]).unwrap();
    let start = || {
        let bundle =
            Bundle::new("exec sleep 1000").set("/linux/sysctl/net.ipv4.ip_forward", json!("1"));
        let mut request = request(&bundle);
        request.network = Network::Join(namespace.try_clone().unwrap());
        (Container::of(request, &bundle), bundle)
    };
    let ((one, _b1), (two, _b2)) = (start(), start());
    let script = "readlink /proc/self/ns/net; ip -o link | awk '{print $2,$3}'; ls /sys/class/net; \
                  ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up";
    let (a, b) = (one.exec(script).out, two.exec(script).out);
    assert_eq!(a, b);
    assert!(a.contains("lo: <LOOPBACK,UP,LOWER_UP>\nlo\nup\n"), "{a}");
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!a.contains(outside.to_str().unwrap()));
    assert_ne!(
        one.exec("readlink /proc/self/ns/uts").out,
        two.exec("readlink /proc/self/ns/uts").out
    );
}

fn pids() {
    let holder = pid_namespace().unwrap();
    let start = |script: &str| {
        let bundle = Bundle::new(script);
        let mut request = request(&bundle);
        request.pid = PidNamespace::Join(holder.as_fd().try_clone_to_owned().unwrap());
        (Container::of(request, &bundle), bundle)
    };
    let ((one, _b1), (two, _b2)) = (start("exec sleep 1001"), start("exec sleep 1002"));
    let out = one.exec("ps -o args; echo $$").out;
    assert!(
        out.contains("sleep 1001\n") && out.contains("sleep 1002\n"),
        "{out}"
    );
    // An orphan becomes the holder's, which reaps it.
    two.exec("sh -c 'sleep 0 &'");
    let out = two.exec("sleep 0.1; ps -o stat | grep -c Z").out;
    assert_eq!(out, "0\n");
    // The holder's end is that of all.
    drop(holder);
    assert_eq!(wait(&one.running.pidfd), 128 + 9);
    assert_eq!(wait(&two.running.pidfd), 128 + 9);
    sweep_all();
}
