//! The cgroup.

use serde_json::json;

use crate::fixture::{Bundle, cgroup2};

/// Whether a controller can be had here: a machine with cgroup v1 beside v2 may have none.
fn has(controller: &str) -> bool {
    let controllers = std::fs::read_to_string(cgroup2().join("cgroup.controllers")).unwrap();
    controllers
        .split_whitespace()
        .any(|name| name == controller)
}

#[test]
#[ignore = "needs root"]
fn limits_are_set_or_refused_never_ignored() {
    let limits = [
        (
            "memory",
            "memory.max",
            "67108864\n",
            json!({ "memory": { "limit": 67108864, "swap": 67108864 } }),
        ),
        (
            "cpu",
            "cpu.max",
            "150000 100000\n",
            json!({ "cpu": { "quota": 150000, "period": 100000 } }),
        ),
        (
            "pids",
            "pids.max",
            "20\n",
            json!({ "pids": { "limit": 20 } }),
        ),
        (
            "cpuset",
            "cpuset.cpus",
            "0\n",
            json!({ "cpu": { "cpus": "0" } }),
        ),
    ];
    for (controller, file, value, resources) in limits {
        let bundle =
            Bundle::new(&format!("cat /sys/fs/cgroup/{file}")).set("/linux/resources", resources);
        let run = bundle.run();
        if has(controller) {
            assert_eq!(run.ok(), value);
        } else {
            let why = "the kernel does not offer this cgroup v2 controller here";
            assert_eq!(
                run.err,
                format!("run-bundle: cannot set the limit {controller}: {why}\n")
            );
            assert_eq!(run.code, 125);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn too_many_processes_are_refused_inside() {
    if !has("pids") {
        return;
    }
    let bundle = Bundle::new("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
        .set("/linux/resources/pids", json!({ "limit": 5 }));
    assert!(bundle.run().err.contains("can't fork"));
}

#[test]
#[ignore = "needs root"]
fn devices_that_are_not_allowed_cannot_be_opened() {
    let mut bundle = Bundle::new(
        "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg; head -c 1 /dev/zero | wc -c; echo x > /dev/null",
    );
    bundle.config["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "rwm" }]);
    let run = bundle.run();
    assert_eq!(run.out, "1\n");
    assert!(
        run.err.contains("/tmp/kmsg: Operation not permitted"),
        "{}",
        run.err
    );
    bundle.config["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]);
    assert!(!bundle.run().err.contains("not permitted"));
}

#[test]
#[ignore = "needs root"]
fn a_cgroup_must_be_in_a_version_2_hierarchy() {
    let bundle = Bundle::new("true").in_cgroup("/tmp/hull-no-cgroup/x");
    assert_eq!(
        bundle.run().err,
        "run-bundle: cannot set up the cgroup /tmp/hull-no-cgroup/x: it is not in a cgroup v2 hierarchy\n"
    );
    std::fs::remove_dir("/tmp/hull-no-cgroup").unwrap();
}

#[test]
#[ignore = "needs root"]
fn what_a_container_leaves_behind_is_killed_and_removed() {
    let mut bundle = Bundle::new("sleep 1000 & exit 0");
    // Without a PID namespace, the end of the first process ends no other.
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != "pid");
    let started = std::time::Instant::now();
    bundle.run().ok();
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
#[ignore = "needs root"]
fn memory_beyond_the_limit_is_not_had() {
    if !has("memory") {
        return;
    }
    // tail keeps what it reads.
    let bundle = Bundle::new("tail -c 100000000 /dev/zero > /dev/null & wait $!; echo $?").set(
        "/linux/resources/memory",
        json!({ "limit": 20 << 20, "swap": 20 << 20 }),
    );
    assert_eq!(bundle.run().out, "137\n");
}

#[test]
#[ignore = "needs root"]
fn a_limit_may_be_higher_than_ours_and_up_to_the_machines() {
    let bound: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let rlimits = |files: u64| json!([{ "type": "RLIMIT_NOFILE", "soft": files, "hard": files }]);
    // Root need not have that capability.
    let may_raise = rustix::thread::capabilities(None)
        .unwrap()
        .effective
        .contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
    if may_raise {
        let mut bundle = Bundle::new("ulimit -n; ulimit -Hn");
        bundle.config["process"]["rlimits"] = rlimits(bound);
        assert_eq!(bundle.run().ok(), format!("{bound}\n{bound}\n"));
        // In a user namespace it is the outside that raises it.
        bundle.config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "type": "user" }));
        let mapping = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
        bundle.config["linux"]["uidMappings"] = mapping.clone();
        bundle.config["linux"]["gidMappings"] = mapping;
        bundle.give_to(100_000);
        assert_eq!(bundle.run().ok(), format!("{bound}\n{bound}\n"));
    }
    let mut bundle = Bundle::new("ulimit -Hn");
    bundle.config["process"]["rlimits"] = rlimits(bound + 64);
    assert_eq!(
        bundle.run().err,
        "run-bundle: cannot set the resource limit RLIMIT_NOFILE: it is more than the machine allows (its fs.nr_open)\n"
    );
    let run = bundle.option("--own-machine", "").run();
    std::fs::write("/proc/sys/fs/nr_open", bound.to_string()).unwrap();
    if may_raise {
        assert_eq!(run.ok(), format!("{}\n", bound + 64));
    }
}

#[test]
#[ignore = "needs root"]
fn a_document_may_have_more_mounts_than_files_may_be_open() {
    let mut bundle = Bundle::new("grep -c ' /many/' /proc/mounts; ulimit -n");
    for number in 0..300 {
        let place = format!("/many/{number}");
        bundle = bundle.set(
            "/mounts/-",
            json!({ "destination": place, "type": "tmpfs", "source": "tmpfs" }),
        );
    }
    let mut command = std::process::Command::new("sh");
    let inner = bundle.command();
    command.args(["-c", "ulimit -Sn 64; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    assert_eq!(
        crate::fixture::Run::from(command.output().unwrap()).ok(),
        "300\n64\n"
    );
}

#[test]
#[ignore = "needs root"]
fn a_machine_of_its_own_has_all_its_parameters() {
    let value = std::fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
    let mut bundle = Bundle::new("cat /proc/sys/vm/swappiness");
    bundle.config["linux"]["sysctl"] = json!({ "vm.swappiness": value.trim() });
    assert_eq!(
        bundle.run().err,
        "run-bundle: cannot set the kernel parameter vm.swappiness: \
         only settings of the container's own namespaces can be set\n"
    );
    let mut bundle = bundle.option("--own-machine", "");
    assert_eq!(bundle.run().ok(), value);
    bundle.config["linux"]["sysctl"] = json!({ "vm/../../self/oom_score_adj": "1" });
    assert_eq!(bundle.run().code, 125);
}
