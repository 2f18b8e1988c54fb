//! The same steps in containers of several kinds, timed in the containers (/proc/uptime, to 10 ms).

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::sample::spread;

/// A script that does the steps, and tells the time before the first and after each.
pub(crate) fn script(before: &str, steps: &[String], after: &str) -> String {
    let tell = "cut -d' ' -f1 /proc/uptime";
    let steps: String = steps
        .iter()
        .map(|step| format!("{step}; {tell}; "))
        .collect();
    format!("set -e; {before}{tell}; {steps}{after}")
}

/// What each step took, of each of `N` kinds.
#[derive(Debug)]
pub(crate) struct Times<const N: usize> {
    names: &'static [&'static str],
    /// By step and kind, in ms.
    taken: BTreeMap<(usize, usize), Vec<f64>>,
}

impl<const N: usize> Times<N> {
    /// Of steps with these names.
    pub(crate) fn new(names: &'static [&'static str]) -> Times<N> {
        Times {
            names,
            taken: BTreeMap::new(),
        }
    }

    /// Takes the times that a script tells, which `exec` runs in `container`, of this kind.
    pub(crate) fn take(&mut self, kind: usize, container: &str, exec: &mut Command) -> Result<()> {
        let output = exec.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("the steps failed in {container}: {}", errors.trim());
        }
        let text = String::from_utf8(output.stdout)?;
        let stamps: Vec<f64> = text
            .lines()
            .map(|line| line.parse().with_context(|| format!("{line:?} is no time")))
            .collect::<Result<_>>()?;
        ensure!(
            stamps.len() == self.names.len() + 1,
            "{container} told {} times",
            stamps.len()
        );
        for (step, pair) in stamps.windows(2).enumerate() {
            let taken = (pair[1] - pair[0]) * 1e3;
            self.taken.entry((step, kind)).or_default().push(taken);
        }
        Ok(())
    }

    /// Prints medians, and those of the other kinds in times of the first.
    pub(crate) fn print(&self, kinds: [&str; N]) {
        print!("{:16}{:>10}", "", kinds[0]);
        kinds[1..].iter().for_each(|kind| print!("{kind:>20}"));
        println!();
        for (step, name) in self.names.iter().enumerate() {
            let median = |kind| {
                let taken = self.taken.get(&(step, kind));
                taken.map_or(0.0, |taken| spread(taken).median)
            };
            let first = median(0);
            print!("{name:16}{first:>10.0}");
            for kind in 1..N {
                let time = median(kind);
                // Less than the clock's step is taken for that.
                let ratio = format!("{time:.0} {:8.1}", time / first.max(10.0));
                print!("{ratio:>20}");
            }
            println!();
        }
    }
}
