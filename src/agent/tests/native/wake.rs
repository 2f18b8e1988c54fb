//! What an agent does before its machine has woken, and at that.

use std::net::Ipv4Addr;

use protocol::agent::{
    Done, ExitStatus, FailureKind, Interface, Network, ProcessId, Request, Stdio, TerminalSize,
    Wake, Writable,
};

use crate::NO_STREAMS;
use crate::host::{Host, WAKE, create, text};

#[test]
#[ignore = "needs root"]
fn a_machine_that_sleeps_does_nothing_else() {
    let mut host = Host::start_asleep();
    let container = || "early".to_owned();
    for request in [
        host.mount_request("early", Writable::Tmpfs),
        Request::Create(Box::new(create("early", &["true"], NO_STREAMS))),
        Request::Start {
            container: container(),
        },
        Request::Signal {
            process: ProcessId::first(container()),
            signal: 9,
            all: true,
        },
        Request::Resize {
            process: ProcessId::first(container()),
            size: TerminalSize {
                rows: 1,
                columns: 1,
            },
        },
        Request::Delete {
            container: container(),
            writable: true,
        },
        Request::Stats {
            container: container(),
        },
    ] {
        let failure = host.ask(request).unwrap_err();
        assert_eq!(failure.kind, FailureKind::WrongState);
        assert_eq!(
            failure.message,
            "the machine has not woken: the first request must be a wake that succeeds"
        );
    }
    assert_eq!(host.woken(), "");
    // None of it has left a trace.
    host.ask(Request::Wake(WAKE)).unwrap();
    host.create("early", "exit 4", NO_STREAMS);
    host.start_container("early").unwrap();
    assert_eq!(host.exit_of("early"), ExitStatus::Code(4));
    assert_eq!(host.shut_down(0), 0);
}

#[test]
#[ignore = "needs root"]
fn requests_that_came_with_the_wake_are_carried_out_behind_it() {
    let mut host = Host::start_asleep();
    let out = host.listen();
    let stdio = Stdio::Pipes {
        stdin: None,
        stdout: Some(out.stream()),
        stderr: None,
    };
    let requests = [
        Request::Wake(WAKE),
        host.mount_request("box", Writable::Tmpfs),
        Request::Create(Box::new(create("box", &["echo", "up"], stdio))),
        Request::Start {
            container: "box".into(),
        },
    ];
    let sent = host.send_at_once(requests);
    for seq in sent {
        host.reply(seq).unwrap();
    }
    assert_eq!(text(out.accept()), "up\n");
    let entropy = format!("{:?}", WAKE.entropy);
    assert_eq!(
        host.woken(),
        format!("1800000000123456789 {entropy}\n"),
        "once, with what was sent"
    );
    assert_eq!(host.exit_of("box"), ExitStatus::Code(0));
}

#[test]
#[ignore = "needs root"]
fn without_entropy_nothing_runs() {
    let mut host = Host::start_asleep();
    let nothing = Wake {
        entropy: [0; 32],
        ..WAKE
    };
    let requests = [
        Request::Wake(nothing),
        host.mount_request("box", Writable::Tmpfs),
        Request::Create(Box::new(create("box", &["true"], NO_STREAMS))),
        Request::Start {
            container: "box".into(),
        },
    ];
    let sent = host.send_at_once(requests);
    let failures = sent.map(|seq| host.reply(seq).unwrap_err());
    assert_eq!(failures[0].kind, FailureKind::Other);
    assert_eq!(
        failures[0].message,
        "the machine does not wake: cannot give the kernel entropy: permission denied"
    );
    for failure in &failures[1..] {
        assert_eq!(failure.kind, FailureKind::WrongState);
    }
    assert_eq!(host.woken(), "");
    assert_eq!(host.shut_down(9), 9);
}

#[test]
#[ignore = "needs root"]
fn a_machine_wakes_once() {
    let mut host = Host::start();
    let failure = host.ask(Request::Wake(WAKE)).unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongState);
    assert_eq!(failure.message, "the machine is awake already");
    assert_eq!(host.woken().lines().count(), 1);
    assert!(matches!(host.mount("box"), Ok(Done::Ok)));
}

#[test]
#[ignore = "needs root"]
fn the_host_may_vanish_before_the_machine_wakes() {
    assert_eq!(Host::start_asleep().vanish(), 200);
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_no_hardware_is_behind_is_not_given_away() {
    let mut host = Host::start();
    host.mount("box").unwrap();
    let mut request = create("box", &["true"], NO_STREAMS);
    request.network = Network::Own {
        interfaces: vec![Interface {
            mac: [2, 0, 0, 0, 0, 1],
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix_len: 24,
            gateway: None,
            mtu: 1500,
            slot: 0,
            is_way_out: false,
        }],
    };
    // The agent's network namespace has loopback, and what the kernel makes in each (ifb0, sit0).
    let failure = host.ask(Request::Create(Box::new(request))).unwrap_err();
    assert_eq!(
        failure.message,
        "cannot set up the network interface eth0: the machine has no free network device for it"
    );
}
