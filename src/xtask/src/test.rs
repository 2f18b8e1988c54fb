//! `cargo xtask test`: unit tests, tests that need root and /dev/kvm, and end-to-end tests in VMs.

use std::env;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::host::{self, Host};
use crate::place::{Place, seen};
use crate::step::{output, run, step, succeeds};
use crate::{check, dist, fuzz, paths};

/// What came of the tests so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    /// Parts that could not be run here, with the reason.
    skipped: Vec<String>,
}

/// Everything, or the tests whose name contains the filter. Fails when one test does.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    let mut tally = Tally::default();
    if filter.is_none() {
        check::check()?;
    }
    step("unit tests", || unit_tests(filter, false, &mut tally))?;
    let in_ci = env::var("CI").is_ok_and(|ci| ci == "true");
    if filter.is_none() {
        step("what fuzzing has kept", || {
            tally.of(|see| seen(&mut fuzz::replay(), see))
        })?;
        if in_ci {
            step(
                "fuzz targets with their sanitizer, on what was kept",
                || {
                    let (passed, failed) = fuzz::briefly()?;
                    tally.passed += passed;
                    tally.failed += failed;
                    Ok(())
                },
            )?;
        }
    }
    match privileged() {
        Ok(()) => step("tests with root and /dev/kvm", || {
            unit_tests(filter, true, &mut tally)
        })?,
        Err(reason) => tally.skip("tests with root and /dev/kvm", &reason),
    }
    dist::build(false)?;
    step("images with real software", test_images)?;
    let programs = programs("tests")?;
    match privileged() {
        Ok(()) => step("faults", || faults(&programs, filter, &mut tally))?,
        Err(reason) => tally.skip("faults", &reason),
    }
    step("end-to-end tests", || {
        end_to_end(&programs, filter, &mut tally)
    })?;
    if in_ci {
        tally.failed += tally.skipped.len() as u64;
    }
    for skipped in &tally.skipped {
        println!("skipped: {skipped}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        bail!("{} of the tests failed", tally.failed);
    }
    Ok(())
}

/// Why the tests that need root and KVM cannot run here.
fn privileged() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root".to_string());
    }
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    kvm.map(drop)
        .map_err(|error| format!("/dev/kvm cannot be opened: {error}"))
}

/// The tests of every crate but `tests`: those that are marked `#[ignore]`, or the others.
fn unit_tests(filter: Option<&str>, ignored: bool, tally: &mut Tally) -> Result<()> {
    let nextest = succeeds(Command::new(env!("CARGO")).args(["nextest", "--version"]));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(paths::checkout());
    if nextest {
        cargo.args(["nextest", "run", "--no-fail-fast", "--no-tests=pass"]);
        cargo.args(["--cargo-quiet", "--status-level=fail"]);
    } else {
        cargo.args(["test", "--quiet", "--no-fail-fast"]);
    }
    cargo.args(["--workspace", "--exclude", "tests"]);
    match (nextest, ignored) {
        (true, true) => _ = cargo.args(["--run-ignored", "only"]),
        (true, false) => {}
        (false, _) => _ = cargo.arg("--tests"),
    }
    cargo.args(filter);
    if !nextest && ignored {
        cargo.args(["--", "--ignored"]);
    }
    tally.of(|see| seen(&mut cargo, see))
}

/// The images of tests/tests/real_software.rs, made once per machine.
fn test_images() -> Result<()> {
    let script = paths::checkout().join("tests/images/build.sh");
    run(Command::new(script).stdout(Stdio::null()))
}

/// The tests of the crate `tests` that disturb hull on this machine itself, which a payload for a guest suffices for: those of
/// their file that are ignored elsewhere.
fn faults(programs: &[PathBuf], filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    let faults = chosen(programs, |name| name == "faults");
    let options = ["--ignored", "--test-threads=1"];
    run_all(&Place::Here, &faults, &options, filter, tally)
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().context("a path is not UTF-8")?.to_string())
}

/// The other tests of the crate `tests`, where VMs can run. If that is the test host, hull-vmm's own as well: its KVM is one
/// that boots Linux, unlike the one that they have met so far. And some on Debian 12's own kernel, which is older.
fn end_to_end(programs: &[PathBuf], filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    let place = Place::find()?;
    let of_vms = chosen(programs, |_| true);
    if let Place::Here = place {
        return run_all(&place, &of_vms, &[], filter, tally);
    }
    let of_vmm = self::programs("vmm")?;
    // Storms take minutes there; tests/tests/hostile.rs has a Linux guest for them.
    let of_vmm = chosen(&of_vmm, |name| name != "hostile");
    run_all(&place, &of_vmm, &["--ignored"], filter, tally)?;
    run_all(&place, &of_vms, &[], filter, tally)?;
    drop(place);

    let older = Place::TestHost(Box::new(Host::start(host::OWN_KERNEL)?));
    let of_vms = chosen(programs, |name| {
        ["container", "jail", "run", "template"].contains(&name)
    });
    run_all(&older, &of_vmm, &["--ignored"], filter, tally)?;
    run_all(&older, &of_vms, &[], filter, tally)
}

/// The programs of those files of tests that are `wanted` by their names, to which cargo adds a hash.
fn chosen(programs: &[PathBuf], wanted: impl Fn(&str) -> bool) -> Vec<&PathBuf> {
    let is_wanted = |program: &&PathBuf| {
        let file = program.file_name().and_then(|file| file.to_str());
        file.and_then(|file| file.rsplit_once('-'))
            .is_some_and(|(name, _)| wanted(name))
    };
    programs.iter().filter(is_wanted).collect()
}

/// Runs programs of tests with `options`, one after the other.
fn run_all(
    place: &Place,
    programs: &[&PathBuf],
    options: &[&str],
    filter: Option<&str>,
    tally: &mut Tally,
) -> Result<()> {
    for program in programs {
        let mut argv = vec![text(program)?];
        argv.extend(options.iter().copied().chain(filter).map(str::to_string));
        // An emulated machine has few processors: VMs beside each other would only wait for each other.
        if let Place::TestHost(_) = place {
            argv.push("--test-threads=1".to_string());
        }
        tally.of(|see| place.run_seen(&argv, see))?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Compiles a package's tests, without running them.
fn programs(package: &str) -> Result<Vec<PathBuf>> {
    let messages = output(
        Command::new(env!("CARGO"))
            .args(["test", "--quiet", "--package", package, "--no-run"])
            .args(["--message-format", "json"])
            .current_dir(paths::checkout()),
    )?;
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&messages).lines() {
        let message: Message = serde_json::from_str(line).context("cargo's messages")?;
        if message.profile.is_some_and(|profile| profile.test) {
            programs.extend(message.executable);
        }
    }
    Ok(programs)
}

impl Tally {
    fn skip(&mut self, what: &str, reason: &str) {
        eprintln!("==> {what}: skipped ({reason})");
        self.skipped.push(format!("{what} ({reason})"));
    }

    /// Runs tests and adds what they print. Tests that fail without saying how many count as one.
    fn of(&mut self, run: impl FnOnce(&mut dyn FnMut(&str)) -> Result<u8>) -> Result<()> {
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
                "failed" => self.failed += count,
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
        tally.see("test it::works ... ok");
        assert_eq!((tally.passed, tally.failed), (7, 2));
    }

    #[test]
    fn a_failure_that_says_no_number_counts_as_one() {
        let mut tally = Tally::default();
        tally.of(|_| Ok(101)).unwrap();
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }
}
