//! Reading events: what was, and what comes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use protocol::record::Event;

use super::paths;
use crate::engine::Engine;
use crate::error::Error;
use crate::files;
use crate::list::FilterError;
use crate::time;
use crate::watch::Watch;

/// Read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// A longer line is no event of ours.
const MAX_LINE_BYTES: usize = 1 << 20;

/// A condition on events; several of one key are alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFilter {
    /// `container`, `image`, `pod`, …
    Type(String),
    /// The action, or its first word (`health_status`, `exec_create`).
    Action(String),
    /// The subject's name, identifier or beginning of one, where it is of this type.
    Subject {
        /// `container`, `image`, `pod`, `network` or `volume`.
        kind: String,
        /// Which.
        name: String,
    },
    /// The subject has this label.
    Label(String, Option<String>),
}

impl EventFilter {
    /// Of `key=value`.
    pub fn parse(key: &str, value: &str) -> Result<EventFilter, FilterError> {
        let text = value.to_owned();
        Ok(match key {
            "type" => EventFilter::Type(text),
            "event" => EventFilter::Action(text),
            "container" | "image" | "pod" | "network" | "volume" => EventFilter::Subject {
                kind: key.to_owned(),
                name: text,
            },
            "label" => match value.split_once('=') {
                Some((name, value)) => EventFilter::Label(name.to_owned(), Some(value.to_owned())),
                None => EventFilter::Label(text, None),
            },
            other => return Err(FilterError::Key(other.to_owned())),
        })
    }

    fn key(&self) -> String {
        match self {
            EventFilter::Type(_) => "type".to_owned(),
            EventFilter::Action(_) => "event".to_owned(),
            EventFilter::Subject { kind, .. } => kind.clone(),
            EventFilter::Label(..) => "label".to_owned(),
        }
    }

    fn holds(&self, event: &Event) -> bool {
        match self {
            EventFilter::Type(kind) => event.kind == *kind,
            EventFilter::Action(action) => {
                event.action == *action || event.action.split(':').next() == Some(action.as_str())
            }
            EventFilter::Subject { kind, name } => {
                let named = |attribute: &str| event.attributes.get(attribute) == Some(name);
                if event.kind == *kind {
                    (!name.is_empty() && event.id.starts_with(name.as_str())) || named("name")
                } else {
                    // Events of containers say their image.
                    kind == "image" && named("image")
                }
            }
            EventFilter::Label(name, value) => {
                let found = event.attributes.get(name);
                found.is_some_and(|found| value.as_ref().is_none_or(|value| found == value))
            }
        }
    }
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    /// Not before this, in nanoseconds since the epoch; `None` begins now.
    pub since_ns: Option<u64>,
    /// Not after this; `None` goes on for ever.
    pub until_ns: Option<u64>,
    /// Conditions: for each key one must hold, for labels all.
    pub filters: Vec<EventFilter>,
}

/// Events in the order in which they were written.
#[derive(Debug)]
pub struct EventReader {
    options: EventOptions,
    folder: PathBuf,
    watch: Watch,
    /// The file that is read, and what of its last line has come.
    file: Option<File>,
    buffer: Vec<u8>,
    /// Files that are read before.
    earlier: Vec<File>,
}

impl Engine {
    /// Reads events. The reader ends at `until`, and else never.
    pub fn events(&self, mut options: EventOptions) -> Result<EventReader, Error> {
        let folder = self.layout().events();
        files::make_folder(&folder)?;
        let failed = |error: io::Error| Error::file("read", &folder)(error);
        let watch = Watch::new().map_err(failed)?;
        watch.folder(&folder).map_err(failed)?;
        let begins_now = options.since_ns.is_none();
        options.since_ns.get_or_insert_with(time::now_ns);
        let mut reader = EventReader {
            options,
            watch,
            file: None,
            buffer: Vec::new(),
            earlier: Vec::new(),
            folder: folder.clone(),
        };
        reader.open(begins_now).map_err(failed)?;
        Ok(reader)
    }
}

impl EventReader {
    fn open(&mut self, at_end: bool) -> io::Result<()> {
        let [old, current] = paths(&self.folder);
        self.file = open_if_there(&current)?;
        if at_end {
            if let Some(file) = &mut self.file {
                file.seek(SeekFrom::End(0))?;
            }
        } else if let Some(file) = open_if_there(&old)? {
            // Renamed between the two opens, it is the same.
            if !self
                .file
                .as_ref()
                .is_some_and(|current| is_same(current, &file))
            {
                self.earlier.push(file);
            }
        }
        Ok(())
    }

    /// The next event, waiting for it. `None` at the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: every event may be an error"
    )]
    pub fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.next_ready()? {
                return Ok(event);
            }
            let left = self
                .options
                .until_ns
                .map(|until| Duration::from_nanos(until.saturating_sub(time::now_ns())));
            let changed = self.watch.wait(left);
            changed.map_err(Error::file("watch", &self.folder))?;
        }
    }

    /// The next event if there is one now: `None` if there may be later, `Some(None)` at the end.
    pub fn next_ready(&mut self) -> Result<Option<Option<Event>>, Error> {
        let folder = self.folder.clone();
        let failed = |error: io::Error| Error::file("read", &folder)(error);
        // What is written from here on is noticed the next time.
        self.watch.clear().map_err(failed)?;
        let is_over = self
            .options
            .until_ns
            .is_some_and(|until| time::now_ns() > until);
        while let Some(line) = self.line().map_err(failed)? {
            let Ok(event) = serde_json::from_slice::<Event>(&line) else {
                tracing::debug!("a line of the events is damaged");
                continue;
            };
            if self.wants(&event) {
                return Ok(Some(Some(event)));
            }
        }
        Ok(is_over.then_some(None))
    }

    fn wants(&self, event: &Event) -> bool {
        let EventOptions {
            since_ns,
            until_ns,
            filters,
        } = &self.options;
        if since_ns.is_some_and(|since| event.time_ns < since)
            || until_ns.is_some_and(|until| event.time_ns > until)
        {
            return false;
        }
        let mut keys: BTreeMap<String, bool> = BTreeMap::new();
        for filter in filters {
            let is_label = matches!(filter, EventFilter::Label(..));
            let key = keys.entry(filter.key()).or_insert(is_label);
            let holds = filter.holds(event);
            *key = if is_label {
                *key && holds
            } else {
                *key || holds
            };
        }
        keys.into_values().all(|holds| holds)
    }

    /// The next whole line, without its end.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                self.buffer.clear();
            }
            if !self.read_more()? {
                return Ok(None);
            }
        }
    }

    /// Whether something was read, or another file was begun.
    fn read_more(&mut self) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        if let Some(file) = self.earlier.first_mut() {
            let len = file.read(&mut chunk)?;
            if len == 0 {
                self.earlier.remove(0);
                self.buffer.clear();
            }
            self.buffer.extend_from_slice(&chunk[..len]);
            return Ok(true);
        }
        // A rename seen here was made before the last read: what follows it is in another file.
        let current = open_if_there(&paths(&self.folder)[1])?;
        if let Some(file) = &mut self.file {
            let len = file.read(&mut chunk)?;
            if len > 0 {
                self.buffer.extend_from_slice(&chunk[..len]);
                return Ok(true);
            }
        }
        match (current, &self.file) {
            (Some(current), Some(file)) if is_same(&current, file) => Ok(false),
            (Some(current), _) => {
                self.buffer.clear();
                self.file = Some(current);
                Ok(true)
            }
            (None, _) => Ok(false),
        }
    }
}

impl AsFd for EventReader {
    /// Readable when [`EventReader::next_ready`] may have news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

fn open_if_there(path: &std::path::Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if files::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same(a: &File, b: &File) -> bool {
    let id = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}
