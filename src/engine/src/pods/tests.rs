use super::*;
use crate::error::Kind;
use crate::testing::Fixture;

#[test]
fn a_pod_is_found_by_name_and_by_identifier() {
    let fixture = Fixture::new();
    let id = fixture.create_pod("machine");
    for reference in ["machine", &id, &id[..12]] {
        assert_eq!(fixture.engine.pod(reference).unwrap().id, id);
    }
    let error = fixture.engine.pod("other").unwrap_err();
    assert_eq!(error.to_string(), "No such pod: other");
    let kind = SandboxKind::Pod {
        name: "machine".into(),
        shared_pid: false,
        created_ns: 0,
        labels: BTreeMap::new(),
    };
    let again = fixture.sandbox(&crate::id::new_id(), kind);
    assert_eq!(
        fixture.engine.pod_create(&again).unwrap_err().kind(),
        Kind::Conflict
    );
}

#[test]
fn containers_of_a_pod_start_in_its_one_monitor_and_stop_with_it() {
    let fixture = Fixture::new();
    let pod = fixture.create_pod("machine");
    let ids: Vec<String> = ["a1", "b1"]
        .into_iter()
        .map(|name| fixture.create_with(name, |config| config.sandbox = pod.clone()))
        .collect();
    fixture.engine.start("a1").unwrap();
    assert!(fixture.engine.pod("machine").unwrap().running);
    fixture.engine.start("b1").unwrap();
    assert_eq!(fixture.engine.pod_stats("machine").unwrap().len(), 2);
    assert!(fixture.engine.pod_stop("machine", Stop::default()).unwrap());
    assert!(!fixture.engine.pod_stop("machine", Stop::default()).unwrap());
    for id in &ids {
        assert!(!fixture.recorded(id).status.is_alive());
    }
    fixture.engine.pod_start("machine").unwrap();
    for id in &ids {
        assert!(fixture.recorded(id).status.is_alive());
    }
}

#[test]
fn a_pod_with_containers_is_removed_by_force_only_and_with_them() {
    let fixture = Fixture::new();
    let pod = fixture.create_pod("machine");
    let id = fixture.create_with("web", |config| config.sandbox = pod.clone());
    let error = fixture.engine.pod_remove("machine", false).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    fixture.engine.pod_start("machine").unwrap();
    fixture.engine.pod_remove("machine", true).unwrap();
    assert!(!fixture.engine.exists(&id));
    assert!(!fixture.engine.layout().sandbox(&pod).exists());
    assert!(fixture.engine.pods().unwrap().is_empty());
    fixture.create_pod("machine");
}

#[test]
fn a_container_of_a_pod_that_is_not_there_is_not_created() {
    let fixture = Fixture::new();
    let new = fixture.new_container("web", |config| config.sandbox = "f".repeat(64));
    let error = fixture.engine.create(new).unwrap_err();
    assert!(matches!(
        error,
        Error::NotFound {
            subject: Subject::Pod,
            ..
        }
    ));
    assert!(
        files::names(&fixture.engine.layout().tmp())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn every_container_of_a_pod_whose_monitor_was_killed_is_repaired() {
    let fixture = Fixture::new();
    let pod = fixture.create_pod("machine");
    let ids: Vec<String> = ["a1", "b1"]
        .into_iter()
        .map(|name| fixture.create_with(name, |config| config.sandbox = pod.clone()))
        .collect();
    for id in &ids {
        fixture.set_state(id, crate::testing::running());
    }
    assert!(!fixture.engine.pod_stop("machine", Stop::default()).unwrap());
    for id in &ids {
        // No lock was ever there: the next sweep or start repairs it.
        fixture.engine.start(id).unwrap();
        assert!(fixture.recorded(id).status.is_alive());
    }
}
