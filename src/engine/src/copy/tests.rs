use super::*;
use crate::error::Kind;
use crate::testing::Fixture;

fn text(mut transfer: Transfer<'_>) -> String {
    let mut text = String::new();
    let stream = transfer.take_stream().unwrap();
    std::fs::File::from(stream)
        .read_to_string(&mut text)
        .unwrap();
    transfer.finish().unwrap();
    text
}

#[test]
fn a_stopped_container_is_read_through_its_sandbox_and_stays_stopped() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    let engine = &fixture.engine;
    assert_eq!(
        text(engine.copy_out("web", "/etc", false).unwrap()),
        "a tar"
    );
    assert_eq!(text(engine.export("web").unwrap()), "a tar");
    assert_eq!(engine.stat("web", "/etc", true).unwrap().name, "/etc");
    assert_eq!(
        fixture.recorded(&id).status,
        protocol::record::Status::Created
    );
}

#[test]
fn what_is_not_there_is_said_before_any_stream() {
    let fixture = Fixture::new();
    fixture.create("web");
    let error = fixture
        .engine
        .copy_out("web", "/missing", false)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.to_string(), "no such path");
}

#[test]
fn changes_are_listed_by_kind() {
    let fixture = Fixture::new();
    fixture.create("web");
    fixture.engine.start("web").unwrap();
    let changes = fixture.engine.changes("web").unwrap();
    let lines: Vec<String> = changes
        .iter()
        .map(|change| format!("{} {}", change.kind.letter(), change.path))
        .collect();
    assert_eq!(lines, ["A /new", "C /etc", "D /old name"]);
}

#[test]
fn what_is_no_change_is_passed_over() {
    assert!(parse_changes(b"\0A\0X /a\0AB /b\0").is_empty());
    assert_eq!(parse_changes(b"A /\xff\0")[0].path, "/\u{fffd}");
}
