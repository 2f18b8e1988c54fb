use std::time::UNIX_EPOCH;

use super::*;
use crate::testing::Fixture;

/// An empty archive.
const TAR: [u8; 1024] = [0; 1024];

/// A running container, of an image that is in the store.
fn running(fixture: &Fixture, behaviour: &str) -> Image {
    let new = NewImage {
        base: None,
        layer: Some(&mut &TAR[..]),
        config: None,
        platform: Platform::native(),
        author: None,
        created: UNIX_EPOCH,
        created_by: "import".into(),
        comment: None,
        names: Vec::new(),
    };
    let base = fixture.engine.images().unwrap().create(new, &()).unwrap();
    fixture.create_with("web", |config| {
        config.image_id = base.id.to_string();
        config.labels.insert("a".into(), "b".into());
        config
            .labels
            .insert(crate::testing::BEHAVIOUR.into(), behaviour.into());
    });
    fixture.engine.start("web").unwrap();
    base
}

#[test]
fn an_image_has_the_container_s_layers_and_its_own_with_the_changes_asked_for() {
    let fixture = Fixture::new();
    let base = running(&fixture, "");
    let options = CommitOptions {
        name: Some("copy:1".parse().unwrap()),
        comment: Some("done".into()),
        changes: vec!["CMD [\"x\"]".into()],
        pause: true,
        ..CommitOptions::default()
    };
    let image = fixture.engine.commit("web", options, &()).unwrap();
    let store = fixture.engine.images().unwrap();
    let stored = store.find("copy:1").unwrap().unwrap();
    assert_eq!(stored.id, image.id);
    let details = store.details(&stored).unwrap();
    assert_eq!(details.config["config"]["Cmd"], json!(["x"]));
    assert_eq!(details.config["config"]["Labels"]["a"], "b");
    assert_eq!(
        details.diff_ids.len(),
        store.details(&base).unwrap().diff_ids.len() + 1
    );
    assert_eq!(store.history(&stored).unwrap()[0].comment, "done");
    assert_eq!(fixture.actions(), ["create", "commit"]);
}

#[test]
fn changes_that_did_not_come_whole_make_no_image_and_the_container_goes_on() {
    let fixture = Fixture::new();
    let base = running(&fixture, "torn");
    let options = CommitOptions {
        name: Some("copy:1".parse().unwrap()),
        pause: true,
        ..CommitOptions::default()
    };
    let error = fixture.engine.commit("web", options, &()).unwrap_err();
    assert_eq!(error.to_string(), "it was torn");
    let images = fixture.engine.images().unwrap().images().unwrap();
    assert_eq!(
        images.iter().map(|image| image.id).collect::<Vec<_>>(),
        [base.id]
    );
    let container = fixture.engine.container("web").unwrap();
    assert_eq!(container.state.status, Status::Running);
}

#[test]
fn a_change_that_is_none_is_told_before_anything_is_done() {
    let fixture = Fixture::new();
    running(&fixture, "");
    let options = CommitOptions {
        changes: vec!["RUN make".into()],
        pause: true,
        ..CommitOptions::default()
    };
    let error = fixture.engine.commit("web", options, &()).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Invalid);
    assert!(!fixture.actions().contains(&"pause".to_owned()));
}
