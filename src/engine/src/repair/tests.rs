use protocol::record::State;

use super::*;
use crate::control::Stop;
use crate::remove::Remove;
use crate::testing::{Fixture, running};

fn exited(code: u8, stopped_by_user: bool, restarts: u32) -> State {
    State {
        status: Status::Exited,
        exit_code: code,
        stopped_by_user,
        restarts,
        ..State::default()
    }
}

#[test]
fn policies_decide_what_starts_with_the_host() {
    let on_failure = RestartPolicy::OnFailure { max_retries: 2 };
    for (policy, state, due) in [
        (RestartPolicy::No, exited(1, false, 0), false),
        (RestartPolicy::Always, exited(0, true, 0), true),
        (RestartPolicy::UnlessStopped, exited(0, false, 0), true),
        (RestartPolicy::UnlessStopped, exited(0, true, 0), false),
        (on_failure, exited(255, false, 1), true),
        (on_failure, exited(255, false, 2), false),
        (on_failure, exited(0, false, 0), false),
        (on_failure, exited(255, true, 0), false),
        (RestartPolicy::Always, State::default(), false),
        (RestartPolicy::Always, running(), false),
    ] {
        assert_eq!(is_due(policy, &state), due, "{policy:?} {state:?}");
    }
}

#[test]
fn a_container_whose_monitor_was_killed_is_recorded_as_ended_and_the_host_is_swept() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.set_state(&id, running());
    std::fs::write(fixture.engine.layout().socket(&id), "").unwrap();
    fixture.engine.repair_if_dead(&id).unwrap();
    let state = fixture.recorded(&id);
    assert_eq!((state.status, state.exit_code), (Status::Exited, 255));
    assert!(state.finished_ns >= state.started_ns);
    assert_eq!(fixture.host_sweeps(), 1);
    assert_eq!(fixture.actions(), ["create", "die"]);
    fixture.engine.repair_if_dead(&id).unwrap();
    assert_eq!(fixture.host_sweeps(), 1);
}

#[test]
fn a_container_that_was_to_be_removed_at_its_end_goes_though_its_monitor_was_killed() {
    // lifecycle H24
    let fixture = Fixture::new();
    for (auto_remove, finished_ns, stays) in [(true, 5, false), (true, 0, true), (false, 5, true)] {
        let name = format!("c-{auto_remove}-{finished_ns}");
        let id = fixture.create_with(&name, |config| config.auto_remove = auto_remove);
        fixture.set_state(
            &id,
            State {
                finished_ns,
                ..exited(0, false, 0)
            },
        );
        std::fs::write(fixture.engine.layout().socket(&id), "").unwrap();
        fixture.engine.repair(&id).unwrap();
        assert_eq!(
            fixture.engine.exists(&id),
            stays,
            "{auto_remove} {finished_ns}"
        );
    }
}

#[test]
fn what_a_monitor_left_on_the_host_is_swept_even_if_it_recorded_nothing() {
    // lifecycle H24
    let fixture = Fixture::new();
    for act in ["repair", "start", "remove", "sweep"] {
        let id = fixture.create(act);
        let socket = fixture.engine.layout().socket(&id);
        let killed = || std::fs::write(&socket, "").unwrap();
        killed();
        let before = fixture.host_sweeps();
        match act {
            "repair" => drop(fixture.engine.repair(&id).unwrap()),
            "start" => fixture.engine.start(&id).unwrap(),
            "remove" => fixture.engine.remove(&id, Remove::default()).unwrap(),
            _ => fixture.engine.sweep().unwrap(),
        }
        assert_eq!(fixture.host_sweeps(), before + 1, "{act}");
        assert_eq!(socket.exists(), act == "start", "{act}");
    }
}

#[test]
fn a_container_whose_monitor_lives_is_left_alone() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.set_state(&id, running());
    let held = fixture.hold(&id);
    fixture.engine.repair_if_dead(&id).unwrap();
    fixture.engine.sweep().unwrap();
    assert_eq!(fixture.recorded(&id).status, Status::Running);
    drop(held);
}

#[test]
fn a_container_that_goes_with_its_end_goes_with_its_monitor_s() {
    let fixture = Fixture::new();
    let id = fixture.create_with("web", |config| config.auto_remove = true);
    fixture.set_state(&id, running());
    std::fs::write(fixture.engine.layout().sandbox(&id).join("socket"), "").unwrap();
    fixture.engine.sweep().unwrap();
    assert!(!fixture.engine.exists(&id));
    assert!(!fixture.engine.layout().sandbox(&id).exists());
    assert_eq!(fixture.actions(), ["create", "die", "destroy"]);
    // Its name is free.
    fixture.create("web");
}

#[test]
fn a_sandbox_without_its_container_and_hidden_folders_are_swept() {
    let fixture = Fixture::new();
    let layout = fixture.engine.layout();
    let kept = fixture.create("kept");
    let orphan = fixture.create("orphan");
    std::fs::remove_dir_all(layout.container(&orphan)).unwrap();
    let hidden = layout.containers().join(".gone.abc");
    std::fs::create_dir_all(hidden.join("log")).unwrap();
    let pod = fixture.create_pod("pod");
    fixture.engine.sweep().unwrap();
    assert!(!layout.sandbox(&orphan).exists());
    assert!(!hidden.exists());
    assert!(layout.sandbox(&pod).exists());
    assert!(layout.sandbox(&kept).exists());
}

#[test]
fn a_sandbox_that_its_monitor_removes_while_it_is_swept_is_no_error() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let layout = fixture.engine.layout();
    std::fs::remove_dir_all(layout.container(&id)).unwrap();
    // Its record was read, and its lock cannot be opened any more.
    std::os::unix::fs::symlink("/nowhere/lock", layout.sandbox_lock(&id)).unwrap();
    fixture.engine.sweep().unwrap();
}

#[test]
fn hull_s_start_starts_what_is_due_and_reports_what_fails() {
    let fixture = Fixture::new();
    let always = |behaviour: &str| {
        let behaviour = behaviour.to_owned();
        move |config: &mut ContainerConfig| {
            config.restart = RestartPolicy::Always;
            config.labels.insert("fake".into(), behaviour);
        }
    };
    let web = fixture.create_with("web", always(""));
    let broken = fixture.create_with("broken", always("refuse"));
    let other = fixture.create("other");
    for id in [&web, &broken, &other] {
        fixture.set_state(id, exited(0, false, 0));
    }
    // One that a power cut ended while it ran.
    let cut = fixture.create_with("cut", always(""));
    fixture.set_state(&cut, running());
    std::fs::write(fixture.engine.layout().sandbox(&cut).join("socket"), "").unwrap();
    let outcome = fixture.engine.system_start().unwrap();
    let failed = outcome.failed.iter().map(|(name, _)| name.as_str());
    assert_eq!(failed.collect::<Vec<_>>(), ["broken"]);
    // In the order in which they were made.
    assert_eq!(outcome.started, ["web", "cut"]);
    for id in [&web, &cut] {
        assert_eq!(fixture.recorded(id).status, Status::Running);
        fixture.engine.stop(id, Stop::default()).unwrap();
    }
    assert_eq!(fixture.recorded(&other).status, Status::Exited);
}
