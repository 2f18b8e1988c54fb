//! Images and registries made by the tests themselves.
#![expect(dead_code, reason = "each test file uses some of it")]

pub(crate) mod debian;
pub(crate) mod images;
pub(crate) mod server;

use std::path::Path;
use std::sync::Mutex;

use image::{Cause, Error, Event, Progress, PullOptions, Reference, Store, registry};

/// Options that fail fast, and that know no credentials but those of the test.
pub(crate) fn quick() -> PullOptions {
    PullOptions {
        max_attempts: 3,
        retry_pause_ms: 5,
        idle_timeout_ms: 20_000,
        docker_config: Some("/nonexistent".into()),
        ..PullOptions::default()
    }
}

/// Every event, as text.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<String>>);

impl Progress for Recorder {
    fn event(&self, event: Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Recorder {
    pub(crate) fn count(&self, name: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|event| event.starts_with(name))
            .count()
    }

    /// The first event of this name that has this in its text.
    pub(crate) fn find_with(&self, name: &str, part: &str) -> Option<String> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .find(|event| event.starts_with(name) && event.contains(part))
            .cloned()
    }
}

/// An error and its causes in one line, as the command line would print them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The files in a folder of the store.
pub(crate) fn files(root: &Path, folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A store in a folder of its own.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

/// Reports why a test is skipped. In CI, where everything should be installed, it fails instead.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    println!("skipped: {reason}");
}

pub(crate) fn reference(server: &server::Server, name: &str) -> Reference {
    format!("{}/{name}", server.host()).parse().unwrap()
}

/// Why the registry's part of a pull failed.
pub(crate) fn pull_error(server: &server::Server, name: &str) -> registry::Error {
    let (_folder, store) = store();
    let error = store
        .pull(&reference(server, name), &quick(), &())
        .unwrap_err();
    let Error::Pull { source, .. } = error else {
        panic!("{}", chain(&error));
    };
    match *source {
        Cause::Registry(error) => error,
        other => panic!("{}", chain(&other)),
    }
}

/// Options that know the credentials of this config.json.
pub(crate) fn with_docker_config(config: &str) -> (tempfile::TempDir, PullOptions) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let options = PullOptions {
        docker_config: Some(folder.path().to_owned()),
        ..quick()
    };
    (folder, options)
}
