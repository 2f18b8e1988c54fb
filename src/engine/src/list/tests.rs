use protocol::record::{Health, HealthCheck, Status};

use super::*;
use crate::testing::{Fixture, running};

fn names(fixture: &Fixture, options: &ListOptions) -> Vec<String> {
    let listed = fixture.engine.list(options).unwrap();
    listed.into_iter().map(|one| one.summary.name).collect()
}

fn filtered(fixture: &Fixture, filters: &[(&str, &str)]) -> Vec<String> {
    let parse = |(key, value): &(&str, &str)| Filter::parse(key, value).unwrap();
    let options = ListOptions {
        all: true,
        filters: Filters(filters.iter().map(parse).collect()),
        ..ListOptions::default()
    };
    let mut names = names(fixture, &options);
    names.sort();
    names
}

fn exited(code: u8) -> State {
    State {
        status: Status::Exited,
        exit_code: code,
        ..State::default()
    }
}

#[test]
fn only_what_runs_is_listed_unless_all_or_the_last_are_asked_for() {
    let fixture = Fixture::new();
    let old = fixture.create("old");
    fixture.create("new");
    fixture.set_state(&old, running());
    let _held = fixture.hold(&old);
    assert_eq!(names(&fixture, &ListOptions::default()), ["old"]);
    let all = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    assert_eq!(names(&fixture, &all), ["new", "old"]);
    let last = ListOptions {
        last: Some(1),
        ..ListOptions::default()
    };
    assert_eq!(names(&fixture, &last), ["new"]);
}

#[test]
fn what_lost_its_monitor_is_not_listed_as_running() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.set_state(&id, running());
    assert!(names(&fixture, &ListOptions::default()).is_empty());
    assert_eq!(filtered(&fixture, &[("exited", "255")]), ["web"]);
}

#[test]
fn alternatives_of_one_key_and_conditions_of_several() {
    let fixture = Fixture::new();
    let a = fixture.create_with("web-a", |config| {
        config.labels.insert("tier".into(), "front".into());
        config.labels.insert("team".into(), "x".into());
    });
    let b = fixture.create_with("web-b", |config| {
        config.labels.insert("tier".into(), "back".into());
    });
    fixture.create("db");
    fixture.set_state(&a, exited(0));
    fixture.set_state(&b, exited(3));
    let filtered = |filters: &[_]| filtered(&fixture, filters);
    assert_eq!(filtered(&[("name", "web")]), ["web-a", "web-b"]);
    assert_eq!(filtered(&[("name", "^web-a$")]), ["web-a"]);
    assert_eq!(
        filtered(&[("name", "web-a"), ("name", "db")]),
        ["db", "web-a"]
    );
    assert_eq!(filtered(&[("id", &a[5..20])]), ["web-a"]);
    assert_eq!(filtered(&[("label", "tier")]), ["web-a", "web-b"]);
    assert_eq!(filtered(&[("label", "tier=back")]), ["web-b"]);
    assert_eq!(filtered(&[("label", "tier"), ("label", "team")]), ["web-a"]);
    assert_eq!(filtered(&[("exited", "3")]), ["web-b"]);
    assert_eq!(filtered(&[("status", "created")]), ["db"]);
    assert_eq!(filtered(&[("status", "exited"), ("name", "a")]), ["web-a"]);
    assert_eq!(filtered(&[("before", "web-b")]), ["web-a"]);
    assert_eq!(filtered(&[("since", "web-b")]), ["db"]);
    assert_eq!(filtered(&[("ancestor", "demo")]).len(), 3);
    assert_eq!(filtered(&[("ancestor", "sha256:dddddd")]).len(), 3);
    assert!(filtered(&[("ancestor", "other")]).is_empty());
    assert!(filtered(&[("network", "bridge")]).is_empty());
    assert_eq!(filtered(&[("network", "none")]).len(), 3);
}

#[test]
fn containers_are_told_apart_by_health_and_pod() {
    let fixture = Fixture::new();
    let check = HealthCheck {
        command: vec!["true".into()],
        document: "{}".into(),
        interval_ms: 1,
        timeout_ms: 1,
        start_period_ms: 0,
        start_interval_ms: 1,
        retries: 1,
    };
    let id = fixture.create_with("checked", |config| config.health = Some(check));
    let pod = fixture.create_pod("machine");
    fixture.create_with("inside", |config| config.sandbox = pod.clone());
    assert_eq!(filtered(&fixture, &[("health", "starting")]), ["checked"]);
    let health = Health {
        status: HealthStatus::Unhealthy,
        ..Health::default()
    };
    files::write(&fixture.engine.layout().health(&id), &health).unwrap();
    assert_eq!(filtered(&fixture, &[("health", "unhealthy")]), ["checked"]);
    assert_eq!(filtered(&fixture, &[("health", "none")]), ["inside"]);
    assert_eq!(
        filtered(&fixture, &[("isolation", "pod:machine")]),
        ["inside"]
    );
    assert_eq!(filtered(&fixture, &[("pod", "machine")]), ["inside"]);
    assert_eq!(filtered(&fixture, &[("isolation", "vm")]), ["checked"]);
    assert!(filtered(&fixture, &[("isolation", "pod:other")]).is_empty());
}

#[test]
fn what_is_no_filter_is_refused() {
    assert!(matches!(
        Filter::parse("colour", "red"),
        Err(FilterError::Key(_))
    ));
    for (key, value) in [("status", "up"), ("exited", "x"), ("health", "fine")] {
        assert!(matches!(
            Filter::parse(key, value),
            Err(FilterError::Value { .. })
        ));
    }
    let fixture = Fixture::new();
    let options = ListOptions {
        filters: Filters(vec![Filter::Before("nothing".into())]),
        ..ListOptions::default()
    };
    let error = fixture.engine.list(&options).unwrap_err();
    assert_eq!(error.to_string(), "No such container: nothing");
}

#[test]
fn a_damaged_container_does_not_hide_the_others() {
    let fixture = Fixture::new();
    let id = fixture.create("broken");
    fixture.create("web");
    std::fs::write(fixture.engine.layout().container_config(&id), "{").unwrap();
    assert_eq!(filtered(&fixture, &[]), ["web"]);
    std::fs::remove_dir_all(fixture.engine.layout().container(&id)).unwrap();
}

#[test]
fn a_list_needs_no_index() {
    let fixture = Fixture::new();
    fixture.create("web");
    let engine = fixture.another_engine();
    let path = fixture.engine.layout().index();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let all = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    assert_eq!(engine.list(&all).unwrap().len(), 1);
    std::fs::remove_dir(&path).unwrap();
}

#[test]
fn the_images_of_all_containers_are_in_use() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let in_use = fixture.engine.images_in_use().unwrap();
    assert_eq!(in_use.values().next().unwrap().first(), Some(&id));
}

#[test]
fn containers_are_found_by_what_they_have_mounted() {
    use protocol::fs::Cache;
    use protocol::record::{Mount, MountSource};

    let mount = |source, destination: &str| Mount {
        source,
        share: "0".into(),
        path: "/real".into(),
        destination: destination.into(),
        read_only: false,
        submounts: Default::default(),
        single_file: false,
        socket: None,
        cache: Cache::Shared,
        fill: false,
        mode: String::new(),
    };
    let fixture = Fixture::new();
    fixture.create("plain");
    fixture.create_with("db", |config| {
        let source = MountSource::Volume {
            name: "data".into(),
            anonymous: false,
            subpath: Default::default(),
        };
        config.run.mounts = vec![mount(source, "/var/lib/db")];
    });
    // It is there for the start to look at.
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().to_owned();
    fixture.create_with("web", |config| {
        let source = MountSource::Bind {
            named: named.clone(),
            make: false,
        };
        config.run.mounts = vec![Mount {
            path: named.clone(),
            ..mount(source, "/srv")
        }];
    });
    let by = |value: &str| filtered(&fixture, &[("volume", value)]);
    assert_eq!(by("data"), ["db"]);
    assert_eq!(by("/var/lib/db"), ["db"]);
    assert_eq!(by("/srv"), ["web"]);
    assert_eq!(by(&named.display().to_string()), ["web"]);
    assert!(by("nothing").is_empty());
    assert_eq!(
        filtered(&fixture, &[("volume", "data"), ("volume", "/srv")]),
        ["db", "web"]
    );
}
