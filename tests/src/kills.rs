//! `kill -9` at random points of `hull`, both processes of a monitor and the machine (docs/lifecycle.md).
//!
//! A round makes two containers, acts on them as a user would, and kills a process at a random moment of most acts.
//! After each act everything that tells the state of a container must agree, and nothing that a command has reported may
//! be undone; at its end, all containers are removed, and nothing may be left of them. A round follows from a seed and
//! its number, so that one that fails can be run again: the moments of its kills are shares of what an act takes.

mod belief;
mod plan;
mod round;
mod stage;
mod world;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use crate::Isolation;
use plan::{Plan, Victim};
use round::Round;
use stage::Stage;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What containers run in.
    pub isolation: Isolation,
    /// Everything follows from it.
    pub seed: u64,
    /// The first round.
    pub first_round: u64,
    /// Rounds are begun until so many processes have been killed.
    pub kills: u64,
}

/// What was done, and what was wrong.
#[derive(Debug, Default)]
pub struct Report {
    /// Rounds.
    pub rounds: u64,
    /// Commands.
    pub acts: u64,
    /// Processes killed, by their part.
    pub kills: BTreeMap<&'static str, u64>,
    /// Rounds that failed: what was seen, and the schedule.
    pub failures: Vec<String>,
    /// The last round did.
    pub has_just_failed: bool,
}

impl Report {
    /// All kills.
    pub fn killed(&self) -> u64 {
        self.kills.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { rounds, acts, .. } = self;
        write!(
            f,
            "{rounds} rounds, {acts} commands, {} kills",
            self.killed()
        )?;
        for (victim, count) in &self.kills {
            write!(f, ", {count} of {victim}")?;
        }
        write!(f, "; {} rounds failed", self.failures.len())
    }
}

/// Rounds until enough was killed; `told` is called after each.
pub fn run(options: &Options, mut told: impl FnMut(&Report)) -> Result<Report> {
    let mut report = Report::default();
    let mut stage = Stage::new(options.isolation)?;
    let mut number = options.first_round;
    while report.killed() < options.kills {
        let plan = Plan::new(options.seed, number);
        let mut round = Round::new(&mut stage, &plan);
        let outcome = round.play(&mut report);
        report.rounds += 1;
        report.has_just_failed = outcome.is_err();
        if let Err(error) = outcome {
            let schedule = round.schedule(options.seed, number);
            report.failures.push(format!("{error:#}\n{schedule}"));
            // What is wrong with this store is not to be told again.
            stage = Stage::new(options.isolation)?;
        }
        told(&report);
        number += 1;
    }
    Ok(report)
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Victim::Command => "hull",
            Victim::Warden => "warden",
            Victim::Speaker => "speaker",
            Victim::Machine => "machine",
        }
    }
}
