//! Several containers, and one container's several lives.

use std::io::{Read, Write};
use std::time::Duration;

use protocol::agent::{
    Done, ExitStatus, FailureKind, Network, PidNamespace, ProcessId, Request, Stdio, Writable,
};

use crate::NO_STREAMS;
use crate::host::{Host, create, exec, output_to, text};

fn container(name: &str) -> String {
    name.to_owned()
}

fn kill(name: &str) -> Request {
    Request::Signal {
        process: ProcessId::first(name),
        signal: libc::SIGKILL,
        all: false,
    }
}

#[test]
#[ignore = "needs root"]
fn two_containers_run_at_once_and_do_not_meet() {
    let mut host = Host::start();
    let (one, two) = (host.listen(), host.listen());
    let script = "echo mine > /tmp/$(hostname); ls /tmp; hostname";
    host.create("one", script, output_to(&one));
    host.create("two", script, output_to(&two));
    host.start_container("one").unwrap();
    host.start_container("two").unwrap();
    assert_eq!(text(one.accept()), "one\none\n");
    assert_eq!(text(two.accept()), "two\ntwo\n");
    assert_eq!(host.exit_of("two"), ExitStatus::Code(0));
    assert_eq!(host.exit_of("one"), ExitStatus::Code(0));
    host.delete("one").unwrap();
    host.delete("two").unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_request_that_takes_long_holds_up_nothing_else() {
    let mut host = Host::start();
    host.create("slow", "exec sleep 1000", NO_STREAMS);
    host.start_container("slow").unwrap();
    host.ask(exec(
        "slow",
        "fill",
        &["sh", "-c", "head -c 5000000 /dev/zero > /tmp/big"],
        NO_STREAMS,
    ))
    .unwrap();
    host.exit_of_process(&ProcessId::exec("slow", "fill"));
    let out = host.listen();
    // More than the sockets hold, and not read yet.
    let archive = host.send(Request::Archive {
        container: container("slow"),
        path: "/tmp/big".into(),
        follow: false,
        stream: out.stream(),
    });
    let stats = host.ask(Request::Stats {
        container: container("slow"),
    });
    assert!(matches!(stats, Ok(Done::Stats(_))));
    host.create("other", "exit 3", NO_STREAMS);
    host.start_container("other").unwrap();
    assert_eq!(host.exit_of("other"), ExitStatus::Code(3));
    let mut bytes = Vec::new();
    out.accept().read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() > 5_000_000);
    host.reply_of(archive).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_running_container_is_not_deleted_and_a_worker_ends_with_its_container() {
    let mut host = Host::start();
    host.create(
        "box",
        "head -c 5000000 /dev/zero > /tmp/big; exec sleep 1000",
        NO_STREAMS,
    );
    host.start_container("box").unwrap();
    let failure = host.delete("box").unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongState);
    host.ask(kill("box")).unwrap();
    host.exit_of("box");
    let out = host.listen();
    let archive = host.send(Request::Archive {
        container: container("box"),
        path: "/".into(),
        follow: false,
        stream: out.stream(),
    });
    let _unread = out.accept();
    host.delete("box").unwrap();
    let failure = host.reply_of(archive).unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongState);
}

#[test]
#[ignore = "needs root"]
fn a_container_is_created_again_after_its_exit_and_keeps_its_files() {
    let mut host = Host::start();
    host.mount("box").unwrap();
    for run in 1..=10 {
        let out = host.listen();
        let script = "echo run >> /tmp/runs; wc -l < /tmp/runs; sleep 1000 & exit 2";
        let request = create("box", &["sh", "-c", script], output_to(&out));
        let seq = host.send_at_once([
            Request::Create(Box::new(request)),
            Request::Start {
                container: container("box"),
            },
        ]);
        for seq in seq {
            host.reply_of(seq).unwrap();
        }
        assert_eq!(text(out.accept()).trim(), run.to_string());
        assert_eq!(host.exit_of("box"), ExitStatus::Code(2));
    }
    host.delete("box").unwrap();
}

#[test]
#[ignore = "needs root"]
fn what_follows_a_delete_is_for_the_next_container_of_that_name() {
    let mut host = Host::start();
    host.create("box", "true", NO_STREAMS);
    let requests = [
        Request::Delete {
            container: container("box"),
            writable: true,
        },
        host.mount_request("box", Writable::Tmpfs),
        Request::Create(Box::new(create("box", &["sh", "-c", "exit 8"], NO_STREAMS))),
        Request::Start {
            container: container("box"),
        },
    ];
    for seq in host.send_at_once(requests) {
        host.reply_of(seq).unwrap();
    }
    assert_eq!(host.exit_of("box"), ExitStatus::Code(8));
}

#[test]
#[ignore = "needs root"]
fn a_paused_container_stands_still_and_can_be_killed() {
    let mut host = Host::start();
    let (input, out) = (host.listen(), host.listen());
    let stdio = Stdio::Pipes {
        stdin: Some(input.stream()),
        stdout: Some(out.stream()),
        stderr: None,
    };
    host.create("box", "exec cat", stdio);
    host.start_container("box").unwrap();
    let (mut input, mut out) = (input.accept(), out.accept());
    let pause = || Request::Pause {
        container: container("box"),
    };
    let resume = || Request::Resume {
        container: container("box"),
    };
    assert_eq!(
        host.ask(resume()).unwrap_err().kind,
        FailureKind::WrongState
    );
    host.ask(pause()).unwrap();
    assert_eq!(host.ask(pause()).unwrap_err().kind, FailureKind::WrongState);
    let refused = host.ask(exec("box", "x", &["true"], NO_STREAMS));
    assert_eq!(refused.unwrap_err().kind, FailureKind::WrongState);
    input.write_all(b"word").unwrap();
    out.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut word = [0; 4];
    assert!(out.read_exact(&mut word).is_err(), "it is paused");
    host.ask(resume()).unwrap();
    out.set_read_timeout(None).unwrap();
    out.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"word");
    host.ask(pause()).unwrap();
    host.ask(kill("box")).unwrap();
    assert_eq!(host.exit_of("box"), ExitStatus::Signal(9));
}

#[test]
#[ignore = "needs root"]
fn a_kill_and_an_exit_that_cross_are_one_end() {
    let mut host = Host::start();
    host.mount("box").unwrap();
    for number in 0..40 {
        let script = if number % 2 == 0 {
            "exit 1"
        } else {
            "exec sleep 1000"
        };
        let seqs = host.send_at_once([
            Request::Create(Box::new(create("box", &["sh", "-c", script], NO_STREAMS))),
            Request::Start {
                container: container("box"),
            },
            kill("box"),
        ]);
        host.reply_of(seqs[0]).unwrap();
        host.reply_of(seqs[1]).unwrap();
        // It may have ended before it was signalled.
        let killed = host.reply_of(seqs[2]);
        let status = host.exit_of("box");
        assert!(killed.is_err() || number % 2 == 0 || status == ExitStatus::Signal(9));
    }
}

#[test]
#[ignore = "needs root"]
fn containers_of_a_sandbox_share_its_network_and_processes_if_they_say_so() {
    let mut host = Host::start();
    let mut seen = Vec::new();
    for name in ["one", "two", "three"] {
        let out = host.listen();
        host.mount(name).unwrap();
        let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; exec sleep 1000";
        let mut request = create(name, &["sh", "-c", script], output_to(&out));
        if name != "three" {
            request.network = Network::Sandbox;
            request.pid = PidNamespace::Sandbox;
        }
        host.ask(Request::Create(Box::new(request))).unwrap();
        host.start_container(name).unwrap();
        let mut lines = std::io::BufReader::new(out.accept());
        let mut line = String::new();
        for _ in 0..2 {
            std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        }
        seen.push(line);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
    // The first of them is no PID 1, with which all others would end.
    host.ask(kill("one")).unwrap();
    assert_eq!(host.exit_of("one"), ExitStatus::Signal(9));
    let Ok(Done::Processes { processes }) = host.ask(Request::Processes {
        container: container("two"),
    }) else {
        panic!("no list")
    };
    assert_eq!(processes.len(), 1);
    assert_eq!(processes[0].command, "sleep 1000");
    host.delete("one").unwrap();
}
