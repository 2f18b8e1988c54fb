//! `cargo xtask fuzz`: the targets of `fuzz/` with libFuzzer and AddressSanitizer behind them; and, on any compiler, a
//! replay of everything that was kept.
//!
//! Neither a nightly compiler nor cargo-fuzz is needed: the flags that cargo-fuzz would pass are passed here, and the
//! stable compiler is told to take the one that is not stable. libFuzzer itself is C++, which needs a compiler.

mod output;
mod sanitize;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::step::{run, step, succeeds};
use output::{Seen, Table};

/// The target with a sanitizer runtime and with the coverage that libFuzzer reads.
pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// As cargo-fuzz 0.13 has them, without the flag that keeps dead code.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
    "-Zsanitizer=address",
];
/// Longest input, in bytes: some formats begin with kilobytes.
const MAX_LEN: u32 = 16 << 10;
/// Longest time of one input, in seconds, and most memory of a process, in MiB.
const TIMEOUT_S: u32 = 20;
const MEMORY_MIB: u32 = 2048;
/// From this on, libFuzzer reports an input as slow.
const SLOW: Duration = Duration::from_secs(10);
/// Most inputs of a target that are kept in the checkout, and most bytes of them.
const MAX_INPUTS: usize = 64;
const MAX_KEPT: u64 = 48 << 10;
/// libFuzzer's option for a run over the kept corpus alone, which is the same every time.
const KEPT_ONLY: &str = "-runs=0";
/// Where inputs are kept, below `fuzz/`: the corpus, which is written here too, first.
const KEPT: [&str; 3] = ["corpus", "seeds", "regressions"];

/// What to do.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes for each target
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Targets at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Afterwards, keep the smallest inputs that cover what was found in fuzz/corpus
    #[arg(long)]
    keep: bool,
    /// Only run what was kept, on the compiler as it is, without a fuzzer
    #[arg(long, conflicts_with_all = ["keep", "minutes", "jobs"])]
    replay: bool,
    /// Instead, run unit tests with AddressSanitizer, and with Miri where it is installed
    #[arg(long, conflicts_with_all = ["keep", "minutes", "jobs", "replay"])]
    sanitize: bool,
    /// Targets; all of them without
    targets: Vec<String>,
}

/// Runs targets as asked.
///
/// # Errors
/// A target fails, or cannot be built.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    if options.replay {
        return run(&mut replay());
    }
    if options.sanitize {
        step("unit tests with AddressSanitizer", sanitize::address)?;
        return step("unit tests with Miri", sanitize::miri);
    }
    let targets = chosen(&options.targets)?;
    step("fuzz targets", || build(&targets))?;
    let seconds = (options.minutes * 60.0).max(1.0) as u64;
    let found = run_all(
        &targets,
        &format!("-max_total_time={seconds}"),
        options.jobs,
    )?;
    if options.keep {
        step("smallest inputs", || {
            targets.iter().try_for_each(|target| keep(target))
        })?;
    }
    if found > 0 {
        bail!(
            "{found} of {} targets found something; see above",
            targets.len()
        );
    }
    Ok(())
}

/// Runs all targets with their sanitizer on the kept corpus alone, so that the same source always gives the same result.
/// Returns how many passed and how many failed.
pub(crate) fn briefly() -> Result<(u64, u64)> {
    let targets = chosen(&[])?;
    build(&targets)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let found = run_all(&targets, KEPT_ONLY, jobs)?;
    Ok(((targets.len() - found) as u64, found as u64))
}

/// The tests of `fuzz/`: each kept input runs through its target.
pub(crate) fn replay() -> Command {
    let mut cargo = cargo("test", &["--cfg", "fuzzing"]);
    cargo.args(["--quiet", "--no-default-features", "--test", "replay"]);
    cargo.env("CARGO_TARGET_DIR", folder().join("replay"));
    cargo
}

/// The names of targets, all or those asked for.
fn chosen(asked: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(paths::checkout().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        all.extend(
            path.file_stem()
                .and_then(|name| name.to_str())
                .map(str::to_string),
        );
    }
    all.sort();
    if let Some(unknown) = asked.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; there are {}", all.join(", "));
    }
    Ok(if asked.is_empty() {
        all
    } else {
        asked.to_vec()
    })
}

/// Where builds, inputs and logs are.
fn folder() -> PathBuf {
    paths::target().join("fuzz")
}

fn program(target: &str) -> PathBuf {
    folder()
        .join("build")
        .join(TRIPLE)
        .join("release")
        .join(target)
}

/// Cargo in `fuzz/`, with these flags for the compiler.
fn cargo(verb: &str, flags: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.arg(verb).current_dir(paths::checkout().join("fuzz"));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo
}

fn build(targets: &[String]) -> Result<()> {
    if !succeeds(Command::new("c++").arg("--version")) {
        bail!("libFuzzer needs a C++ compiler: `apt-get install g++` (resources/setup.sh does)");
    }
    let mut cargo = cargo("build", &FLAGS);
    cargo.args(["--quiet", "--release", "--target", TRIPLE]);
    cargo.args(targets.iter().flat_map(|target| ["--bin", target]));
    cargo.env("CARGO_TARGET_DIR", folder().join("build"));
    // -Zsanitizer is all that is not stable; the compiler's own package has the runtime.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    run(&mut cargo)
}

/// Runs targets up to libFuzzer's `limit`, some at a time, and prints a line for each. Returns how many found something.
fn run_all(targets: &[String], limit: &str, jobs: usize) -> Result<usize> {
    let waiting: Mutex<VecDeque<&String>> = Mutex::new(targets.iter().collect());
    let table = Table::begin(&folder().join("runs.tsv"))?;
    let found = Mutex::new(Ok(0));
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let result = run_one(target, limit).and_then(|seen| {
                        table.add(target, &seen)?;
                        Ok(seen)
                    });
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *found, result) {
                        (Ok(count), Ok(seen)) => *count += usize::from(!seen.is_clean()),
                        (_, Err(error)) => *found = Err(error),
                        (Err(_), Ok(_)) => {}
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one target up to libFuzzer's `limit`, on what was kept and what earlier runs found.
fn run_one(target: &str, limit: &str) -> Result<Seen> {
    let corpus = folder().join("corpus").join(target);
    let artifacts = folder().join("artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder)?;
    }
    let log = folder().join(format!("{target}.log"));
    let mut fuzzer = fuzzer(target);
    fuzzer
        .arg(limit)
        .arg(format!("-timeout={TIMEOUT_S}"))
        .arg(format!("-report_slow_units={}", SLOW.as_secs()))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-max_len={MAX_LEN}"))
        .arg("-print_final_stats=1")
        .arg("-reload=0")
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus)
        .args(kept(target))
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let start = Instant::now();
    let status = fuzzer
        .status()
        .with_context(|| format!("cannot run {target}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let mut seen = Seen::read(&text, start.elapsed());
    if !status.success() && seen.is_clean() {
        // The log does not say of which signal a process died.
        eprintln!("    {target} ended with {status}");
        seen.found = Some(log);
    }
    if seen.is_clean() {
        seen.found = still_slow(target, &seen.slow)?;
    }
    Ok(seen)
}

/// The first of these inputs that is slow when it runs alone. The others were slow because the machine was busy.
fn still_slow(target: &str, slow: &[PathBuf]) -> Result<Option<PathBuf>> {
    for input in slow {
        let start = Instant::now();
        let mut alone = fuzzer(target);
        alone.arg(format!("-timeout={TIMEOUT_S}")).arg(input);
        let status = alone.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if !status.success() || start.elapsed() > SLOW {
            return Ok(Some(input.clone()));
        }
        eprintln!(
            "    {target}: {} is quick when it runs alone",
            input.display()
        );
        fs::remove_file(input)?;
    }
    Ok(None)
}

/// A target's program. Leaks count, as everywhere with AddressSanitizer.
fn fuzzer(target: &str) -> Command {
    let mut fuzzer = Command::new(program(target));
    fuzzer.env("RUST_BACKTRACE", "1");
    // SQLite, one file of C, has static variables of one name in several functions.
    fuzzer.env("ASAN_OPTIONS", "detect_odr_violation=0");
    fuzzer
}

/// The folders of a target's kept inputs that are there.
fn kept(target: &str) -> Vec<PathBuf> {
    let folders = KEPT.map(|kept| paths::checkout().join("fuzz").join(kept).join(target));
    folders
        .into_iter()
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Replaces a target's kept corpus by some of the fewest inputs that cover the same: of every size, the
/// smallest first, as many as fit.
fn keep(target: &str) -> Result<()> {
    let merged = folder().join("merged").join(target);
    if merged.exists() {
        fs::remove_dir_all(&merged)?;
    }
    fs::create_dir_all(&merged)?;
    let mut fuzzer = fuzzer(target);
    fuzzer
        .arg("-set_cover_merge=1")
        .arg(format!("-max_len={MAX_LEN}"))
        .arg(&merged)
        .arg(folder().join("corpus").join(target))
        .args(kept(target))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    run(&mut fuzzer)?;
    let place = paths::checkout().join("fuzz/corpus").join(target);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    let all = by_size(&merged)?;
    let step = all.len().div_ceil(MAX_INPUTS).max(1);
    let mut inputs: Vec<_> = all.into_iter().step_by(step).collect();
    let mut bytes = 0;
    inputs.retain(|(len, _)| {
        bytes += len;
        bytes <= MAX_KEPT
    });
    for (_, path) in &inputs {
        let name = path.file_name().context("a file has a name")?;
        fs::copy(path, place.join(name))?;
    }
    eprintln!("    {target}: {} inputs", inputs.len());
    Ok(())
}

fn by_size(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.sort();
    Ok(files)
}
