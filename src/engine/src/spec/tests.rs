use oci_spec::runtime::PosixRlimitType;

use super::*;
use crate::options::{Ulimit, Variable};
use crate::signals::number as signal_number;
use crate::size::MilliCpus;

fn config(json: &str) -> Config {
    serde_json::from_str(json).unwrap()
}

fn built(options: &Options, image: Option<&Config>) -> Spec {
    let inputs = Inputs {
        options,
        image,
        hostname: "abc",
        memory_bytes: None,
        cgroup: "/hull/abc",
        mounts: &[],
    };
    build(&inputs).unwrap()
}

fn process(options: &Options, image: Option<&Config>) -> oci_spec::runtime::Process {
    built(options, image).process().clone().unwrap()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_command_replaces_cmd_and_follows_the_entrypoint() {
    let image = config(r#"{"Entrypoint": ["/enter"], "Cmd": ["a", "b"]}"#);
    let args = |options: &Options| process(options, Some(&image)).args().clone().unwrap();
    assert_eq!(args(&Options::default()), words(&["/enter", "a", "b"]));
    let options = Options {
        command: words(&["c"]),
        ..Options::default()
    };
    assert_eq!(args(&options), words(&["/enter", "c"]));
    let options = Options {
        entrypoint: Some(vec!["/mine".into()]),
        ..Options::default()
    };
    assert_eq!(args(&options), words(&["/mine"]));
    let options = Options {
        entrypoint: Some(vec![String::new()]),
        command: words(&["x"]),
        ..Options::default()
    };
    assert_eq!(args(&options), words(&["x"]));
}

#[test]
fn nothing_to_run_is_an_error() {
    let inputs = Inputs {
        options: &Options::default(),
        image: None,
        hostname: "h",
        memory_bytes: None,
        cgroup: "/h",
        mounts: &[],
    };
    assert!(matches!(build(&inputs), Err(Error::NoCommand)));
}

#[test]
fn the_environment_has_each_name_once_and_the_user_s_last() {
    let image = config(r#"{"Cmd": ["x"], "Env": ["PATH=/image", "A=1", "B=2"]}"#);
    let options = Options {
        env: vec![
            Variable::Set("A".into(), "mine=yes".into()),
            Variable::Unset("B".into()),
        ],
        terminal: true,
        ..Options::default()
    };
    let env = process(&options, Some(&image)).env().clone().unwrap();
    assert_eq!(
        env,
        words(&["PATH=/image", "HOSTNAME=abc", "TERM=xterm", "A=mine=yes"])
    );
}

#[test]
fn a_relative_working_directory_is_refused() {
    let options = Options {
        workdir: Some("tmp".into()),
        command: words(&["x"]),
        ..Options::default()
    };
    let inputs = Inputs {
        options: &options,
        image: None,
        hostname: "h",
        memory_bytes: None,
        cgroup: "/h",
        mounts: &[],
    };
    assert!(matches!(build(&inputs), Err(Error::RelativeWorkdir(_))));
}

#[test]
fn limits_become_the_cgroup_s() {
    let options = Options {
        command: words(&["x"]),
        cpus: Some(MilliCpus(1500)),
        ..Options::default()
    };
    let inputs = Inputs {
        options: &options,
        image: None,
        hostname: "h",
        memory_bytes: Some(1 << 20),
        cgroup: "/h",
        mounts: &[],
    };
    let spec = build(&inputs).unwrap();
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
    assert_eq!(resources.memory().unwrap().swap(), Some(1 << 20));
    assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(150_000));
}

#[test]
fn ulimits_are_known_by_docker_s_names() {
    let options = Options {
        command: words(&["x"]),
        ulimits: vec![Ulimit {
            name: "nofile".into(),
            soft: 10,
            hard: 20,
        }],
        ..Options::default()
    };
    let limits = process(&options, None).rlimits().clone().unwrap();
    assert_eq!(limits[0].typ(), PosixRlimitType::RlimitNofile);
    assert_eq!((limits[0].soft(), limits[0].hard()), (10, 20));
    let bad = Options {
        command: words(&["x"]),
        ulimits: vec![Ulimit {
            name: "nofiles".into(),
            soft: 1,
            hard: 1,
        }],
        ..Options::default()
    };
    let inputs = Inputs {
        options: &bad,
        image: None,
        hostname: "h",
        memory_bytes: None,
        cgroup: "/h",
        mounts: &[],
    };
    assert!(matches!(build(&inputs), Err(Error::Ulimit(_))));
}

#[test]
fn signals_are_known_by_name_and_number() {
    assert_eq!(signal_number("SIGQUIT"), Some(3));
    assert_eq!(signal_number("term"), Some(15));
    assert_eq!(signal_number("9"), Some(9));
    assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
    assert_eq!(signal_number("0"), None);
    assert_eq!(signal_number("SIGNOPE"), None);
    assert_eq!(
        stop_signal(Some(&config(r#"{"StopSignal": "SIGINT"}"#))),
        libc::SIGINT
    );
}

fn json(options: &Options) -> serde_json::Value {
    let options = Options {
        command: words(&["x"]),
        ..options.clone()
    };
    serde_json::to_value(built(&options, None)).unwrap()
}

#[test]
fn only_the_devices_of_dockers_default_may_be_used() {
    let spec = json(&Options::default());
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(
        rules[0],
        serde_json::json!({"allow": false, "access": "rwm"})
    );
    let allowed: Vec<_> = rules
        .iter()
        .filter(|rule| rule["allow"] == true)
        .map(|rule| {
            (
                rule["type"].as_str(),
                rule["major"].as_i64(),
                rule["minor"].as_i64(),
            )
        })
        .collect();
    let character = |major, minor| (Some("c"), Some(major), Some(minor));
    let dockers = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    assert_eq!(
        allowed,
        dockers.map(|(major, minor)| character(major, minor))
    );
}

#[test]
fn a_privileged_container_has_everything_of_its_machine() {
    let spec = json(&Options {
        privileged: true,
        cap_drop: words(&["CHOWN"]),
        ..Options::default()
    });
    let held = spec["process"]["capabilities"]["bounding"]
        .as_array()
        .unwrap();
    assert_eq!(held.len(), sys::capabilities::NAMES.len());
    let linux = &spec["linux"];
    assert_eq!(
        linux["resources"]["devices"],
        serde_json::json!([{"allow": true, "access": "rwm"}])
    );
    let none = |value: &serde_json::Value| value.as_array().is_none_or(Vec::is_empty);
    assert!(none(&linux["maskedPaths"]) && none(&linux["readonlyPaths"]));
    let mounts = spec["mounts"].as_array().unwrap();
    let at = |path: &str| {
        mounts
            .iter()
            .find(|mount| mount["destination"] == path)
            .unwrap()
    };
    assert_eq!(at("/dev")["type"], "devtmpfs");
    for path in ["/sys", "/sys/fs/cgroup"] {
        let options = at(path)["options"].as_array().unwrap();
        assert!(!options.contains(&"ro".into()), "{path}");
    }
}

#[test]
fn unconfined_system_paths_unmask_and_nothing_else() {
    let spec = json(&Options {
        unmasked: true,
        ..Options::default()
    });
    assert!(
        spec["linux"]["maskedPaths"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    let held = spec["process"]["capabilities"]["bounding"]
        .as_array()
        .unwrap();
    assert_eq!(held.len(), 14);
}
