use super::*;

#[test]
fn hosts_has_the_container_s_names_once_it_has_an_address() {
    let run = Run {
        spec: RawValue::NULL.to_owned(),
        user: None,
        groups: Vec::new(),
        seccomp: None,
        init: false,
        stdio: Stdio::Pipes {
            stdin: false,
            stdin_once: false,
        },
        etc: EtcFiles {
            hosts: Some("127.0.0.1\tlocalhost\n".into()),
            ..EtcFiles::default()
        },
        own_names: vec!["foo.bar.example".into(), "foo".into()],
        gateway_names: vec!["host.docker.internal".into()],
        layers: Vec::new(),
        read_only: false,
        volumes: Vec::new(),
        mounts: Vec::new(),
        pid: PidNamespace::Own,
        network: true,
    };
    assert_eq!(run.etc_with(&[]), run.etc);
    let interface = Interface {
        mac: [2, 0, 0, 0, 0, 1],
        address: Ipv4Addr::new(10, 1, 0, 7),
        prefix_len: 16,
        gateway: Some(Ipv4Addr::new(10, 1, 0, 1)),
        mtu: 1500,
        slot: 0,
        is_way_out: true,
    };
    assert_eq!(
        run.etc_with(std::slice::from_ref(&interface))
            .hosts
            .unwrap(),
        "127.0.0.1\tlocalhost\n10.1.0.1\thost.docker.internal\n10.1.0.7\tfoo.bar.example foo\n"
    );
    // The host is where the way out is; the container's names are its addresses, all of them.
    let second = Interface {
        address: Ipv4Addr::new(10, 2, 0, 7),
        gateway: Some(Ipv4Addr::new(10, 2, 0, 1)),
        slot: 1,
        is_way_out: false,
        ..interface.clone()
    };
    assert_eq!(
        run.etc_with(&[second, interface]).hosts.unwrap(),
        "127.0.0.1\tlocalhost\n10.1.0.1\thost.docker.internal\n10.2.0.7\tfoo.bar.example foo\n\
         10.1.0.7\tfoo.bar.example foo\n"
    );
}

#[test]
fn a_sandbox_of_an_earlier_version_has_the_default_network_or_none() {
    let read = |network: &str| {
        let text = format!(
            r#"{{"version": 1, "root": "/r", "id": "1", "machine": {{"type": "native", "program": "/p"}},
                "kind": {{"type": "single"}}, {network} "measure": false}}"#
        );
        serde_json::from_str::<SandboxConfig>(&text).unwrap()
    };
    assert_eq!(
        read(r#""bridge": true,"#).networks,
        [Endpoint::on("bridge")]
    );
    for none in [r#""bridge": false,"#, r#""network": null,"#, ""] {
        assert!(read(none).networks.is_empty(), "{none}");
    }
    let of_one = r#""network": {"network": "app", "address": null, "mac": null, "aliases": [], "publish": []},"#;
    assert_eq!(read(of_one).networks, [Endpoint::on("app")]);
    let first = Endpoint {
        address: Some(Ipv4Addr::new(10, 1, 0, 9)),
        publish: vec![Publish {
            port: Port {
                number: 80,
                transport: Transport::Tcp,
            },
            host_address: None,
            host_ports: Some((8080, 8090)),
        }],
        ..Endpoint::on("app")
    };
    let mut config = read("");
    let two = vec![first.clone(), Endpoint::on("db")];
    for networks in [Vec::new(), vec![first], two] {
        config.set_networks(networks.clone());
        let text = serde_json::to_value(&config).unwrap();
        // Of one place, as it always was; several have a version that hulls of one refuse by name.
        assert_eq!(text["network"].is_array(), networks.len() > 1);
        assert_eq!(text["version"], VERSION);
        let again: SandboxConfig = serde_json::from_value(text).unwrap();
        assert_eq!(again.networks, networks);
    }
}

#[test]
fn the_interface_of_an_earlier_version_is_the_way_out() {
    let interface = r#"{"mac": [2, 0, 0, 0, 0, 1], "address": "10.1.0.7", "prefix_len": 16, "gateway": "10.1.0.1", "mtu": 1500}"#;
    let mut state = serde_json::to_value(State::default()).unwrap();
    assert!(state["interface"].is_null());
    state["interface"] = serde_json::from_str(interface).unwrap();
    let state: State = serde_json::from_value(state).unwrap();
    let [one] = &*state.interfaces else {
        panic!("{:?}", state.interfaces);
    };
    assert_eq!((&*one.network, one.interface.slot), ("", 0));
    assert_eq!(one.interface.way_out(), Some(Ipv4Addr::new(10, 1, 0, 1)));
    let mut several = state.clone();
    several.interfaces.push(one.clone());
    for state in [state, several] {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}

#[test]
fn the_way_out_is_by_priority_and_then_by_name() {
    let on = |network: &str, gw_priority| Endpoint {
        gw_priority,
        ..Endpoint::on(network)
    };
    let all = [on("web", 0), on("app", 0), on("zoo", 1), on("aaa", 5)];
    let chosen = |gateways: [bool; 4]| {
        let places = all.iter().zip(gateways);
        way_out(places).map(|it| it.network.as_str())
    };
    assert_eq!(chosen([true; 4]), Some("aaa"));
    assert_eq!(chosen([true, true, true, false]), Some("zoo"));
    assert_eq!(chosen([true, true, false, false]), Some("app"));
    assert_eq!(chosen([true, false, false, false]), Some("web"));
    assert_eq!(chosen([false; 4]), None);
}

#[test]
fn a_vm_has_spare_cards_where_it_is_on_a_network_of_the_user_s() {
    let on =
        |names: &[&str]| -> Vec<Endpoint> { names.iter().map(|name| Endpoint::on(name)).collect() };
    assert_eq!(cards(&on(&[])), 0);
    assert_eq!(cards(&on(&["bridge"])), 1);
    assert_eq!(cards(&on(&["app"])), 4);
    assert_eq!(cards(&on(&["bridge", "app"])), 4);
}
