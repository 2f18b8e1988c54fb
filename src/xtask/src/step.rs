//! Running other programs: each step says what it is and how long it took, and a failure says what to look at.

use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Prints a step's name, does it, and prints how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {name}");
    let start = Instant::now();
    let result = work().with_context(|| name.to_string())?;
    eprintln!("    {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}

/// Runs a command with our own output; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_run(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command and gives back what it wrote to its standard output; its error output is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_run(command))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        bail!("`{}` ended with {status}: {}", line(command), stderr.trim());
    }
    Ok(stdout)
}

/// Whether a command can be run and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The first line of what a command prints, as text.
pub(crate) fn first_line(command: &mut Command) -> Result<String> {
    let text = String::from_utf8(output(command)?).context("the output is not UTF-8")?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}

fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

fn cannot_run(command: &Command) -> String {
    format!(
        "cannot run `{}` (resources/setup.sh installs what hull's build needs)",
        line(command)
    )
}
