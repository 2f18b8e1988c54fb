//! `cargo xtask soak`: long suites, in one test host or on this machine, where that can run them.
//!
//! | Kind | What must hold |
//! |---|---|
//! | `mixed` | what the machine holds is flat under an hour of mixed load |
//! | `kills` | after `kill -9` of any process at any moment, `ps` and `inspect` are true, nothing leaks, nothing is undone |
//! | `output` | no line of short containers and execs is lost or doubled, all codes are right, logs survive a flood |

mod load;
mod mixed;
mod sample;

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tests::Isolation;
use tests::kills::{self, Report};
use tests::output;

use crate::dist;
use crate::place::Place;

/// What is soaked, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What is done
    #[arg(long, value_enum, default_value_t = Kind::Mixed)]
    kind: Kind,
    /// How long mixed load takes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// What containers run in, but for mixed load; native ones run on this machine, as root
    #[arg(long, value_enum, default_value_t = In::Vm)]
    isolation: In,
    /// Processes to kill, or containers to run and twenty times as many execs
    #[arg(long, default_value_t = 500)]
    count: u64,
    /// Kills follow from it: a failure can be repeated
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first round of kills
    #[arg(long, default_value_t = 0)]
    round: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Mixed,
    Kills,
    Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum In {
    Vm,
    Native,
}

/// Builds hull, and runs [`inside`] where that can run.
pub(crate) fn soak(options: &Options) -> Result<()> {
    dist::build(false)?;
    let own = std::env::current_exe()?;
    let own = own.to_str().context("a path is not UTF-8")?.to_owned();
    let verb = "soak-inside".to_owned();
    // What follows `soak`.
    let rest = std::env::args().skip(2);
    let argv: Vec<String> = [own, verb].into_iter().chain(rest).collect();
    let place = match options.isolation {
        In::Native if options.kind != Kind::Mixed => Place::Here,
        _ => Place::find()?,
    };
    match place.run(&argv)? {
        0 => Ok(()),
        code => bail!("the soak failed with code {code}"),
    }
}

/// The soak itself, on the machine where the containers are.
pub(crate) fn inside(options: &Options) -> Result<()> {
    let isolation = match options.isolation {
        In::Vm => Isolation::Vm,
        In::Native => Isolation::Native,
    };
    match options.kind {
        Kind::Mixed => mixed::inside(options.minutes),
        Kind::Kills => kill(&kills::Options {
            isolation,
            seed: options.seed,
            first_round: options.round,
            kills: options.count,
        }),
        Kind::Output => output::run(isolation, options.count, &mut |line| println!("{line}")),
    }
}

fn kill(options: &kills::Options) -> Result<()> {
    let start = Instant::now();
    let seconds = || start.elapsed().as_secs();
    let report = kills::run(options, |report: &Report| {
        if let Some(last) = report.failures.last().filter(|_| report.has_just_failed) {
            println!("{last}");
        }
        // A round takes seconds natively, and minutes in emulated VMs.
        if options.isolation == Isolation::Vm || report.rounds.is_multiple_of(10) {
            println!("{:>5} s  {report}", seconds());
        }
    })?;
    println!("{:>5} s  {report}", seconds());
    match report.failures.len() {
        0 => Ok(()),
        failed => bail!("{failed} of {} rounds failed", report.rounds),
    }
}
