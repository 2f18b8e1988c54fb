//! Tests beside each other: each lane runs one test at a time, in a test host of its own where VMs need one.
//!
//! Lanes take their tests from one queue, the longest first, so that they end at about the same time. A lane whose host
//! hangs gives up the test that ran, and goes on in a fresh host. QEMU ends with the thread that started it, which is
//! its lane's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::durations::Durations;
use super::list::Test;
use super::process::Process;
use super::tally::Tally;
use super::watch::{Hang, Limits, Sight, hang};
use crate::place::Place;

/// Between two looks at a running test.
const LOOK: Duration = Duration::from_secs(1);
/// A host that works is heard each second.
const LONG_SILENCE: Duration = Duration::from_secs(30);
/// Lines of a lost host's console that are shown.
const CONSOLE_LINES: usize = 20;

/// Tests that need the same kind of host.
pub(crate) struct Part {
    /// The kernel's package; empty where tests run on this machine.
    pub(crate) kernel: String,
    pub(crate) tests: Vec<Test>,
}

/// How tests are run.
pub(crate) struct Lanes<'a> {
    pub(crate) count: usize,
    pub(crate) limits: Limits,
    /// Expected durations.
    pub(crate) known: Durations,
    /// Starts a place with a kernel.
    pub(crate) start: &'a (dyn Fn(&str) -> Result<Place> + Sync),
}

/// The end of one test.
struct Ended {
    result: Result<(), String>,
    took: Duration,
    output: String,
    /// The last lines of the console of the host, if the host is lost.
    lost: Option<Vec<String>>,
}

/// What the lanes share.
struct Shared<'a> {
    waiting: Mutex<VecDeque<Test>>,
    /// Of each lane that runs a test: how long its host has been silent.
    silent: Mutex<BTreeMap<usize, Duration>>,
    report: Mutex<Report<'a>>,
}

struct Report<'a> {
    tally: &'a mut Tally,
    measured: Durations,
}

impl Lanes<'_> {
    /// Runs the parts one after the other. Returns the durations of tests that passed.
    ///
    /// # Errors
    /// A host cannot be started, and tests were not run for that reason.
    pub(crate) fn run(&self, parts: Vec<Part>, tally: &mut Tally) -> Result<Durations> {
        let mut measured = Durations::default();
        for part in parts.into_iter().filter(|part| !part.tests.is_empty()) {
            let report = Report {
                tally: &mut *tally,
                measured: std::mem::take(&mut measured),
            };
            let shared = Shared {
                waiting: Mutex::new(self.longest_first(part.tests)),
                silent: Mutex::default(),
                report: Mutex::new(report),
            };
            let lanes = self.count.min(lock(&shared.waiting).len());
            let failures: Vec<anyhow::Error> = thread::scope(|scope| {
                let lane = |number| {
                    let (shared, kernel) = (&shared, &*part.kernel);
                    scope.spawn(move || self.lane(number, kernel, shared))
                };
                let lanes: Vec<_> = (1..=lanes).map(lane).collect();
                let joined = lanes.into_iter().map(|lane| lane.join());
                joined
                    .filter_map(|ended| {
                        ended
                            .unwrap_or_else(|_| Err(anyhow!("a lane panicked")))
                            .err()
                    })
                    .collect()
            });
            let left = lock(&shared.waiting).len();
            let report = shared.report.into_inner();
            measured = report.unwrap_or_else(PoisonError::into_inner).measured;
            if let Some(failure) = failures.into_iter().next() {
                return Err(failure.context(format!("{left} tests were not run")));
            }
        }
        Ok(measured)
    }

    /// Urgent tests first, and of each kind the longest first.
    fn longest_first(&self, mut tests: Vec<Test>) -> VecDeque<Test> {
        tests.sort_by_key(|test| {
            let known = self.known.of(&test.title);
            (!test.is_urgent, std::cmp::Reverse(known))
        });
        tests.into()
    }

    fn lane(&self, number: usize, kernel: &str, shared: &Shared<'_>) -> Result<()> {
        let mut place = None;
        loop {
            // A statement of its own: the lock is not held while the test runs.
            let next = lock(&shared.waiting).pop_front();
            let Some(test) = next else {
                return Ok(());
            };
            let is_fresh = place.is_none();
            let ground = match &mut place {
                Some(ground) => ground,
                None => match (self.start)(kernel) {
                    Ok(started) => place.insert(started),
                    Err(error) => {
                        lock(&shared.waiting).push_front(test);
                        return Err(error);
                    }
                },
            };
            let mut others = |silence| shared.others_are_silent(number, silence);
            let ended = self.one(ground, &test, is_fresh, &mut others);
            lock(&shared.silent).remove(&number);
            let ended = ended?;
            if ended.lost.is_some() {
                place = None;
            }
            let lane = match short_name(kernel) {
                "" => format!("{number}"),
                name => format!("{number} on {name}"),
            };
            lock(&shared.report).add(&test, &lane, ended);
        }
    }

    /// Runs one test and watches it; `others` is told how long this host has been silent, and tells whether the others are, too.
    fn one(
        &self,
        place: &mut Place,
        test: &Test,
        refresh: bool,
        others: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Ended> {
        let start = Instant::now();
        let limit = self.limits.of(self.known.of(&test.title));
        let ended = |result, output, lost| Ended {
            result,
            took: start.elapsed(),
            output,
            lost,
        };
        let process = match Process::start(place, &test.argv()?, refresh) {
            Ok(process) => process,
            Err(error) => {
                let lost = place.last_lines(CONSOLE_LINES);
                return Ok(ended(Err(format!("{error:#}")), String::new(), lost));
            }
        };
        loop {
            match process.wait(LOOK.min(self.limits.silence / 4)) {
                Ok(Some(code)) => {
                    let output = process.output();
                    return Ok(ended(judge(code, &output), output, None));
                }
                Ok(None) => {}
                Err(error) => {
                    let lost = place.last_lines(CONSOLE_LINES);
                    return Ok(ended(Err(format!("{error:#}")), process.output(), lost));
                }
            }
            if let Some(hang) = self.look(place, start.elapsed(), limit, others)? {
                process.kill();
                let lost = place.last_lines(CONSOLE_LINES);
                return Ok(ended(Err(hang.to_string()), process.output(), lost));
            }
        }
    }

    fn look(
        &self,
        place: &mut Place,
        ran: Duration,
        limit: Duration,
        others: &mut dyn FnMut(Duration) -> bool,
    ) -> Result<Option<Hang>> {
        let (silence, console) = match place {
            Place::Here => Default::default(),
            Place::TestHost(host) => {
                let watch = host.watch();
                let console = watch.new_lines().context("the test host's console")?;
                (watch.silence(), console)
            }
        };
        let sight = Sight {
            ran,
            silence,
            all_silent: others(silence),
            console: &console,
        };
        Ok(hang(&sight, limit, &self.limits))
    }
}

/// A kernel's name in the output: that of its package without what all have.
fn short_name(kernel: &str) -> &str {
    kernel.trim_start_matches("linux-image-")
}

/// Whether libtest has run one test that passed.
fn judge(code: u8, output: &str) -> Result<(), String> {
    match code {
        0 if output.contains("test result: ok. 1 passed;") => Ok(()),
        0 => Err("it did not run".to_owned()),
        101 => Err("failed".to_owned()),
        code => Err(format!("ended with code {code}")),
    }
}

impl Shared<'_> {
    /// Notes how long a lane's host has been silent, and tells whether all of several hosts have been for long.
    fn others_are_silent(&self, lane: usize, silence: Duration) -> bool {
        let mut silent = lock(&self.silent);
        silent.insert(lane, silence);
        silent.len() > 1 && silent.values().all(|silence| *silence > LONG_SILENCE)
    }
}

impl Report<'_> {
    fn add(&mut self, test: &Test, lane: &str, ended: Ended) {
        let seconds = ended.took.as_secs_f64();
        let title = &test.title;
        let Err(reason) = ended.result else {
            println!("ok     {seconds:7.1} s  [{lane}] {title}");
            self.measured.note(title, ended.took);
            self.tally.pass();
            return;
        };
        println!("FAILED {seconds:7.1} s  [{lane}] {title}: {reason}");
        for line in ended.output.lines() {
            println!("    {line}");
        }
        if let Some(console) = ended.lost {
            println!(
                "    the last lines of its test host's console; the next test gets a fresh host:"
            );
            for line in console {
                println!("    | {line}");
            }
        }
        self.tally.fail(title, &reason, ended.took);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
