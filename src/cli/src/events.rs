//! `events`: what happens to containers, images, volumes and pods.

use std::io::Write;

use clap::Args;
use engine::events::{EventFilter, EventOptions};
use engine::protocol::record::Event;
use engine::{Engine, time};
use serde_json::{Value, json};

use crate::containers::logs::is_closed;
use crate::format::Template;
use values::moments;

/// Show what happens, as it happens
#[derive(Debug, Args)]
#[command(
    after_help = "Filters: type, event, container, image, volume, pod, label=KEY[=VALUE]

Examples:
  hull events --filter event=die --format '{{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}'
  hull events --since 1h --until 0s"
)]
pub(crate) struct EventsArgs {
    /// Show events that match, as in event=die
    #[arg(short, long = "filter", value_name = "NAME=VALUE", value_parser = moments::filter)]
    filters: Vec<(String, String)>,
    /// json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show what happened since then
    #[arg(long, value_name = "TIME", value_parser = moments::moment)]
    since: Option<u64>,
    /// Show what happens until then
    #[arg(long, value_name = "TIME", value_parser = moments::moment)]
    until: Option<u64>,
}

/// `hull events`.
pub(crate) fn events(args: EventsArgs) -> anyhow::Result<u8> {
    let filters = args
        .filters
        .iter()
        .map(|(key, value)| EventFilter::parse(key, value));
    let options = EventOptions {
        since_ns: args.since,
        until_ns: args.until,
        filters: filters.collect::<Result<_, _>>()?,
    };
    let template = match args.format.as_deref() {
        None | Some("") => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(format) => Some(Template::parse(
            &format.replace("\\t", "\t").replace("\\n", "\n"),
        )?),
    };
    let mut reader = Engine::find()?.events(options)?;
    let mut stdout = std::io::stdout().lock();
    while let Some(event) = reader.next()? {
        let text = match &template {
            Some(template) => template.render(&document(&event))?,
            None => line(&event),
        };
        let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
        if let Err(error) = written {
            let error = error.into();
            return if is_closed(&error) { Ok(0) } else { Err(error) };
        }
    }
    Ok(0)
}

fn line(event: &Event) -> String {
    let attributes: Vec<String> = event
        .attributes
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let moment = time::format_nano(event.time_ns);
    let attributes = match attributes.is_empty() {
        true => String::new(),
        false => format!(" ({})", attributes.join(", ")),
    };
    let text = format!(
        "{moment} {} {} {}{attributes}",
        event.kind, event.action, event.id
    );
    crate::printable(&text).replace('\n', " ")
}

fn document(event: &Event) -> Value {
    let mut document = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns / 1_000_000_000,
        "timeNano": event.time_ns,
    });
    // As in Docker's first version of these.
    if event.kind == "container" {
        document["status"] = json!(event.action);
        document["id"] = json!(event.id);
        document["from"] = json!(event.attributes.get("image"));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_or_dockers_document() {
        let event = Event {
            time_ns: 1_795_904_368_000_000_001,
            kind: "container".into(),
            action: "die".into(),
            id: "abc".into(),
            attributes: [
                ("exitCode".into(), "3".into()),
                ("image".into(), "demo".into()),
            ]
            .into(),
        };
        assert_eq!(
            line(&event),
            "2026-11-28T22:19:28.000000001Z container die abc (exitCode=3, image=demo)"
        );
        let template =
            Template::parse("{{.Type}} {{.Actor.Attributes.exitCode}} {{.from}}").unwrap();
        assert_eq!(
            template.render(&document(&event)).unwrap(),
            "container 3 demo"
        );
    }
}
