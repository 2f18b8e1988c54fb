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
    assert_eq!(run.etc_with(None), run.etc);
    let interface = Interface {
        mac: [2, 0, 0, 0, 0, 1],
        address: Ipv4Addr::new(10, 1, 0, 7),
        prefix_len: 16,
        gateway: Some(Ipv4Addr::new(10, 1, 0, 1)),
        mtu: 1500,
    };
    assert_eq!(
        run.etc_with(Some(&interface)).hosts.unwrap(),
        "127.0.0.1\tlocalhost\n10.1.0.1\thost.docker.internal\n10.1.0.7\tfoo.bar.example foo\n"
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
        read(r#""bridge": true,"#).network,
        Some(Endpoint::on("bridge"))
    );
    for none in [r#""bridge": false,"#, r#""network": null,"#, ""] {
        assert_eq!(read(none).network, None, "{none}");
    }
    let mut config = read("");
    config.network = Some(Endpoint {
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
    });
    let text = serde_json::to_string(&config).unwrap();
    let again: SandboxConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(again.network, config.network);
}
