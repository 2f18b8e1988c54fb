//! Events: lines of ROOT/events/events.jsonl, appended by engines and monitors.
//!
//! One write(2) with O_APPEND a line, so that lines of several processes do not mix.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use protocol::record::{Event, Mount};

use crate::warden::members::Member;

/// Appends an event of a container, with those of its volumes: mounted before it starts, unmounted after it has ended. An
/// event that cannot be written is lost: it keeps nothing from going on.
pub(crate) fn write(root: &Path, member: &Member, action: &str, more: &[(&str, String)]) {
    let config = &member.config;
    let of_volumes = |action| {
        let mounts = config.run.mounts.iter();
        let events = mounts.filter_map(|mount| of_volume(mount, &config.id, action));
        events.for_each(|event| append_or_lose(root, &event));
    };
    if action == "start" {
        of_volumes("mount");
    }
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
    append_or_lose(root, &event);
    if action == "die" {
        of_volumes("unmount");
    }
}

/// Docker's `mount` and `unmount` of a volume; `None` of another mount.
fn of_volume(mount: &Mount, container: &str, action: &str) -> Option<Event> {
    let mut attributes = BTreeMap::from([
        ("container".to_owned(), container.to_owned()),
        ("driver".to_owned(), "local".to_owned()),
    ]);
    if action == "mount" {
        attributes.insert("destination".into(), mount.destination.clone());
        attributes.insert("propagation".into(), String::new());
        attributes.insert("read/write".into(), (!mount.read_only).to_string());
    }
    Some(Event {
        time_ns: sys::clock::realtime_ns(),
        kind: "volume".into(),
        action: action.to_owned(),
        id: mount.volume()?.to_owned(),
        attributes,
    })
}

fn append_or_lose(root: &Path, event: &Event) {
    if let Err(error) = append(root, event) {
        tracing::warn!(%error, action = event.action, "an event is lost");
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use protocol::fs::Cache;
    use protocol::record::MountSource;

    use super::*;

    #[test]
    fn a_volume_that_is_mounted_is_told_with_where_and_for_whom() {
        let mut mount = Mount {
            source: MountSource::Volume {
                name: "data".into(),
                anonymous: false,
                subpath: PathBuf::new(),
            },
            share: "0".into(),
            path: "/volumes/data/_data".into(),
            destination: "/srv".into(),
            read_only: true,
            submounts: Default::default(),
            single_file: false,
            socket: None,
            cache: Cache::Shared,
            fill: true,
            mode: "z".into(),
        };
        let event = of_volume(&mount, "abc", "mount").unwrap();
        assert_eq!((event.kind.as_str(), event.id.as_str()), ("volume", "data"));
        assert_eq!(event.attributes["destination"], "/srv");
        assert_eq!(event.attributes["read/write"], "false");
        assert_eq!(event.attributes["container"], "abc");
        let event = of_volume(&mount, "abc", "unmount").unwrap();
        assert_eq!(event.attributes.len(), 2);
        mount.source = MountSource::Bind {
            named: "/srv".into(),
            make: false,
        };
        assert!(of_volume(&mount, "abc", "mount").is_none());
    }
}
