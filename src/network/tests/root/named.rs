//! Networks with names: beside each other and the default one, and apart.

use std::path::PathBuf;

use network::Home;
use protocol::record;

use super::ports::{Container, ask};
use super::*;

/// A network as the engine has made it.
struct Named {
    definition: record::Network,
    record: PathBuf,
}

impl Named {
    fn new(host: &Host, name: &str, subnet: &str) -> Named {
        let record = host.dir.path().join(format!("{name}.json"));
        std::fs::write(&record, "").unwrap();
        let subnet: network::Subnet = subnet.parse().unwrap();
        let id = format!("{:02x}{:08x}{:054x}", name.len(), std::process::id(), 0);
        Named {
            definition: record::Network {
                version: 1,
                id,
                name: name.into(),
                created_ns: 0,
                gateway: subnet.gateway(),
                subnet,
                ip_range: None,
                internal: false,
                mtu: None,
                labels: Default::default(),
                options: Default::default(),
            },
            record,
        }
    }

    fn on(&self, host: &Host) -> Network {
        Network::named(
            &Home::bridges(host.dir.path()),
            &self.definition,
            &self.record,
        )
    }
}

fn expect_gone(network: &Network) {
    let link = Path::new("/sys/class/net").join(network.bridge());
    assert!(!link.exists(), "the bridge is left");
    let table = Command::new("nft")
        .args(["list", "table", "ip", network.bridge()])
        .output()
        .unwrap();
    assert!(!table.status.success(), "the table is left");
}

#[test]
#[ignore = "needs root"]
fn networks_are_apart_both_ways_and_each_has_its_way_out() {
    let host = Host::new(23);
    let uplinks_before = forwarding();
    let (a, bb) = (
        Named::new(&host, "a", "10.221.0.0/24"),
        Named::new(&host, "bb", "10.222.0.0/24"),
    );
    let (a, bb) = (a.on(&host), bb.on(&host));
    let default = Container::new(&host.network(), 0x230, &Claim::default());
    let one = Container::new(&a, 0x231, &Claim::default());
    let two = Container::new(&bb, 0x232, &Claim::default());
    let neighbour = Container::new(&bb, 0x233, &Claim::default());
    assert_eq!(one.address(), Ipv4Addr::new(10, 221, 0, 2));
    for (from, to) in [
        (&default, &one),
        (&one, &default),
        (&one, &two),
        (&two, &one),
    ] {
        assert_eq!(from.asks(to.address(), 80), "");
    }
    assert_eq!(
        two.asks(neighbour.address(), 80),
        format!("c233 {}", two.address())
    );
    // The host reaches each, and each the host.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for peer in listener.incoming() {
            let _ = peer.and_then(|mut peer| peer.write_all(b"host"));
        }
    });
    for container in [&default, &one, &two] {
        let gateway = container.attachment.interface.gateway.unwrap();
        assert_eq!(container.asks(gateway, port), "host");
        assert!(ask(container.address(), 80).ends_with(&format!(" {gateway}")));
    }
    // The first to have opened an uplink is the first to go: the others keep their way out.
    default.leave();
    let opened = |network: &Network| {
        let rules = Command::new("nft")
            .args(["list", "table", "ip", network.bridge()])
            .output();
        String::from_utf8(rules.unwrap().stdout).unwrap()
    };
    let rules = opened(&a);
    for (uplink, before) in &uplinks_before {
        let now = read(&format!("/proc/sys/net/ipv4/conf/{uplink}/forwarding"));
        if before == "0" && now == "1" {
            assert!(
                rules.contains(&format!("iifname \"{uplink}\" oifname != \"hull*\" drop")),
                "{rules}"
            );
        }
    }
    for container in [one, two, neighbour] {
        container.leave();
    }
    expect_gone(&a);
    expect_gone(&bb);
    assert_eq!(forwarding(), uplinks_before);
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn an_internal_network_has_no_way_out() {
    let host = Host::new(24);
    let mut named = Named::new(&host, "internal", "10.223.0.0/24");
    named.definition.internal = true;
    named.definition.mtu = Some(1300);
    let network = named.on(&host);
    let one = Container::new(&network, 0x240, &Claim::default());
    let two = Container::new(&network, 0x241, &Claim::default());
    assert_eq!(one.attachment.interface.gateway, None);
    assert_eq!(one.attachment.interface.mtu, 1300);
    assert_eq!(
        one.asks(two.address(), 80),
        format!("c241 {}", one.address())
    );
    // It makes itself a default route: nothing is forwarded.
    let outside = Container::new(&host.network(), 0x242, &Claim::default());
    one.inside("ip route add default via 10.223.0.1");
    assert_eq!(one.asks(outside.address(), 80), "");
    let counted = Command::new("nft")
        .args(["list", "table", "ip", network.bridge()])
        .output();
    let rules = String::from_utf8(counted.unwrap().stdout).unwrap();
    let closed = format!("iifname \"{0}\" oifname != \"{0}\" drop", network.bridge());
    assert!(
        rules.contains(&closed)
            && !rules.contains(&format!("oifname != \"{}\" masquerade", network.bridge()))
    );
    for container in [one, two, outside] {
        container.leave();
    }
    expect_gone(&network);
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn addresses_are_given_as_asked_and_a_network_in_use_is_not_removed() {
    let host = Host::new(25);
    let mut named = Named::new(&host, "range", "10.224.0.0/24");
    named.definition.gateway = Ipv4Addr::new(10, 224, 0, 254);
    named.definition.ip_range = Some("10.224.0.128/25".parse().unwrap());
    let network = named.on(&host);
    let claim = |address: [u8; 4]| Claim {
        address: Some(Ipv4Addr::from(address)),
        mac: Some([2, 0, 0, 0, 0, 9]),
        ..Claim::default()
    };
    let first = network.attach(&id(0x250), &Claim::default()).unwrap();
    assert_eq!(first.interface.address, Ipv4Addr::new(10, 224, 0, 128));
    assert_eq!(
        first.interface.gateway,
        Some(Ipv4Addr::new(10, 224, 0, 254))
    );
    let asked = network.attach(&id(0x251), &claim([10, 224, 0, 9])).unwrap();
    assert_eq!(asked.interface.address, Ipv4Addr::new(10, 224, 0, 9));
    assert_eq!(asked.interface.mac, [2, 0, 0, 0, 0, 9]);
    let refusals = [
        [10, 224, 0, 9],
        [10, 224, 0, 254],
        [10, 224, 0, 255],
        [10, 9, 9, 9],
    ];
    let refused = refusals.map(|address| {
        let refused = network.attach(&id(0x252), &claim(address)).unwrap_err();
        refused.to_string().split(':').next().unwrap().to_owned()
    });
    assert_eq!(refused[0], "Address already in use");
    assert!(
        refused[1].contains("not an address that a container can have"),
        "{refused:?}"
    );
    assert!(
        refused[2].contains("not an address that a container can have"),
        "{refused:?}"
    );
    assert_eq!(
        refused[3],
        "no configured subnet contains IP address 10.9.9.9"
    );

    // The bridge's own: a native container's interface is found by it.
    let bridge = read(&format!("/sys/class/net/{}/address", network.bridge()));
    let bytes: Vec<u8> = bridge
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let of_host = Claim {
        mac: Some(bytes.try_into().unwrap()),
        ..Claim::default()
    };
    let refused = network.attach_native(&id(0x252), &of_host).unwrap_err();
    assert!(refused.to_string().contains(&bridge), "{refused}");

    let remove = || {
        network.remove::<network::Error>(|| {
            std::fs::remove_file(&named.record).unwrap();
            Ok(())
        })
    };
    assert_eq!(network.count().unwrap(), 2);
    assert!(!remove().unwrap());
    assert_eq!(network.holders().unwrap().len(), 2);
    first.lease.release().unwrap();
    // The other dies.
    drop(asked);
    assert!(remove().unwrap());
    expect_gone(&network);
    let folder = host.dir.path().join("networks").join(&named.definition.id);
    assert!(!folder.exists());
    let gone = network.attach(&id(0x253), &Claim::default()).unwrap_err();
    assert_eq!(gone.to_string(), "network range not found");
    assert!(!folder.exists());
}
