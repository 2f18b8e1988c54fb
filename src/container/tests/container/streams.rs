//! Standard streams: pipes and terminals.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use crate::fixture::{Bundle, Run};

#[test]
#[ignore = "needs root"]
fn pipes_carry_bytes_and_belong_to_the_user() {
    let bundle = Bundle::new("cat; echo again > /dev/stdout; echo bad > /dev/stderr")
        .option("--user", "web");
    let mut child = bundle
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"\0in\xff\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"\0in\xff\nagain\n");
    assert_eq!(output.stderr, b"bad\n");
}

#[test]
#[ignore = "needs root"]
fn a_terminal_is_the_containers_own() {
    let script = "tty; stty size; ls -ln /dev/console | awk '{print $1,$3,$4}'; echo x > /dev/tty; \
                  stat -c %t:%T /dev/console; cat /proc/self/stat | awk '{print ($7 != 0)}'";
    let bundle = Bundle::new(script).option("--terminal", "");
    let out = bundle.run().ok().replace('\r', "");
    assert_eq!(out, "/dev/pts/0\n30 100\ncrw--w---- 0 5\nx\n88:0\n1\n");
}

#[test]
#[ignore = "needs root"]
fn a_terminal_has_job_control_with_and_without_an_init() {
    for init in [false, true] {
        let mut bundle = Bundle::new("").option("--terminal", "");
        bundle.config["process"]["args"] = json!(["sh"]);
        if init {
            bundle = bundle.option("--init", "");
        }
        let mut child = bundle
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Ctrl-C must reach the foreground process and not the shell.
        let mut stdin = child.stdin.take().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        stdin.write_all(b"sleep 1000\n").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        stdin.write_all(b"\x03").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        stdin.write_all(b"echo sur''vived; exit 4\n").unwrap();
        let run = Run::from(child.wait_with_output().unwrap());
        assert!(
            run.out.contains("survived") && !run.out.contains("job control"),
            "{}{}",
            run.out,
            run.err
        );
        assert_eq!(run.code, 4);
    }
}

#[test]
#[ignore = "needs root"]
fn a_terminal_needs_a_devpts_of_the_containers_own() {
    let mut bundle = Bundle::new("true").option("--terminal", "");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| m["type"] != "devpts");
    let error = bundle.run().err;
    assert_eq!(
        error,
        "run-bundle: cannot set up the terminal /dev/pts/ptmx: No such file or directory (os error 2)\n"
    );
}

#[test]
#[ignore = "needs root"]
fn streams_that_are_not_given_are_the_containers_own_null() {
    let script =
        "{ readlink -f /dev/stdin; stat -L -c %t:%T /dev/stdin; cat /dev/stdin; } > /tmp/out";
    let bundle = Bundle::new(script).option("--null", "");
    bundle.run().ok();
    let out = std::fs::read_to_string(bundle.root().join("tmp/out")).unwrap();
    assert_eq!(out, "/dev/null\n1:3\n");
    // A /dev without one: one is made that nothing else sees, and the outside's keeps its mode.
    let outside = tempfile::tempdir().unwrap();
    let script = "stat -L -c %t:%T /proc/self/fd/0 > /tmp/out; chmod 600 /proc/self/fd/0";
    let mut bundle = Bundle::new(script).option("--null", "").set(
        "/mounts/-",
        json!({ "destination": "/dev", "type": "bind", "source": outside.path(), "options": ["rbind"] }),
    );
    bundle.config["mounts"].as_array_mut().unwrap().retain(|m| {
        let place = m["destination"].as_str().unwrap();
        m["type"] == "bind" || !place.starts_with("/dev")
    });
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.run().ok();
    let out = std::fs::read_to_string(bundle.root().join("tmp/out")).unwrap();
    assert_eq!(out, "1:3\n");
    let mode = std::fs::metadata("/dev/null").unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}
