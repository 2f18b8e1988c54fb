//! The agent's conversation with a monitor, natively. As root.

mod exec;
mod files;
mod host;
mod hull_native;
mod several;
mod wake;

use std::io::{Read, Write};
use std::time::Duration;

use host::{Host, create, text};
use protocol::agent::{
    Done, ExitStatus, FailureKind, ProcessId, Request, Stdio, TerminalSize, Writable,
};

const NO_STREAMS: Stdio = Stdio::Pipes {
    stdin: None,
    stdout: None,
    stderr: None,
};

#[test]
#[ignore = "needs root"]
fn a_container_is_made_of_layers_speaks_and_ends() {
    let mut host = Host::start();
    let (out, err) = (host.listen(), host.listen());
    let stdio = Stdio::Pipes {
        stdin: None,
        stdout: Some(out.stream()),
        stderr: Some(err.stream()),
    };
    host.create(
        "one",
        "hostname; cat /etc/which; echo x > /etc/new; cat /etc/new; echo bad >&2; exit 7",
        stdio,
    );
    assert!(matches!(
        host.start_container("one"),
        Ok(Done::Started { pid: 2.. })
    ));
    assert_eq!(text(out.accept()), "one\nupper\nx\n");
    assert_eq!(text(err.accept()), "bad\n");
    assert_eq!(host.exit_of("one"), ExitStatus::Code(7));
    host.ask(Request::Delete {
        container: "one".into(),
        writable: true,
    })
    .unwrap();
    assert_eq!(host.shut_down(42), 42);
}

#[test]
#[ignore = "needs root"]
fn a_quarter_of_a_gibibyte_goes_in_and_out_unharmed() {
    let mut host = Host::start();
    let (input, out) = (host.listen(), host.listen());
    let stdio = Stdio::Pipes {
        stdin: Some(input.stream()),
        stdout: Some(out.stream()),
        stderr: None,
    };
    host.create("cat", "cat", stdio);
    host.start_container("cat").unwrap();
    let (mut input, mut out) = (input.accept(), out.accept());
    const LEN: usize = 256 << 20;
    let block = |number: usize| -> Vec<u8> {
        (0..65536 / 8)
            .flat_map(|at| (number * 8191 + at).to_le_bytes())
            .collect()
    };
    let writer = std::thread::spawn(move || {
        for number in 0..LEN / 65536 {
            input.write_all(&block(number)).unwrap();
        }
        input.shutdown(std::net::Shutdown::Write).unwrap();
        input
    });
    let mut got = vec![0; 65536];
    for number in 0..LEN / 65536 {
        out.read_exact(&mut got).unwrap();
        assert!(got == block(number), "block {number} differs");
    }
    assert_eq!(out.read(&mut got).unwrap(), 0);
    drop(writer.join().unwrap());
    assert_eq!(host.exit_of("cat"), ExitStatus::Code(0));
}

#[test]
#[ignore = "needs root"]
fn an_exit_is_told_only_when_the_host_has_taken_the_output() {
    let mut host = Host::start();
    let out = host.listen();
    let stdio = Stdio::Pipes {
        stdin: None,
        stdout: Some(out.stream()),
        stderr: None,
    };
    // More than the sockets hold, and a process left behind with the stream open.
    host.create("much", "sleep 1000 & head -c 3000000 /dev/zero", stdio);
    host.start_container("much").unwrap();
    let mut out = out.accept();
    std::thread::sleep(Duration::from_millis(300));
    let failure = host
        .ask(Request::Delete {
            container: "much".into(),
            writable: true,
        })
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongState);
    let mut bytes = Vec::new();
    out.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 3_000_000);
    assert_eq!(host.exit_of("much"), ExitStatus::Code(0));
}

#[test]
#[ignore = "needs root"]
fn a_terminal_is_one_and_can_be_resized() {
    let mut host = Host::start();
    let stream = host.listen();
    let size = TerminalSize {
        rows: 24,
        columns: 80,
    };
    host.create(
        "tty",
        "tty; stty size; read x; stty size; echo got $x",
        Stdio::Terminal {
            stream: stream.stream(),
            size,
        },
    );
    host.start_container("tty").unwrap();
    let mut terminal = stream.accept();
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("24 80") {
        let len = terminal.read(&mut buffer).unwrap();
        seen += std::str::from_utf8(&buffer[..len]).unwrap();
    }
    assert!(seen.contains("/dev/pts/0"), "{seen}");
    let size = TerminalSize {
        rows: 50,
        columns: 132,
    };
    host.ask(Request::Resize {
        process: ProcessId::first("tty"),
        size,
    })
    .unwrap();
    terminal.write_all(b"word\n").unwrap();
    let rest = text(terminal);
    assert!(
        rest.contains("50 132") && rest.contains("got word"),
        "{rest}"
    );
    assert_eq!(host.exit_of("tty"), ExitStatus::Code(0));
}

#[test]
#[ignore = "needs root"]
fn signals_reach_the_container_and_its_end_is_told_as_one() {
    let mut host = Host::start();
    host.create(
        "loop",
        "trap 'exit 9' TERM; while :; do sleep 0.05; done",
        NO_STREAMS,
    );
    host.start_container("loop").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let signal = |signal, all| Request::Signal {
        process: ProcessId::first("loop"),
        signal,
        all,
    };
    assert!(host.ask(signal(99, false)).is_err());
    host.ask(signal(libc::SIGTERM, false)).unwrap();
    assert_eq!(host.exit_of("loop"), ExitStatus::Code(9));
    host.create("killed", "sleep 1000", NO_STREAMS);
    host.start_container("killed").unwrap();
    let kill = Request::Signal {
        process: ProcessId::first("killed"),
        signal: libc::SIGKILL,
        all: true,
    };
    host.ask(kill).unwrap();
    assert_eq!(host.exit_of("killed"), ExitStatus::Signal(9));
}

#[test]
#[ignore = "needs root"]
fn failures_have_their_kind_and_leave_the_container_to_be_deleted() {
    let mut host = Host::start();
    let kind = |result: Result<Done, protocol::agent::Failure>| result.unwrap_err().kind;
    assert_eq!(kind(host.start_container("nobody")), FailureKind::NotFound);
    assert_eq!(kind(host.mount("../up")), FailureKind::Invalid);
    for (name, args, expected) in [
        ("a", vec!["nothing-like-it"], FailureKind::CommandNotFound),
        ("b", vec!["/etc/which"], FailureKind::CommandNotExecutable),
    ] {
        host.mount(name).unwrap();
        host.ask(Request::Create(Box::new(create(name, &args, NO_STREAMS))))
            .unwrap();
        assert_eq!(kind(host.start_container(name)), expected);
        host.ask(Request::Delete {
            container: name.into(),
            writable: true,
        })
        .unwrap();
    }
    host.mount("c").unwrap();
    assert_eq!(kind(host.mount("c")), FailureKind::WrongState);
    let mut request = create("c", &["sh"], NO_STREAMS);
    request.user = Some("somebody".into());
    let failure = host.ask(Request::Create(Box::new(request))).unwrap_err();
    assert_eq!(failure.kind, FailureKind::UnknownUser);
    assert_eq!(
        failure.message,
        "cannot find the user somebody: no such user in the image's /etc/passwd"
    );
    assert_eq!(host.shut_down(0), 0);
}

#[test]
#[ignore = "needs root"]
fn a_host_that_stops_listening_does_not_stop_the_container() {
    let mut host = Host::start();
    let out = host.listen();
    let stdio = Stdio::Pipes {
        stdin: None,
        stdout: Some(out.stream()),
        stderr: None,
    };
    host.create("loud", "head -c 2000000 /dev/zero && exit 3", stdio);
    host.start_container("loud").unwrap();
    drop(out.accept());
    assert_eq!(host.exit_of("loud"), ExitStatus::Code(3));
}

#[test]
#[ignore = "needs root"]
fn a_root_that_is_not_to_be_written_still_gets_its_mounts() {
    let mut host = Host::start();
    let out = host.listen();
    let stdio = Stdio::Pipes {
        stdin: None,
        stdout: Some(out.stream()),
        stderr: None,
    };
    host.mount_with("ro", Writable::Nothing).unwrap();
    let script = "cat /etc/hosts; echo x 2>/dev/null > /new || echo refused";
    let mut request = create("ro", &["sh", "-c", script], stdio);
    // The image has no such file.
    request.etc.hosts = Some("ours\n".into());
    host.ask(Request::Create(Box::new(request))).unwrap();
    host.start_container("ro").unwrap();
    assert_eq!(text(out.accept()), "ours\nrefused\n");
}

#[test]
#[ignore = "needs root"]
fn stats_count_and_the_agent_is_small() {
    let mut host = Host::start();
    host.create("idle", "sleep 1000", NO_STREAMS);
    host.start_container("idle").unwrap();
    let Ok(Done::Stats(stats)) = host.ask(Request::Stats {
        container: "idle".into(),
    }) else {
        panic!()
    };
    assert!(stats.agent_rss_bytes > 0 && stats.cpu_us > 0, "{stats:?}");
}

#[test]
#[ignore = "needs root"]
fn when_the_host_vanishes_everything_ends() {
    let mut host = Host::start();
    let out = host.listen();
    let stdio = Stdio::Pipes {
        stdin: None,
        stdout: Some(out.stream()),
        stderr: None,
    };
    host.create("orphan", "echo up; sleep 1000", stdio);
    host.start_container("orphan").unwrap();
    let mut out = out.accept();
    let mut word = [0; 3];
    out.read_exact(&mut word).unwrap();
    assert_eq!(host.vanish(), 200);
    assert_eq!(text(out), "");
}
