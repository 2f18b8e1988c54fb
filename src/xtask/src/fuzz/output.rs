//! Reading libFuzzer's log, and the lines that are shown and recorded of it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// The result of one run of one target.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) time: Duration,
    pub(super) executions: u64,
    /// Edges of the program's control flow that were reached.
    pub(super) edges: u64,
    /// Edges with how often, and comparisons: what libFuzzer calls features.
    pub(super) features: u64,
    /// Inputs of the corpus.
    pub(super) corpus: u64,
    pub(super) peak_mib: u64,
    /// The input that failed, or the log of a run that ended otherwise.
    pub(super) found: Option<PathBuf>,
    /// Inputs that were slow, by wall-clock time.
    pub(super) slow: Vec<PathBuf>,
}

impl Seen {
    /// Reads a log.
    pub(super) fn read(log: &str, time: Duration) -> Self {
        let mut seen = Self {
            time,
            ..Self::default()
        };
        for line in log.lines() {
            seen.line(line);
        }
        seen
    }

    fn line(&mut self, line: &str) {
        const FOUND: &str = "Test unit written to ";
        if let Some((_, path)) = line.split_once(FOUND) {
            let path = PathBuf::from(path.trim());
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with("slow-unit-") {
                self.slow.push(path);
            } else {
                self.found = Some(path);
            }
        }
        if line.starts_with('#') {
            // "#1024	pulse  cov: 12 ft: 14 corp: 3/9b lim: 4 exec/s: 0 rss: 40Mb"
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2) {
                let number = pair[1].split('/').next().and_then(|n| n.parse().ok());
                match (pair[0], number) {
                    ("cov:", Some(number)) => self.edges = number,
                    ("ft:", Some(number)) => self.features = number,
                    ("corp:", Some(number)) => self.corpus = number,
                    _ => {}
                }
            }
        }
        let number = |name: &str| {
            let rest = line.strip_prefix("stat::")?.strip_prefix(name)?;
            rest.trim_start_matches(':').trim().parse().ok()
        };
        if let Some(executions) = number("number_of_executed_units") {
            self.executions = executions;
        }
        if let Some(peak) = number("peak_rss_mb") {
            self.peak_mib = peak;
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.found.is_none()
    }

    fn per_second(&self) -> u64 {
        self.executions / self.time.as_secs().max(1)
    }
}

/// A line for each target on the terminal, and one for each run in a file that grows.
pub(super) struct Table(Mutex<File>);

impl Table {
    pub(super) fn begin(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        println!(
            "{:<14} {:>7} {:>10} {:>7} {:>6} {:>8} {:>6} {:>5}  found",
            "target", "seconds", "runs", "runs/s", "edges", "features", "corpus", "MiB"
        );
        Ok(Self(Mutex::new(file)))
    }

    pub(super) fn add(&self, target: &str, seen: &Seen) -> Result<()> {
        let found = match &seen.found {
            None => "nothing".to_string(),
            Some(path) => path.display().to_string(),
        };
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        println!(
            "{target:<14} {:>7} {:>10} {:>7} {:>6} {:>8} {:>6} {:>5}  {found}",
            seen.time.as_secs(),
            seen.executions,
            seen.per_second(),
            seen.edges,
            seen.features,
            seen.corpus,
            seen.peak_mib,
        );
        writeln!(
            file,
            "{target}\t{}\t{}\t{}\t{}\t{}\t{found}",
            seen.time.as_secs(),
            seen.executions,
            seen.edges,
            seen.features,
            seen.corpus,
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_from_its_log() {
        let log = "INFO: seed\n#2\tINITED cov: 8 ft: 9 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #900\tNEW    cov: 12 ft: 14 corp: 3/9b lim: 4 exec/s: 90 rss: 40Mb L: 1/2\n\
                   Done 1000 runs in 11 second(s)\nstat::number_of_executed_units: 1000\nstat::peak_rss_mb:              41\n";
        let seen = Seen::read(log, Duration::from_secs(10));
        assert_eq!((seen.executions, seen.per_second()), (1000, 100));
        assert_eq!((seen.edges, seen.features, seen.corpus), (12, 14, 3));
        assert_eq!(seen.peak_mib, 41);
        assert!(seen.is_clean());
    }

    #[test]
    fn what_was_found_is_named() {
        let log = "==1== ERROR\nartifact_prefix='/x/'; Test unit written to /x/crash-1\n";
        let seen = Seen::read(log, Duration::ZERO);
        assert_eq!(seen.found, Some(PathBuf::from("/x/crash-1")));
    }

    #[test]
    fn what_was_slow_is_not_yet_found() {
        let log =
            "Slowest unit: 12 s:\nartifact_prefix='/x/'; Test unit written to /x/slow-unit-1\n";
        let seen = Seen::read(log, Duration::ZERO);
        assert_eq!(seen.slow, [PathBuf::from("/x/slow-unit-1")]);
        assert!(seen.is_clean());
    }
}
