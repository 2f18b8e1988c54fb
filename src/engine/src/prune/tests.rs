use super::*;
use crate::testing::{Fixture, running};

#[test]
fn only_what_does_not_run_is_pruned() {
    let fixture = Fixture::new();
    let alive = fixture.create("alive");
    fixture.set_state(&alive, running());
    let held = fixture.hold(&alive);
    let dead = fixture.create("dead");
    let pruned = fixture
        .engine
        .prune_containers(&PruneFilters::default())
        .unwrap();
    assert_eq!(pruned.containers, [dead]);
    assert!(fixture.engine.exists(&alive));
    drop(held);
}

#[test]
fn labels_and_age_spare_containers() {
    let fixture = Fixture::new();
    let kept = fixture.create_with("kept", |config| {
        config.labels.insert("keep".into(), "yes".into());
    });
    let old = fixture.create_with("old", |config| config.created_ns = 5);
    let filters = PruneFilters {
        until_ns: Some(10),
        ..PruneFilters::default()
    };
    let pruned = fixture.engine.prune_containers(&filters).unwrap();
    assert_eq!(pruned.containers, [old]);
    let filters = PruneFilters {
        without_labels: vec![("keep".into(), None)],
        ..PruneFilters::default()
    };
    assert!(
        fixture
            .engine
            .prune_containers(&filters)
            .unwrap()
            .containers
            .is_empty()
    );
    let filters = PruneFilters {
        labels: vec![("keep".into(), Some("yes".into()))],
        ..PruneFilters::default()
    };
    let pruned = fixture.engine.prune_containers(&filters).unwrap();
    assert_eq!(pruned.containers, [kept]);
}
