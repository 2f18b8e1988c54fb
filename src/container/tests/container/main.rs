//! Containers of busybox, looked at from inside. As root.

mod fixture;

use fixture::Bundle;
use serde_json::json;

#[test]
#[ignore = "needs root"]
fn a_command_runs_alone_in_its_namespaces() {
    let script = "echo $$; hostname; ls -d /proc/[0-9]* | wc -l; ls /; cat /proc/self/cgroup; ls /proc/self/fd";
    let out = Bundle::new(script).run().ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["1", "box"], "{out}");
    assert!(lines.contains(&"0::/"), "{out}");
    assert!(out.ends_with("0\n1\n2\n3\n"), "{out}");
    let inside =
        Bundle::new("for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done")
            .run()
            .ok();
    for (name, inside) in ["pid", "mnt", "uts", "ipc", "net", "cgroup"]
        .iter()
        .zip(inside.lines())
    {
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), inside);
    }
}

#[test]
#[ignore = "needs root"]
fn exit_codes_are_those_of_docker() {
    assert_eq!(Bundle::new("exit 7").run().code, 7);
    assert_eq!(
        Bundle::new("kill -9 $$; sleep 1; exit 3").run().code,
        3,
        "the first process is immune"
    );
    let code = |args: serde_json::Value| Bundle::new("").set("/process/args", args).run().code;
    assert_eq!(code(json!(["nothing-like-it"])), 127);
    assert_eq!(code(json!(["/nothing-like-it"])), 127);
    assert_eq!(code(json!(["/etc/passwd"])), 126);
    assert_eq!(code(json!(["/etc"])), 126);
    let run = Bundle::new("")
        .set("/process/args", json!(["nothing-like-it"]))
        .run();
    assert_eq!(
        run.err,
        "run-bundle: cannot execute nothing-like-it: executable file not found in $PATH\n"
    );
}
