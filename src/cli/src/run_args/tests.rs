use std::ffi::OsString;

use clap::Parser;
use engine::options::*;
use engine::protocol::record::{LogConfig, RestartPolicy};

use super::*;

#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Harness {
    #[command(flatten)]
    run: RunArgs,
}

fn parse(words: &[&str]) -> Result<RunArgs, clap::Error> {
    let words = ["run"].iter().chain(words).map(OsString::from);
    Ok(crate::grammar::parse::<Harness>(words)?.run)
}

fn options(words: &[&str]) -> anyhow::Result<Options> {
    Ok(parse(words)?.request()?.create.options)
}

fn request(words: &[&str]) -> anyhow::Result<RunRequest> {
    parse(words)?.request()
}

#[test]
fn what_follows_the_image_is_the_command_s() {
    let options = options(&[
        "-i", "-e", "A=1", "demo", "sh", "-c", "echo -i", "-t", "--rm",
    ])
    .unwrap();
    assert_eq!(options.image, "demo");
    assert_eq!(options.command, ["sh", "-c", "echo -i", "-t", "--rm"]);
    assert!(options.interactive && !options.terminal);
}

#[test]
fn short_options_go_together() {
    let options = options(&["-it", "-m", "64m", "-uroot", "-w/tmp", "-hweb", "demo"]).unwrap();
    assert!(options.interactive && options.terminal);
    assert_eq!(options.memory_bytes, Some(64 << 20));
    assert_eq!(options.hostname.as_deref(), Some("web"));
}

#[test]
fn a_double_dash_before_the_command_is_the_command_s_own() {
    assert_eq!(
        options(&["demo", "env", "--", "x"]).unwrap().command,
        ["env", "--", "x"]
    );
}

#[test]
fn what_is_not_built_is_named() {
    for (words, name) in [
        (&["--cgroup-parent", "x", "demo"][..], "--cgroup-parent"),
        (&["--runtime", "x", "demo"], "--runtime"),
    ] {
        let message = options(words).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{name} is not built yet")),
            "{message}"
        );
    }
}

#[test]
fn ports_and_places_on_networks_are_read() {
    let words = "--network app --ip 10.1.0.9 --mac-address 02-42-0A-00-00-09 --network-alias db -p 8000-8001:80-81 \
                 -p53/udp -P --expose 90-91 demo";
    let options = options(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
    assert_eq!(
        options.network,
        Some(engine::options::Network::Named("app".into()))
    );
    let place = &options.place;
    assert_eq!(place.address, Some([10, 1, 0, 9].into()));
    assert_eq!(place.mac, Some([2, 0x42, 10, 0, 0, 9]));
    assert_eq!(place.aliases, ["db"]);
    let published = place.publish.iter().map(|one| one.port.to_string());
    assert_eq!(
        published.collect::<Vec<_>>(),
        ["80/tcp", "81/tcp", "53/udp"]
    );
    assert!(options.publish_all);
    assert_eq!(options.exposed.len(), 2);
}

#[test]
fn several_networks_are_read_in_their_order() {
    let words = "--network web --network name=app,alias=a,ip=10.1.0.9 --network-alias w --link db:postgres demo";
    let given = options(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
    assert_eq!(
        given.network,
        Some(engine::options::Network::Named("web".into()))
    );
    assert_eq!(given.place.aliases, ["w"]);
    assert_eq!(given.place.links[0].alias, "postgres");
    let [further] = &*given.further_networks else {
        panic!("{:?}", given.further_networks);
    };
    assert_eq!(further.network, "app");
    assert_eq!(further.place.aliases, ["a"]);
    assert_eq!(further.place.address, Some([10, 1, 0, 9].into()));
    // Docker's rules.
    for words in [
        ["--network", "app", "--network", "bridge"],
        ["--network", "name=app,alias=a", "--network-alias", "b"],
    ] {
        let message = options(&[&words[..], &["demo"]].concat()).unwrap_err();
        assert!(
            message.to_string().starts_with("conflicting options"),
            "{message}"
        );
    }
}

#[test]
fn addresses_that_a_container_cannot_have_are_refused() {
    for words in [
        ["--ip", "fd00::1"],
        ["--ip", "10.1"],
        ["--mac-address", "01:00:5e:00:00:01"],
        ["--mac-address", "02:42:0a"],
        ["--network-alias", "a b"],
    ] {
        let message = options(&[&words[..], &["demo"]].concat())
            .unwrap_err()
            .to_string();
        assert!(message.contains(words[1]), "{message}");
    }
}

#[test]
fn what_is_switched_off_is_not_asked_for() {
    assert!(options(&["--oom-kill-disable=false", "-P=false", "demo"]).is_ok());
    assert!(options(&["--disable-content-trust", "demo"]).is_ok());
    assert!(options(&["--disable-content-trust=false", "demo"]).is_err());
}

#[test]
fn what_cannot_be_says_why() {
    let message = options(&["--gpus", "all", "demo"]).unwrap_err().to_string();
    assert!(message.starts_with("--gpus is not possible: "), "{message}");
}

#[test]
fn timing_takes_a_format_only_with_an_equals_sign() {
    let run = request(&["--timing", "demo", "json"]).unwrap();
    assert_eq!(run.timing, Some(TimingFormat::Text));
    assert_eq!(run.create.options.image, "demo");
    let run = request(&["--timing=json", "demo"]).unwrap();
    assert_eq!(run.timing, Some(TimingFormat::Json));
}

#[test]
fn files_come_before_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("env");
    std::fs::write(&file, "A=file\nB=file\n").unwrap();
    let options = options(&["-e", "A=mine", "--env-file", file.to_str().unwrap(), "demo"]).unwrap();
    let expected = [("A", "file"), ("B", "file"), ("A", "mine")]
        .map(|(name, value)| Variable::Set(name.into(), value.into()));
    assert_eq!(options.env, expected);
}

#[test]
fn a_way_to_begin_is_one_of_two() {
    assert_eq!(options(&["demo"]).unwrap().boot, None);
    let named = options(&["--boot", "kernel", "demo"]).unwrap();
    assert_eq!(named.boot, Some(Boot::Kernel));
    assert!(options(&["--boot", "image", "demo"]).is_err());
}

#[test]
fn no_image_is_an_error() {
    assert!(options(&["-i"]).is_err());
}

#[test]
fn a_detached_container_has_no_client() {
    let attached = |words: &[&str]| options(words).unwrap().attach.streams();
    assert_eq!(attached(&["demo"]), [false, true, true]);
    assert_eq!(attached(&["-i", "demo"]), [true, true, true]);
    assert_eq!(attached(&["-a", "STDERR", "demo"]), [false, false, true]);
    assert_eq!(
        attached(&["-i", "-a", "stdout", "demo"]),
        [true, true, false]
    );
    assert_eq!(attached(&["-di", "demo"]), [false; 3]);
    assert!(options(&["-d", "-a", "stdin", "demo"]).is_err());
}

#[test]
fn a_run_says_how_to_stay_with_the_container() {
    let run = request(&["demo"]).unwrap();
    assert!(run.sig_proxy && !run.detach && !run.create.quiet);
    assert_eq!(run.detach_keys.0, [0x10, 0x11]);
    let words = [
        "-d",
        "--sig-proxy=false",
        "-q",
        "--detach-keys",
        "ctrl-a",
        "--cidfile",
        "/x",
        "demo",
    ];
    let run = request(&words).unwrap();
    assert!(!run.sig_proxy && run.detach && run.create.quiet);
    assert_eq!(run.detach_keys.0, [1]);
    assert_eq!(run.create.cid_file, Some("/x".into()));
}

#[test]
fn limits_are_docker_s() {
    let options = options(&[
        "--memory-swap",
        "-1",
        "--memory-reservation=32m",
        "--cpu-quota=50000",
        "-c",
        "512",
        "--cpuset-cpus",
        "0-1",
        "--pids-limit",
        "-1",
        "--shm-size=1g",
        "--oom-score-adj",
        "-5",
        "--ulimit",
        "core=-1",
        "--stop-timeout",
        "-1",
        "demo",
    ])
    .unwrap();
    assert_eq!(options.memory_swap, Some(Swap::Unlimited));
    assert_eq!(options.memory_reservation_bytes, Some(32 << 20));
    assert_eq!(
        (options.cpu_quota_us, options.cpu_period_us),
        (Some(50_000), None)
    );
    assert_eq!(options.cpu_shares, Some(512));
    assert_eq!(options.cpuset_cpus.unwrap().to_string(), "0-1");
    assert_eq!(options.pids_limit, None);
    assert_eq!(options.shm_size_bytes, Some(1 << 30));
    assert_eq!(options.oom_score_adj, Some(-5));
    assert_eq!(options.stop_timeout_s, Some(-1));
}

#[test]
fn a_life_and_its_records_are_asked_for() {
    let options = options(&[
        "--restart",
        "on-failure:3",
        "--stop-signal",
        "SIGRTMIN+3",
        "-l",
        "a=1",
        "--label",
        "b",
        "--annotation",
        "c=d",
        "--log-opt",
        "max-size=1m",
        "--log-opt",
        "max-file=2",
        "--health-cmd",
        "true",
        "--health-interval",
        "1m",
        "--health-retries",
        "2",
        "demo",
    ])
    .unwrap();
    assert_eq!(options.restart, RestartPolicy::OnFailure { max_retries: 3 });
    assert_eq!(options.stop_signal, Some(37));
    assert_eq!(options.labels["a"], "1");
    assert_eq!(options.labels["b"], "");
    assert_eq!(options.annotations["c"], "d");
    let rotated = LogConfig::JsonFile {
        max_size_bytes: Some(1 << 20),
        max_files: 2,
    };
    assert_eq!(options.log, rotated);
    assert_eq!(options.health.command.as_deref(), Some("true"));
    assert_eq!(
        (options.health.interval_ms, options.health.retries),
        (Some(60_000), Some(2))
    );
}

#[test]
fn a_machine_and_its_names_are_asked_for() {
    let options = options(&[
        "--isolation",
        "pod:web",
        "--device",
        "/dev/fuse",
        "--sysctl",
        "net.core.somaxconn=9",
        "--add-host",
        "a:1.2.3.4",
        "--dns=1.1.1.1",
        "--dns-search=lan",
        "--dns-option=rotate",
        "--domainname",
        "example",
        "--group-add",
        "audio",
        "--ipc",
        "private",
        "--userns=host",
        "--platform=linux/amd64",
        "-e",
        "A B=1",
        "demo",
    ])
    .unwrap();
    assert_eq!(options.isolation, Isolation::Pod("web".into()));
    assert_eq!(options.devices[0].machine_path, "/dev/fuse");
    assert_eq!(options.sysctls["net.core.somaxconn"], "9");
    assert_eq!(options.extra_hosts[0].name, "a");
    assert_eq!(options.dns.servers.len(), 1);
    assert_eq!(options.domainname.as_deref(), Some("example"));
    assert_eq!(options.groups, ["audio"]);
    assert_eq!(options.env, [Variable::Set("A B".into(), "1".into())]);
}

#[test]
fn empty_words_are_docker_s_for_the_default() {
    let empty = [
        "--name",
        "--hostname",
        "--user",
        "--workdir",
        "--restart",
        "--stop-signal",
        "--network",
        "--isolation",
        "--health-cmd",
        "--log-driver",
        "--cidfile",
        "--ipc",
        "--pid",
        "--uts",
        "--cgroupns",
        "--userns",
        "--platform",
        "--cpuset-cpus",
        "--domainname",
        "--ip",
        "--mac-address",
    ];
    let words: Vec<&str> = empty
        .iter()
        .flat_map(|option| [*option, ""])
        .chain(["demo"])
        .collect();
    let given = options(&words).unwrap();
    assert_eq!(given, options(&["demo"]).unwrap());
}

#[test]
fn what_cannot_be_shared_with_the_host_is_refused_by_name() {
    for words in [
        ["--pid", "host"],
        ["--ipc", "host"],
        ["--uts", "host"],
        ["--network", "host"],
        ["--platform", "linux/arm64"],
        ["--log-driver", "syslog"],
        ["--pid", "container:x"],
        ["--network", "alias=mine"],
        ["--group-add", ""],
    ] {
        let message = options(&[&words[..], &["demo"]].concat())
            .unwrap_err()
            .to_string();
        assert!(message.contains(words[1]), "{message}");
    }
}
