//! System calls that fail, in every program of hull's: no loss, no hang, clear errors, nothing left behind.
//!
//! For each command, its calls are counted in an undisturbed run; then one of them fails, or moves fewer bytes, for a
//! seeded choice of kinds and places (`HULL_FAULTS=full`: for all places up to a bound; another number is another seed;
//! `HULL_FAULTS='hull read 3'`: the third of one kind in one program).
//! After each: the command has ended by itself with its own exit code or with 125 and a reason, no program has crashed,
//! and the same command, undisturbed, then succeeds on a store that is whole.
//!
//! Those that are ignored run on this machine, not in the test host: the guest of the microVM's case is a payload of a few
//! instructions, which every KVM runs. The others need a KVM that runs Linux, as end-to-end tests do.

#[path = "faults/choice.rs"]
mod choice;
#[path = "faults/ground.rs"]
mod ground;
#[path = "faults/kinds.rs"]
mod kinds;

use std::env;

use anyhow::{Result, bail, ensure};
use choice::Choice;
use ground::{Ground, Outcome, apart};
use kinds::{KINDS, Kind};

/// Set in the process that has its own namespaces.
const APART: &str = "HULL_FAULTS_APART";
/// Exit code of hull's own failures.
const FAILED: i32 = 125;
/// Places at which Linux is disturbed: each takes 15 to 20 s in an emulated test host, and a test has 300 s.
const FEW: usize = 10;

/// What there is before the command that is disturbed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Empty,
    Images,
    /// The images, and what the command leaves when it has run once.
    Used,
}

/// A command to disturb.
struct Case {
    arguments: Vec<String>,
    /// Where it begins.
    store: Store,
    /// Exit code, and a word of its output, when nothing is wrong.
    expected: (i32, &'static str),
    /// Exit codes of the same command a second time.
    again: &'static [i32],
    /// Whose calls fail.
    programs: &'static [&'static str],
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root"]
fn a_pull_survives_failing_calls() -> Result<()> {
    disturb("a_pull_survives_failing_calls", |ground| Case {
        arguments: words(&format!("pull {}", ground.registry.reference())),
        store: Store::Empty,
        expected: (0, ""),
        again: &[0],
        programs: &["hull"],
    })
}

#[test]
#[ignore = "needs root"]
fn an_import_survives_failing_calls() -> Result<()> {
    disturb("an_import_survives_failing_calls", |ground| Case {
        arguments: words(&format!("import {} app", ground.archive())),
        store: Store::Empty,
        expected: (0, ""),
        again: &[0],
        programs: &["hull"],
    })
}

#[test]
#[ignore = "needs root"]
fn a_list_survives_failing_calls() -> Result<()> {
    disturb("a_list_survives_failing_calls", |_| Case {
        arguments: words("images"),
        store: Store::Images,
        expected: (0, "app"),
        again: &[0],
        programs: &["hull"],
    })
}

#[test]
#[ignore = "needs root"]
fn a_removal_survives_failing_calls() -> Result<()> {
    disturb("a_removal_survives_failing_calls", |_| Case {
        arguments: words("rmi app"),
        store: Store::Images,
        expected: (0, ""),
        // It may be gone already.
        again: &[0, 1],
        programs: &["hull"],
    })
}

#[test]
#[ignore = "needs root"]
fn a_native_container_survives_failing_calls() -> Result<()> {
    disturb("a_native_container_survives_failing_calls", |_| Case {
        arguments: words("run --rm --isolation native --network none demo echo done"),
        store: Store::Images,
        expected: (0, "done"),
        again: &[0],
        programs: &["hull", "hull-monitor"],
    })
}

#[test]
#[ignore = "needs root"]
fn a_container_on_the_bridge_survives_failing_calls() -> Result<()> {
    disturb("a_container_on_the_bridge_survives_failing_calls", |_| {
        Case {
            arguments: words("run --rm --isolation native --network bridge demo echo done"),
            store: Store::Images,
            expected: (0, "done"),
            again: &[0],
            programs: &["hull-monitor"],
        }
    })
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_microvm_survives_failing_calls() -> Result<()> {
    disturb("a_microvm_survives_failing_calls", |ground| Case {
        arguments: words(&format!(
            "run --rm --network none --kernel {} demo true",
            ground.kernel()
        )),
        store: Store::Images,
        // The payload is no agent: it ends the VM.
        expected: (FAILED, "ended the VM with code 42"),
        again: &[FAILED],
        programs: &["hull", "hull-monitor", "hull-vmm"],
    })
}

/// What a VM with Linux inside is disturbed in, where there can be one.
fn linux(store: Store) -> Case {
    Case {
        arguments: words("run --rm --network none demo echo done"),
        store,
        expected: (0, "done"),
        again: &[0],
        programs: &["hull-monitor", "hull-vmm"],
    }
}

#[test]
fn the_making_of_a_template_survives_failing_calls() -> Result<()> {
    const TEST: &str = "the_making_of_a_template_survives_failing_calls";
    disturb_at_most(FEW, TEST, |_| linux(Store::Images))
}

#[test]
fn a_vm_from_a_template_survives_failing_calls() -> Result<()> {
    const TEST: &str = "a_vm_from_a_template_survives_failing_calls";
    disturb_at_most(FEW, TEST, |_| linux(Store::Used))
}

#[test]
#[ignore = "needs root"]
fn small_limits_are_told_and_leave_nothing() -> Result<()> {
    const TEST: &str = "small_limits_are_told_and_leave_nothing";
    if env::var_os(APART).is_none() {
        return apart(TEST);
    }
    let ground = Ground::new()?;
    let case = |arguments: String, store, word| Case {
        arguments: words(&arguments),
        store,
        expected: (0, word),
        again: &[0],
        programs: &[],
    };
    let native = "run --rm --isolation native --network none demo echo done".to_owned();
    let cases = [
        case(
            format!("pull {}", ground.registry.reference()),
            Store::Empty,
            "",
        ),
        case(format!("import {} app", ground.archive()), Store::Empty, ""),
        case(native, Store::Images, "done"),
    ];
    // With less memory than 32 MiB not even the first stack has room to grow.
    let limits = (3..24)
        .step_by(2)
        .map(|files| format!("--nofile={files}"))
        .chain([32, 40, 48, 64, 128].map(|mebibytes| format!("--as={}", mebibytes << 20)))
        .chain([1, 3, 30, 100, 200].map(|kibibytes| format!("--fsize={}", kibibytes << 10)))
        .chain([1].map(|processes| format!("--nproc={processes}")));
    let mut wrong = Vec::new();
    for limit in limits {
        for case in &cases {
            let root = ground.store(case.store)?;
            let wrapper = ["prlimit", &limit, "env", "--ignore-signal=XFSZ"];
            let outcome = ground.run_under(&wrapper, &root, &case.arguments, None)?;
            if let Err(error) = limited(case, &outcome).and(repaired(&ground, case, &root)) {
                let (command, said) = (&case.arguments[0], outcome.stderr.trim_end());
                println!("WRONG {limit} {command}: {error:#}\n    stderr: {said}");
                wrong.push(format!("{limit} {command}: {error:#}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
#[ignore = "needs root"]
fn output_that_cannot_be_written_is_an_error() -> Result<()> {
    let hull = tests::Hull::new()?;
    let full = std::fs::File::options().write(true).open("/dev/full")?;
    let output = hull
        .command([
            "run",
            "--rm",
            "--isolation",
            "native",
            "--network",
            "none",
            "demo",
            "echo",
            "lost",
        ])
        .stdout(full)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(FAILED)
            && stderr.contains("cannot pass the container's output on: No space left on device"),
        "{}: {stderr}",
        output.status
    );
    hull.expect_nothing_left()
}

/// As [`bearable`], for a command that may not even have been loaded.
fn limited(case: &Case, outcome: &Outcome) -> Result<()> {
    let loaders = [
        "error while loading shared libraries",
        "failed to map segment",
    ];
    let unloaded = loaders.iter().any(|word| outcome.stderr.contains(word));
    if unloaded && outcome.traced.code() == 127 && outcome.traced.hung.is_none() {
        return Ok(());
    }
    let memory = KINDS.iter().find(|kind| kind.name == "memory");
    bearable(case, memory.expect("it is in the table"), outcome)
}

/// Counts, then disturbs each place that is chosen.
fn disturb(test: &str, case: impl FnOnce(&Ground) -> Case) -> Result<()> {
    disturb_at_most(usize::MAX, test, case)
}

/// The same in at most so many places, unless the sweep is full.
fn disturb_at_most(most: usize, test: &str, case: impl FnOnce(&Ground) -> Case) -> Result<()> {
    if env::var_os(APART).is_none() {
        return apart(test);
    }
    let ground = Ground::new()?;
    let case = case(&ground);
    if case.store == Store::Used {
        ground.use_images(&case.arguments)?;
    }
    let root = ground.store(case.store)?;
    let quiet = ground.run(&root, &case.arguments, None)?;
    as_expected(&case, &quiet)?;
    ground.expect_sound(&root)?;
    let (mut tried, mut fired, mut failed) = (0, 0, 0);
    let mut wrong = Vec::new();
    for (kind, fault) in Choice::new().faults(&case, &quiet, most) {
        let root = ground.store(case.store)?;
        let outcome = ground.run(&root, &case.arguments, Some(&fault))?;
        tried += 1;
        fired += u32::from(outcome.traced.fired);
        failed += u32::from(as_expected(&case, &outcome).is_err());
        let bearable = bearable(&case, kind, &outcome);
        if let Err(error) = bearable.and(repaired(&ground, &case, &root)) {
            let what = format!(
                "{}: {} {}, {:?}: {error:#}\n    stderr: {}",
                fault.program,
                kind.name,
                fault.nth,
                fault.effect,
                outcome.stderr.trim_end()
            );
            println!("WRONG {what}");
            wrong.push(what);
        }
    }
    println!(
        "{test}: {tried} disturbances, {fired} met, {failed} made it fail, {} wrongly",
        wrong.len()
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn as_expected(case: &Case, outcome: &Outcome) -> Result<()> {
    let (code, word) = case.expected;
    let said = outcome.stdout.contains(word) || outcome.stderr.contains(word);
    ensure!(
        outcome.traced.code() == code && said && outcome.traced.crashed.is_empty(),
        "undisturbed, it ends with {}: {}{} {:?}",
        outcome.traced.code(),
        outcome.stdout,
        outcome.stderr,
        outcome.traced.crashed
    );
    Ok(())
}

/// Whether a command that was disturbed ended as one may.
fn bearable(case: &Case, kind: &Kind, outcome: &Outcome) -> Result<()> {
    let traced = &outcome.traced;
    if let Some(stood) = &traced.hung {
        bail!("it hangs:{stood}");
    }
    let code = traced.code();
    let memory = kind.name == "memory";
    // A program without memory aborts, whether it is its own or the standard library's for a thread.
    let words = ["memory allocation of", "alternative stack"];
    if memory && words.iter().any(|word| outcome.stderr.contains(word)) {
        return Ok(());
    }
    // As for any command whose execution fails.
    if code == 126 && outcome.stderr.contains("cannot execute") {
        return Ok(());
    }
    if !memory {
        ensure!(traced.crashed.is_empty(), "crashes: {:?}", traced.crashed);
    }
    if code == case.expected.0 && code == 0 {
        let word = case.expected.1;
        ensure!(
            outcome.stdout.contains(word),
            "it succeeds without {word:?}"
        );
        return Ok(());
    }
    // What cannot be set up in hull-vmm ends it, and the reason is passed on.
    let panics = outcome.stderr.contains("panicked");
    ensure!(
        !panics || outcome.stderr.contains("hull-vmm failed"),
        "it panics"
    );
    ensure!(
        code == FAILED || code == case.expected.0 || code == 1,
        "it ends with {code} {:?}",
        traced.crashed
    );
    let reasons: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| line.starts_with("hull: "))
        .collect();
    ensure!(!reasons.is_empty(), "no reason is given");
    Ok(())
}

/// Whether the same command succeeds now, and nothing is left of the one that was disturbed.
fn repaired(ground: &Ground, case: &Case, root: &std::path::Path) -> Result<()> {
    let again = ground.run(root, &case.arguments, None)?;
    let code = again.traced.code();
    ensure!(
        case.again.contains(&code) && again.traced.hung.is_none(),
        "the next command ends with {code}: {}",
        again.stderr.trim_end()
    );
    ground.expect_sound(root)
}
