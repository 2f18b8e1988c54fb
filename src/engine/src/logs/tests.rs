use std::fs;

use protocol::record::{State, Status};

use super::*;
use crate::testing::{Fixture, running};

fn write(fixture: &Fixture, id: &str, lines: &[(&str, &str, u64)]) {
    use std::io::Write;
    let path = fixture.engine.layout().log(id);
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    for (text, stream, time_ns) in lines {
        let line = serde_json::json!({
            "log": text, "stream": stream, "time": time::format(*time_ns)
        });
        writeln!(file, "{line}").unwrap();
    }
}

/// A container with a log of three lines.
fn logged(fixture: &Fixture) -> String {
    let id = fixture.create("web");
    let lines = [
        ("one\n", "stdout", 1_000_000_001),
        ("two\n", "stderr", 2_000_000_000),
        ("three", "stdout", 3_000_000_000),
    ];
    write(fixture, &id, &lines);
    id
}

fn texts(mut reader: LogReader<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(line) = reader.next().unwrap() {
        texts.push(line.text);
    }
    texts
}

fn read(fixture: &Fixture, options: LogOptions) -> Vec<String> {
    texts(fixture.engine.logs("web", options).unwrap())
}

#[test]
fn a_log_is_read_with_its_times_and_streams() {
    let fixture = Fixture::new();
    logged(&fixture);
    let mut reader = fixture.engine.logs("web", LogOptions::default()).unwrap();
    let line = reader.next().unwrap().unwrap();
    assert_eq!(line.time_ns, 1_000_000_001);
    assert_eq!(
        (line.text.as_str(), line.stream),
        ("one\n", OutputStream::Stdout)
    );
    assert_eq!(texts(reader), ["two\n", "three"]);
}

#[test]
fn lines_are_chosen_by_stream_time_and_number() {
    let fixture = Fixture::new();
    logged(&fixture);
    let all = LogOptions::default();
    let stderr = LogOptions {
        stdout: false,
        ..all
    };
    assert_eq!(read(&fixture, stderr), ["two\n"]);
    let since = LogOptions {
        since_ns: Some(2_000_000_000),
        ..all
    };
    assert_eq!(read(&fixture, since), ["two\n", "three"]);
    let until = LogOptions {
        until_ns: Some(2_000_000_000),
        ..all
    };
    assert_eq!(read(&fixture, until), ["one\n", "two\n"]);
    let tail = LogOptions {
        tail: Some(1),
        ..all
    };
    assert_eq!(read(&fixture, tail), ["three"]);
}

#[test]
fn a_damaged_line_is_passed_over() {
    let fixture = Fixture::new();
    let id = logged(&fixture);
    let path = fixture.engine.layout().log(&id);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{{\"log\":\"cut\n{text}")).unwrap();
    assert_eq!(read(&fixture, LogOptions::default()).len(), 3);
}

#[test]
fn a_container_without_a_log_says_so_as_docker_does() {
    let fixture = Fixture::new();
    fixture.create_with("web", |config| config.log = LogConfig::None);
    let error = fixture
        .engine
        .logs("web", LogOptions::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "configured logging driver does not support reading"
    );
    assert_eq!(error.kind(), crate::Kind::Unsupported);
}

#[test]
fn following_ends_at_once_if_nothing_runs() {
    let fixture = Fixture::new();
    logged(&fixture);
    let follow = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    assert_eq!(read(&fixture, follow).len(), 3);
}

#[test]
fn following_goes_on_through_rotations_and_ends_with_the_container() {
    let fixture = Fixture::new();
    let id = logged(&fixture);
    fixture.set_state(&id, running());
    let held = fixture.hold(&id);
    let engine = fixture.another_engine();
    let seen = std::thread::scope(|scope| {
        let follow = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let reader = engine.logs("web", follow).unwrap();
        let reading = scope.spawn(move || texts(reader));
        let log = fixture.engine.layout().log(&id);
        for number in 0..50u64 {
            if number == 20 {
                fs::rename(&log, log.with_extension("log.1")).unwrap();
            }
            write(
                &fixture,
                &id,
                &[(&format!("{number}\n"), "stdout", 4_000_000_000)],
            );
        }
        let ended = State {
            status: Status::Exited,
            ..running()
        };
        fixture.set_state(&id, ended);
        let seen = reading.join().unwrap();
        drop(held);
        seen
    });
    assert_eq!(seen.len(), 53);
    assert_eq!(seen[52], "49\n");
}

#[test]
fn following_ends_when_the_monitor_is_killed() {
    let fixture = Fixture::new();
    let id = logged(&fixture);
    fixture.set_state(&id, running());
    let held = fixture.hold(&id);
    let engine = fixture.another_engine();
    std::thread::scope(|scope| {
        let follow = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let mut reader = engine.logs("web", follow).unwrap();
        for _ in 0..3 {
            assert!(reader.next().unwrap().is_some());
        }
        let reading = scope.spawn(move || texts(reader));
        drop(held);
        assert!(reading.join().unwrap().is_empty());
    });
}

#[test]
fn following_ends_when_the_container_is_removed() {
    let fixture = Fixture::new();
    let id = fixture.create_behaving("web", "log");
    fixture.engine.start("web").unwrap();
    let engine = fixture.another_engine();
    std::thread::scope(|scope| {
        let follow = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let reader = engine.logs(&id, follow).unwrap();
        let reading = scope.spawn(move || texts(reader));
        let force = crate::remove::Remove {
            force: true,
            volumes: true,
        };
        fixture.engine.remove("web", force).unwrap();
        assert_eq!(reading.join().unwrap(), ["hello\n"]);
    });
}
