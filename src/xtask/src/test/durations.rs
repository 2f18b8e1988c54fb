//! How long each test takes: as checked in, and as measured here by the last run that came to its end.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::paths;

/// The expected duration of a test that has not run yet.
const UNKNOWN: Duration = Duration::from_secs(15);

/// Seconds by [`super::list::Test::title`].
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Durations(BTreeMap<String, f64>);

/// The file with those measured here.
fn measured() -> PathBuf {
    paths::target().join("test-durations.tsv")
}

impl Durations {
    /// Those that are checked in, replaced by those measured here.
    pub(crate) fn read() -> Result<Durations> {
        let checked_in = paths::checkout().join("tests/durations.tsv");
        let text = fs::read_to_string(&checked_in)
            .with_context(|| format!("cannot read {}", checked_in.display()))?;
        let mut durations = Durations::parse(&text);
        // Absent before the first run.
        let measured = fs::read_to_string(measured()).unwrap_or_default();
        durations.0.extend(Durations::parse(&measured).0);
        Ok(durations)
    }

    /// The expected duration of a test.
    pub(crate) fn of(&self, title: &str) -> Duration {
        self.0
            .get(title)
            .and_then(|seconds| Duration::try_from_secs_f64(*seconds).ok())
            .unwrap_or(UNKNOWN)
    }

    /// Notes how long a test took.
    pub(crate) fn note(&mut self, title: &str, took: Duration) {
        self.0.insert(title.to_owned(), took.as_secs_f64());
    }

    /// Takes over what another part has measured.
    pub(crate) fn add(&mut self, other: Durations) {
        self.0.extend(other.0);
    }

    /// Keeps these as measured here, with older ones of tests that are not among them.
    pub(crate) fn keep(&self) -> Result<()> {
        let path = measured();
        let mut all = Durations::parse(&fs::read_to_string(&path).unwrap_or_default());
        all.0.extend(self.0.clone());
        fs::write(&path, all.text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> String {
        let line = |(title, seconds): (&String, &f64)| format!("{seconds:.1}\t{title}\n");
        self.0.iter().map(line).collect()
    }

    /// Lines of `seconds TAB title`; others, such as comments, have no meaning.
    fn parse(text: &str) -> Durations {
        let line = |line: &str| {
            let (seconds, title) = line.split_once('\t')?;
            Some((title.to_owned(), seconds.parse().ok()?))
        };
        Durations(text.lines().filter_map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_were_written() {
        let mut durations = Durations::default();
        durations.note("tests/run::a", Duration::from_millis(1500));
        durations.note("vmm/jail::b", Duration::from_secs(20));
        assert_eq!(Durations::parse(&durations.text()), durations);
        assert_eq!(durations.of("tests/run::a"), Duration::from_millis(1500));
    }

    #[test]
    fn a_test_that_was_never_seen_and_a_damaged_line_get_the_default() {
        let durations = Durations::parse("# seconds, test\n-3\tx\nnan\ty\nmany\tz\n");
        for title in ["x", "y", "z", "other"] {
            assert_eq!(durations.of(title), UNKNOWN, "{title}");
        }
    }
}
