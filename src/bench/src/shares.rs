//! `hull bench shares`: small files and large ones in a directory of the host and in a volume of a VM, beside a native
//! container on the same file system.
//!
//! Each container does the same steps, one container after the other, as often as asked. Times are read in the container
//! (/proc/uptime, to 10 ms): the host's way to it does not count.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::is_root;
use crate::sample::succeed;
use crate::steps::{self, Times};

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
    let mut times = Times::<3>::new(&STEPS);
    for _ in 0..options.runs {
        for (number, kind) in KINDS.into_iter().enumerate() {
            let container = kind.container();
            let mut exec = hull()?;
            exec.args(["exec", &container, "sh", "-c", &script]);
            times.take(number, &container, &mut exec)?;
        }
    }
    println!(
        "\n{} files of some bytes, and one of {} MiB: medians of {} runs, in ms; in native times",
        options.files, options.mib, options.runs
    );
    times.print(KINDS.map(Kind::name));
    Ok(())
}

/// Does the steps, and tells the time before the first and after each.
fn script(options: Options) -> String {
    let Options { files, mib, .. } = options;
    let steps: [&str; STEPS.len()] = [
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
    let before = format!("cd {PLACE}; rm -rf small big; mkdir small; cd small; ");
    steps::script(&before, &steps.map(str::to_owned), "rm big")
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
