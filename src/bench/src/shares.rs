//! `hull bench shares`: small files and large ones in a directory of the host and in a volume of a VM, beside a native
//! container on the same file system.
//!
//! Each container does the same steps, one container after the other, as often as asked. Times are read in the container
//! (/proc/uptime, to 10 ms): the host's way to it does not count.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::is_root;
use crate::sample::{spread, succeed};

/// What containers, the directory and volumes are called, in part.
const PREFIX: &str = "hull-bench-shares";
/// Where each container has what is measured.
const PLACE: &str = "/share";
/// The steps, which end with their names; the script follows.
const STEPS: [&str; 9] = [
    "create",
    "ls -l",
    "ls -l again",
    "find",
    "read",
    "rm -rf",
    "write",
    "read it",
    "read it again",
];

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) files: u32,
    pub(crate) mib: u32,
    pub(crate) runs: u32,
}

/// What is compared, the first with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Native,
    Directory,
    Volume,
}

const KINDS: [Kind; 3] = [Kind::Native, Kind::Directory, Kind::Volume];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Directory => "directory",
            Self::Volume => "volume",
        }
    }

    fn container(self) -> String {
        format!("{PREFIX}-{}-{}", std::process::id(), self.name())
    }
}

/// Measures and prints; removes its containers and volumes in any case.
pub(crate) fn run(options: Options) -> Result<()> {
    ensure!(
        is_root(),
        "native containers and directories of the host in VMs are for root: run it as root"
    );
    let directory = std::env::temp_dir().join(Kind::Directory.container());
    std::fs::create_dir(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let measured = measure(options, &directory.to_string_lossy());
    let mut remove = hull()?;
    remove.args(["rm", "-f"]).args(KINDS.map(Kind::container));
    let removed = succeed(&mut remove);
    let volumes = [Kind::Native, Kind::Volume].map(Kind::container);
    let volumes = succeed(hull()?.args(["volume", "rm", "-f"]).args(volumes));
    let directory = std::fs::remove_dir_all(&directory).context("the directory is left");
    measured.and(removed).and(volumes).and(directory)
}

fn measure(options: Options, directory: &str) -> Result<()> {
    for kind in KINDS {
        let source = match kind {
            Kind::Directory => directory.to_owned(),
            Kind::Native | Kind::Volume => kind.container(),
        };
        let mut command = hull()?;
        command.args([
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            &kind.container(),
        ]);
        if kind == Kind::Native {
            command.args(["--isolation", "native"]);
        }
        command.args(["-v", &format!("{source}:{PLACE}")]);
        succeed(command.args(["demo", "sleep", "1000000"]))?;
    }
    let script = script(options);
    let mut times: BTreeMap<(usize, Kind), Vec<f64>> = BTreeMap::new();
    for _ in 0..options.runs {
        for kind in KINDS {
            let stamps = stamps(kind, &script)?;
            for (step, pair) in stamps.windows(2).enumerate() {
                let taken = (pair[1] - pair[0]) * 1e3;
                times.entry((step, kind)).or_default().push(taken);
            }
        }
    }
    println!(
        "\n{} files of some bytes, and one of {} MiB: medians of {} runs, in ms; in native times",
        options.files, options.mib, options.runs
    );
    println!(
        "{:16}{:>10}{:>20}{:>20}",
        "", "native", "directory", "volume"
    );
    for (step, name) in STEPS.iter().enumerate() {
        let median = |kind| {
            times
                .get(&(step, kind))
                .map_or(0.0, |times| spread(times).median)
        };
        let [native, directory, volume] = KINDS.map(median);
        // Less than the clock's step is taken for that.
        let ratio = |time: f64| format!("{time:.0} {:8.1}", time / native.max(10.0));
        println!(
            "{name:16}{native:>10.0}{:>20}{:>20}",
            ratio(directory),
            ratio(volume)
        );
    }
    Ok(())
}

/// Does the steps, and tells the time before the first and after each.
fn script(options: Options) -> String {
    let Options { files, mib, .. } = options;
    let steps = [
        &*format!("i=0; while [ $i -lt {files} ]; do echo $i > f$i; i=$((i+1)); done"),
        "ls -l > /dev/null",
        "ls -l > /dev/null",
        "find . > /dev/null",
        "cat f* > /dev/null",
        "cd ..; rm -rf small",
        &format!("dd if=/dev/zero of=big bs=1M count={mib} 2> /dev/null"),
        "dd if=big of=/dev/null bs=1M 2> /dev/null",
        "dd if=big of=/dev/null bs=1M 2> /dev/null",
    ];
    debug_assert_eq!(steps.len(), STEPS.len());
    let tell = "cut -d' ' -f1 /proc/uptime";
    let steps: String = steps
        .iter()
        .map(|step| format!("{step}; {tell}; "))
        .collect();
    format!("set -e; cd {PLACE}; rm -rf small big; mkdir small; cd small; {tell}; {steps}rm big")
}

/// The times, in seconds, that the script tells.
fn stamps(kind: Kind, script: &str) -> Result<Vec<f64>> {
    let container = kind.container();
    let output = hull()?
        .args(["exec", &container, "sh", "-c", script])
        .stdin(Stdio::null())
        .output()?;
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
        stamps.len() == STEPS.len() + 1,
        "{container} told {} times",
        stamps.len()
    );
    Ok(stamps)
}

fn hull() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_tells_the_time_before_and_after_each_step() {
        let script = script(Options {
            files: 7,
            mib: 3,
            runs: 1,
        });
        assert_eq!(script.matches("/proc/uptime").count(), STEPS.len() + 1);
        assert!(script.contains("-lt 7 ]") && script.contains("count=3"));
    }
}
