//! Where rounds are played: a store, how long acts take there, and what it holds without containers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Report;
use super::plan::{Act, Plan, Policy};
use super::round::Round;
use super::world::{self, Holdings};
use crate::{Hull, Isolation};

/// The container: says that it is up, and says goodbye when it is stopped.
const SCRIPT: &str = "trap 'echo bye; exit 7' TERM; echo up; sleep 100000 & wait";
/// What an exec does.
const EXEC: &str = "echo said; exit 7";
/// The containers of a round.
pub(super) const NAMES: [&str; 2] = ["zero", "one"];

/// A store, and what is known of the machine.
pub(super) struct Stage {
    pub(super) hull: Hull,
    pub(super) isolation: Isolation,
    /// How long each act takes undisturbed.
    pub(super) usual: BTreeMap<Act, Duration>,
    /// What the store holds without containers.
    pub(super) empty: Option<Holdings>,
    /// Containers that have been.
    pub(super) ids: BTreeSet<String>,
}

impl Stage {
    /// Plays one undisturbed round, to learn how long acts take and what is there without containers.
    pub(super) fn new(isolation: Isolation) -> Result<Stage> {
        let mut stage = Stage {
            hull: Hull::new()?,
            isolation,
            usual: BTreeMap::new(),
            empty: None,
            ids: BTreeSet::new(),
        };
        // Images are imported and templates made before anything is timed.
        for (container, name) in NAMES.into_iter().enumerate() {
            let words = stage.words(Act::Run, container, Policy::No);
            expect_success(&stage, &words)?;
            expect_success(&stage, &words_of(&["rm", "-f", name]))?;
        }
        let plan = Plan::undisturbed();
        Round::new(&mut stage, &plan)
            .play(&mut Report::default())
            .context("nothing was killed yet")?;
        stage.empty = Some(Holdings::of(&stage.hull, &stage.ids)?);
        Ok(stage)
    }

    /// Longer than any command or recovery takes.
    pub(super) fn patience(&self) -> Duration {
        match self.isolation {
            Isolation::Vm => Duration::from_secs(240),
            Isolation::Native => Duration::from_secs(30),
        }
    }

    /// What is typed for an act.
    pub(super) fn words(&self, act: Act, container: usize, policy: Policy) -> Vec<String> {
        let name = NAMES[container];
        let begin: &[&str] = match act {
            Act::Create => &["create"],
            Act::Run => &["run", "-d"],
            Act::Start => return words_of(&["start", name]),
            Act::Exec => return words_of(&["exec", name, "sh", "-c", EXEC]),
            Act::Logs => return words_of(&["logs", name]),
            Act::Stop => return words_of(&["stop", "-t", "2", name]),
            Act::Kill => return words_of(&["kill", name]),
            Act::Restart => return words_of(&["restart", "-t", "2", name]),
            Act::Remove => return words_of(&["rm", name]),
            Act::RemoveByForce => return words_of(&["rm", "-f", name]),
            Act::Prune => return words_of(&["container", "prune", "-f"]),
        };
        let isolation: &[&str] = match (self.isolation, container) {
            (Isolation::Native, _) => &["--isolation", "native", "--network", "none"],
            (Isolation::Vm, 0) => &["-m", "128m", "--network", "none"],
            (Isolation::Vm, _) => &["-m", "128m", "--network", "bridge"],
        };
        let mark = world::mark(&self.hull, name);
        let rest = [
            "--name",
            name,
            "--restart",
            policy.name(),
            "demo",
            "sh",
            "-c",
            SCRIPT,
            &mark,
        ];
        words_of(&[begin, isolation, &rest].concat())
    }
}

pub(super) fn words_of(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub(super) fn expect_success(stage: &Stage, words: &[String]) -> Result<()> {
    let outcome = stage.hull.run(words)?;
    ensure!(
        outcome.code() == Some(0),
        "hull {}: {}",
        words.join(" "),
        outcome.stderr()
    );
    Ok(())
}
