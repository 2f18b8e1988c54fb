//! What may last: logs, events, waits and attachments. Each has a thread of its own, which ends when its client goes.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use engine::events::{EventFilter, EventOptions};
use engine::logs::{LogLine, LogOptions, OutputStream};
use engine::protocol::monitor::WaitUntil;
use engine::protocol::record::{Event as Told, Stdio};
use engine::session::{Event, Session};
use engine::{Engine, Kind, Streams, WaitCondition, time};
use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};

use super::exec::kind;
use crate::call::{Answer, Call, Gone, JSON, Reply, Sink, json, parts};
use crate::convert::read;
use crate::error::Failure;
use crate::frames;
use crate::stream::{Attachment, carry, wait as wait_for};

const NANOS_PER_SEC: u64 = 1_000_000_000;
/// How long a container that goes with its end may take to go.
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);

fn is_terminal(stdio: Stdio) -> bool {
    matches!(stdio, Stdio::Terminal { .. })
}

/// A line as clients read it.
fn text(line: &LogLine, timestamps: bool) -> String {
    match timestamps {
        true => format!("{} {}", time::format_nano(line.time_ns), line.text),
        false => line.text.clone(),
    }
}

fn framed(line: &LogLine, timestamps: bool, terminal: bool) -> Vec<u8> {
    let text = text(line, timestamps);
    let number = match line.stream {
        OutputStream::Stdout => frames::STDOUT,
        OutputStream::Stderr => frames::STDERR,
    };
    match terminal {
        true => text.into_bytes(),
        false => frames::frame(number, text.as_bytes()),
    }
}

pub(crate) fn logs(call: Call) -> Answer {
    let query = &call.query;
    let options = LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since_ns: query.moment("since")?,
        until_ns: query.moment("until")?,
        // As Docker has it, what is not a number is all.
        tail: query.get("tail").and_then(|tail| tail.parse().ok()),
        follow: query.flag("follow"),
    };
    if !options.stdout && !options.stderr {
        return Err(Failure::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let timestamps = query.flag("timestamps");
    let terminal = is_terminal(call.engine.container(&call.target)?.config.run.stdio);
    let mut reader = call.engine.logs(&call.target, options)?;
    parts(kind(call.version, terminal), move |sink| {
        loop {
            match reader.next_while(sink.as_fd()) {
                Ok(None) => return,
                Ok(Some(line)) => {
                    if sink.send(framed(&line, timestamps, terminal)).is_err() {
                        return;
                    }
                }
                Err(error) => return sink.fail(&error.to_string()),
            }
        }
    })
}

/// An event in Docker's form.
fn event_document(event: &Told) -> Value {
    let mut document = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns / NANOS_PER_SEC,
        "timeNano": event.time_ns,
    });
    // What there was before there were actors, of containers and images.
    if matches!(event.kind.as_str(), "container" | "image") {
        document["status"] = json!(event.action);
        document["id"] = json!(event.id);
        if let Some(image) = event.attributes.get("image") {
            document["from"] = json!(image);
        }
    }
    document
}

pub(crate) fn events(call: Call) -> Answer {
    let mut filters = Vec::new();
    for (key, value) in call.query.filters()? {
        match (key.as_str(), value.as_str()) {
            // All is of this machine and of this service.
            ("scope", "local") | ("daemon", _) => {}
            _ => filters.push(EventFilter::parse(&key, &value).map_err(engine::Error::from)?),
        }
    }
    let options = EventOptions {
        since_ns: call.query.moment("since")?,
        until_ns: call.query.moment("until")?,
        filters,
    };
    let until_ns = options.until_ns;
    let mut reader = call.engine.events(options)?;
    parts(JSON, move |sink| {
        loop {
            match reader.next_ready() {
                Err(error) => return sink.fail(&error.to_string()),
                Ok(Some(None)) => return,
                Ok(Some(Some(event))) => {
                    if sink.line(&event_document(&event)).is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    let left = until_ns.map(|until| {
                        Duration::from_nanos(until.saturating_sub(time::now_ns()) + 1)
                    });
                    let mut fds = [
                        PollFd::new(&reader, PollFlags::IN),
                        PollFd::new(&sink.there, PollFlags::IN),
                    ];
                    if let Err(error) = wait_for(&mut fds, left) {
                        return sink.fail(&error.to_string());
                    }
                    if !fds[1].revents().is_empty() {
                        return;
                    }
                }
            }
        }
    })
}

/// How a wait ended.
fn ended(code: i64, error: &str) -> Value {
    match error {
        "" => json!({"StatusCode": code}),
        error => json!({"StatusCode": code, "Error": {"Message": error}}),
    }
}

pub(crate) fn wait(call: Call) -> Answer {
    let condition = match call.query.get("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(Failure::invalid(format!("invalid condition: {other:?}"))),
    };
    let engine = call.engine;
    let container = engine.container(&call.target)?;
    let id = container.config.id;
    let alive = container.state.status.is_alive();
    if condition == WaitCondition::NotRunning && !alive {
        let end = engine.wait(&id, condition)?;
        return json(200, &ended(i64::from(end.code), &end.error));
    }
    let until = match condition {
        WaitCondition::NotRunning => WaitUntil::NotRunning,
        _ => WaitUntil::NextExit,
    };
    // Begun before the headers are sent: a client starts the container once it has them.
    let session = engine.begin_wait(&id, None, until)?;
    parts(JSON, move |sink| {
        let Ok(document) = await_end(session, &sink) else {
            return;
        };
        if condition == WaitCondition::Removed && await_removal(engine, &id, &sink).is_err() {
            return;
        }
        // A client that has gone does not want to know.
        let _ = sink.line(&document);
    })
}

fn await_end(mut session: Session<'static>, sink: &Sink) -> Result<Value, Gone> {
    loop {
        let document = match session.next_ready() {
            Ok(None) => {
                let mut fds = [
                    PollFd::new(&session, PollFlags::IN),
                    PollFd::new(&sink.there, PollFlags::IN),
                ];
                let waited = wait_for(&mut fds, None);
                if waited.is_err() || !fds[1].revents().is_empty() {
                    return Err(Gone);
                }
                continue;
            }
            Ok(Some(Event::Exited(exit))) => ended(
                exit.status.code().into(),
                exit.error.as_deref().unwrap_or_default(),
            ),
            Ok(Some(Event::Failed(failure))) => {
                let error = engine::Error::Failure(failure);
                // Why, the start has said.
                ended(crate::error::start_code(error.kind()).into(), "")
            }
            // It went before it was started, or with its start that failed.
            Err(error) if error.kind() == Kind::NotFound => ended(0, ""),
            Err(error) => ended(125, &error.to_string()),
            Ok(Some(_)) => continue,
        };
        // A container that goes with its end goes when no client is connected.
        session.leave();
        return Ok(document);
    }
}

/// Waits until a container is gone. (Its monitor removes it, or the start that failed.)
fn await_removal(engine: &Engine, id: &str, sink: &Sink) -> Result<(), Gone> {
    const PAUSE: Duration = Duration::from_millis(10);
    let until = Instant::now() + REMOVAL_LIMIT;
    loop {
        match engine.container(id) {
            Err(error) if error.kind() == Kind::NotFound => break,
            // It is not to go with its end: somebody has to remove it.
            Ok(container) if !container.config.auto_remove => {}
            _ if Instant::now() > until => break,
            _ => {}
        }
        let mut fds = [PollFd::new(&sink.there, PollFlags::IN)];
        if wait_for(&mut fds, Some(PAUSE)).is_err() || !fds[0].revents().is_empty() {
            return Err(Gone);
        }
    }
    if let Err(error) = engine.reap_volumes() {
        tracing::debug!(%error, "the next command removes its volumes");
    }
    Ok(())
}

pub(crate) fn attach(call: Call) -> Answer {
    let query = &call.query;
    let engine = call.engine;
    let container = engine.container(&call.target)?;
    let terminal = is_terminal(container.config.run.stdio);
    let (replay, follow) = (query.flag("logs"), query.flag("stream"));
    let mut streams = [
        query.flag("stdin"),
        query.flag("stdout"),
        query.flag("stderr"),
    ];
    if terminal {
        streams = [streams[0], streams[1] || streams[2], false];
    }
    let keys = read(values::lifecycle::detach_keys(
        query.get("detachKeys").unwrap_or_default(),
    ))?;
    if container.state.status == engine::protocol::record::Status::Paused {
        return Err(Failure::new(
            409,
            format!(
                "container {} is paused, unpause the container before attach",
                call.target
            ),
        ));
    }
    let id = container.config.id;
    let kind = kind(call.version, terminal);
    if !follow {
        let earlier = if replay {
            earlier(engine, &id, streams, terminal)?
        } else {
            Vec::new()
        };
        return Ok(Reply::TakeOver {
            kind,
            speak: Box::new(move |mut client, _| {
                // A client that has gone does not want it.
                let _ = std::io::Write::write_all(&mut client, &earlier);
                let _ = client.shutdown(std::net::Shutdown::Both);
            }),
        });
    }
    // One that is yet to be started is attached to all the same: its client starts it once it is.
    let alive = container.state.status.is_alive();
    let until = if alive {
        WaitUntil::NotRunning
    } else {
        WaitUntil::NextExit
    };
    let mut session = engine.begin_wait(&id, Some(streams), until)?;
    let streams_there = attached(&mut session)?;
    let earlier = if replay {
        earlier(engine, &id, streams, terminal)?
    } else {
        Vec::new()
    };
    let attachment = Attachment {
        session,
        streams: streams_there,
        keys,
        earlier,
    };
    Ok(Reply::TakeOver {
        kind,
        speak: Box::new(move |client, early| carry(attachment, client, early)),
    })
}

fn attached(session: &mut Session<'static>) -> Result<Streams, Failure> {
    loop {
        match session.next()? {
            Event::Attached(streams) => return Ok(streams),
            Event::Failed(failure) => return Err(engine::Error::Failure(failure).into()),
            // It ended meanwhile.
            Event::Exited(_) => return Ok(Streams::default()),
            _ => {}
        }
    }
}

/// What was written until now.
fn earlier(
    engine: &Engine,
    id: &str,
    streams: [bool; 3],
    terminal: bool,
) -> Result<Vec<u8>, Failure> {
    let options = LogOptions {
        stdout: streams[1],
        stderr: streams[2],
        ..LogOptions::default()
    };
    let mut reader = engine.logs(id, options)?;
    let mut all = Vec::new();
    while let Some(line) = reader.next_now()? {
        all.extend(framed(&line, false, terminal));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_02_a_wait_that_succeeds_has_no_error() {
        assert_eq!(ended(3, "").to_string(), r#"{"StatusCode":3}"#);
        assert_eq!(ended(126, "x")["Error"]["Message"], "x");
    }

    #[test]
    fn b2_07_logs_are_raw_for_terminals_and_framed_otherwise() {
        let line = LogLine {
            time_ns: NANOS_PER_SEC,
            stream: OutputStream::Stderr,
            text: "a\r\n".into(),
        };
        assert_eq!(framed(&line, false, true), b"a\r\n");
        assert_eq!(framed(&line, false, false), b"\x02\0\0\0\0\0\0\x03a\r\n");
        assert_eq!(
            framed(&line, true, true),
            b"1970-01-01T00:00:01.000000000Z a\r\n"
        );
    }

    #[test]
    fn b2_08_events_have_actors_and_nanoseconds() {
        let event = Told {
            time_ns: 1_500_000_001,
            kind: "container".into(),
            action: "die".into(),
            id: "a".repeat(64),
            attributes: [
                ("image".to_owned(), "demo".to_owned()),
                ("exitCode".into(), "3".into()),
            ]
            .into(),
        };
        let document = event_document(&event);
        assert_eq!(document["timeNano"], 1_500_000_001_u64);
        assert_eq!(
            (&document["status"], &document["from"]),
            (&json!("die"), &json!("demo"))
        );
        assert_eq!(document["Actor"]["Attributes"]["exitCode"], "3");
    }
}
