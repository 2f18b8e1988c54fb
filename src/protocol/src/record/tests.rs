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
