//! Retries after transient failures: a bounded number of times, with growing pauses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;
use crate::error::chain;
use crate::progress::{Event, LayerName, Progress};

/// The longest pause, also when the registry asks for more.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How soon a pause notices that the pull was cancelled.
const CANCEL_LATENCY: Duration = Duration::from_millis(50);

/// The attempts at one request.
pub(crate) struct Retry<'a> {
    max_attempts: u32,
    first_pause: Duration,
    attempt: u32,
    layer: Option<LayerName>,
    progress: &'a dyn Progress,
    cancelled: &'a AtomicBool,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(
        options: &crate::PullOptions,
        layer: Option<LayerName>,
        progress: &'a dyn Progress,
        cancelled: &'a AtomicBool,
    ) -> Retry<'a> {
        Retry {
            max_attempts: options.max_attempts.max(1),
            first_pause: Duration::from_millis(options.retry_pause_ms),
            attempt: 1,
            layer,
            progress,
            cancelled,
        }
    }

    /// Runs `body` until it succeeds, fails for good, or has failed too often.
    pub(crate) fn run<T>(
        mut self,
        reached: impl Fn() -> bool,
        mut body: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            match body() {
                Ok(value) => return Ok(value),
                Err(error) => self.pause(error, reached())?,
            }
        }
    }

    /// Waits for the next attempt, or returns the error if there is to be none.
    pub(crate) fn pause(&mut self, error: Error, reached: bool) -> Result<(), Error> {
        if !error.is_transient(reached) || self.attempt >= self.max_attempts {
            return Err(error);
        }
        let doubled = self
            .first_pause
            .saturating_mul(1 << (self.attempt - 1).min(10));
        let asked = match &error {
            Error::Status {
                retry_after_s: Some(seconds),
                ..
            } => Duration::from_secs(*seconds),
            _ => Duration::ZERO,
        };
        let pause = doubled.max(asked).min(MAX_PAUSE);
        self.attempt += 1;
        self.progress.event(Event::Retrying {
            layer: self.layer,
            attempt: self.attempt,
            pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            reason: &chain(&error),
        });
        let end = Instant::now() + pause;
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(left.min(CANCEL_LATENCY));
        }
        Ok(())
    }

    /// Resets the number of attempts after progress.
    pub(crate) fn progressed(&mut self) {
        self.attempt = 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Mutex;

    use super::*;

    fn unavailable(retry_after_s: Option<u64>) -> Error {
        Error::Status {
            host: "r".into(),
            path: "/".into(),
            status: 503,
            retry_after_s,
        }
    }

    fn options() -> crate::PullOptions {
        crate::PullOptions {
            max_attempts: 4,
            retry_pause_ms: 1,
            ..Default::default()
        }
    }

    #[test]
    fn a_passing_failure_is_tried_again_with_growing_pauses() {
        let pauses = Mutex::new(Vec::new());
        let progress = |event: Event<'_>| {
            if let Event::Retrying { pause_ms, .. } = event {
                pauses.lock().unwrap().push(pause_ms);
            }
        };
        let (cancelled, calls) = (AtomicBool::new(false), Cell::new(0));
        let result: Result<(), _> = Retry::new(&options(), None, &progress, &cancelled).run(
            || true,
            || {
                calls.set(calls.get() + 1);
                Err(unavailable(None))
            },
        );
        assert!(matches!(result, Err(Error::Status { status: 503, .. })));
        assert_eq!(
            (calls.get(), pauses.into_inner().unwrap()),
            (4, vec![1, 2, 4])
        );
    }

    #[test]
    fn a_lasting_failure_is_final_and_a_pause_can_be_cut_short() {
        let cancelled = AtomicBool::new(false);
        let retry = || Retry::new(&options(), None, &(), &cancelled);
        let missing = Error::NotFound {
            host: "r".into(),
            name: "x".into(),
        };
        assert!(matches!(
            retry().pause(missing, true),
            Err(Error::NotFound { .. })
        ));
        cancelled.store(true, Ordering::Relaxed);
        let started = Instant::now();
        assert!(matches!(
            retry().pause(unavailable(Some(20)), true),
            Err(Error::Cancelled)
        ));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
