use engine::options::{Isolation, Network, Options, Variable};
use engine::protocol::record::RestartPolicy;
use serde_json::json;

use super::*;

fn of(body: serde_json::Value) -> Result<Options, Failure> {
    create(
        body.to_string().as_bytes(),
        &Query::default(),
        &Isolation::Vm,
    )
}

#[test]
fn what_the_command_line_sends_by_default_asks_for_nothing() {
    // Of `docker run demo true`, docker 28.2.
    let body = r#"{
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": ["true"], "Image": "demo",
        "Volumes": {}, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
        "HostConfig": {"Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}},
            "NetworkMode": "default", "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": false, "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null,
            "CapDrop": null, "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null,
            "GroupAdd": null, "IpcMode": "", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "",
            "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "",
            "UsernsMode": "", "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
            "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [],
            "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "",
            "CpusetMems": "", "Devices": [], "DeviceCgroupRules": null, "DeviceRequests": null,
            "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 0,
            "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
            "MaskedPaths": null, "ReadonlyPaths": null},
        "NetworkingConfig": {"EndpointsConfig": {}}}"#;
    let options = create(body.as_bytes(), &Query::default(), &Isolation::Vm).unwrap();
    let attach = Attach {
        stdin: false,
        stdout: true,
        stderr: true,
    };
    let expected = Options {
        image: "demo".into(),
        command: vec!["true".into()],
        attach,
        pull: Pull::Never,
        ..Options::default()
    };
    assert_eq!(options, expected);
}

#[test]
fn what_hull_cannot_do_is_refused_by_name() {
    for (member, value) in [
        ("BlkioWeight", json!(300)),
        ("DeviceRequests", json!([{"Driver": "nvidia"}])),
        ("CgroupParent", json!("/x")),
        ("KernelMemory", json!(1)),
    ] {
        let failure = of(json!({"Image": "demo", "HostConfig": {member: value}})).unwrap_err();
        assert!(
            failure.message.contains(&format!("HostConfig.{member}")),
            "{}",
            failure.message
        );
        assert_eq!(failure.status, 501);
    }
    for (member, value) in [
        ("NetworkMode", json!("host")),
        ("PidMode", json!("host")),
        ("Runtime", json!("runsc")),
        ("Binds", json!(["./a:/b"])),
        ("MemorySwappiness", json!(10)),
        ("Memory", json!(-5)),
    ] {
        assert!(
            of(json!({"Image": "demo", "HostConfig": {member: value}})).is_err(),
            "{member}"
        );
    }
    assert_eq!(of(json!({})).unwrap_err().status, 400);
    assert_eq!(
        create(b"", &Query::default(), &Isolation::Vm)
            .unwrap_err()
            .status,
        400
    );
}

#[test]
fn isolation_is_asked_for_by_member_or_label() {
    let asked = |body| of(body).unwrap().isolation;
    assert_eq!(asked(json!({"Image": "demo"})), Isolation::Vm);
    let label = json!({"Image": "demo", "Labels": {"hull.isolation": "pod:web"}});
    assert_eq!(asked(label), Isolation::Pod("web".into()));
    let member = json!({"Image": "demo", "Labels": {"hull.isolation": "vm"}, "HostConfig": {"Isolation": "native"}});
    assert_eq!(asked(member), Isolation::Native);
    assert!(of(json!({"Image": "demo", "HostConfig": {"Isolation": "hyperv"}})).is_err());
}

#[test]
fn b2_17_networks_are_named_once() {
    let options = of(json!({
        "Image": "demo", "HostConfig": {"NetworkMode": "app"},
        "NetworkingConfig": {"EndpointsConfig": {"app": {"Aliases": ["web"], "IPAMConfig": {"IPv4Address": "10.1.0.9"}, "NetworkID": "x"}}},
    }))
    .unwrap();
    assert_eq!(options.network, Some(Network::Named("app".into())));
    assert_eq!(options.place.aliases, ["web"]);
    assert_eq!(options.place.address, Some("10.1.0.9".parse().unwrap()));
    let both = json!({"Image": "demo", "HostConfig": {"NetworkMode": "a"}, "NetworkingConfig": {"EndpointsConfig": {"b": null}}});
    let both = of(both).unwrap();
    assert_eq!(both.network, Some(Network::Named("a".into())));
    assert_eq!(both.further_networks[0].network, "b");
}

#[test]
fn b2_18_a_port_of_the_host_s_may_be_any() {
    let body = |host: &str| json!({"Image": "demo", "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": host}]}}});
    for any in ["", "0"] {
        assert_eq!(of(body(any)).unwrap().place.publish[0].host_ports, None);
    }
    assert_eq!(
        of(body("8080")).unwrap().place.publish[0].host_ports,
        Some((8080, 8080))
    );
    assert!(of(body("x")).is_err());
    let none = json!({"Image": "demo", "HostConfig": {"PortBindings": {"80/tcp": null}}});
    assert_eq!(of(none).unwrap().place.publish.len(), 1);
}

#[test]
fn b2_19_mounts_are_of_three_kinds() {
    let options = of(json!({
        "Image": "demo", "Volumes": {"/a": {}, "/v": {}},
        "HostConfig": {
            "Binds": ["/srv:/a:ro", "data:/b"],
            "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}}],
            "Tmpfs": {"/run": "size=1m"},
        },
    }))
    .unwrap();
    let targets: Vec<&str> = options
        .mounts
        .iter()
        .map(|mount| mount.target.as_str())
        .collect();
    assert_eq!(targets, ["/a", "/b", "/t", "/v"]);
    assert_eq!(options.tmpfs[0].options, ["size=1m"]);
    let bad = json!({"Image": "demo", "HostConfig": {"Mounts": [{"Type": "bind", "Target": "/x", "Source": "rel"}]}});
    assert!(of(bad).is_err());
}

#[test]
fn b2_20_entrypoints_variables_and_checks_are_dockers() {
    let options = of(json!({
        "Image": "demo", "Entrypoint": ["sh", "-c"], "Cmd": "x", "Env": ["A=1", "B"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2_000_000_000_u64},
        "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "NanoCpus": 1_500_000_000_u64,
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": -1}]},
    }))
    .unwrap();
    assert_eq!(options.entrypoint, Some(vec!["sh".into(), "-c".into()]));
    assert_eq!(options.command, ["x"]);
    assert_eq!(options.env[1], Variable::Unset("B".into()));
    assert_eq!(
        (options.health.words, options.health.interval_ms),
        (vec!["true".to_owned()], Some(2000))
    );
    assert_eq!(options.restart, RestartPolicy::OnFailure { max_retries: 3 });
    assert_eq!(options.cpus.unwrap().0, 1500);
    assert_eq!(options.ulimits[0].hard, u64::MAX);
    let none = of(json!({"Image": "demo", "Healthcheck": {"Test": ["NONE"]}})).unwrap();
    assert!(none.health.disabled);
}

#[test]
fn b2_17_a_container_may_be_on_several_networks() {
    let bad = json!({"Image": "demo", "HostConfig": {"NetworkMode": "front"},
        "NetworkingConfig": {"EndpointsConfig": {"bridge": {}}}});
    assert!(of(bad).is_err());
    let options = of(json!({
        "Image": "demo",
        "HostConfig": {"NetworkMode": "front", "Links": ["db:store"]},
        "NetworkingConfig": {"EndpointsConfig": {
            "back": {"Aliases": ["app"], "IPAMConfig": {"IPv4Address": "10.9.0.7"}, "GwPriority": 1},
            "front": {"Aliases": ["web", "www"], "MacAddress": "02:42:ac:11:00:02"},
        }},
    }))
    .unwrap();
    assert_eq!(options.network, Some(Network::Named("front".into())));
    assert_eq!(options.place.aliases, ["web", "www"]);
    assert_eq!(options.place.mac, Some([2, 0x42, 0xac, 0x11, 0, 2]));
    assert_eq!(options.place.links[0].alias, "store");
    let [back] = &*options.further_networks else {
        panic!("{:?}", options.further_networks);
    };
    assert_eq!(
        (back.network.as_str(), &*back.place.aliases),
        ("back", &["app".to_owned()][..])
    );
    assert_eq!(back.place.address, Some([10, 9, 0, 7].into()));
    assert_eq!(back.place.gw_priority, 1);
}

#[test]
fn an_update_changes_what_it_names() {
    let change =
        update(br#"{"Memory": 268435456, "CpuShares": 0, "RestartPolicy": {"Name": ""}}"#).unwrap();
    assert!(change.resources.unwrap().get().contains("268435456"));
    assert_eq!(change.restart, None);
    assert!(update(br#"{"BlkioWeight": 3}"#).is_err());
}
