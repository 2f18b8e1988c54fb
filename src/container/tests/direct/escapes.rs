//! Containers that try to reach outside by what is executed in them.

use container::Stdio;
use serde_json::json;

use crate::Test;
use crate::driver::Container;
use crate::fixture::Bundle;

pub(crate) const TESTS: &[Test] = &[
    ("exec_leaves_no_descriptor_of_ours", descriptors),
    (
        "exec_by_a_descriptor_of_ours_is_no_way_out",
        working_directory,
    ),
    ("exec_cannot_be_looked_into_before_it_executes", looking_in),
    ("exec_follows_no_link_of_the_container_out", links),
];

fn descriptors() {
    let (container, _bundle) = Container::sleeping();
    // The directory that ls itself has open is the fourth.
    assert_eq!(container.exec("exec ls /proc/self/fd").out, "0\n1\n2\n3\n");
}

/// CVE-2024-21626: the working directory, or the command, is a descriptor of the runtime's.
fn working_directory() {
    let (container, _bundle) = Container::sleeping();
    for number in 0..20 {
        let mut process = container.document("pwd");
        process["cwd"] = json!(format!("/proc/self/fd/{number}"));
        assert!(container.run(&process, None).is_err(), "{number}");
        let mut process = container.document("");
        process["args"] = json!([format!("/proc/self/fd/{number}/bin/true")]);
        assert!(container.run(&process, None).is_err(), "{number}");
    }
}

/// CVE-2016-9962 and CVE-2019-5736: a process of the container watches for new ones and looks at their program, root and
/// descriptors before they execute.
fn looking_in() {
    let watch = "while :; do for p in /proc/[0-9]*; do \
                   for what in exe root cwd fd/0 fd/3 fd/4; do \
                     to=$(readlink $p/$what) && case $to in \
                       /|/proc|/proc/*|/dev/*|/bin/*|pipe:*|'') ;; \
                       *) echo $p $what $to >> /tmp/seen;; \
                     esac; \
                   done; done; done";
    let bundle = Bundle::new(watch);
    let container = Container::start(&bundle);
    for _ in 0..200 {
        assert_eq!(container.exec("exit 0").code, 0);
    }
    let seen = std::fs::read_to_string(bundle.root().join("tmp/seen")).unwrap_or_default();
    assert_eq!(seen, "");
}

/// Links and devices of the container where exec looks.
fn links() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["type"] != "devpts");
    std::fs::remove_file(bundle.root().join("etc/passwd")).unwrap();
    let container = Container::start(&bundle);
    std::os::unix::fs::symlink(
        "../../../../../../etc/passwd",
        bundle.root().join("etc/passwd"),
    )
    .unwrap();
    // The outside's /etc/passwd has a daemon.
    let daemon = container.run(&container.document("id"), Some("daemon"));
    daemon.unwrap_err();
    // A multiplexer of the container's own making.
    assert_eq!(
        container
            .exec("mkdir -p /dev/pts; mknod /dev/pts/ptmx c 5 2")
            .out,
        ""
    );
    let terminal = container.run_with(&container.document("tty"), |request| {
        request.stdio = Stdio::Terminal {
            rows: 1,
            columns: 1,
        }
    });
    assert_eq!(
        terminal.unwrap_err().to_string(),
        "cannot set up the terminal /dev/pts/ptmx"
    );
}
