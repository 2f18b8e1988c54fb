//! The hazards of docs/lifecycle.md, one after the other.

use super::*;

#[test]
fn h1_an_exit_waits_for_the_ends_of_the_outputs() {
    let mut w = World::running(RestartPolicy::No);
    w.ask(1, 2, wait(ProcessId::first(ID), WaitUntil::NextExit));
    w.exits(ProcessId::first(ID), ExitStatus::Code(3));
    assert!(w.warden.is_empty() && w.told.is_empty());
    w.outputs_end(&ProcessId::first(ID));
    assert!(matches!(w.warden[..], [ToWarden::Exited { .. }]));
    assert!(w.told.is_empty(), "told before it was recorded");
    w.warden_records(Next::Stay);
    assert_eq!(w.told, ["1/2: exited 3"]);
}

#[test]
fn h2_a_start_that_fails_waits_for_no_stream() {
    let mut w = World::single(RestartPolicy::No);
    w.session.agent_hello();
    w.client(1);
    w.ask(1, 1, start(ID));
    w.ask(1, 2, wait(ProcessId::first(ID), WaitUntil::NextExit));
    while !matches!(w.agent[0].1, ToAgent::Start { .. }) {
        w.agent_replies();
    }
    let (seq, _) = w.agent.remove(0);
    let failure = Failure::new(FailureKind::CommandNotFound, "no such command");
    let result = Err(failure);
    w.session.agent_said(FromAgent::Reply { seq, result });
    w.act();
    assert!(matches!(
        w.warden[..],
        [ToWarden::StartFailed { code: 127, .. }]
    ));
    w.settle();
    let all = "CommandNotFound: no such command";
    assert_eq!(w.told, [format!("1/1: {all}"), format!("1/2: {all}")]);
    assert!(w.open.is_empty());
}

#[test]
fn h3_a_client_that_vanishes_before_the_agent_is_there_starts_nothing() {
    let mut w = World::single(RestartPolicy::No);
    w.client(1);
    w.ask(1, 1, start(ID));
    w.session.client_gone(1);
    w.act();
    w.session.agent_hello();
    w.act();
    w.settle();
    assert!(!w.saw("agent Create") && w.saw("end"));
}

#[test]
fn h4_a_client_that_vanishes_after_its_start_leaves_the_container_running() {
    let mut w = World::single(RestartPolicy::No);
    w.session.agent_hello();
    w.client(1);
    w.ask(1, 1, start(ID));
    w.session.client_gone(1);
    w.act();
    w.settle();
    assert!(w.saw("warden Started") && !w.saw("end"));
    w.client(2);
    w.ask(2, 1, start(ID));
    assert_eq!(
        w.told,
        ["2/1: WrongState: container box is running already"]
    );
}

#[test]
fn h9_a_start_that_comes_while_another_is_under_way_gets_its_answer() {
    let mut w = World::single(RestartPolicy::No);
    w.session.agent_hello();
    for client in [1, 2] {
        w.client(client);
        w.ask(client, 1, start(ID));
    }
    w.act();
    w.settle();
    let started = |told: &&String| told.contains("started");
    assert_eq!(w.told.iter().filter(started).count(), 2, "{:?}", w.told);
}

#[test]
fn h7_a_machine_that_breaks_is_told_with_its_reason_and_everything_is_answered() {
    let mut w = World::running(RestartPolicy::No);
    w.ask(1, 2, wait(ProcessId::first(ID), WaitUntil::NextExit));
    w.exec(1, 3, "e");
    w.ask(1, 4, wait(ProcessId::exec(ID, "e"), WaitUntil::NextExit));
    w.session.machine_ended(Broken {
        message: "the guest reset itself".into(),
        console: vec!["bye".into()],
    });
    w.act();
    w.settle();
    w.told.sort();
    assert_eq!(
        w.told,
        [
            "1/2: exited 137 (the guest reset itself)",
            "1/3: Other: the guest reset itself\nthe guest's last words were:\n  bye",
            "1/4: exited 137 (the guest reset itself)",
        ]
    );
    w.session.client_gone(1);
    w.act();
    assert!(w.saw("end") && !w.saw("agent Shutdown"));
}

#[test]
fn h8_a_machine_that_is_killed_leaves_the_restart_to_the_warden() {
    let mut w = World::running(RestartPolicy::Always);
    w.session.machine_ended(Broken {
        message: "hull-vmm was killed".into(),
        console: Vec::new(),
    });
    w.act();
    w.warden_records(Next::Restart { after_ms: 100 });
    assert!(!w.saw("end"), "clients are served until it is due");
    w.ask(1, 2, start(ID));
    assert_eq!(w.told, ["1/2: WrongState: container box is restarting"]);
    w.wait(Duration::from_secs(1));
    assert!(w.saw("end"));
    assert_eq!(w.count("warden StartFailed"), 0);
}

#[test]
fn h11_a_stop_takes_back_a_restart_with_another_machine_too() {
    let mut w = World::running(RestartPolicy::Always);
    w.session.machine_ended(Broken {
        message: "hull-vmm was killed".into(),
        console: Vec::new(),
    });
    w.act();
    w.warden_records(Next::Restart { after_ms: 60_000 });
    w.ask(1, 2, stop(ID));
    w.settle();
    assert_eq!(w.told, ["1/2: exited 137 (hull-vmm was killed)"]);
    assert!(w.saw("warden Stopping") && w.saw("end"));
}

#[test]
fn h11_a_stop_takes_back_a_restart_that_is_due() {
    let mut w = World::running(RestartPolicy::Always);
    w.ends(1, Next::Restart { after_ms: 100 });
    w.ask(1, 2, stop(ID));
    assert!(w.told.is_empty(), "told before it was recorded");
    w.settle();
    assert_eq!(w.told, ["1/2: exited 1"]);
    w.wait(Duration::from_secs(1));
    assert_eq!(w.count("agent Create"), 1);
}

#[test]
fn h12_a_stop_that_crosses_the_end_is_answered_once_and_nothing_comes_back() {
    let mut w = World::running(RestartPolicy::Always);
    w.exits(ProcessId::first(ID), ExitStatus::Code(0));
    w.outputs_end(&ProcessId::first(ID));
    w.ask(1, 2, stop(ID));
    // The end was recorded before the warden heard of the stop, and is to be followed by a restart.
    w.warden_records(Next::Restart { after_ms: 100 });
    w.settle();
    assert_eq!(w.told, ["1/2: exited 0"]);
    w.wait(Duration::from_secs(1));
    assert_eq!(w.count("agent Create"), 1);
}

#[test]
fn h13_an_exec_in_a_container_that_ends_fails_or_ends() {
    let mut w = World::running(RestartPolicy::No);
    w.exec(1, 2, "early");
    w.settle();
    w.ask(
        1,
        3,
        wait(ProcessId::exec(ID, "early"), WaitUntil::NextExit),
    );
    w.ends(0, Next::Stay);
    w.exec(1, 4, "late");
    assert_eq!(
        w.told[..],
        [
            "1/2: started 7",
            "1/4: WrongState: container box is not running"
        ]
    );
    w.exits(ProcessId::exec(ID, "early"), ExitStatus::Signal(9));
    w.outputs_end(&ProcessId::exec(ID, "early"));
    assert_eq!(w.told[2], "1/3: exited 137");
}

#[test]
fn h14_the_code_of_an_exec_can_be_asked_for_after_its_end() {
    let mut w = World::running(RestartPolicy::No);
    w.exec(1, 2, "e");
    w.settle();
    w.exits(ProcessId::exec(ID, "e"), ExitStatus::Code(4));
    w.outputs_end(&ProcessId::exec(ID, "e"));
    w.client(2);
    w.ask(2, 1, wait(ProcessId::exec(ID, "e"), WaitUntil::NextExit));
    w.ask(2, 2, wait(ProcessId::exec(ID, "e"), WaitUntil::NotRunning));
    assert_eq!(w.told, ["1/2: started 7", "2/1: exited 4", "2/2: exited 4"]);
}

#[test]
fn h21_numbers_and_names_that_a_guest_makes_up_change_nothing() {
    let mut w = World::running(RestartPolicy::No);
    for seq in [0, 1, 2, 999, u64::MAX] {
        let result = Ok(Done::Started { pid: 1 });
        w.session.agent_said(FromAgent::Reply { seq, result });
    }
    w.exits(ProcessId::first("another"), ExitStatus::Code(0));
    w.exits(ProcessId::exec(ID, "none"), ExitStatus::Code(0));
    w.act();
    assert!(w.told.is_empty() && w.warden.is_empty());
    // An end that is said twice is one end.
    w.exits(ProcessId::first(ID), ExitStatus::Code(5));
    w.exits(ProcessId::first(ID), ExitStatus::Code(6));
    w.outputs_end(&ProcessId::first(ID));
    assert_eq!(w.count("warden Exited"), 1);
}

#[test]
fn a_signal_that_stops_is_recorded_before_it_is_sent_and_others_go_at_once() {
    let mut w = World::running(RestartPolicy::Always);
    w.ask(1, 2, kill(ID, 10));
    assert!(w.saw("agent Signal 10"));
    w.ask(1, 3, kill(ID, 9));
    assert!(!w.saw("agent Signal 9"));
    w.warden_records(Next::Stay);
    assert!(w.saw("agent Signal 9"));
    w.settle();
    assert_eq!(w.told, ["1/2: done", "1/3: done"]);
}

#[test]
fn h11_a_stop_that_comes_before_the_process_executes_holds_after_it() {
    let mut w = World::single(RestartPolicy::Always);
    w.session.agent_hello();
    w.client(1);
    w.ask(1, 1, start(ID));
    // Its time is over before the process executes.
    let now = Request::Stop {
        container: ID.to_owned(),
        signal: None,
        timeout_s: Some(0),
    };
    w.ask(1, 2, now);
    let started = |w: &World| match w.warden.last() {
        Some(ToWarden::Started { stopping, .. }) => Some(*stopping),
        _ => None,
    };
    while started(&w).is_none() {
        match w.warden.is_empty() {
            true => w.agent_replies(),
            false => w.warden_records(Next::Stay),
        }
        w.wait(Duration::from_millis(1));
    }
    assert_eq!(started(&w), Some(true));
    // The next start is another matter.
    let mut w = World::single(RestartPolicy::Always);
    w.session.agent_hello();
    w.client(1);
    w.ask(1, 1, start(ID));
    while started(&w).is_none() {
        w.agent_replies();
    }
    assert_eq!(started(&w), Some(false));
}

#[test]
fn a_container_that_ignores_its_stop_signal_is_killed_in_time() {
    let mut w = World::running(RestartPolicy::No);
    w.ask(1, 2, stop(ID));
    w.settle();
    assert!(w.saw("agent Signal 15"));
    w.wait(Duration::from_millis(2900));
    assert!(!w.saw("agent Signal 9"));
    w.wait(Duration::from_millis(200));
    assert!(w.saw("agent Signal 9"));
    w.exits(ProcessId::first(ID), ExitStatus::Signal(9));
    w.outputs_end(&ProcessId::first(ID));
    w.settle();
    assert_eq!(w.told, ["1/2: exited 137"]);
}

#[test]
fn a_restart_comes_after_its_pause_in_the_same_machine() {
    let mut w = World::running(RestartPolicy::Always);
    w.session.client_gone(1);
    w.ends(1, Next::Restart { after_ms: 100 });
    assert!(!w.saw("end"));
    w.wait(Duration::from_millis(99));
    assert_eq!(w.count("agent Create"), 1);
    w.wait(Duration::from_millis(1));
    w.settle();
    assert_eq!((w.count("agent Create"), w.count("agent Mount")), (2, 1));
    assert_eq!(w.count("warden Started"), 2);
}

#[test]
fn a_single_container_s_sandbox_shuts_down_when_all_is_told() {
    let mut w = World::running(RestartPolicy::No);
    w.ask(1, 2, wait(ProcessId::first(ID), WaitUntil::NotRunning));
    w.ends(0, Next::Stay);
    assert_eq!(w.told, ["1/2: exited 0"]);
    assert!(w.saw("agent Shutdown") && !w.saw("end"));
    w.session.machine_ended(Broken {
        message: "the VM was stopped".into(),
        console: Vec::new(),
    });
    w.act();
    assert!(w.saw("machine done") && w.saw("end"));
}

#[test]
fn h10_what_is_asked_of_a_sandbox_that_shuts_down_is_left_for_the_next_monitor() {
    let mut w = World::running(RestartPolicy::No);
    w.ends(0, Next::Stay);
    w.session.client_gone(1);
    w.act();
    assert!(w.saw("agent Shutdown") && !w.saw("end"));
    w.client(2);
    let stat = Request::Stat {
        container: ID.into(),
        path: "/etc".into(),
        follow: false,
    };
    w.ask(2, 1, stat);
    w.ask(2, 2, start(ID));
    assert!(!w.saw("agent Stat") && w.count("agent Create") == 1);
    w.session.machine_ended(Broken {
        message: "the VM was stopped".into(),
        console: Vec::new(),
    });
    w.act();
    assert!(w.saw("end"));
    assert_eq!(w.told, [""; 0]);
}

#[test]
fn a_pod_goes_on_without_containers_until_it_is_stopped() {
    let mut w = World::of(setting(None));
    w.session.agent_hello();
    w.client(1);
    w.ask(1, 1, start("a"));
    w.ask(1, 2, start("b"));
    w.settle();
    assert_eq!(w.told, ["1/1: started 7", "1/2: started 7"]);
    w.exits(ProcessId::first("a"), ExitStatus::Code(0));
    w.outputs_end(&ProcessId::first("a"));
    w.settle();
    w.session.client_gone(1);
    w.act();
    assert!(!w.saw("end"));
    w.client(2);
    w.ask(
        2,
        1,
        Request::Remove {
            container: "b".into(),
        },
    );
    w.ask(
        2,
        2,
        Request::Remove {
            container: "a".into(),
        },
    );
    w.settle();
    assert!(w.told[2].starts_with("2/1: WrongState"));
    assert_eq!(w.told[3], "2/2: done");
    w.ask(2, 3, Request::Shutdown);
    w.settle();
    assert!(w.saw("agent Signal 15") && !w.saw("end"));
    w.exits(ProcessId::first("b"), ExitStatus::Signal(15));
    w.outputs_end(&ProcessId::first("b"));
    w.settle();
    w.wait(Duration::from_secs(11));
    assert!(w.saw("end"));
}

#[test]
fn a_paused_container_takes_no_exec_and_a_stop_lets_it_go_on() {
    let mut w = World::running(RestartPolicy::No);
    w.ask(
        1,
        2,
        Request::Pause {
            container: ID.into(),
        },
    );
    w.settle();
    w.ask(
        1,
        3,
        Request::Pause {
            container: ID.into(),
        },
    );
    w.exec(1, 4, "e");
    w.ask(1, 5, stop(ID));
    w.settle();
    assert_eq!(w.told[0], "1/2: done");
    assert_eq!(
        w.told[1],
        "1/3: WrongState: container box is already paused"
    );
    assert!(w.told[2].contains("is paused"), "{}", w.told[2]);
    assert!(w.saw("agent Resume"));
}

#[test]
fn who_attaches_before_the_start_is_primary_and_who_comes_later_is_not() {
    let mut w = World::single(RestartPolicy::No);
    w.client(1);
    let attach = || Request::Attach {
        process: ProcessId::first(ID),
        streams: [true; 3],
    };
    w.ask(1, 1, attach());
    w.ask(1, 2, start(ID));
    w.session.agent_hello();
    w.act();
    w.settle();
    w.ask(1, 3, attach());
    assert!(w.saw("attach 1/1 primary") && w.saw("attach 1/3 later"));
}

#[test]
fn a_sandbox_without_a_machine_says_why_to_everybody() {
    let mut setting = setting(Some(config(ID, RestartPolicy::No)));
    setting.failed = Some(Failure::new(FailureKind::Other, "no KVM"));
    let mut w = World::of(setting);
    w.client(1);
    w.ask(1, 1, start(ID));
    let stat = Request::Stat {
        container: ID.into(),
        path: "/".into(),
        follow: true,
    };
    w.ask(1, 2, stat);
    w.settle();
    assert_eq!(w.told, ["1/2: Other: no KVM", "1/1: Other: no KVM"]);
}

#[test]
fn files_of_a_container_that_does_not_run_can_be_asked_for() {
    let mut w = World::single(RestartPolicy::No);
    w.client(1);
    let archive = Request::Archive {
        container: ID.into(),
        path: "/etc".into(),
        follow: false,
    };
    w.ask(1, 1, archive);
    w.session.agent_hello();
    w.act();
    w.settle();
    assert_eq!(w.told, ["1/1: done"]);
    assert!(w.saw("agent Mount") && w.saw("agent Archive") && !w.saw("agent Create"));
    w.session.client_gone(1);
    w.act();
    assert!(w.saw("agent Shutdown"));
}

#[test]
fn a_client_of_another_version_is_told_so() {
    let mut w = World::single(RestartPolicy::No);
    w.client(1);
    let build = "old".to_owned();
    w.ask(
        1,
        1,
        Request::Hello {
            version: 999,
            build,
        },
    );
    assert!(w.told[0].starts_with("1/1: Unsupported: this sandbox was started by hull"));
}

#[test]
fn a_shutdown_after_a_long_sleep_gives_containers_their_whole_time() {
    let mut w = World::running(RestartPolicy::Always);
    w.now += Duration::from_secs(3600);
    w.session.woke(w.now);
    w.session.quit(false);
    w.wait(Duration::from_secs(1));
    assert!(w.saw("agent Signal 15") && !w.saw("agent Signal 9"));
    w.wait(Duration::from_secs(30));
    assert!(w.saw("agent Signal 9"));
}
