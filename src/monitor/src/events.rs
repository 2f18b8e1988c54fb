//! Events: lines of ROOT/events/events.jsonl, appended by engines and monitors.
//!
//! One write(2) with O_APPEND a line, so that lines of several processes do not mix.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use protocol::record::Event;

use crate::warden::members::Member;

/// Appends an event of a container. An event that cannot be written is lost: it keeps nothing from going on.
pub(crate) fn write(root: &Path, member: &Member, action: &str, more: &[(&str, String)]) {
    let config = &member.config;
    let mut attributes: BTreeMap<String, String> = config.labels.clone();
    attributes.insert("name".into(), config.name.clone());
    attributes.insert("image".into(), config.image.clone());
    for (name, value) in more {
        attributes.insert((*name).to_owned(), value.clone());
    }
    let event = Event {
        time_ns: sys::clock::realtime_ns(),
        kind: "container".into(),
        action: action.to_owned(),
        id: config.id.clone(),
        attributes,
    };
    if let Err(error) = append(root, &event) {
        tracing::warn!(%error, action, "an event is lost");
    }
}

fn append(root: &Path, event: &Event) -> io::Result<()> {
    let folder = root.join("events");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.join("events.jsonl"))?
        .write_all(&line)
}
