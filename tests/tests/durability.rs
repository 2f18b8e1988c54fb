//! Short forms of `cargo xtask soak`: processes killed at any moment, and short commands whose every line counts.

use anyhow::Result;
use tests::{Isolation, kills, output};

/// Everything follows from it; another is tried by `cargo xtask soak --kind kills --seed N`.
const SEED: u64 = 3;

fn kill(isolation: Isolation, kills: u64) -> Result<()> {
    let options = kills::Options {
        isolation,
        seed: SEED,
        first_round: 0,
        kills,
    };
    let report = kills::run(&options, |_| {})?;
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
    Ok(())
}

#[test]
fn nothing_is_undone_or_left_when_processes_of_native_containers_are_killed() -> Result<()> {
    kill(Isolation::Native, 25)
}

#[test]
fn nothing_is_undone_or_left_when_processes_of_vms_are_killed() -> Result<()> {
    kill(Isolation::Vm, 6)
}

#[test]
fn no_line_of_short_native_containers_is_lost_or_doubled() -> Result<()> {
    output::run(Isolation::Native, 10, &mut |line| println!("{line}"))
}
