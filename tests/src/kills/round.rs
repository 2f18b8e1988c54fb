//! A round: acts, kills, and what must hold after each.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Report;
use super::belief::{Belief, Done, Known};
use super::plan::{Act, Blow, Plan, Step, Victim};
use super::stage::{NAMES, Stage, expect_success, words_of};
use super::world::{self, Holdings, Seen};

/// Between two looks at a command, or at what is not settled yet.
const PAUSE: Duration = Duration::from_millis(1);

/// A round that is being played.
pub(super) struct Round<'a> {
    stage: &'a mut Stage,
    plan: &'a Plan,
    beliefs: [Belief; 2],
    seen: Vec<Option<Seen>>,
    /// What each act came to.
    told: Vec<String>,
}

/// How a command ended.
struct Performed {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    done: Done,
    took: Duration,
}

impl Round<'_> {
    pub(super) fn new<'a>(stage: &'a mut Stage, plan: &'a Plan) -> Round<'a> {
        Round {
            stage,
            plan,
            beliefs: plan.policies.map(Belief::absent),
            seen: vec![None; NAMES.len()],
            told: Vec::new(),
        }
    }

    pub(super) fn play(&mut self, report: &mut Report) -> Result<()> {
        let plan = self.plan;
        for step in &plan.steps {
            let performed = self.perform(step).with_context(|| step.to_string())?;
            report.acts += 1;
            if let Some(victim) = performed.done.struck {
                *report.kills.entry(victim.name()).or_default() += 1;
            }
            self.told.push(performed.to_string());
            self.judge(step, &performed)
                .with_context(|| step.to_string())?;
            self.settle().with_context(|| step.to_string())?;
            self.look_at_the_end(step, &performed)
                .with_context(|| step.to_string())?;
        }
        self.clear()
    }

    /// Runs a step's command, and kills its victim when it is time.
    fn perform(&mut self, step: &Step) -> Result<Performed> {
        let Step {
            act,
            container,
            blow,
        } = *step;
        let words = self
            .stage
            .words(act, container, self.plan.policies[container]);
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let start = Instant::now();
        let mut child = self
            .stage
            .hull
            .command(&words)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()?;
        let usual = self.stage.usual.get(&act).copied().unwrap_or_default();
        let due = |blow: Blow| usual * blow.at_permille / 1000;
        let mut done = Done {
            acknowledged: false,
            struck: None,
            late: false,
        };
        let status = loop {
            if let Some(blow) = blow
                && done.struck.is_none()
                && start.elapsed() >= due(blow)
                && self.strike(blow.victim, Pid::from_child(&child), container)?
            {
                done.struck = Some(blow.victim);
            }
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if start.elapsed() > self.stage.patience() {
                child.kill()?;
                child.wait()?;
                bail!("hull {} hangs", words.join(" "));
            }
            std::thread::sleep(PAUSE);
        };
        let took = start.elapsed();
        if let Some(blow) = blow
            && done.struck.is_none()
            && blow.victim != Victim::Command
        {
            std::thread::sleep(due(blow).saturating_sub(took));
            if self.strike(blow.victim, Pid::INIT, container)? {
                (done.struck, done.late) = (Some(blow.victim), true);
            }
        }
        let code = status.code();
        done.acknowledged = code == Some(if act == Act::Exec { 7 } else { 0 });
        if status.signal().is_some() && done.struck != Some(Victim::Command) {
            bail!("hull {} ended with {status}", words.join(" "));
        }
        Ok(Performed {
            code,
            stdout: text(&mut stdout)?,
            stderr: text(&mut stderr)?,
            done,
            took,
        })
    }

    /// Kills the victim, if it is there.
    fn strike(&self, victim: Victim, command: Pid, container: usize) -> Result<bool> {
        if victim == Victim::Command {
            kill_process(command, Signal::KILL)?;
            return Ok(true);
        }
        let others = self
            .seen
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != container);
        let others: Vec<String> = others
            .filter_map(|(_, seen)| Some(seen.as_ref()?.id.clone()))
            .collect();
        let found = world::find(&self.stage.hull, victim, &others)?;
        Ok(found.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()))
    }

    /// Whether a command's answer fits what is known, and what is known after it.
    fn judge(&mut self, step: &Step, performed: &Performed) -> Result<()> {
        let Step { act, container, .. } = *step;
        let done = performed.done;
        let answer = || format!("code {:?}: {}", performed.code, performed.stderr.trim_end());
        if (done.struck.is_none() || done.late)
            && let Some(right) = self.beliefs[container].verdict(act)
        {
            ensure!(done.acknowledged == right, "{}", answer());
        }
        if act == Act::Exec {
            ensure!(
                performed.code != Some(0),
                "an exec that failed: {}",
                answer()
            );
            if done.acknowledged {
                ensure!(
                    performed.stdout == "said\n",
                    "an exec said {:?}",
                    performed.stdout
                );
            }
        }
        if done.struck.is_none() && done.acknowledged {
            let usual = self.stage.usual.entry(act).or_insert(performed.took);
            // Slowly, so that one slow command does not move all kills.
            *usual = (*usual * 7 + performed.took) / 8;
        }
        for (index, belief) in self.beliefs.iter_mut().enumerate() {
            if index == container || act == Act::Prune {
                let others = Done {
                    struck: done
                        .struck
                        .filter(|victim| index == container || *victim == Victim::Command),
                    ..done
                };
                *belief = belief.after(act, others);
            }
        }
        Ok(())
    }

    /// Waits until everything that tells the state of a container agrees, and compares it with what is known.
    fn settle(&mut self) -> Result<()> {
        let names = NAMES.map(str::to_owned);
        let start = Instant::now();
        let seen = loop {
            let outcome = world::look(&self.stage.hull, &names).and_then(|seen| {
                self.compare(&seen)?;
                Ok(seen)
            });
            match outcome {
                Ok(seen) => break seen,
                Err(error) if start.elapsed() > self.stage.patience() => {
                    return Err(error.context("it does not settle"));
                }
                Err(_) => std::thread::sleep(PAUSE * 20),
            }
        };
        for (belief, seen) in self.beliefs.iter_mut().zip(&seen) {
            belief.exists = Known::from(seen.is_some());
            belief.runs = Known::from(seen.as_ref().is_some_and(Seen::is_alive));
            self.stage
                .ids
                .extend(seen.as_ref().map(|seen| seen.id.clone()));
        }
        self.seen = seen;
        Ok(())
    }

    fn compare(&self, seen: &[Option<Seen>]) -> Result<()> {
        for ((name, belief), seen) in NAMES.iter().zip(&self.beliefs).zip(seen) {
            let runs = seen.as_ref().is_some_and(Seen::is_alive);
            let contradicts = belief.exists.contradicts(seen.is_some())
                || (seen.is_some() && belief.runs.contradicts(runs));
            ensure!(
                !contradicts,
                "{name}: {belief:?} was reported, {seen:?} is seen"
            );
        }
        Ok(())
    }

    /// Whether the record of an end is true and its last words are in the log.
    fn look_at_the_end(&self, step: &Step, performed: &Performed) -> Result<()> {
        let (name, done) = (NAMES[step.container], performed.done);
        let Some(seen) = self.seen[step.container]
            .as_ref()
            .filter(|seen| !seen.is_alive())
        else {
            return Ok(());
        };
        if done.late
            && matches!(
                step.act,
                Act::Exec | Act::Logs | Act::Run | Act::Start | Act::Restart
            )
        {
            let right = match done.struck {
                Some(Victim::Warden) => 255,
                _ => 137,
            };
            ensure!(
                seen.code == right && !seen.error.is_empty(),
                "{seen:?} instead of {right}"
            );
        }
        if seen.status != "exited" {
            return Ok(());
        }
        let waited = self.stage.hull.run(["wait", name])?;
        ensure!(
            waited.stdout() == seen.code.to_string(),
            "wait says {:?} of {seen:?}",
            waited.stdout()
        );
        if seen.code == 7 {
            let logs = self.stage.hull.run(["logs", name])?.stdout();
            ensure!(
                logs.ends_with("bye"),
                "its last words are not in the log: {logs:?}"
            );
        }
        Ok(())
    }

    /// Removes both containers; nothing of them may be left.
    fn clear(&mut self) -> Result<()> {
        for (name, seen) in NAMES.iter().zip(&self.seen) {
            if seen.is_some() {
                expect_success(self.stage, &words_of(&["rm", "-f", name]))?;
            }
        }
        self.beliefs = self.plan.policies.map(Belief::absent);
        self.settle().context("all were removed")?;
        let Some(empty) = self.stage.empty.clone() else {
            return Ok(());
        };
        let start = Instant::now();
        loop {
            // Commands sweep what killed ones have left.
            expect_success(self.stage, &words_of(&["container", "prune", "-f"]))?;
            let left = Holdings::of(&self.stage.hull, &self.stage.ids)?.beyond(&empty);
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > self.stage.patience() {
                bail!("this is left: {left:#?}");
            }
            std::thread::sleep(PAUSE * 20);
        }
    }

    /// What was done up to the failure.
    pub(super) fn schedule(&self, seed: u64, number: u64) -> String {
        let mut text = format!(
            "seed {seed}, round {number}, policies {:?}, as {}:\n",
            self.plan.policies,
            self.stage.hull.root().display()
        );
        for (index, step) in self.plan.steps.iter().take(self.told.len() + 1).enumerate() {
            let usual = self.stage.usual.get(&step.act).copied().unwrap_or_default();
            let came = self.told.get(index).map_or("", String::as_str);
            writeln!(text, "  {step} ({usual:.1?} as a rule): {came}").expect("text takes all");
        }
        text
    }
}

impl fmt::Display for Performed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "code {code}")?,
            None => write!(f, "killed")?,
        }
        write!(f, " after {:.1?}", self.took)?;
        match self.done {
            Done { struck: None, .. } => {}
            Done { late: true, .. } => write!(f, ", killed after it")?,
            Done { .. } => write!(f, ", killed during it")?,
        }
        match self.stderr.lines().next() {
            Some(line) => write!(f, " ({line})"),
            None => Ok(()),
        }
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
