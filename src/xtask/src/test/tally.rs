//! Counting tests, and reading what their runners print.

use std::time::Duration;

use anyhow::Result;

/// The results of the tests so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Parts that could not be run here, with the reason.
    pub(crate) skipped: Vec<String>,
    /// Tests that failed one by one, with the reason; the other runners list theirs themselves.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Notes a part that cannot be run here.
    pub(crate) fn skip(&mut self, what: &str, reason: &str) {
        eprintln!("==> {what}: skipped ({reason})");
        self.skipped.push(format!("{what} ({reason})"));
    }

    /// Counts one test that has passed.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts one test that has failed.
    pub(crate) fn fail(&mut self, test: &str, reason: &str, took: Duration) {
        self.failed += 1;
        let seconds = took.as_secs_f64();
        self.failures
            .push(format!("{test} after {seconds:.1} s: {reason}"));
    }

    /// Runs a runner of many tests and adds what it prints. A failure without a count counts as one.
    pub(crate) fn of(
        &mut self,
        run: impl FnOnce(&mut dyn FnMut(&str)) -> Result<u8>,
    ) -> Result<()> {
        let failed = self.failed;
        let code = run(&mut |line| self.see(line))?;
        if code != 0 && self.failed == failed {
            self.failed += 1;
        }
        Ok(())
    }

    /// Adds the numbers of a closing line of libtest ("test result: ok. 3 passed; 0 failed; …") or of nextest
    /// ("Summary [   0.1s] 3 tests run: 3 passed, 0 skipped").
    fn see(&mut self, line: &str) {
        let line = line.trim();
        if !line.starts_with("test result: ") && !line.starts_with("Summary [") {
            return;
        }
        let words: Vec<&str> = line
            .split([' ', ';', ','])
            .filter(|w| !w.is_empty())
            .collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1] {
                "passed" => self.passed += count,
                "failed" | "timed" => self.failed += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_counted() {
        let mut tally = Tally::default();
        tally.see("test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out");
        tally.see("     Summary [   0.004s] 5 tests run: 4 passed (1 slow), 1 failed, 7 skipped");
        tally.see("     Summary [ 300.0s] 3 tests run: 1 passed, 1 failed, 1 timed out, 0 skipped");
        tally.see("test it::works ... ok");
        assert_eq!((tally.passed, tally.failed), (8, 4));
    }

    #[test]
    fn a_failure_without_a_count_counts_as_one() {
        let mut tally = Tally::default();
        tally.of(|_| Ok(101)).unwrap();
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }
}
