use proptest::prelude::*;

use super::*;
use crate::testing::{Fixture, running};

#[test]
fn a_container_that_runs_is_removed_by_force_only() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.engine.start("web").unwrap();
    let error = fixture.engine.remove("web", Remove::default()).unwrap_err();
    assert!(
        error.to_string().contains("container is running"),
        "{error}"
    );
    fixture
        .engine
        .remove(
            "web",
            Remove {
                force: true,
                volumes: true,
            },
        )
        .unwrap();
    let layout = fixture.engine.layout();
    assert!(!layout.container(&id).exists() && !layout.sandbox(&id).exists());
    assert!(files::names(&layout.tmp()).unwrap().is_empty());
    assert_eq!(fixture.actions(), ["create", "kill", "destroy"]);
    assert!(fixture.engine.remove("web", Remove::default()).is_err());
}

#[test]
fn a_name_is_free_when_its_container_is_gone() {
    let fixture = Fixture::new();
    fixture.create("web");
    fixture.engine.remove("web", Remove::default()).unwrap();
    fixture.create("web");
}

#[test]
fn a_container_whose_monitor_was_killed_is_removed_as_one_that_has_ended() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.set_state(&id, running());
    fixture.engine.remove("web", Remove::default()).unwrap();
    assert!(!fixture.engine.exists(&id));
}

#[test]
fn a_monitor_that_is_ending_is_waited_for() {
    let fixture = Fixture::new();
    fixture.create_behaving("web", "exit=0,linger");
    fixture.engine.start("web").unwrap();
    fixture
        .engine
        .wait("web", crate::control::WaitCondition::NotRunning)
        .unwrap();
    fixture.engine.remove("web", Remove::default()).unwrap();
    assert!(!fixture.engine.layout().sandboxes().join("web").exists());
}

#[test]
fn a_container_of_a_pod_goes_alone() {
    let fixture = Fixture::new();
    let pod = fixture.create_pod("pod");
    let id = fixture.create_with("web", |config| config.sandbox = pod.clone());
    fixture.engine.remove("web", Remove::default()).unwrap();
    assert!(!fixture.engine.exists(&id));
    assert!(fixture.engine.layout().sandbox(&pod).exists());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    /// The file operations of create and rm, cut off after any of them.
    #[test]
    fn a_kill_at_any_point_leaves_what_the_next_command_repairs(
        created in 0..6usize, removed in 0..5usize, name_again in any::<bool>()
    ) {
        let fixture = Fixture::new();
        let engine = &fixture.engine;
        let layout = engine.layout();
        let new = fixture.new_container("web", |_| {});
        let id = new.config.id.clone();
        half_created(engine, new, created);
        if created == 5 {
            half_removed(engine, &id, removed);
        }
        let other = fixture.another_engine();
        let is_whole = created == 5 && removed == 0;
        // Before anything is swept it is a whole container, or none.
        prop_assert_eq!(other.id("web").is_ok(), is_whole);
        prop_assert_eq!(other.summaries().unwrap().len(), usize::from(is_whole));
        if name_again && !is_whole {
            other.create(fixture.new_container("web", |_| {})).unwrap();
        }
        other.sweep().unwrap();
        prop_assert!(files::names(&layout.tmp()).unwrap().is_empty());
        let expected = usize::from(is_whole || name_again);
        prop_assert_eq!(files::names(&layout.containers()).unwrap().len(), expected);
        prop_assert_eq!(files::names(&layout.sandboxes()).unwrap().len(), expected);
    }
}

/// As `create`, killed before the step of this number: what a killed process leaves is not locked.
fn half_created(engine: &Engine, new: crate::create::NewContainer, steps: usize) {
    use crate::container::Summary;
    use crate::index::{Entry, stamp};
    let layout = engine.layout();
    let id = &new.config.id;
    let draft = layout.tmp().join(id);
    let mut step = (0..steps).map(drop);
    let mut go_on = || step.next().is_some();
    if !go_on() {
        return;
    }
    files::make_folder(&draft).unwrap();
    if !go_on() {
        return;
    }
    let path = draft.join("config.json");
    files::write_new(&path, &new.config).unwrap();
    if !go_on() {
        return;
    }
    let entry = Entry {
        stamp: stamp(&path).unwrap(),
        summary: Summary::of(&new.config),
    };
    assert!(engine.claim_name(&entry).unwrap().is_none());
    if !go_on() {
        return;
    }
    engine.place_sandbox(&new.sandbox.unwrap()).unwrap();
    if !go_on() {
        return;
    }
    files::make_folder(&layout.containers()).unwrap();
    std::fs::rename(&draft, layout.container(id)).unwrap();
}

/// As `rm`, killed before the step of this number.
fn half_removed(engine: &Engine, id: &str, steps: usize) {
    let layout = engine.layout();
    files::make_folder(&layout.tmp()).unwrap();
    if steps > 0 {
        std::fs::rename(layout.container(id), layout.tmp().join("gone-a")).unwrap();
    }
    if steps > 1 {
        std::fs::remove_dir_all(layout.tmp().join("gone-a")).unwrap();
    }
    if steps > 2 {
        engine.with_index(|index| index.forget(id)).unwrap();
    }
    if steps > 3 {
        std::fs::rename(layout.sandbox(id), layout.tmp().join("gone-b")).unwrap();
    }
}
