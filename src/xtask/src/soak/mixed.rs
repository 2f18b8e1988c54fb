//! Mixed load, and a sample every minute of what it leaves behind.
//!
//! Workers run containers of all kinds beside each other, and kill some at every level. Once a minute they all pause;
//! what the machine holds then is one line of the table. The first line is taken after the warm-up; the last may differ from
//! it by the tolerances in [`sample`](super::sample) at most, and no action may have failed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::{self, Load, State};
use super::sample::Sample;
use crate::paths;

/// Workers side by side. Each has at most two VMs.
const WORKERS: u64 = 3;
/// Between two samples.
const ROUND: Duration = Duration::from_secs(60);
/// Kinds of failures that are printed.
const SHOWN: usize = 20;

/// The load itself, on the machine where the VMs are.
pub(super) fn inside(minutes: u64) -> Result<()> {
    let hull = paths::dist().join("bin/hull");
    let state = Arc::new(State::new(hull)?);
    let mut first = Load::new(WORKERS);
    for (name, action) in load::ALL {
        action(&mut first, &state).with_context(|| format!("{name}, the first time"))?;
    }
    let counts: Vec<_> = load::ALL.iter().map(|_| AtomicU64::new(0)).collect();
    let shared = Arc::new(Shared {
        pause: AtomicBool::new(false),
        over: AtomicBool::new(false),
        gate: Barrier::new(WORKERS as usize + 1),
        counts,
        failures: Mutex::default(),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (state, shared) = (state.clone(), shared.clone());
            thread::spawn(move || work(Load::new(number), &state, &shared))
        })
        .collect();
    let start = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    println!("{}", Sample::heading());
    while !shared.over.load(Ordering::Relaxed) {
        thread::sleep(ROUND);
        shared.pause.store(true, Ordering::Relaxed);
        // All workers are between two actions from here to the next wait.
        shared.gate.wait();
        state.sweep()?;
        let sample = Sample::take(state.root())?;
        println!("{}", sample.line(start.elapsed(), shared.done()));
        samples.push(sample);
        let over = start.elapsed() >= Duration::from_secs(minutes * 60);
        shared.over.store(over, Ordering::Relaxed);
        shared.pause.store(false, Ordering::Relaxed);
        shared.gate.wait();
    }
    for worker in workers {
        worker.join().expect("a worker reports what goes wrong");
    }
    conclude(&samples, &shared)
}

/// What workers and the sampler have in common.
struct Shared {
    pause: AtomicBool,
    over: AtomicBool,
    gate: Barrier,
    counts: Vec<AtomicU64>,
    failures: Mutex<Vec<String>>,
}

impl Shared {
    fn done(&self) -> u64 {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

fn work(mut load: Load, state: &State, shared: &Shared) {
    loop {
        if shared.pause.load(Ordering::Relaxed) {
            shared.gate.wait();
            shared.gate.wait();
            if shared.over.load(Ordering::Relaxed) {
                return;
            }
        }
        let kind = load.choose();
        let (name, action) = load::ALL[kind];
        if let Err(error) = action(&mut load, state) {
            let mut failures = shared.failures.lock().expect("no holder panics");
            failures.push(format!("{name}: {error:#}"));
        }
        shared.counts[kind].fetch_add(1, Ordering::Relaxed);
    }
}

fn conclude(samples: &[Sample], shared: &Shared) -> Result<()> {
    for ((name, _), count) in load::ALL.iter().zip(&shared.counts) {
        println!("{name}: {}", count.load(Ordering::Relaxed));
    }
    let failures = shared.failures.lock().expect("no holder panics");
    println!("{} actions, {} failed", shared.done(), failures.len());
    for failure in failures.iter().take(SHOWN) {
        println!("  {failure}");
    }
    let [first, .., last] = samples else {
        bail!("one sample cannot be compared: give it two minutes at least");
    };
    let grown = last.grown_since(first);
    for what in &grown {
        println!("not flat: {what}");
    }
    if !failures.is_empty() || !grown.is_empty() {
        bail!(
            "{} actions failed, {} figures are not flat",
            failures.len(),
            grown.len()
        );
    }
    println!("flat");
    Ok(())
}
