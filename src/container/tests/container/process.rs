//! What the process is: its namespaces, its end, its rights.

use serde_json::json;

use crate::fixture::Bundle;

#[test]
#[ignore = "needs root"]
fn a_command_runs_alone_in_its_namespaces() {
    let script = "echo $$; hostname; set -- /proc/[0-9]*; echo $#; grep ^0: /proc/self/cgroup; ls /proc/self/fd";
    let out = Bundle::new(script).run().ok();
    // The directory that ls itself has open is the fourth descriptor.
    assert_eq!(out, "1\nbox\n1\n0::/\n0\n1\n2\n3\n");
    let inside =
        Bundle::new("for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done");
    for (name, inside) in ["pid", "mnt", "uts", "ipc", "net", "cgroup"]
        .iter()
        .zip(inside.run().ok().lines())
    {
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), inside);
    }
}

#[test]
#[ignore = "needs root"]
fn namespaces_that_are_not_asked_for_are_shared() {
    let mut bundle = Bundle::new("for n in net uts ipc; do readlink /proc/self/ns/$n; done");
    bundle.config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid" }]);
    bundle.config.as_object_mut().unwrap().remove("hostname");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
    let link = |name: &str| {
        std::fs::read_link(format!("/proc/self/ns/{name}"))
            .unwrap()
            .display()
            .to_string()
    };
    assert_eq!(
        bundle.run().ok().lines().collect::<Vec<_>>(),
        [link("net"), link("uts"), link("ipc")]
    );
}

#[test]
#[ignore = "needs root"]
fn a_namespace_can_be_joined_by_its_path() {
    let mut bundle = Bundle::new("readlink /proc/self/ns/net");
    bundle.config["linux"]["namespaces"][1] =
        json!({ "type": "network", "path": "/proc/self/ns/net" });
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(bundle.run().ok().trim(), outside.to_str().unwrap());
    bundle.config["linux"]["namespaces"][3] = json!({ "type": "pid", "path": "/proc/1/ns/pid" });
    assert_eq!(
        bundle.run().err,
        "run-bundle: cannot enter the namespace pid by its path: it is not built\n"
    );
}

#[test]
#[ignore = "needs root"]
fn exit_codes_are_those_of_docker() {
    assert_eq!(Bundle::new("exit 7").run().code, 7);
    assert_eq!(
        Bundle::new("kill -9 $$; exit 3").run().code,
        3,
        "the first process is immune"
    );
    let run = |args| Bundle::new("").set("/process/args", args).run();
    assert_eq!(run(json!(["nothing-like-it"])).code, 127);
    assert_eq!(run(json!(["/nothing-like-it"])).code, 127);
    assert_eq!(run(json!(["/etc/passwd"])).code, 126);
    assert_eq!(run(json!(["/etc"])).code, 126);
    let not_found = run(json!(["nothing-like-it"]));
    assert_eq!(
        not_found.err,
        "run-bundle: cannot execute nothing-like-it: executable file not found in $PATH\n"
    );
    let script = Bundle::new("").set("/process/args", json!(["/script"]));
    script.executable("script", "echo no interpreter\n");
    assert_eq!(
        script.run().err,
        "run-bundle: cannot execute /script: Exec format error (os error 8)\n"
    );
    script.executable("script", "#!/nothing\n");
    let missing = script.run();
    assert_eq!(missing.code, 127);
    assert_eq!(
        missing.err,
        "run-bundle: cannot find the interpreter /nothing of /script: No such file or directory (os error 2)\n"
    );
    for args in [json!([]), json!([""])] {
        let empty = run(args);
        assert_eq!(empty.code, 127);
        assert_eq!(
            empty.err,
            "run-bundle: cannot execute: the command is empty\n"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn a_program_whose_interpreter_is_missing_says_so() {
    // The tests' own program is linked dynamically; the image has no such linker.
    let bundle = Bundle::new("").set("/process/args", json!(["/program"]));
    std::fs::copy("/bin/ls", bundle.root().join("program")).unwrap();
    let run = bundle.run();
    assert_eq!(run.code, 127);
    assert!(
        run.err
            .starts_with("run-bundle: cannot find the interpreter /lib64/ld-linux"),
        "{}",
        run.err
    );
}

#[test]
#[ignore = "needs root"]
fn arguments_are_limited_by_the_kernel_alone() {
    let mut args = vec![
        json!("sh"),
        json!("-c"),
        json!("echo ${#1} $#"),
        json!("sh"),
    ];
    args.extend((0..12).map(|_| json!("x".repeat(120_000))));
    let bundle = Bundle::new("").set("/process/args", json!(args.clone()));
    assert_eq!(bundle.run().ok(), "120000 12\n");
    // One is longer than MAX_ARG_STRLEN: the kernel says so, and the message arrives.
    args[0] = json!("x".repeat(140_000));
    let bundle = Bundle::new("").set("/process/args", json!(args));
    let run = bundle.run();
    assert_eq!(run.code, 127, "{}", run.err);
    assert!(run.err.len() < 6000);
    args = vec![json!("true"), json!("x".repeat(140_000))];
    let run = Bundle::new("").set("/process/args", json!(args)).run();
    assert_eq!(
        run.err,
        "run-bundle: cannot execute true: Argument list too long (os error 7)\n"
    );
}

#[test]
#[ignore = "needs root"]
fn capabilities_are_those_of_the_document_in_all_five_sets() {
    let read = "grep Cap /proc/self/status | awk '{print $2}'";
    let mut bundle = Bundle::new(read);
    // Docker's default for root: CHOWN … AUDIT_WRITE is 0xa80425fb.
    let docker = "00000000a80425fb";
    let none = "0000000000000000";
    assert_eq!(
        bundle.run().ok().lines().collect::<Vec<_>>(),
        [none, docker, docker, docker, none]
    );
    bundle.config["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    assert_eq!(
        bundle.run().ok().lines().collect::<Vec<_>>(),
        [none, none, none, docker, none]
    );
    // CAP_NET_RAW, 13, kept by a user who is not root through the ambient set.
    for set in [
        "bounding",
        "permitted",
        "effective",
        "inheritable",
        "ambient",
    ] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
    }
    assert_eq!(
        bundle.run().ok().lines().collect::<Vec<_>>(),
        ["0000000000002000"; 5]
    );
    bundle.config["process"]["capabilities"] = json!({});
    bundle.config["process"]["user"] = json!({});
    assert_eq!(bundle.run().ok().lines().collect::<Vec<_>>(), [none; 5]);
    bundle.config["process"]["capabilities"]["bounding"] = json!(["CAP_FLY"]);
    assert_eq!(
        bundle.run().err,
        "run-bundle: cannot set the capabilities CAP_FLY: it is not a known name\n"
    );
}

#[test]
#[ignore = "needs root"]
fn no_new_privileges_and_resource_limits_hold() {
    let script =
        "grep NoNewPrivs /proc/self/status | awk '{print $2}'; ulimit -n; ulimit -Hn; ulimit -c";
    let mut bundle = Bundle::new(script);
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    bundle.config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX },
    ]);
    assert_eq!(bundle.run().ok(), "1\n100\n200\nunlimited\n");
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_FUN", "soft": 1, "hard": 1 }]);
    assert_eq!(bundle.run().code, 125);
}

#[test]
#[ignore = "needs root"]
fn signals_begin_with_their_defaults_and_unblocked() {
    let out = Bundle::new("grep Sig /proc/self/status | awk '{print $1 $2}'")
        .run()
        .ok();
    let lines: Vec<&str> = out
        .lines()
        .filter(|line| !line.starts_with("SigQ") && !line.starts_with("SigCgt"))
        .collect();
    assert_eq!(
        lines,
        [
            "SigPnd:0000000000000000",
            "SigBlk:0000000000000000",
            "SigIgn:0000000000000000"
        ]
    );
}

#[test]
#[ignore = "needs root"]
fn the_oom_score_the_umask_and_the_names_are_set() {
    let mut bundle = Bundle::new(
        "cat /proc/self/oom_score_adj; umask; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname",
    );
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    bundle.config["process"]["user"] = json!({ "umask": 0o027 });
    bundle.config["domainname"] = json!("example");
    assert_eq!(bundle.run().ok(), "500\n0027\nbox\nexample\n");
}

/// A seccomp program that lets everything through but `call`, which fails with EPERM.
fn deny(call: i64) -> Vec<u8> {
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    [
        instruction(0x20, 0, 0, 0),               // load the call's number
        instruction(0x15, 0, 1, call as u32),     // is it this one?
        instruction(0x06, 0, 0, 0x0005_0000 | 1), // SECCOMP_RET_ERRNO | EPERM
        instruction(0x06, 0, 0, 0x7fff_0000),     // SECCOMP_RET_ALLOW
    ]
    .concat()
}

#[test]
#[ignore = "needs root"]
fn the_seccomp_program_holds_with_and_without_no_new_privileges() {
    let mut bundle =
        Bundle::new("grep ^Seccomp: /proc/self/status | awk '{print $2}'; mkdir /tmp/x 2>&1");
    let program = bundle.path().join("program");
    std::fs::write(&program, deny(libc::SYS_mkdir)).unwrap();
    bundle = bundle.option("--seccomp", program.to_str().unwrap());
    for no_new_privileges in [true, false] {
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let run = bundle.run();
        assert_eq!(
            run.out, "2\nmkdir: can't create directory '/tmp/x': Operation not permitted\n",
            "{}",
            run.err
        );
    }
    std::fs::write(&program, b"rubbish").unwrap();
    assert_eq!(
        bundle.run().err,
        "run-bundle: cannot install the seccomp program: Invalid argument (os error 22)\n"
    );
}

#[test]
#[ignore = "needs root"]
fn an_init_reaps_forwards_and_ends_as_its_command() {
    let run = |script: &str| Bundle::new(script).option("--init", "").run();
    assert_eq!(run("echo $$; exit 5").out, "2\n");
    assert_eq!(run("exit 5").code, 5);
    assert_eq!(run("kill -9 $$").code, 128 + 9);
    // Orphans become the init's and vanish.
    let out = run("sh -c 'sleep 0.1 &'; sleep 0.3; set -- /proc/[0-9]*; echo $#").ok();
    assert_eq!(out, "2\n", "the init and the shell");
    let command = Bundle::new("")
        .set("/process/args", json!(["nothing-like-it"]))
        .option("--init", "");
    assert_eq!(command.run().code, 127);
}

#[test]
#[ignore = "needs root"]
fn an_init_passes_on_every_signal_that_can_be_sent() {
    // Each is sent to the init, and waited for in the command: by its default action, or where that is none or a stop by
    // what the shell traps.
    let ends = [1, 2, 3, 6, 10, 13, 15, 24, 30, 32, 33, 34, 50, 64];
    for signal in ends {
        let code = Bundle::new("").option("--init", "");
        let code = code.set(
            "/process/args",
            json!([
                "sh",
                "-c",
                format!("(sleep 0.1; kill -{signal} 1) & exec sleep 10")
            ]),
        );
        assert_eq!(code.run().code, 128 + signal, "{signal}");
    }
    for signal in [18, 21, 22, 23, 28] {
        let script = format!("trap 'exit 5' {signal}; kill -{signal} 1; sleep 1; sleep 9");
        assert_eq!(
            Bundle::new(&script).option("--init", "").run().code,
            5,
            "{signal}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn an_init_keeps_no_descriptor_no_right_and_no_look_at_its_program() {
    let script =
        "ls /proc/1/fd; grep -E 'CapEff|CapBnd' /proc/1/status; cat /proc/1/exe > /dev/null";
    let run = Bundle::new(script).option("--init", "").run();
    assert!(!run.out.contains("\n0\n"), "{}", run.out);
    assert_eq!(
        run.out.matches("00000000a80425fb").count(),
        2,
        "{}",
        run.out
    );
    assert!(run.err.contains("/proc/1/exe"), "{}", run.err);
    assert_ne!(run.code, 0);
}

#[test]
#[ignore = "needs root"]
fn kernel_parameters_of_own_namespaces_are_set_and_others_refused() {
    let mut bundle = Bundle::new(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; echo 0 > /proc/sys/net/ipv4/ip_forward",
    );
    bundle.config["linux"]["sysctl"] =
        json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4242" });
    let run = bundle.run();
    assert_eq!(run.out, "1\n4242\n", "{}", run.err);
    assert_ne!(run.code, 0, "/proc/sys is read-only inside");
    for name in ["vm.swappiness", "kernel.panic", "net/../vm/swappiness"] {
        bundle.config["linux"]["sysctl"] = json!({ name: "1" });
        assert_eq!(bundle.run().code, 125, "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_user_namespace_maps_root_to_nobody_outside() {
    let mut bundle = Bundle::new(
        "cat /proc/self/uid_map; id -u; touch /tmp/mine; stat -c %u /tmp/mine; echo x > /dev/null && ls -l /dev/zero | cut -c1",
    );
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    let mapping = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.give_to(100_000);
    let out = bundle.run().ok();
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536", "0", "0", "c"]
    );
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        std::fs::metadata(bundle.root().join("tmp/mine"))
            .unwrap()
            .uid(),
        100_000
    );
}
