//! The real thing, as root: bridges, taps, pairs and firewall tables of this host.
//!
//! Each test has a bridge of its own, beside that of a hull that works. They take turns: forwarding on the host's uplink
//! is shared by all.

mod named;
mod names;
mod ports;
mod spoofing;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use network::{Attachment, Claim, Network};

/// A network of a test's own.
struct Host {
    dir: tempfile::TempDir,
    bridge: String,
    _turn: File,
}

impl Host {
    fn new(number: u32) -> Self {
        let bridge = format!("hulltest{number}");
        // Each test may be a process of its own, and all of them see the one host's uplinks: a lock that processes share.
        let _turn = File::create(std::env::temp_dir().join("hull-network-tests.lock")).unwrap();
        _turn.lock().unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            bridge,
            _turn,
        }
    }

    fn network(&self) -> Network {
        Network::on_bridge(self.dir.path(), &self.bridge)
    }

    fn interface_exists(&self, name: &str) -> bool {
        Path::new("/sys/class/net").join(name).exists()
    }

    /// The firewall table as nft prints it, or nothing if there is none.
    fn rules(&self) -> Option<String> {
        let output = Command::new("nft")
            .args(["list", "table", "ip", &self.bridge])
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn expect_nothing_left(&self) {
        assert!(!self.interface_exists(&self.bridge), "the bridge is left");
        assert_eq!(self.rules(), None, "the firewall's table is left");
        let leases = std::fs::read_dir(self.dir.path().join("network/leases")).unwrap();
        let left: Vec<_> = leases.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["last"], "leases are left");
        let tables = Command::new("nft")
            .args(["list", "tables", "netdev"])
            .output()
            .unwrap();
        let tables = String::from_utf8(tables.stdout).unwrap();
        // Ports are called by their numbers here: see [`id`].
        let ours = format!("{:08x}", std::process::id())[..7].to_owned();
        assert!(!tables.contains(&ours), "rules of ports are left: {tables}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.network().sweep();
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .trim()
        .to_owned()
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

fn id(number: u32) -> String {
    format!("{number:04x}{:08x}", std::process::id())
}

#[test]
#[ignore = "needs root"]
fn the_first_attach_makes_everything_and_the_last_release_removes_it() {
    let host = Host::new(1);
    let uplink_before = forwarding();
    let first = host.network().attach(&id(1), &Claim::default()).unwrap();
    let bridge = &host.bridge;
    let port = first.lease.port().to_owned();
    assert!(read(&format!("/sys/class/net/{port}/master/uevent")).contains(bridge));
    assert_eq!(
        read(&format!("/sys/class/net/{port}/mtu")),
        first.interface.mtu.to_string()
    );
    assert_eq!(
        read(&format!("/proc/sys/net/ipv4/conf/{bridge}/forwarding")),
        "1"
    );
    let addresses = Command::new("ip")
        .args(["-4", "-o", "addr", "show", bridge])
        .output()
        .unwrap();
    let gateway = format!(
        "{}/{}",
        first.interface.gateway.unwrap(),
        first.interface.prefix_len
    );
    assert!(String::from_utf8_lossy(&addresses.stdout).contains(&gateway));
    let rules = host.rules().expect("the table is there");
    assert!(rules.contains("masquerade"), "{rules}");
    assert!(
        rules.contains("ct state established,related accept"),
        "{rules}"
    );

    let second = host.network().attach(&id(2), &Claim::default()).unwrap();
    assert_eq!(second.interface.gateway, first.interface.gateway);
    assert_ne!(second.interface.address, first.interface.address);
    assert_ne!(second.interface.mac, first.interface.mac);

    let Attachment { tap, lease, .. } = first;
    drop(tap);
    lease.release().unwrap();
    assert!(!host.interface_exists(&port));
    assert!(
        host.interface_exists(bridge),
        "the other sandbox still needs it"
    );
    let Attachment { tap, lease, .. } = second;
    // The tap is still open, as when the VM takes its time to end.
    lease.release().unwrap();
    drop(tap);
    host.expect_nothing_left();
    assert_eq!(forwarding(), uplink_before, "forwarding is as it was");
}

/// Forwarding of every interface but those of tests.
fn forwarding() -> Vec<(String, String)> {
    let entries = std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<_> = names
        .filter(|name| !name.starts_with("hull"))
        .map(|name| {
            let value = read(&format!("/proc/sys/net/ipv4/conf/{name}/forwarding"));
            (name, value)
        })
        .collect();
    all.sort();
    all
}

#[test]
#[ignore = "needs root"]
fn the_bridge_keeps_its_ethernet_address_whatever_comes_and_goes() {
    let host = Host::new(24);
    let address = || read(&format!("/sys/class/net/{}/address", host.bridge));
    let first = host.network().attach(&id(0x90), &Claim::default()).unwrap();
    let before = address();
    let more: Vec<_> = (0..8)
        .map(|number| host.network().attach(&id(0x91 + number), &Claim::default()))
        .collect();
    assert_eq!(address(), before);
    for attachment in more.into_iter().chain([Ok(first)]) {
        assert_eq!(address(), before);
        let Attachment { tap, lease, .. } = attachment.unwrap();
        drop(tap);
        lease.release().unwrap();
    }
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn parallel_attaches_get_different_addresses() {
    let host = Host::new(2);
    let attachments: Vec<_> = std::thread::scope(|scope| {
        let host = &host;
        let attach = |i: u32| {
            scope.spawn(move || {
                host.network()
                    .attach(&id(0x20 + i), &Claim::default())
                    .unwrap()
            })
        };
        let threads: Vec<_> = (0..8).map(attach).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let addresses: HashSet<_> = attachments
        .iter()
        .map(|one| one.interface.address)
        .collect();
    assert_eq!(addresses.len(), 8);
    std::thread::scope(|scope| {
        for attachment in attachments {
            scope.spawn(|| attachment.lease.release().unwrap());
        }
    });
    host.expect_nothing_left();
}

/// Not a test of its own: the process that [`a_killed_holder_is_repaired`] kills.
#[test]
#[ignore = "a helper of another test"]
fn hold_until_killed() {
    let Ok(dir) = std::env::var("HULL_TEST_DIR") else {
        return;
    };
    let network = Network::on_bridge(Path::new(&dir), "hulltest3");
    let tap = network.attach(&id(0x30), &Claim::default()).unwrap();
    let native = network.attach_native(&id(0x31), &Claim::default()).unwrap();
    println!("\nheld {} {}", tap.lease.port(), native.lease.port());
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
#[ignore = "needs root"]
fn a_killed_holder_is_repaired() {
    let host = Host::new(3);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "hold_until_killed"])
        .env("HULL_TEST_DIR", host.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let held = lines
        .find_map(|line| line.unwrap().strip_prefix("held ").map(str::to_owned))
        .unwrap();
    let (tap, pair) = held.split_once(' ').unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(!host.interface_exists(tap), "a tap goes with its process");
    assert!(host.interface_exists(pair), "a pair stays");
    assert!(host.interface_exists(&host.bridge), "so does the bridge");

    // The next one finds the addresses free and the rest in order.
    let next = host.network().attach(&id(0x32), &Claim::default()).unwrap();
    assert!(!host.interface_exists(pair));
    drop(next);
    host.network().sweep().unwrap();
    host.expect_nothing_left();
    host.network().sweep().unwrap();
}

#[test]
#[ignore = "needs root"]
fn half_a_bridge_is_made_whole() {
    let host = Host::new(4);
    let attachment = host.network().attach(&id(0x40), &Claim::default()).unwrap();
    // The bridge and the rules are removed by another process.
    ip(&["link", "del", &host.bridge]);
    let removed = Command::new("nft")
        .args(["delete", "table", "ip", &host.bridge])
        .status();
    assert!(removed.unwrap().success());
    let second = host.network().attach(&id(0x41), &Claim::default()).unwrap();
    assert!(host.rules().is_some());
    assert!(host.interface_exists(&host.bridge));
    attachment.lease.release().unwrap();
    second.lease.release().unwrap();
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn docker_lets_the_bridge_through_while_it_is_there() {
    let host = Host::new(7);
    let nft = |rules: &str| {
        let output = Command::new("nft").args(["--", rules]).output().unwrap();
        assert!(output.status.success(), "{rules}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // As Docker leaves it; on a host with a real one, its own chain is as good.
    let had_filter = Command::new("nft")
        .args(["list", "chain", "ip", "filter", "DOCKER-USER"])
        .output();
    let had_filter = had_filter.unwrap().status.success();
    if !had_filter {
        nft(
            "add table ip filter; add chain ip filter DOCKER-USER; add rule ip filter DOCKER-USER return",
        );
    }
    let before = nft("list chain ip filter DOCKER-USER");
    let attachment = host.network().attach(&id(0x70), &Claim::default()).unwrap();
    let during = nft("list chain ip filter DOCKER-USER");
    for direction in ["iifname", "oifname"] {
        assert!(
            during.contains(&format!("{direction} \"{}\" accept", host.bridge)),
            "{during}"
        );
    }
    attachment.lease.release().unwrap();
    assert_eq!(nft("list chain ip filter DOCKER-USER"), before);
    if !had_filter {
        nft("delete table ip filter");
    }
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_native_container_gets_an_interface_that_it_can_take_along() {
    let host = Host::new(5);
    let attachment = host
        .network()
        .attach_native(&id(0x50), &Claim::default())
        .unwrap();
    let mac = attachment
        .interface
        .mac
        .map(|byte| format!("{byte:02x}"))
        .join(":");
    assert_eq!(
        read(&format!("/sys/class/net/{}/address", attachment.name)),
        mac
    );
    let listener = TcpListener::bind((attachment.interface.gateway.unwrap(), 0)).unwrap();
    // Taken into a namespace, it reaches the gateway from there.
    let mut container = Command::new("unshare")
        .args(["-n", "sh", "-c", "echo; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = container.id().to_string();
    BufReader::new(container.stdout.take().unwrap())
        .lines()
        .next();
    ip(&["link", "set", &attachment.name, "netns", &pid]);
    let script = format!(
        "ip link set lo up && ip link set {name} up && ip addr add {address}/{prefix_len} dev {name} && \
         ip route add default via {gateway} && exec 3</dev/tcp/{gateway}/{port} && read -r line <&3 && echo $line",
        name = attachment.name,
        address = attachment.interface.address,
        prefix_len = attachment.interface.prefix_len,
        gateway = attachment.interface.gateway.unwrap(),
        port = listener.local_addr().unwrap().port(),
    );
    let server = std::thread::spawn(move || {
        let (mut peer, from) = listener.accept().unwrap();
        peer.write_all(b"welcome\n").unwrap();
        from.ip()
    });
    let done = Command::new("nsenter")
        .args(["-t", &pid, "-n", "timeout", "10", "bash", "-c", &script])
        .output();
    container.kill().unwrap();
    container.wait().unwrap();
    let done = done.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "welcome\n",
        "{done:?}"
    );
    assert_eq!(server.join().unwrap(), attachment.interface.address);
    attachment.lease.release().unwrap();
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_foreign_interface_of_the_bridges_name_is_left_alone() {
    let host = Host::new(6);
    ip(&["link", "add", &host.bridge, "type", "veth"]);
    let error = host
        .network()
        .attach(&id(0x60), &Claim::default())
        .unwrap_err();
    assert!(matches!(error, network::Error::ForeignBridge(_)), "{error}");
    assert!(host.interface_exists(&host.bridge));
    ip(&["link", "del", &host.bridge]);
}
