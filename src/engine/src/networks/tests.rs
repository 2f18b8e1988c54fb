use super::*;
use crate::error::Kind;
use crate::options::Place;
use crate::testing::Fixture;

fn new(name: &str, subnet: &str) -> NewNetwork {
    NewNetwork {
        name: name.into(),
        subnet: Some(subnet.parse().unwrap()),
        ..NewNetwork::default()
    }
}

fn names(engine: &Engine, filters: NetworkFilters) -> Vec<String> {
    let listed = engine.networks(&filters).unwrap();
    listed.into_iter().map(|one| one.name).collect()
}

fn refused(engine: &Engine, new: NewNetwork) -> String {
    engine.network_create(new).unwrap_err().to_string()
}

#[test]
fn a_network_has_what_was_asked_for_and_is_found_by_name_and_identifier() {
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    let asked = NewNetwork {
        gateway: Some(Ipv4Addr::new(10, 240, 0, 254)),
        ip_range: Some("10.240.0.128/25".parse().unwrap()),
        internal: true,
        labels: [("a".into(), "b".into())].into(),
        options: [("mtu".into(), "1400".into())].into(),
        ..new("app", "10.240.0.0/24")
    };
    let network = engine.network_create(asked).unwrap();
    assert_eq!(
        (network.gateway.octets()[3], network.mtu),
        (254, Some(1400))
    );
    assert!(network.internal);
    for reference in ["app", &network.id, &network.id[..12]] {
        assert_eq!(engine.network(reference).unwrap(), network);
    }
    let absent = engine.network("nosuch").unwrap_err();
    assert_eq!(absent.to_string(), "network nosuch not found");
    assert_eq!(absent.kind(), Kind::NotFound);
    assert_eq!(fixture.actions(), ["create"]);
    engine.network_remove("app", false).unwrap();
    assert_eq!(fixture.actions(), ["create", "destroy"]);
    assert_eq!(names(engine, NetworkFilters::default()), ["bridge", "none"]);
    engine.network_remove("app", true).unwrap();
    assert!(engine.network_remove("app", false).is_err());
}

#[test]
fn what_cannot_be_is_refused_in_dockers_words() {
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    engine.network_create(new("app", "10.240.0.0/24")).unwrap();
    assert_eq!(
        refused(engine, new("app", "10.241.0.0/24")),
        "network with name app already exists"
    );
    assert!(
        refused(engine, new("b", "10.240.0.128/25")).starts_with(
            "invalid pool request: Pool overlaps with other one on this address space"
        )
    );
    for name in PREDEFINED {
        assert_eq!(
            refused(engine, new(name, "10.241.0.0/24")),
            format!("operation is not permitted on predefined {name} network")
        );
        let kept = engine.network_remove(name, false).unwrap_err().to_string();
        assert_eq!(
            kept,
            format!("{name} is a pre-defined network and cannot be removed")
        );
    }
    assert!(refused(engine, new("a/b", "10.241.0.0/24")).starts_with("invalid network name"));
    assert!(refused(engine, new("b", "10.0.0.0/8")).contains("16 to 30 bits"));
    let outside = NewNetwork {
        gateway: Some(Ipv4Addr::new(10, 9, 9, 9)),
        ..new("b", "10.241.0.0/24")
    };
    assert!(refused(engine, outside).starts_with("invalid gateway 10.9.9.9"));
    let wide = NewNetwork {
        ip_range: Some("10.0.0.0/8".parse().unwrap()),
        ..new("b", "10.241.0.0/24")
    };
    assert!(refused(engine, wide).starts_with("invalid ip-range 10.0.0.0/8"));
    for option in [
        ("mtu", "9000"),
        ("mtu", "x"),
        ("com.docker.network.bridge.name", "br0"),
    ] {
        let asked = NewNetwork {
            options: [(option.0.into(), option.1.into())].into(),
            ..new("b", "10.241.0.0/24")
        };
        assert!(refused(engine, asked).contains(&format!("{}={}", option.0, option.1)));
    }
    let overlay = NewNetwork {
        driver: Some("overlay".into()),
        ..new("b", "10.241.0.0/24")
    };
    assert!(refused(engine, overlay).starts_with("could not find plugin overlay"));
    let part = NewNetwork {
        subnet: None,
        gateway: Some(Ipv4Addr::new(10, 9, 9, 9)),
        ..new("b", "10.241.0.0/24")
    };
    assert!(refused(engine, part).starts_with("--gateway needs --subnet"));
}

#[test]
fn networks_are_given_addresses_apart_and_pruned_when_nothing_uses_them() {
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    let unnamed = |name: &str| NewNetwork {
        name: name.into(),
        labels: [("tier".into(), name.into())].into(),
        ..NewNetwork::default()
    };
    let a = engine.network_create(unnamed("a")).unwrap();
    let b = engine.network_create(unnamed("b")).unwrap();
    assert!(!a.subnet.overlaps(&b.subnet));
    fixture.create_with("web", |config| {
        config.run.network = true;
        config.network = Some("a".into());
    });
    let custom = NetworkFilters {
        custom: Some(true),
        ..NetworkFilters::default()
    };
    assert_eq!(names(engine, custom.clone()), ["a", "b"]);
    let labelled = NetworkFilters {
        labels: vec![("tier".into(), Some("b".into()))],
        ..custom.clone()
    };
    assert_eq!(names(engine, labelled), ["b"]);
    assert_eq!(
        engine.prune_networks(&NetworkFilters::default()).unwrap(),
        ["b"]
    );
    assert_eq!(names(engine, custom), ["a"]);
    // A container that does not run keeps a network from being pruned, and not from being removed.
    engine.network_remove("a", false).unwrap();
}

#[test]
fn a_container_that_does_not_run_is_connected_and_disconnected_by_its_records() {
    // Their names are no beginnings of identifiers.
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    std::fs::write(engine.root().join("libexec/hull-net"), "").unwrap();
    let a = engine.network_create(new("left", "10.242.1.0/24")).unwrap();
    let b = engine
        .network_create(new("right", "10.242.2.0/24"))
        .unwrap();
    let id = fixture.create_with("web", |config| {
        config.run.network = true;
        config.network = Some("left".into());
    });
    let place = Place {
        aliases: vec!["www".into()],
        address: Some(Ipv4Addr::new(10, 242, 1, 9)),
        ..Place::default()
    };
    let resolver = || {
        let config = engine.container("web").unwrap().config;
        config.run.etc.resolv_conf.unwrap()
    };
    let on = || -> Vec<String> {
        let endpoints = engine.endpoints(&id).unwrap();
        let on = endpoints.into_iter().map(|it| it.network).collect();
        let config = engine.container("web").unwrap().config;
        assert_eq!(config.networks.as_ref(), Some(&on));
        on
    };
    engine.network_connect("left", "web", &place).unwrap();
    engine
        .network_connect(&b.id[..12], "web", &Place::default())
        .unwrap();
    assert_eq!(on(), ["left", "right"]);
    assert_eq!(engine.endpoints(&id).unwrap()[0].aliases, ["www"]);
    assert!(resolver().starts_with(&format!("nameserver {}\n", a.gateway)));
    let again = engine.network_connect("right", "web", &Place::default());
    assert_eq!(
        again.unwrap_err().to_string(),
        "endpoint with name web already exists in network right"
    );
    // Not an address of that network; nothing has changed.
    engine.network_disconnect("right", "web", false).unwrap();
    let outside = engine.network_connect("right", "web", &place).unwrap_err();
    assert!(
        outside
            .to_string()
            .contains("no configured subnet contains")
    );
    assert_eq!(on(), ["left"]);
    engine
        .network_connect("right", "web", &Place::default())
        .unwrap();
    engine.network_disconnect("left", "web", false).unwrap();
    assert_eq!(on(), ["right"]);
    assert!(resolver().starts_with(&format!("nameserver {}\n", b.gateway)));
    let absent = engine.network_disconnect("left", "web", false).unwrap_err();
    assert_eq!(
        absent.to_string(),
        format!("container {id} is not connected to the network left")
    );
    // One that has been removed is left by force.
    engine.network_remove("right", false).unwrap();
    assert!(engine.network_disconnect("right", "web", false).is_err());
    engine.network_disconnect("right", "web", true).unwrap();
    assert!(on().is_empty());
}

#[test]
fn containers_that_keep_to_themselves_are_not_connected() {
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    std::fs::write(engine.root().join("libexec/hull-net"), "").unwrap();
    engine.network_create(new("a", "10.242.1.0/24")).unwrap();
    fixture.create("alone");
    let alone = engine.network_connect("a", "alone", &Place::default());
    assert!(
        alone
            .unwrap_err()
            .to_string()
            .contains("private (none) mode")
    );
    fixture.create_with("web", |config| config.run.network = true);
    for number in 0..4 {
        let name = format!("n{number}");
        engine
            .network_create(new(&name, &format!("10.243.{number}.0/24")))
            .unwrap();
        engine
            .network_connect(&name, "web", &Place::default())
            .unwrap();
    }
    let fifth = engine.network_connect("a", "web", &Place::default());
    assert!(
        fifth
            .unwrap_err()
            .to_string()
            .contains("on 4 networks already")
    );
    let none = engine.network_connect("none", "web", &Place::default());
    assert!(
        none.unwrap_err()
            .to_string()
            .contains("private (none) mode")
    );
    let absent = engine.network_connect("nosuch", "web", &Place::default());
    assert_eq!(absent.unwrap_err().to_string(), "network nosuch not found");
}
