use std::os::unix::fs::PermissionsExt;

use protocol::fs::Cache;
use protocol::record::{Mount, Submounts};

use super::*;
use crate::remove::Remove;
use crate::testing::{Fixture, running};

fn mount(name: &str, anonymous: bool) -> Mount {
    Mount {
        source: MountSource::Volume {
            name: name.into(),
            anonymous,
            subpath: PathBuf::new(),
        },
        share: "abc".into(),
        path: "/volumes/_data".into(),
        destination: format!("/{name}"),
        read_only: false,
        submounts: Submounts::Alike,
        single_file: false,
        socket: None,
        cache: Cache::Shared,
        fill: true,
        mode: String::new(),
    }
}

/// A container with a named volume and one without a name.
fn create(fixture: &Fixture, name: &str, auto_remove: bool) -> String {
    fixture.create_with(name, |config| {
        config.auto_remove = auto_remove;
        config.run.mounts = vec![mount("data", false), mount(&format!("of-{name}"), true)];
    })
}

fn named(name: &str) -> NewVolume {
    NewVolume {
        name: Some(name.into()),
        ..NewVolume::default()
    }
}

fn names(fixture: &Fixture) -> Vec<String> {
    let listed = fixture.engine.volumes(&VolumeFilters::default()).unwrap();
    listed.into_iter().map(|one| one.volume.name).collect()
}

/// Nothing is left of what was being made, removed, or was to go.
fn is_clean(fixture: &Fixture) -> bool {
    let layout = fixture.engine.layout();
    files::names(&layout.tmp()).unwrap().is_empty()
        && files::names(&layout.going_volumes()).unwrap().is_empty()
}

#[test]
fn a_volume_is_made_once_with_its_record_and_an_empty_directory() {
    let fixture = Fixture::new();
    let new = NewVolume {
        labels: [("tier".into(), "db".into())].into(),
        ..named("data")
    };
    let volume = fixture.engine.volume_create(new).unwrap();
    assert_eq!(fixture.engine.volume("data").unwrap(), volume);
    // Another of this name is this one.
    assert_eq!(fixture.engine.volume_create(named("data")).unwrap(), volume);
    let data = fixture.engine.mountpoint(&volume).metadata().unwrap();
    assert_eq!(data.permissions().mode() & 0o7777, 0o755);
    let above = fixture.engine.layout().volume("data").metadata().unwrap();
    assert_eq!(
        above.permissions().mode() & 0o077,
        0,
        "setuid programs in it are out of reach"
    );
    assert_eq!(fixture.actions(), ["create"]);
    assert!(is_clean(&fixture));
}

#[test]
fn a_volume_without_a_name_is_marked_as_dockers_are() {
    let fixture = Fixture::new();
    let volume = fixture.engine.volume_create(NewVolume::default()).unwrap();
    assert!(volume.is_anonymous() && volume.name.len() == 64);
    assert!(
        !fixture
            .engine
            .volume_create(named("data"))
            .unwrap()
            .is_anonymous()
    );
}

#[test]
fn names_drivers_and_options_that_cannot_be_are_refused_in_dockers_words() {
    let fixture = Fixture::new();
    let refused = |new: NewVolume| fixture.engine.volume_create(new).unwrap_err();
    let error = refused(named("a/b"));
    assert!(
        error
            .to_string()
            .starts_with("create a/b: \"a/b\" includes invalid characters"),
        "{error}"
    );
    assert_eq!(error.kind(), crate::Kind::Invalid);
    assert!(refused(named("x")).to_string().contains("too short"));
    assert!(
        refused(named(&"x".repeat(201)))
            .to_string()
            .contains("too long")
    );
    assert!(
        fixture
            .engine
            .volume_create(named(&"x".repeat(200)))
            .is_ok()
    );
    fixture
        .engine
        .volume_remove(&"x".repeat(200), false)
        .unwrap();
    let driver = NewVolume {
        driver: Some("nfs".into()),
        ..named("data")
    };
    assert!(
        refused(driver)
            .to_string()
            .contains("plugin \"nfs\" not found")
    );
    for options in [
        &[("type", "tmpfs")][..],
        &[("type", "none"), ("o", "bind")],
        &[("size", "1g")],
    ] {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        let new = NewVolume {
            options: options.collect(),
            ..named("data")
        };
        assert!(refused(new).to_string().contains("is refused"));
    }
    assert!(names(&fixture).is_empty());
}

#[test]
fn of_many_that_make_one_volume_one_does() {
    let fixture = Fixture::new();
    let volumes: Vec<Volume> = std::thread::scope(|scope| {
        let make = || {
            fixture
                .another_engine()
                .volume_create(named("data"))
                .unwrap()
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(make)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(volumes.iter().all(|volume| *volume == volumes[0]));
    assert_eq!(fixture.actions(), ["create"]);
    assert!(is_clean(&fixture));
}

#[test]
fn a_volume_in_use_is_not_removed_and_one_that_is_not_there_only_by_force() {
    let fixture = Fixture::new();
    let id = create(&fixture, "web", false);
    let error = fixture.engine.volume_remove("data", true).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("remove data: volume is in use - [{id}]")
    );
    assert_eq!(error.kind(), crate::Kind::Conflict);
    fixture.engine.remove("web", Remove::default()).unwrap();
    fixture.engine.volume_remove("data", false).unwrap();
    let error = fixture.engine.volume_remove("data", false).unwrap_err();
    assert_eq!(error.to_string(), "get data: no such volume");
    assert_eq!(error.kind(), crate::Kind::NotFound);
    fixture.engine.volume_remove("data", true).unwrap();
    assert!(
        fixture
            .engine
            .volume_remove("../containers", false)
            .is_err()
    );
    assert!(is_clean(&fixture));
}

#[test]
fn anonymous_volumes_stay_unless_they_are_removed_with_their_container() {
    let fixture = Fixture::new();
    create(&fixture, "web", false);
    create(&fixture, "db", false);
    fixture.engine.remove("web", Remove::default()).unwrap();
    let with_volumes = Remove {
        volumes: true,
        ..Remove::default()
    };
    fixture.engine.remove("db", with_volumes).unwrap();
    assert_eq!(names(&fixture), ["data", "of-web"]);
    assert!(is_clean(&fixture));
}

#[test]
fn an_anonymous_volume_that_another_container_uses_stays() {
    let fixture = Fixture::new();
    create(&fixture, "web", false);
    fixture.create_with("other", |config| {
        config.run.mounts = vec![mount("of-web", true)];
    });
    let with_volumes = Remove {
        volumes: true,
        ..Remove::default()
    };
    fixture.engine.remove("web", with_volumes).unwrap();
    assert_eq!(names(&fixture), ["data", "of-web"]);
    fixture.engine.remove("other", with_volumes).unwrap();
    assert_eq!(names(&fixture), ["data"]);
}

#[test]
fn volumes_go_with_a_container_that_its_monitor_removed() {
    let fixture = Fixture::new();
    let id = create(&fixture, "web", true);
    let layout = fixture.engine.layout();
    assert_eq!(files::names(&layout.volumes()).unwrap().len(), 2);
    // What a monitor does at the end of such a container.
    std::fs::remove_dir_all(layout.container(&id)).unwrap();
    assert_eq!(names(&fixture), ["data"]);
    assert!(is_clean(&fixture));
}

#[test]
fn volumes_go_with_a_container_whose_monitor_was_killed() {
    let fixture = Fixture::new();
    let id = create(&fixture, "web", true);
    fixture.set_state(&id, running());
    // One that ends by itself takes its socket away.
    std::fs::write(fixture.engine.layout().socket(&id), "").unwrap();
    fixture.engine.sweep().unwrap();
    assert!(!fixture.engine.exists(&id));
    assert_eq!(names(&fixture), ["data"]);
    assert!(is_clean(&fixture));
}

#[test]
fn a_kill_before_the_container_is_there_leaves_nothing_and_after_it_what_its_start_makes() {
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    // Noted, and killed.
    let new = fixture.new_container("web", |config| {
        config.auto_remove = true;
        config.run.mounts = vec![mount("of-web", true)];
    });
    std::fs::create_dir_all(engine.layout().volumes()).unwrap();
    engine.let_volumes_go(&new.config).unwrap();
    engine.sweep().unwrap();
    assert!(is_clean(&fixture));
    // The container is there, and none of its volumes.
    let id = create(&fixture, "web", false);
    std::fs::remove_dir_all(engine.layout().volumes()).unwrap();
    engine.start(&id).unwrap();
    assert_eq!(names(&fixture), ["data", "of-web"]);
    assert!(engine.volume("of-web").unwrap().is_anonymous());
}

#[test]
fn a_kill_while_a_volume_is_removed_leaves_what_the_next_sweep_removes() {
    let fixture = Fixture::new();
    fixture.engine.volume_create(named("data")).unwrap();
    let hidden = fixture.engine.hide_volume("data").unwrap().unwrap();
    assert!(names(&fixture).is_empty() && hidden.join("_data").exists());
    // And one that was being made.
    std::fs::create_dir_all(fixture.engine.layout().tmp().join("volume-dead/_data")).unwrap();
    fixture.engine.sweep().unwrap();
    assert!(is_clean(&fixture));
    assert_eq!(fixture.actions(), ["create", "destroy"]);
}

#[test]
fn a_container_that_cannot_be_made_leaves_no_note_and_one_whose_volumes_cannot_goes() {
    let fixture = Fixture::new();
    create(&fixture, "web", true);
    let again = fixture.new_container("web", |config| {
        config.auto_remove = true;
        config.run.mounts = vec![mount("of-two", true)];
    });
    assert!(fixture.engine.create(again).is_err());
    assert_eq!(
        files::names(&fixture.engine.layout().going_volumes())
            .unwrap()
            .len(),
        1
    );
    let bad = fixture.new_container("bad", |config| config.run.mounts = vec![mount("x", false)]);
    let id = bad.config.id.clone();
    assert!(fixture.engine.create(bad).is_err());
    assert!(!fixture.engine.exists(&id) && fixture.engine.id("bad").is_err());
}

#[test]
fn users_are_known_though_the_index_is_lost() {
    let fixture = Fixture::new();
    let id = create(&fixture, "web", false);
    std::fs::remove_file(fixture.engine.layout().index()).unwrap();
    let engine = fixture.another_engine();
    assert_eq!(engine.volume_users().unwrap()["data"], [id].into());
    assert!(engine.volume_remove("data", false).is_err());
}

#[test]
fn filters_are_names_labels_drivers_and_whether_one_is_used() {
    let fixture = Fixture::new();
    create(&fixture, "web", false);
    let new = NewVolume {
        labels: [("tier".into(), "db".into())].into(),
        ..named("store")
    };
    fixture.engine.volume_create(new).unwrap();
    let listed = |filters: VolumeFilters| -> Vec<String> {
        let listed = fixture.engine.volumes(&filters).unwrap().into_iter();
        listed.map(|one| one.volume.name).collect()
    };
    let all = VolumeFilters::default();
    let with = |names: &[&str], dangling| VolumeFilters {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        dangling,
        ..all.clone()
    };
    assert_eq!(listed(with(&["ta", "sto"], None)), ["data", "store"]);
    assert_eq!(listed(with(&[], Some(true))), ["store"]);
    assert_eq!(listed(with(&[], Some(false))), ["data", "of-web"]);
    let label = |value: &str| vec![("tier".to_owned(), Some(value.to_owned()))];
    let labels = VolumeFilters {
        labels: label("db"),
        ..all.clone()
    };
    assert_eq!(listed(labels), ["store"]);
    let without = VolumeFilters {
        without_labels: label("db"),
        ..all.clone()
    };
    assert_eq!(listed(without), ["data", "of-web"]);
    let driver = VolumeFilters {
        drivers: vec!["nfs".into()],
        ..all
    };
    assert!(listed(driver).is_empty());
}

#[test]
fn a_prune_takes_what_no_container_uses_and_named_volumes_only_when_asked() {
    let fixture = Fixture::new();
    create(&fixture, "web", false);
    fixture.engine.remove("web", Remove::default()).unwrap();
    create(&fixture, "used", false);
    fixture.engine.volume_create(named("store")).unwrap();
    let data = fixture.engine.layout().volume_data("of-web");
    std::fs::write(data.join("file"), "x".repeat(5000)).unwrap();
    let pruned = fixture
        .engine
        .prune_volumes(false, &VolumeFilters::default())
        .unwrap();
    assert_eq!(pruned.volumes, ["of-web"]);
    assert!(pruned.freed_bytes >= 5000);
    let pruned = fixture
        .engine
        .prune_volumes(true, &VolumeFilters::default())
        .unwrap();
    assert_eq!(pruned.volumes, ["store"]);
    assert_eq!(names(&fixture), ["data", "of-used"]);
    assert!(is_clean(&fixture));
}

#[test]
fn a_damaged_volume_does_not_hide_the_others() {
    let fixture = Fixture::new();
    for name in ["one", "two"] {
        fixture.engine.volume_create(named(name)).unwrap();
    }
    std::fs::write(
        fixture.engine.layout().volume("one").join("config.json"),
        "{",
    )
    .unwrap();
    assert_eq!(names(&fixture), ["two"]);
    assert!(fixture.engine.volume("one").is_err());
}
