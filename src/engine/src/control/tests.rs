use super::*;
use crate::testing::Fixture;

#[test]
fn a_stop_is_durable_when_it_returns_and_a_second_one_does_nothing() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.engine.start("web").unwrap();
    assert!(fixture.engine.stop("web", Stop::default()).unwrap());
    let state = fixture.recorded(&id);
    assert_eq!((state.status, state.exit_code), (Status::Exited, 143));
    assert!(state.stopped_by_user);
    assert!(!fixture.engine.stop("web", Stop::default()).unwrap());
    assert_eq!(fixture.actions(), ["create", "kill", "stop"]);
}

#[test]
fn a_kill_of_what_does_not_run_is_refused_in_docker_s_words() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let error = fixture.engine.kill("web", 9).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot kill container: {id}: container {id} is not running")
    );
    assert_eq!(error.kind().http_status(), 409);
    fixture.engine.start("web").unwrap();
    fixture.engine.kill("web", 9).unwrap();
    let ended = fixture
        .engine
        .wait("web", WaitCondition::NotRunning)
        .unwrap();
    assert_eq!(ended.code, 137);
}

#[test]
fn a_container_is_paused_once_and_resumed_once() {
    let fixture = Fixture::new();
    fixture.create("web");
    let engine = &fixture.engine;
    assert!(engine.pause("web").is_err());
    engine.start("web").unwrap();
    engine.pause("web").unwrap();
    let error = engine.pause("web").unwrap_err().to_string();
    assert_eq!(error, "container web is already paused");
    let error = engine.start("web").unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot start a paused container, try unpause instead"
    );
    engine.unpause("web").unwrap();
    let error = engine.unpause("web").unwrap_err().to_string();
    assert_eq!(error, "container web is not paused");
}

#[test]
fn what_runs_can_be_looked_into() {
    let fixture = Fixture::new();
    fixture.create("web");
    assert!(fixture.engine.stats("web").is_err());
    fixture.engine.start("web").unwrap();
    assert_eq!(fixture.engine.stats("web").unwrap().memory_bytes, 42);
    assert_eq!(fixture.engine.top("web").unwrap().len(), 1);
    let size = TerminalSize::default();
    fixture.engine.resize("web", size).unwrap();
}

#[test]
fn a_restart_starts_what_did_not_run_too() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    for _ in 0..2 {
        fixture.engine.restart("web", Stop::default()).unwrap();
        assert_eq!(fixture.recorded(&id).status, Status::Running);
    }
}

#[test]
fn a_wait_for_what_has_ended_returns_at_once_with_its_code() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let engine = &fixture.engine;
    assert_eq!(
        engine.wait("web", WaitCondition::NotRunning).unwrap().code,
        0
    );
    let state = State {
        status: Status::Exited,
        exit_code: 9,
        ..State::default()
    };
    fixture.set_state(&id, state);
    assert_eq!(
        engine.wait("web", WaitCondition::NotRunning).unwrap().code,
        9
    );
    assert!(engine.wait("other", WaitCondition::NotRunning).is_err());
}

#[test]
fn a_wait_for_the_next_end_begins_before_the_start() {
    let fixture = Fixture::new();
    fixture.create_behaving("web", "exit=4");
    let ended = std::thread::scope(|scope| {
        let engine = fixture.another_engine();
        let waiting = scope.spawn(move || engine.wait("web", WaitCondition::NextExit).unwrap());
        // A wait that only begins after an end waits for the next.
        while !waiting.is_finished() && fixture.engine.start("web").is_ok() {}
        waiting.join().unwrap()
    });
    assert_eq!(ended.code, 4);
}

#[test]
fn a_wait_for_the_removal_ends_with_it() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    std::thread::scope(|scope| {
        let engine = fixture.another_engine();
        let reference = id.clone();
        let waiting = scope.spawn(move || {
            engine
                .wait(&reference, WaitCondition::Removed)
                .map(|e| e.code)
        });
        fixture.engine.remove("web", Default::default()).unwrap();
        match waiting.join().unwrap() {
            Ok(code) => assert_eq!(code, 0),
            // It was gone before the wait began.
            Err(error) => assert!(matches!(error, Error::NotFound { .. }), "{error}"),
        }
    });
}

#[test]
fn a_stop_of_what_lost_its_monitor_records_that() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.set_state(&id, crate::testing::running());
    assert!(!fixture.engine.stop("web", Stop::default()).unwrap());
    assert_eq!(fixture.recorded(&id).exit_code, 255);
}

#[test]
fn a_stop_whose_monitor_goes_on_without_its_speaker_stops_what_was_started_again() {
    // lifecycle H23
    let fixture = Fixture::new();
    let id = fixture.create_behaving("web", "falter-stop");
    fixture.engine.start("web").unwrap();
    assert!(fixture.engine.stop("web", Stop::default()).unwrap());
    let state = fixture.recorded(&id);
    assert_eq!(state.status, Status::Exited);
    assert!(state.stopped_by_user);
}
