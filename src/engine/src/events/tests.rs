use std::time::Duration;

use super::*;
use crate::testing::Fixture;

fn event(action: &str, time_ns: u64) -> Event {
    Event {
        time_ns,
        kind: "container".into(),
        action: action.into(),
        id: "abcdef".into(),
        attributes: BTreeMap::from([("name".into(), "web".into()), ("tier".into(), "x".into())]),
    }
}

fn all(fixture: &Fixture, options: EventOptions) -> Vec<String> {
    let options = EventOptions {
        since_ns: options.since_ns.or(Some(0)),
        until_ns: options.until_ns.or(Some(time::now_ns())),
        ..options
    };
    let mut reader = fixture.engine.events(options).unwrap();
    let mut actions = Vec::new();
    while let Some(event) = reader.next().unwrap() {
        actions.push(event.action);
    }
    actions
}

fn filtered(fixture: &Fixture, filters: &[(&str, &str)]) -> Vec<String> {
    let parse = |(key, value): &(&str, &str)| EventFilter::parse(key, value).unwrap();
    let filters = filters.iter().map(parse).collect();
    all(
        fixture,
        EventOptions {
            filters,
            ..EventOptions::default()
        },
    )
}

#[test]
fn events_are_read_in_their_order_between_two_moments() {
    let fixture = Fixture::new();
    let folder = fixture.engine.layout().events();
    for (action, time) in [("create", 10), ("start", 20), ("die", 30)] {
        append(&folder, &event(action, time)).unwrap();
    }
    assert_eq!(
        all(&fixture, EventOptions::default()),
        ["create", "start", "die"]
    );
    let options = EventOptions {
        since_ns: Some(20),
        until_ns: Some(29),
        filters: Vec::new(),
    };
    assert_eq!(all(&fixture, options), ["start"]);
}

#[test]
fn filters_choose_by_action_subject_and_label() {
    let fixture = Fixture::new();
    let folder = fixture.engine.layout().events();
    append(&folder, &event("health_status: healthy", 1)).unwrap();
    append(&folder, &event("start", 2)).unwrap();
    let filtered = |filters: &[_]| filtered(&fixture, filters).len();
    assert_eq!(filtered(&[("event", "health_status")]), 1);
    assert_eq!(
        filtered(&[("event", "start"), ("event", "health_status")]),
        2
    );
    assert_eq!(filtered(&[("container", "web")]), 2);
    assert_eq!(filtered(&[("container", "abc"), ("event", "start")]), 1);
    assert_eq!(filtered(&[("container", "db")]), 0);
    assert_eq!(filtered(&[("type", "image")]), 0);
    assert_eq!(filtered(&[("label", "tier=x")]), 2);
    assert_eq!(filtered(&[("label", "tier=y")]), 0);
    assert!(EventFilter::parse("colour", "red").is_err());
}

#[test]
fn a_line_that_a_full_disk_cut_short_is_passed_over() {
    let fixture = Fixture::new();
    let folder = fixture.engine.layout().events();
    append(&folder, &event("create", 1)).unwrap();
    let mut file = File::options()
        .append(true)
        .open(folder.join(FILE))
        .unwrap();
    file.write_all(b"{\"time_ns\":2,\"ty\n").unwrap();
    append(&folder, &event("start", 3)).unwrap();
    assert_eq!(all(&fixture, EventOptions::default()), ["create", "start"]);
}

#[test]
fn a_reader_that_follows_sees_what_comes_and_what_comes_after_a_rotation() {
    let fixture = Fixture::new();
    let folder = fixture.engine.layout().events();
    append(&folder, &event("before", 1)).unwrap();
    let mut reader = fixture.engine.events(EventOptions::default()).unwrap();
    assert!(reader.next_ready().unwrap().is_none());
    append(&folder, &event("one", u64::MAX - 1)).unwrap();
    std::fs::rename(folder.join(FILE), folder.join(OLD_FILE)).unwrap();
    append(&folder, &event("two", u64::MAX - 1)).unwrap();
    let mut next = || reader.next().unwrap().unwrap().action;
    assert_eq!((next(), next()), ("one".into(), "two".into()));
}

#[test]
fn a_full_file_makes_room_for_another() {
    let fixture = Fixture::new();
    let folder = fixture.engine.layout().events();
    append(&folder, &event("first", 1)).unwrap();
    let file = File::options()
        .append(true)
        .open(folder.join(FILE))
        .unwrap();
    file.set_len(MAX_FILE_BYTES).unwrap();
    append(&folder, &event("second", 2)).unwrap();
    append(&folder, &event("third", 3)).unwrap();
    let lens = paths(&folder).map(|path| path.metadata().unwrap().len());
    assert_eq!(lens[0], MAX_FILE_BYTES);
    assert!(lens[1] < 1000);
}

#[test]
fn a_reader_with_an_end_ends() {
    let fixture = Fixture::new();
    let options = EventOptions {
        until_ns: Some(time::now_ns() + Duration::from_millis(30).as_nanos() as u64),
        ..EventOptions::default()
    };
    let mut reader = fixture.engine.events(options).unwrap();
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn lines_of_several_writers_do_not_mix() {
    let fixture = Fixture::new();
    let folder = fixture.engine.layout().events();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|n| append(&folder, &event("x", n)).unwrap()));
        }
    });
    assert_eq!(all(&fixture, EventOptions::default()).len(), 400);
}
