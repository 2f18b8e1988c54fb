use std::io::Read;

use super::*;
use crate::control::{Stop, WaitCondition};
use crate::exec::NewExec;
use crate::testing::Fixture;

/// What of an event a test looks at.
fn word(event: &Event) -> String {
    match event {
        Event::Attached(_) => "attached".into(),
        Event::Started { .. } => "started".into(),
        Event::Exited(exit) => format!("exited {}", exit.status.code()),
        Event::Failed(failure) => format!("failed {:?}", failure.kind),
        other => format!("{other:?}"),
    }
}

fn words(session: &mut Session<'_>, count: usize) -> Vec<String> {
    (0..count).map(|_| word(&session.next().unwrap())).collect()
}

fn exec_config() -> protocol::monitor::ExecConfig {
    let text = serde_json::json!({"args": ["true"], "cwd": "/"}).to_string();
    protocol::monitor::ExecConfig {
        document: serde_json::value::RawValue::from_string(text).unwrap(),
        user: None,
        seccomp: None,
        stdio: protocol::record::Stdio::Pipes {
            stdin: false,
            stdin_once: false,
        },
        attach: [false; 3],
    }
}

#[test]
fn a_foreground_run_is_attached_started_and_told_its_end() {
    let fixture = Fixture::new();
    let id = fixture.create_behaving("web", "exit=3");
    let attach = Some([false, true, true]);
    let mut session = fixture.engine.begin_start("web", attach).unwrap();
    let Event::Attached(streams) = session.next().unwrap() else {
        panic!("not attached first");
    };
    assert_eq!(words(&mut session, 2), ["started", "exited 3"]);
    let mut text = String::new();
    let mut stdout = std::fs::File::from(streams.stdout.unwrap());
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("output of {}\n", &id[..4]));
    session.finish().unwrap();
    assert_eq!(fixture.recorded(&id).exit_code, 3);
}

#[test]
fn a_container_that_goes_with_its_end_is_gone_when_the_run_is_finished() {
    let fixture = Fixture::new();
    let id = fixture.create_with("web", |config| {
        config.auto_remove = true;
        config.labels.insert("fake".into(), "exit=0,linger".into());
    });
    let mut session = fixture.engine.begin_start("web", None).unwrap();
    assert_eq!(words(&mut session, 2), ["started", "exited 0"]);
    session.finish().unwrap();
    assert!(!fixture.engine.layout().container(&id).exists());
    fixture.create("web");
}

#[test]
fn a_start_that_fails_says_why_and_has_docker_s_code() {
    let fixture = Fixture::new();
    fixture.create_behaving("web", "refuse");
    let error = fixture.engine.start("web").unwrap_err();
    assert_eq!(error.to_string(), "no such command");
    assert_eq!(error.kind().exit_code(), 127);
}

#[test]
fn a_container_that_runs_is_not_started_twice() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.engine.start("web").unwrap();
    // As Docker: no error.
    fixture.another_engine().start("web").unwrap();
    let mut session = fixture.engine.begin_start("web", None).unwrap();
    assert_eq!(words(&mut session, 1), ["failed WrongState"]);
    session.leave();
    fixture.engine.stop(&id, Stop::default()).unwrap();
}

#[test]
fn two_commands_that_race_for_one_container_start_it_once() {
    // lifecycle H9
    let fixture = Fixture::new();
    fixture.create("web");
    let results: Vec<String> = std::thread::scope(|scope| {
        let start = || {
            let engine = fixture.another_engine();
            let mut session = engine.begin_start("web", None).unwrap();
            word(&session.next().unwrap())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let started = results.iter().filter(|word| *word == "started").count();
    assert_eq!(started, 1, "{results:?}");
}

#[test]
fn a_start_that_meets_a_monitor_that_is_ending_waits_for_it_and_spawns_another() {
    // lifecycle H10
    let fixture = Fixture::new();
    let id = fixture.create_behaving("web", "exit=0,linger");
    for _ in 0..3 {
        fixture.engine.start("web").unwrap();
        let ended = fixture
            .engine
            .wait("web", WaitCondition::NotRunning)
            .unwrap();
        assert_eq!(ended.code, 0);
    }
    assert_eq!(fixture.recorded(&id).status, Status::Exited);
}

#[test]
fn a_monitor_that_dies_at_the_start_is_named() {
    let fixture = Fixture::new();
    let id = fixture.create_behaving("web", "vanish");
    let error = fixture.engine.start("web").unwrap_err();
    assert!(matches!(error, Error::MonitorGone { .. }), "{error}");
    assert_eq!(fixture.recorded(&id).status, Status::Created);
}

#[test]
fn a_monitor_that_was_killed_under_its_container_is_replaced_by_the_next_start() {
    // lifecycle H5
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.set_state(&id, crate::testing::running());
    fixture.engine.start("web").unwrap();
    assert_eq!(fixture.recorded(&id).status, Status::Running);
    assert_eq!(fixture.host_sweeps(), 1);
}

#[test]
fn attaching_needs_a_container_that_runs() {
    let fixture = Fixture::new();
    fixture.create("web");
    let streams = [false, true, true];
    let refused = |why: &str| {
        let error = fixture.engine.attach("web", streams).unwrap_err();
        assert_eq!(error.to_string(), why);
        assert_eq!(error.kind(), crate::Kind::Conflict);
    };
    refused("You cannot attach to a stopped container, start it first");
    fixture.engine.start("web").unwrap();
    let mut session = fixture.engine.attach("web", streams).unwrap();
    assert_eq!(words(&mut session, 1), ["attached"]);
    session.leave();
    fixture.engine.pause("web").unwrap();
    refused("You cannot attach to a paused container, unpause it first");
}

#[test]
fn an_exec_that_ends_at_once_reports_its_code() {
    let fixture = Fixture::new();
    fixture.create("web");
    let web = fixture.engine.container("web").unwrap();
    let stopped = fixture.engine.exec(&web, NewExec::new(exec_config()));
    assert!(stopped.unwrap_err().to_string().ends_with("is not running"));
    fixture.engine.start("web").unwrap();
    let web = fixture.engine.container("web").unwrap();
    let mut session = fixture
        .engine
        .exec(&web, NewExec::new(exec_config()))
        .unwrap();
    assert_eq!(words(&mut session, 2), ["started", "exited 5"]);
}

#[test]
fn what_is_ready_is_given_without_waiting() {
    let fixture = Fixture::new();
    fixture.create("web");
    let mut session = fixture.engine.begin_start("web", None).unwrap();
    assert_eq!(words(&mut session, 1), ["started"]);
    assert!(session.next_ready().unwrap().is_none());
    session.signal(libc::SIGKILL).unwrap();
    assert_eq!(words(&mut session, 1), ["exited 137"]);
}

#[test]
fn a_start_whose_monitor_goes_on_without_its_speaker_is_asked_again() {
    // lifecycle H23
    let fixture = Fixture::new();
    let id = fixture.create_behaving("web", "falter-start");
    fixture.engine.start("web").unwrap();
    assert!(fixture.recorded(&id).status.is_alive());
    fixture.engine.stop("web", Stop::default()).unwrap();
}
