//! `hull bench exec`: a process in a container that runs, and a container in a pod that runs, beside crun's.

use std::process::Command;

use anyhow::{Result, bail};
use engine::install::{self, Installation};
use engine::options::Pull;

use crate::sample::{Until, time};
use crate::table::{print_table, ratio, row};
use crate::{bundle, sample};

/// What runs for as long as the benchmark takes.
const IDLE: [&str; 2] = ["sleep", "100000"];

/// Removed at the end, whatever comes between.
struct Running {
    program: &'static str,
    removal: Vec<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // What stays behind after a failure is told by the failure before it.
        let _ = command(self.program, &self.removal).output();
    }
}

/// Measures and prints.
pub(crate) fn run(runs: u32, native: bool) -> Result<()> {
    if !crate::is_root() {
        bail!("bench exec compares with crun as root; run it as root");
    }
    let installation = Installation::find()?;
    let store = engine::images::open_store(&install::state_root()?)?;
    let image = engine::images::resolve(&store, &installation, "demo", Pull::Missing, &())?;
    let folder = tempfile::tempdir()?;
    bundle::make(&image, folder.path(), &IDLE)?;
    let bundle = folder.path().to_string_lossy().into_owned();
    let short = tempfile::tempdir()?;
    bundle::make(&image, short.path(), &["true"])?;
    let short = short.path().to_string_lossy().into_owned();
    let name = format!("hull-bench-{}", std::process::id());
    let isolation = if native { "native" } else { "vm" };

    let options = [
        "run",
        "-d",
        "--network",
        "none",
        "--isolation",
        isolation,
        "--name",
    ];
    let _hull = start(
        "hull",
        &[&options[..], &[&name, "demo"], &IDLE].concat(),
        &["rm", "-f", &name],
    )?;
    let _crun = start(
        "crun",
        &["run", "-d", "--bundle", &bundle, &name],
        &["delete", "-f", &name],
    )?;
    let ours = row("hull exec", runs, || end("hull", &["exec", &name, "true"]))?;
    let theirs = row("crun exec", runs, || end("crun", &["exec", &name, "true"]))?;
    let rows = [ours, theirs];
    print_table(
        &format!("`true` in a container that runs ({isolation}), to the command's end"),
        &rows,
    );
    ratio(&rows[0], &rows[1], "hull, in crun's");
    if native {
        return Ok(());
    }

    let pod = format!("{name}-pod");
    let _pod = start("hull", &["pod", "create", &pod], &["pod", "rm", "-f", &pod])?;
    sample::succeed(&mut command("hull", &["pod", "start", &pod]))?;
    let isolation = format!("pod:{pod}");
    let run = ["run", "--rm", "--isolation", &isolation, "demo", "true"];
    // Once, so that its layers are in the VM.
    end("hull", &run)?;
    let other = format!("{name}-2");
    let ours = row("hull run in a pod", runs, || end("hull", &run))?;
    let theirs = row("crun run", runs, || {
        end("crun", &["run", "--bundle", &short, &other])
    })?;
    let rows = [ours, theirs];
    print_table(
        "another container of `true` in a pod that runs, to the command's end",
        &rows,
    );
    ratio(&rows[0], &rows[1], "hull, in crun's");
    Ok(())
}

fn start(program: &'static str, arguments: &[&str], removal: &[&str]) -> Result<Running> {
    let running = Running {
        program,
        removal: removal.iter().map(|&word| word.to_owned()).collect(),
    };
    sample::succeed(&mut command(program, arguments))?;
    Ok(running)
}

fn end(program: &str, arguments: &[&str]) -> Result<f64> {
    Ok(time(&mut command(program, arguments), Until::End)?.as_secs_f64() * 1e3)
}

/// `hull` is this program.
fn command(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = match (program, std::env::current_exe()) {
        ("hull", Ok(own)) => Command::new(own),
        _ => Command::new(program),
    };
    command.args(arguments);
    command
}
