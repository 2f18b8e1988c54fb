//! Further processes in a running container.

use std::time::Duration;

use protocol::agent::{
    Done, ExitStatus, FailureKind, FromAgent, ProcessId, Request, Stdio, TerminalSize,
};

use crate::NO_STREAMS;
use crate::host::{Host, Listener, exec, output_to, text};

/// An agent with a container "box" that runs until it is killed.
fn host_with_box() -> Host {
    let mut host = Host::start();
    host.create(
        "box",
        "echo shared > /tmp/file; exec sleep 1000",
        NO_STREAMS,
    );
    host.start_container("box").unwrap();
    host
}

/// Executes a script; its output and how it ended.
fn run(host: &mut Host, name: &str, script: &str) -> (String, ExitStatus) {
    let out = host.listen();
    host.ask(exec("box", name, &["sh", "-c", script], output_to(&out)))
        .unwrap();
    let output = text(out.accept());
    (output, host.exit_of_process(&ProcessId::exec("box", name)))
}

fn kill_box(host: &mut Host) {
    host.ask(Request::Signal {
        process: ProcessId::first("box"),
        signal: libc::SIGKILL,
        all: false,
    })
    .unwrap();
}

#[test]
#[ignore = "needs root"]
fn an_exec_sees_the_container_and_ends_with_a_code_of_its_own() {
    let mut host = host_with_box();
    let (output, status) = run(&mut host, "look", "cat /tmp/file; hostname; exit 5");
    assert_eq!(
        (&output[..], status),
        ("shared\nbox\n", ExitStatus::Code(5))
    );
    let (output, status) = run(&mut host, "look", "echo again");
    assert_eq!((&output[..], status), ("again\n", ExitStatus::Code(0)));
    kill_box(&mut host);
    assert_eq!(host.exit_of("box"), ExitStatus::Signal(9));
}

#[test]
#[ignore = "needs root"]
fn an_exec_that_fails_says_why_and_the_container_goes_on() {
    let mut host = host_with_box();
    for (name, args, kind) in [
        ("a", &["nothing-like-it"][..], FailureKind::CommandNotFound),
        ("b", &["/etc/which"], FailureKind::CommandNotExecutable),
        ("../c", &["sh"], FailureKind::Invalid),
    ] {
        let failure = host.ask(exec("box", name, args, NO_STREAMS)).unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
    }
    host.ask(exec("box", "d", &["sleep", "1000"], NO_STREAMS))
        .unwrap();
    let twice = host.ask(exec("box", "d", &["true"], NO_STREAMS));
    assert_eq!(twice.unwrap_err().kind, FailureKind::WrongState);
    let nowhere = host.ask(exec("nowhere", "d", &["true"], NO_STREAMS));
    assert_eq!(nowhere.unwrap_err().kind, FailureKind::NotFound);
    assert_eq!(run(&mut host, "e", "exit 3").1, ExitStatus::Code(3));
}

#[test]
#[ignore = "needs root"]
fn a_container_that_does_not_run_executes_nothing() {
    let mut host = Host::start();
    let refused = |host: &mut Host| {
        let failure = host.ask(exec("box", "x", &["true"], NO_STREAMS));
        failure.unwrap_err().kind
    };
    host.create("box", "exit 0", NO_STREAMS);
    assert_eq!(refused(&mut host), FailureKind::WrongState);
    host.start_container("box").unwrap();
    host.exit_of("box");
    assert_eq!(refused(&mut host), FailureKind::WrongState);
}

/// Lifecycle H15.
#[test]
#[ignore = "needs root"]
fn an_exec_ends_though_a_child_holds_its_output_open_or_goes_on_writing() {
    let mut host = host_with_box();
    let held = run(&mut host, "held", "sleep 1000 & echo first");
    assert_eq!(held, ("first\n".to_owned(), ExitStatus::Code(0)));
    let (output, status) = run(&mut host, "loud", "yes & echo first; sleep 0.1; exit 4");
    assert_eq!(status, ExitStatus::Code(4));
    assert!(output.contains("first\n"));
    let (output, status) = run(&mut host, "much", "head -c 300000 /dev/zero");
    assert_eq!((output.len(), status), (300_000, ExitStatus::Code(0)));
}

#[test]
#[ignore = "needs root"]
fn an_exec_may_have_a_terminal() {
    let mut host = host_with_box();
    let stream = host.listen();
    let size = TerminalSize {
        rows: 30,
        columns: 90,
    };
    let stdio = Stdio::Terminal {
        stream: stream.stream(),
        size,
    };
    let script = ["sh", "-c", "tty; stty size; exit 6"];
    host.ask(exec("box", "tty", &script, stdio)).unwrap();
    let seen = text(stream.accept());
    assert!(seen.contains("30 90"), "{seen}");
    let id = ProcessId::exec("box", "tty");
    assert_eq!(host.exit_of_process(&id), ExitStatus::Code(6));
}

/// Lifecycle H13.
#[test]
#[ignore = "needs root"]
fn execs_end_with_their_container_and_each_is_told() {
    let mut host = host_with_box();
    for name in ["a", "b"] {
        host.ask(exec("box", name, &["sleep", "1000"], NO_STREAMS))
            .unwrap();
    }
    let racing = host.send(exec("box", "c", &["sleep", "1000"], NO_STREAMS));
    let kill = host.send(Request::Signal {
        process: ProcessId::first("box"),
        signal: libc::SIGKILL,
        all: false,
    });
    let started = host.reply_of(racing);
    host.reply_of(kill).unwrap();
    for name in ["a", "b"] {
        let id = ProcessId::exec("box", name);
        assert_eq!(host.exit_of_process(&id), ExitStatus::Signal(9));
    }
    if started.is_ok() {
        host.exit_of_process(&ProcessId::exec("box", "c"));
    }
    assert_eq!(host.exit_of("box"), ExitStatus::Signal(9));
    host.delete("box").unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_signal_that_follows_an_exec_reaches_it() {
    let mut host = host_with_box();
    for number in 0..20 {
        let name = format!("e{number}");
        let id = ProcessId::exec("box", &name);
        let started = host.send(exec("box", &name, &["sleep", "1000"], NO_STREAMS));
        let signalled = host.send(Request::Signal {
            process: id.clone(),
            signal: libc::SIGKILL,
            all: false,
        });
        host.reply_of(started).unwrap();
        host.reply_of(signalled).unwrap();
        assert_eq!(host.exit_of_process(&id), ExitStatus::Signal(9));
    }
}

#[test]
#[ignore = "needs root"]
fn a_start_is_answered_before_its_exit_is_told() {
    let mut host = host_with_box();
    for number in 0..50 {
        let name = format!("e{number}");
        let seq = host.send(exec("box", &name, &["true"], NO_STREAMS));
        let mut is_started = false;
        loop {
            match host.next() {
                FromAgent::Reply { seq: of, result } if of == seq => {
                    assert!(matches!(result, Ok(Done::Started { pid: 2.. })));
                    is_started = true;
                }
                FromAgent::Exited { process, .. } => {
                    assert_eq!(process, ProcessId::exec("box", &name));
                    assert!(is_started);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
#[ignore = "needs root; a thousand processes"]
fn a_thousand_execs_leave_nothing_behind() {
    const BATCH: usize = 20;
    let mut host = host_with_box();
    let batch = |host: &mut Host, number: usize| {
        let execs: Vec<(Listener, u64, ProcessId)> = (0..BATCH)
            .map(|at| {
                let name = format!("e{number}-{at}");
                let out = host.listen();
                let request = exec("box", &name, &["echo", &name], output_to(&out));
                let seq = host.send(request);
                (out, seq, ProcessId::exec("box", &name))
            })
            .collect();
        for (out, seq, id) in execs {
            host.reply_of(seq).unwrap();
            let expected = format!("{}\n", id.exec.as_deref().unwrap());
            assert_eq!(text(out.accept()), expected);
            assert_eq!(host.exit_of_process(&id), ExitStatus::Code(0));
        }
    };
    batch(&mut host, 0);
    let before = host.agent_descriptors();
    for number in 1..1000 / BATCH {
        batch(&mut host, number);
    }
    assert_eq!(host.agent_descriptors(), before);
    assert_eq!(host.agent_children().len(), 1, "the container's own");
    // The container has not noticed.
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(run(&mut host, "last", "exit 1").1, ExitStatus::Code(1));
}
