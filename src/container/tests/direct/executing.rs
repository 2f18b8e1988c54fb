//! What a process is that is executed in a running container.

use std::io::{Read, Write};

use container::{Kind, Stdio};
use serde_json::json;

use crate::Test;
use crate::driver::{Container, exec_request, open_and_children, request, sweep_all, wait};
use crate::fixture::Bundle;

pub(crate) const TESTS: &[Test] = &[
    ("exec_joins_all_namespaces_and_the_cgroup", namespaces),
    ("exec_in_a_user_namespace_is_its_root", user_namespace),
    ("exec_has_the_user_and_groups_of_the_container", users),
    ("exec_has_the_rights_and_limits_of_its_document", rights),
    ("exec_says_what_kind_of_failure_it_is", failures),
    ("exec_in_a_dead_container_fails", dead),
    ("exec_has_a_terminal_of_the_containers_devpts", terminal),
    ("exec_without_streams_has_the_containers_null", null),
    ("a_thousand_execs_leave_nothing", thousand),
];

const NAMES: [&str; 6] = ["pid", "mnt", "uts", "ipc", "net", "cgroup"];

fn namespaces() {
    let (container, _bundle) = Container::sleeping();
    let script = "for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done; \
                  grep ^0: /proc/self/cgroup; hostname; pwd; cat /proc/1/comm; exec cat";
    let (reader, writer) = std::io::pipe().unwrap();
    let (output, input) = std::io::pipe().unwrap();
    let mut request = exec_request(&container.document(script));
    request.stdio = Stdio::Pipes {
        stdin: Some(reader.into()),
        stdout: Some(input.into()),
        stderr: None,
    };
    let running = container::exec(container.joinable(), request)
        .unwrap()
        .wait()
        .unwrap();
    let pids = container.joinable().cgroup().pids().unwrap();
    assert!(pids.contains(&running.pid), "{pids:?}");
    drop(writer);
    let mut out = String::new();
    let mut output = output;
    output.read_to_string(&mut out).unwrap();
    assert_eq!(wait(&running.pidfd), 0);
    let mut expected: Vec<String> = NAMES
        .iter()
        .map(|name| {
            let path = format!("/proc/{}/ns/{name}", container.running.pid.as_raw_pid());
            std::fs::read_link(path).unwrap().display().to_string()
        })
        .collect();
    expected.extend(["0::/", "box", "/", "sleep"].map(str::to_owned));
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
}

fn user_namespace() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user" }));
    let mapping = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.give_to(100_000);
    let container = Container::start(&bundle);
    let script =
        "id -u; cat /proc/self/uid_map; grep -c ^0::/$ /proc/self/cgroup; echo again > /dev/stdout";
    let output = container.exec(script);
    assert_eq!(
        output.out.split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "100000", "65536", "1", "again"]
    );
}

fn users() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.write(
        "etc/group",
        "root:x:0:\nweb:x:34:\nvideo:x:44:web\naudio:x:45:\n",
    );
    let mut request = request(&bundle);
    request.groups = vec!["audio".into(), "77".into()];
    let container = Container::of(request, &bundle);
    let id = |user| {
        let process = container.document("id; echo $HOME; echo $$ >/dev/stdout");
        container.run(&process, user).unwrap().out
    };
    let out = id(Some("web"));
    assert!(
        out.starts_with(
            "uid=33(web) gid=34(web) groups=34(web),44(video),45(audio),77\n/home/web\n"
        ),
        "{out}"
    );
    assert_eq!(out.lines().count(), 3, "{out}");
    assert!(id(Some("5:6")).starts_with("uid=5 gid=6 groups=6,45(audio),77\n/\n"));
    assert!(id(None).starts_with("uid=0(root) gid=0(root) groups=0(root),45(audio),77\n/root\n"));
    // The files are those of now.
    bundle.write("etc/passwd", "new:x:7:7::/:\n");
    assert!(id(Some("new")).starts_with("uid=7(new)"));
}

fn rights() {
    let (container, _bundle) = Container::sleeping();
    let mut process = container.document(
        "grep -E 'NoNewPrivs|CapBnd|CapEff|Seccomp:' /proc/self/status | awk '{print $2}'; ulimit -n; pwd; umask; \
         cat /proc/self/oom_score_adj; mkdir /tmp/x 2>&1",
    );
    process["noNewPrivileges"] = json!(true);
    process["capabilities"] = json!({ "bounding": ["CAP_NET_RAW"], "permitted": ["CAP_NET_RAW"], "effective": ["CAP_NET_RAW"] });
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    process["cwd"] = json!("/home");
    process["user"] = json!({ "umask": 0o077 });
    process["oomScoreAdj"] = json!(123);
    let output = container
        .run_with(&process, |request| request.seccomp = Some(deny_mkdir()))
        .unwrap();
    let none = "0000000000002000";
    assert_eq!(
        output.out.lines().collect::<Vec<_>>(),
        [
            none,
            none,
            "1",
            "2",
            "77",
            "/home",
            "0077",
            "123",
            "mkdir: can't create directory '/tmp/x': Operation not permitted"
        ]
    );
    // Without a score of its own it has the container's.
    process["oomScoreAdj"] = json!(null);
    process["args"] = json!(["cat", "/proc/self/oom_score_adj"]);
    assert_eq!(container.run(&process, None).unwrap().out, "0\n");
}

/// A seccomp program that lets everything through but mkdir, which fails with EPERM.
fn deny_mkdir() -> Vec<u8> {
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, libc::SYS_mkdir as u32),
        instruction(0x06, 0, 0, 0x0005_0000 | 1),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ]
    .concat()
}

fn failures() {
    let (container, bundle) = Container::sleeping();
    bundle.executable("script", "#!/no/such\n");
    let error = |args, user| {
        let mut process = container.document("");
        process["args"] = args;
        container.run(&process, user).unwrap_err()
    };
    for (args, kind) in [
        (json!(["nothing-like-it"]), Kind::CommandNotFound),
        (json!(["/nothing/like/it"]), Kind::CommandNotFound),
        (json!(["/script"]), Kind::CommandNotFound),
        (json!([""]), Kind::CommandNotFound),
        (json!([]), Kind::CommandNotFound),
        (json!(["/etc/passwd"]), Kind::CommandNotExecutable),
        (json!(["/etc"]), Kind::CommandNotExecutable),
    ] {
        assert_eq!(error(args.clone(), None).kind, kind, "{args}");
    }
    let unknown = error(json!(["true"]), Some("stranger"));
    assert_eq!(unknown.kind, Kind::UnknownUser);
    let mut process = container.document("true");
    process["cwd"] = json!("/not/there");
    let error = container.run(&process, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot enter the working directory /not/there"
    );
    sweep_all();
    assert_eq!(open_and_children().1, 1, "the container alone");
}

fn dead() {
    let bundle = Bundle::new("exit 0");
    let container = Container::start(&bundle);
    let process = container.document("true");
    // Dead, and not waited for yet; then reaped; then without its cgroup.
    let ended = [rustix::event::PollFd::new(
        &container.running.pidfd,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut ended.clone(), None).unwrap();
    for step in 0..3 {
        let error = container.run(&process, None).unwrap_err();
        assert_eq!(error.kind, Kind::NotRunning, "{step}: {error:?}");
        match step {
            0 => assert_eq!(wait(&container.running.pidfd), 0),
            _ => _ = container.joinable().cgroup().try_remove(),
        }
    }
}

fn terminal() {
    let (container, _bundle) = Container::sleeping();
    let mut request = exec_request(&container.document("tty; stty size; ls /dev/console"));
    request.stdio = Stdio::Terminal {
        rows: 33,
        columns: 111,
    };
    let running = container::exec(container.joinable(), request)
        .unwrap()
        .wait()
        .unwrap();
    let mut terminal = std::fs::File::from(running.terminal.unwrap());
    let mut text = Vec::new();
    // A terminal that nothing has open any more says EIO.
    let _ = terminal.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    assert!(text.starts_with("/dev/pts/0\n33 111\n"), "{text}");
    assert!(text.contains("No such file"), "{text}");
    assert_ne!(wait(&running.pidfd), 0);
    let _ = terminal.write(b"");
}

fn null() {
    let (container, _bundle) = Container::sleeping();
    let script = "readlink -f /dev/stdin; cat /dev/stdin; echo -n; stat -L -c %t:%T /dev/stdin";
    assert_eq!(container.exec(script).out, "/dev/null\n1:3\n");
    // A null device that the container has replaced is not used.
    container.exec("rm /dev/null; echo trap > /dev/null");
    assert_eq!(
        container.exec("cat; stat -L -c %t:%T /proc/self/fd/0").out,
        "1:3\n"
    );
}

fn thousand() {
    let (container, _bundle) = Container::sleeping();
    let mut process = container.document("");
    process["args"] = json!(["true"]);
    let before = open_and_children();
    for _ in 0..1000 {
        let running = container::exec(container.joinable(), exec_request(&process))
            .unwrap()
            .wait()
            .unwrap();
        assert_eq!(wait(&running.pidfd), 0);
    }
    sweep_all();
    assert_eq!(open_and_children(), before);
    let pids = container.joinable().cgroup().pids().unwrap();
    assert_eq!(pids, [container.running.pid]);
}
