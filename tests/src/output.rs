//! Short containers and execs that print one line and exit, and a log that is flooded and followed: nothing may be lost,
//! nothing doubled, and every code must be right.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{Hull, Isolation};

/// Commands beside each other.
const WORKERS: u64 = 3;
/// Execs for each container.
const EXECS: u64 = 20;
/// Failures that are shown.
const SHOWN: usize = 10;
/// A line of the flood, without its number and its line feed.
const LINE_LEN: usize = 91;

/// Runs so many containers, twenty times as many execs, execs that fail, and a flood in proportion.
pub fn run(isolation: Isolation, containers: u64, told: &mut dyn FnMut(&str)) -> Result<()> {
    let hull = Hull::new()?;
    let options = isolation.options();
    let once = [&["run", "--rm"], options, &["demo", "true"]].concat();
    let first = hull.run(once)?;
    ensure!(
        first.code() == Some(0),
        "the first container: {}",
        first.stderr()
    );
    for index in 0..WORKERS {
        let name = format!("server{index}");
        let words = [
            &["run", "-d", "--name", &name],
            options,
            &["demo", "sleep", "100000"],
        ]
        .concat();
        succeed(&hull, &words)?;
    }
    let line = |number: u64| format!("line {number}; exit {}", number % 126);
    told(&many("containers", containers, |number, _| {
        let script = format!("echo {}", line(number));
        let words = [&["run", "--rm"], options, &["demo", "sh", "-c", &script]].concat();
        expect(&hull, &words, number)
    })?);
    told(&many("execs", containers * EXECS, |number, worker| {
        let script = format!("echo {}", line(number));
        let name = format!("server{worker}");
        expect(&hull, &["exec", &name, "sh", "-c", &script], number)
    })?);
    told(&many(
        "execs that fail at once",
        containers,
        |number, worker| {
            let name = format!("server{worker}");
            let (program, code) = [("/no/such/program", 127), ("/etc", 126)][(number % 2) as usize];
            let outcome = hull.run(["exec", &name, program])?;
            ensure!(outcome.code() == Some(code), "{program}: {outcome:?}");
            Ok(())
        },
    )?);
    told(&flood(&hull, isolation, containers * 400_000)?);
    Ok(())
}

/// Runs a command of a number, which must say its line, and end with its code.
fn expect(hull: &Hull, words: &[&str], number: u64) -> Result<()> {
    let outcome = hull.run(words)?;
    let right = outcome.code() == Some((number % 126) as i32)
        && outcome.stdout_bytes() == format!("line {number}\n").as_bytes();
    ensure!(right, "{number}: {outcome:?}");
    Ok(())
}

/// Does something so many times, by several threads, and says how long it took.
fn many(what: &str, count: u64, act: impl Fn(u64, u64) -> Result<()> + Sync) -> Result<String> {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (act, next, failures) = (&act, &next, &failures);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    if let Err(error) = act(number, worker) {
                        failures
                            .lock()
                            .expect("no holder panics")
                            .push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no holder panics");
    let seconds = start.elapsed().as_secs_f64();
    if !failures.is_empty() {
        let shown = failures[..failures.len().min(SHOWN)].join("\n");
        bail!("{} of {count} {what} failed:\n{shown}", failures.len());
    }
    Ok(format!("{count} {what}: all right, in {seconds:.1} s"))
}

/// A container writes numbered lines as fast as they are taken; its log is rotated, and followed from its start.
fn flood(hull: &Hull, isolation: Isolation, bytes: u64) -> Result<String> {
    let lines = bytes / (LINE_LEN as u64 + 9);
    // Numbers of eight digits, and a line feed. They are made before, since that is slow.
    let script = format!(
        "awk 'BEGIN {{ for (i = 0; i < {lines}; i++) printf \"%08d{}\\n\", i }}' >/lines; touch /ready; \
         until [ -e /go ]; do sleep 0.1; done; cat /lines",
        "x".repeat(LINE_LEN)
    );
    let log = ["--log-opt", "max-size=20m", "--log-opt", "max-file=5"];
    let words = [
        &["run", "-d", "--name", "flood"],
        isolation.options(),
        &log,
        &["demo", "sh", "-c", &script],
    ]
    .concat();
    succeed(hull, &words)?;
    let go = "until [ -e /ready ]; do sleep 0.1; done; touch /go";
    let mut follower = hull
        .command(["logs", "-f", "flood"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = follower.stdout.take().context("stdout is a pipe")?;
    succeed(hull, &["exec", "flood", "sh", "-c", go])?;
    let start = Instant::now();
    let rate = |start: Instant| bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    let (code, written, seen) = thread::scope(|scope| {
        let reader = scope.spawn(|| count(output, lines));
        let code = hull.run(["wait", "flood"])?.stdout();
        let written = rate(start);
        let seen = reader.join().expect("a reader reports what goes wrong")?;
        anyhow::Ok((code, written, seen))
    })?;
    let read = rate(start);
    ensure!(follower.wait()?.success(), "the follower failed");
    ensure!(code == "0", "the flood ended with {code}");
    succeed(hull, &["rm", "flood"])?;
    Ok(format!(
        "a flood of {lines} lines, written at {written:.0} MB/s to five files of 20 MB: a follower saw {seen} in their \
         order, at {read:.0} MB/s; {} were rotated away before it read them",
        lines - seen
    ))
}

/// Reads numbered lines to their end: their numbers must grow, and the last must be there. How many there were.
fn count(output: ChildStdout, lines: u64) -> Result<u64> {
    let (mut seen, mut next) = (0, 0);
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let number: u64 = std::str::from_utf8(line.get(..8).unwrap_or_default())?.parse()?;
        ensure!(line.len() == LINE_LEN + 8, "a line of {} bytes", line.len());
        ensure!(number >= next, "line {number} comes again after {next}");
        seen += 1;
        next = number + 1;
    }
    ensure!(next == lines, "the last line is {next} of {lines}");
    Ok(seen)
}

fn succeed(hull: &Hull, words: &[&str]) -> Result<()> {
    let outcome = hull.run(words)?;
    ensure!(
        outcome.code() == Some(0),
        "hull {}: {}",
        words.join(" "),
        outcome.stderr()
    );
    Ok(())
}
