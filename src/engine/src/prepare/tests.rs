use image::Digest;
use image::docker::{DockerConfig, Healthcheck};
use protocol::record::LogConfig;

use super::*;
use crate::options::{Attach, ExtraHost, Health, Network};

/// An image, an installation and a root, for containers of one identifier.
struct Fixture {
    image: Image,
    installation: Installation,
    root: tempfile::TempDir,
    id: String,
}

impl Fixture {
    fn new(config: &str) -> Fixture {
        let root = tempfile::tempdir().unwrap();
        for part in [
            "hull-monitor",
            "hull-vmm",
            "hull-fs",
            "hull-net",
            "vmlinux",
            "initramfs.cpio",
            "scratch.ext4",
            "scratch-growing.ext4",
        ] {
            std::fs::write(root.path().join(part), part).unwrap();
        }
        let document = format!(
            r#"{{"architecture": "amd64", "os": "linux", "config": {config},
                "rootfs": {{"type": "layers", "diff_ids": []}}}}"#
        );
        let image = Image {
            id: Digest::of(document.as_bytes()),
            names: Vec::new(),
            digests: Vec::new(),
            config: serde_json::from_str(&document).unwrap(),
            docker: DockerConfig::default(),
            layers: vec![image::Layer {
                diff_id: Digest::of(b"layer"),
                path: "/layers/a.erofs".into(),
                size_bytes: 8192,
            }],
            created_s: None,
            stored_s: 0,
            size_bytes: 8192,
        };
        Fixture {
            image,
            installation: Installation::at(root.path()),
            root,
            id: "0123456789abcdef".repeat(4),
        }
    }

    fn inputs<'a>(&'a self, options: &'a Options) -> ContainerInputs<'a> {
        ContainerInputs {
            options,
            image: &self.image,
            id: &self.id,
            name: "web",
            created_ns: 7,
            root: self.root.path(),
            installation: &self.installation,
            mounts: &[],
            networks: &[],
        }
    }

    fn prepare(&self, options: Options) -> Result<(SandboxConfig, ContainerConfig), Error> {
        prepare(&self.inputs(&without_network(options)))
    }

    fn pod(&self, options: PodOptions) -> SandboxConfig {
        let options = PodOptions {
            network: Some(Network::None),
            ..options
        };
        prepare_pod(&PodInputs {
            options: &options,
            id: "pod",
            name: "p",
            created_ns: 1,
            root: self.root.path(),
            installation: &self.installation,
            networks: &[],
        })
        .unwrap()
    }
}

/// Most tests are about something else.
fn without_network(options: Options) -> Options {
    Options {
        network: Some(Network::None),
        ..options
    }
}

fn asked_of(config: &ContainerConfig) -> Asked {
    serde_json::from_str(config.asked.get()).unwrap()
}

#[test]
fn a_container_has_what_its_image_and_docker_say() {
    let fixture = Fixture::new(
        r#"{"Cmd": ["sh"], "User": "web", "StopSignal": "SIGINT", "Labels": {"a": "image", "b": "image"},
            "Volumes": {"/data": {}}, "Env": ["A=1"]}"#,
    );
    let (sandbox, config) = fixture
        .prepare(Options {
            image: "demo".into(),
            labels: [("b".into(), "mine".into())].into(),
            ..Options::default()
        })
        .unwrap();
    assert_eq!(
        (sandbox.id.as_str(), sandbox.kind),
        (fixture.id.as_str(), SandboxKind::Single)
    );
    assert_eq!(
        (config.sandbox.as_str(), config.name.as_str()),
        (fixture.id.as_str(), "web")
    );
    assert_eq!(config.labels["a"], "image");
    assert_eq!(config.labels["b"], "mine");
    assert_eq!(
        (config.stop_signal, config.stop_timeout_s),
        (libc::SIGINT, 10)
    );
    assert_eq!(config.log, LogConfig::default());
    assert_eq!(config.run.user.as_deref(), Some("web"));
    assert_eq!(config.run.volumes, ["/data"]);
    assert_eq!(config.run.own_names, ["0123456789ab"]);
    assert_eq!(config.run.layers[0].len_bytes, 8192);
    assert!(!config.run.network && config.health.is_none());
    let asked = asked_of(&config);
    assert_eq!(
        (asked.command, asked.env),
        (vec!["sh".to_owned()], vec!["A=1".to_owned()])
    );
    assert_eq!(asked.options.image, "demo");
    assert_eq!(asked.image_labels["b"], "image");
}

#[test]
fn input_ends_with_the_client_that_was_attached_first() {
    let fixture = Fixture::new(r#"{"Cmd": ["sh"]}"#);
    let stdio = |stdin| {
        let options = Options {
            interactive: true,
            attach: Attach {
                stdin,
                ..Attach::default()
            },
            ..Options::default()
        };
        fixture.prepare(options).unwrap().1.run.stdio
    };
    let pipes = |stdin_once| Stdio::Pipes {
        stdin: true,
        stdin_once,
    };
    assert_eq!(stdio(true), pipes(true));
    assert_eq!(stdio(false), pipes(false));
}

#[test]
fn a_vm_has_the_cpus_that_are_named_and_time_enough_to_start() {
    let fixture = Fixture::new(r#"{"Cmd": ["sh"]}"#);
    let vm = |options| match fixture.prepare(options).unwrap().0.machine {
        Machine::Vm(vm) => vm,
        Machine::Native { .. } => panic!("a VM was asked for"),
    };
    let options = Options {
        cpuset_cpus: Some("0,3".parse().unwrap()),
        cpu_quota_us: Some(2000),
        cpu_shares: Some(512),
        ..Options::default()
    };
    let vm_of_four = vm(options);
    assert_eq!(vm_of_four.vcpus, 4);
    assert_eq!(vm_of_four.cpu_milli, Some(size::MIN_VM_MILLI_CPUS));
    assert_eq!(vm_of_four.cpu_shares, Some(512));
    let read_only = Options {
        read_only: true,
        ..Options::default()
    };
    assert_eq!(vm(read_only).scratch, None);
    let sized = Options {
        storage_bytes: Some(1 << 30),
        ..Options::default()
    };
    let sized = vm(sized);
    assert!(
        sized
            .scratch
            .is_some_and(|path| path.ends_with("scratch-growing.ext4"))
    );
    assert_eq!(sized.scratch_bytes, Some(1 << 30));
    assert!(vm(Options::default()).template.is_some());
}

#[test]
fn a_pod_s_containers_share_what_the_pod_has() {
    let fixture = Fixture::new(r#"{"Cmd": ["sh"]}"#);
    let pod = fixture.pod(PodOptions {
        shared_pid: true,
        ..PodOptions::default()
    });
    let options = Options {
        isolation: Isolation::Pod("p".into()),
        ..Options::default()
    };
    let config = prepare_in_pod(&fixture.inputs(&options), &pod).unwrap();
    assert_eq!(config.sandbox, "pod");
    assert_eq!(config.run.pid, PidNamespace::Sandbox);
    assert!(config.run.network);
    let refused = |options: Options| {
        let error = prepare_in_pod(&fixture.inputs(&options), &pod).unwrap_err();
        error.to_string()
    };
    let network = refused(without_network(options.clone()));
    assert!(network.starts_with("--network is decided"), "{network}");
    let cpus = refused(Options {
        cpuset_cpus: Some("7".parse().unwrap()),
        ..options
    });
    assert!(cpus.contains("the pod's VM does not have"), "{cpus}");
}

#[test]
fn what_excludes_each_other_is_refused() {
    let fixture = Fixture::new(r#"{"Cmd": ["sh"]}"#);
    let both = Options {
        auto_remove: true,
        restart: RestartPolicy::Always,
        ..Options::default()
    };
    assert!(matches!(
        fixture.prepare(both),
        Err(Error::RestartAndRemove)
    ));
    let unreachable = Options {
        extra_hosts: vec![ExtraHost {
            name: "host".into(),
            address: HostAddress::Gateway,
        }],
        ..Options::default()
    };
    assert!(matches!(fixture.prepare(unreachable), Err(Error::Etc(_))));
    let small = Options {
        memory_bytes: Some(1 << 20),
        ..Options::default()
    };
    assert!(matches!(fixture.prepare(small), Err(Error::Size(_))));
    let empty = Options {
        command: vec![String::new()],
        ..Options::default()
    };
    assert_eq!(fixture.prepare(empty).unwrap_err().exit_code(), 127);
}

#[test]
fn a_health_check_runs_with_the_container_s_environment() {
    let mut fixture = Fixture::new(r#"{"Cmd": ["sh"], "Env": ["A=1"]}"#);
    fixture.image.docker.healthcheck = Some(Healthcheck {
        test: vec!["CMD".into(), "/check".into()],
        ..Healthcheck::default()
    });
    let options = Options {
        health: Health {
            retries: Some(5),
            ..Health::default()
        },
        ..Options::default()
    };
    let (_, config) = fixture.prepare(options).unwrap();
    let health = config.health.as_ref().unwrap();
    assert_eq!(
        (health.command.as_slice(), health.retries),
        (&["/check".to_owned()][..], 5)
    );
    let document: serde_json::Value = serde_json::from_str(&health.document).unwrap();
    assert!(document["env"].as_array().unwrap().contains(&"A=1".into()));
    assert_eq!(document["args"], serde_json::json!(["/check"]));
    assert_eq!(asked_of(&config).healthcheck.unwrap().retries, 5);
}

#[test]
fn a_document_that_no_frame_holds_is_refused_before_a_vm_starts() {
    let fixture = Fixture::new(r#"{"Cmd": ["sh"]}"#);
    // 4 MiB of control characters, which a larger stack would take, are 24 MiB of JSON.
    let options = Options {
        command: vec!["\u{1}".repeat(100_000); 42],
        ulimits: vec![crate::options::Ulimit {
            name: "stack".into(),
            soft: u64::MAX,
            hard: u64::MAX,
        }],
        ..Options::default()
    };
    let error = fixture.prepare(options).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    assert_eq!(error.exit_code(), 126);
}

#[test]
fn what_only_a_network_gives_is_refused_without_one() {
    let fixture = Fixture::new("{}");
    let place = |change: fn(&mut Place)| {
        let mut place = Place::default();
        change(&mut place);
        let options = Options {
            place,
            ..Options::default()
        };
        fixture.prepare(options).unwrap_err().to_string()
    };
    let published = |place: &mut Place| {
        place.publish.push(record::Publish {
            port: record::Port {
                number: 80,
                transport: record::Transport::Tcp,
            },
            host_address: None,
            host_ports: None,
        });
    };
    assert!(place(published).starts_with("--publish needs a network"));
    assert!(place(|place| place.mac = Some([2; 6])).starts_with("--mac-address needs a network"));
    assert!(place(|place| place.aliases.push("x".into())).starts_with("--network-alias needs"));
    let mut asked = Place::default();
    published(&mut asked);
    let in_pod = Options {
        place: asked,
        ..Options::default()
    };
    let pod = fixture.pod(PodOptions::default());
    let refused = prepare_in_pod(&fixture.inputs(&in_pod), &pod).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "--publish is decided by `hull pod create`, for all containers of the pod; leave it out here"
    );
}

#[test]
fn exposed_ports_are_the_images_the_users_and_those_that_are_published() {
    let fixture = Fixture::new(r#"{"Cmd": ["sh"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}}}"#);
    let port = |number| record::Port {
        number,
        transport: record::Transport::Tcp,
    };
    let options = Options {
        exposed: vec![port(90), port(80)],
        publish_all: true,
        ..Options::default()
    };
    let published = place::published(&options, &fixture.image).unwrap();
    let ports = published.iter().map(|one| one.port.to_string());
    let mut ports: Vec<String> = ports.collect();
    ports.sort();
    assert_eq!(ports, ["53/udp", "80/tcp", "90/tcp"]);
    let options = Options {
        publish_all: false,
        ..options
    };
    let (_, config) = fixture.prepare(options).unwrap();
    assert_eq!(
        asked_of(&config).exposed_ports,
        ["53/udp", "80/tcp", "90/tcp"]
    );
    let summary = crate::container::Summary::of(&config);
    assert_eq!(
        (summary.networks(), summary.exposed_ports.len()),
        (vec!["none"], 3)
    );
}
