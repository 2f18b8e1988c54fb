use super::*;
use crate::error::Kind;
use crate::testing::Fixture;

#[test]
fn a_container_is_found_by_its_new_name_alone() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.engine.rename("web", "www").unwrap();
    for engine in [&fixture.engine, &fixture.another_engine()] {
        assert_eq!(engine.id("www").unwrap(), id);
        assert!(engine.id("web").is_err());
        assert_eq!(engine.container(&id).unwrap().config.name, "www");
    }
    fixture.create("web");
    assert_eq!(fixture.actions(), ["create", "rename", "create"]);
}

#[test]
fn a_name_that_is_taken_or_is_none_is_refused() {
    let fixture = Fixture::new();
    fixture.create("web");
    fixture.create("www");
    let error = |name| fixture.engine.rename("web", name).unwrap_err();
    assert_eq!(error("www").kind(), Kind::Conflict);
    assert_eq!(error("a/b").kind(), Kind::Invalid);
    assert!(error("web").to_string().contains("same name"));
    assert!(fixture.engine.id("web").is_ok() && fixture.engine.id("www").is_ok());
}

#[test]
fn a_rename_that_was_killed_before_its_file_was_written_has_not_happened() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let mut config = read_config(fixture.engine.layout(), &id).unwrap().unwrap();
    config.name = "www".into();
    let entry = Entry {
        stamp: String::new(),
        summary: Summary::of(&config),
    };
    assert!(fixture.engine.claim_name(&entry).unwrap().is_none());
    let engine = fixture.another_engine();
    assert!(engine.id("www").is_err());
    assert_eq!(engine.id("web").unwrap(), id);
    // The name that was claimed is free.
    fixture.create("www");
}

#[test]
fn limits_change_member_by_member_and_are_there_at_the_next_start() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let resources = r#"{"memory":{"reservation":5},"pids":{"limit":7}}"#;
    let update = Update {
        resources: Some(RawValue::from_string(resources.into()).unwrap()),
        restart: Some(RestartPolicy::Always),
    };
    fixture.engine.update("web", update).unwrap();
    let config = fixture.engine.container(&id).unwrap().config;
    assert_eq!(config.restart, RestartPolicy::Always);
    let document: Value = serde_json::from_str(config.run.spec.get()).unwrap();
    let expected =
        serde_json::json!({"memory": {"limit": 1000, "reservation": 5}, "pids": {"limit": 7}});
    assert_eq!(document["linux"]["resources"], expected);
    assert_eq!(document["process"]["args"][0], "sleep");
}

#[test]
fn an_update_reaches_a_container_that_runs() {
    let fixture = Fixture::new();
    fixture.create("web");
    fixture.engine.start("web").unwrap();
    let update = Update {
        restart: Some(RestartPolicy::UnlessStopped),
        ..Update::default()
    };
    fixture.engine.update("web", update).unwrap();
}

#[test]
fn a_record_of_an_earlier_version_is_rewritten_as_one_of_this() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let path = fixture.engine.layout().container_config(&id);
    let text = std::fs::read_to_string(&path).unwrap();
    let ours = format!("\"version\":{}", record::VERSION);
    std::fs::write(&path, text.replacen(&ours, "\"version\":1", 1)).unwrap();
    assert_eq!(fixture.engine.container("web").unwrap().config.version, 1);
    fixture.engine.rename("web", "www").unwrap();
    let config = fixture.engine.container("www").unwrap().config;
    assert_eq!(config.version, record::VERSION);
}
