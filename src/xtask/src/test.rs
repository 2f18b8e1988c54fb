//! `cargo xtask test`: unit tests, tests that need root and /dev/kvm, and end-to-end tests in VMs.
//!
//! End-to-end tests run one by one in [`lanes`], which are test hosts where this machine's KVM boots no Linux.

mod changed;
mod durations;
mod lanes;
mod list;
mod process;
mod tally;
mod watch;

use std::env;
use std::fs::{self, OpenOptions};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Result, bail};

use crate::host::{self, Host};
use crate::place::{Foreseen, Place, foresee, seen};
use crate::step::{run, step, succeeds};
use crate::{check, dist, fuzz, paths};
use changed::Changed;
use durations::Durations;
use lanes::{Lanes, Part};
use list::{Marked, Test, tests};
use tally::Tally;
use watch::Limits;

/// Test hosts beside each other at most: each takes a processor and the memory of an emulated machine.
const MOST_HOSTS: usize = 4;
/// Memory of this machine that a host takes besides the emulated one's, in MiB.
const HOST_OVERHEAD_MIB: usize = 512;
/// End-to-end tests that run on Debian 12's own kernel a second time.
const ON_OWN_KERNEL: [&str; 4] = ["container", "jail", "run", "template"];

/// Everything, or the tests whose name contains the filter; what a change can break first, if `changed`. Fails when one
/// test does.
pub(crate) fn test(filter: Option<&str>, changed: bool) -> Result<()> {
    let mut tally = Tally::default();
    let changed = changed.then(Changed::find).transpose()?;
    let foreseen = foresee()?;
    if filter.is_none() {
        if foreseen == Foreseen::TestHost {
            // What keeps one from starting is found before anything is built.
            step("a test host starts here", || Host::start(&host::kernel()))?;
        }
        if let Some(changed) = &changed {
            step("unit tests of what has changed", || first(changed))?;
        }
        check::check()?;
    }
    native(filter, &mut tally)?;
    dist::build(false)?;
    step("images with real software", test_images)?;
    let mut measured = Durations::default();
    match privileged() {
        Ok(()) => measured = step("faults", || faults(filter, &mut tally))?,
        Err(reason) => tally.skip("faults", &reason),
    }
    measured.add(step("end-to-end tests", || {
        end_to_end(filter, changed.as_ref(), &mut tally)
    })?);
    measured.keep()?;
    report(tally)
}

/// The tests that need no VM that boots Linux.
fn native(filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    step("unit tests", || unit_tests(filter, false, tally))?;
    if filter.is_none() {
        step("what fuzzing has kept", || {
            tally.of(|see| seen(&mut fuzz::replay(), see))
        })?;
        if in_ci() {
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
            unit_tests(filter, true, tally)
        })?,
        Err(reason) => tally.skip("tests with root and /dev/kvm", &reason),
    }
    Ok(())
}

fn in_ci() -> bool {
    env::var("CI").is_ok_and(|ci| ci == "true")
}

/// Prints the counts, and fails if a test has failed. In CI, what was skipped counts as failed.
fn report(mut tally: Tally) -> Result<()> {
    if in_ci() {
        tally.failed += tally.skipped.len() as u64;
    }
    for skipped in &tally.skipped {
        println!("skipped: {skipped}");
    }
    for failure in &tally.failures {
        println!("failed: {failure}");
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

/// The unit tests of the packages that have changed; fails at once when one does.
fn first(changed: &Changed) -> Result<()> {
    let packages: Vec<&str> = changed.packages().collect();
    if packages.is_empty() {
        eprintln!("    no package has changed");
        return Ok(());
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(paths::checkout());
    cargo.args(["test", "--quiet"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    run(&mut cargo)
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

/// The tests of the crate `tests` that disturb hull on this machine itself, for which a guest of a few instructions
/// suffices: those of their file that are ignored elsewhere. One at a time: they count what the machine holds.
fn faults(filter: Option<&str>, tally: &mut Tally) -> Result<Durations> {
    let mut tests = tests("tests", Marked::Ignored, filter)?;
    tests.retain(|test| test.is_of("tests", "faults"));
    let lanes = Lanes {
        count: 1,
        limits: Limits::USUAL,
        known: Durations::read()?,
        start: &|_| Ok(Place::Here),
    };
    let part = Part {
        kernel: String::new(),
        tests,
    };
    lanes.run(vec![part], tally)
}

/// The other tests of the crate `tests`, where VMs can run. If that is the test host, hull-vmm's own as well: its KVM is
/// one that boots Linux, unlike the one that they have met so far. And some on Debian 12's own kernel, which is older.
fn end_to_end(
    filter: Option<&str>,
    changed: Option<&Changed>,
    tally: &mut Tally,
) -> Result<Durations> {
    let is_here = Place::is_here();
    let of_vms = tests("tests", Marked::Ordinary, filter)?;
    let mut parts = match is_here {
        true => vec![Part {
            kernel: String::new(),
            tests: of_vms,
        }],
        false => in_test_hosts(of_vms, filter)?,
    };
    if let Some(changed) = changed {
        for part in &mut parts {
            changed.put_first(&mut part.tests);
        }
    }
    let lanes = Lanes {
        count: if is_here { processors() } else { hosts() },
        limits: Limits::USUAL,
        known: Durations::read()?,
        start: &|kernel| match is_here {
            true => Ok(Place::Here),
            false => Ok(Place::TestHost(Box::new(Host::start(kernel)?))),
        },
    };
    lanes.run(parts, tally)
}

fn in_test_hosts(of_vms: Vec<Test>, filter: Option<&str>) -> Result<Vec<Part>> {
    let mut of_vmm = tests("vmm", Marked::Ignored, filter)?;
    // Storms take minutes there; tests/tests/hostile.rs has a Linux guest for them.
    of_vmm.retain(|test| !test.is_of("vmm", "hostile"));
    let mut older = of_vmm.clone();
    let again = |test: &&Test| {
        let mut files = ON_OWN_KERNEL.iter();
        files.any(|file| test.is_of("tests", file))
    };
    older.extend(of_vms.iter().filter(again).cloned());
    let newest = [of_vmm, of_vms].concat();
    Ok(vec![
        Part {
            kernel: host::kernel(),
            tests: newest,
        },
        Part {
            kernel: host::OWN_KERNEL.to_owned(),
            tests: older,
        },
    ])
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// How many test hosts fit beside each other: HULL_TEST_HOSTS, or as many as there are processors and memory for.
fn hosts() -> usize {
    let asked = env::var("HULL_TEST_HOSTS").ok();
    if let Some(asked) = asked.and_then(|asked| asked.parse().ok()) {
        return std::cmp::max(1, asked);
    }
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let each = host::machine::memory_mib() as usize + HOST_OVERHEAD_MIB;
    let fit = available_mib(&memory) / each;
    processors().min(fit).clamp(1, MOST_HOSTS)
}

/// The available memory in /proc/meminfo's text, in MiB.
fn available_mib(meminfo: &str) -> usize {
    let available = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) / 1024
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn available_memory_is_read_in_mebibytes() {
        let text = "MemTotal:  24000000 kB\nMemAvailable:   14680064 kB\n";
        assert_eq!(available_mib(text), 14336);
        assert_eq!(available_mib(""), 0);
    }
}
