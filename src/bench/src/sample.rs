//! Times of runs.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What is waited for in a command's standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until<'a> {
    /// Its first byte; then the command must end well.
    FirstByte,
    /// A line that contains this; then the command is killed.
    Line(&'a str),
    /// Its end, which must be a good one.
    End,
}

/// Runs a command, from its start until what is waited for is there.
pub(crate) fn time(command: &mut Command, until: Until<'_>) -> Result<Duration> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let mut output = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
    let elapsed = match until {
        Until::FirstByte => {
            let there = output.read(&mut [0])? > 0;
            let elapsed = start.elapsed();
            output.read_to_end(&mut Vec::new())?;
            expect_success(child, command)?;
            if !there {
                bail!("{command:?} wrote nothing");
            }
            elapsed
        }
        Until::End => {
            output.read_to_end(&mut Vec::new())?;
            expect_success(child, command)?;
            start.elapsed()
        }
        Until::Line(text) => {
            let elapsed = loop {
                let mut line = Vec::new();
                if output.read_until(b'\n', &mut line)? == 0 {
                    child.kill()?;
                    bail!(
                        "{command:?} ended without the line {text:?}: {}",
                        errors(child)?
                    );
                }
                if String::from_utf8_lossy(&line).contains(text) {
                    break start.elapsed();
                }
            };
            child.kill()?;
            child.wait()?;
            elapsed
        }
    };
    Ok(elapsed)
}

/// Runs a command that must end well, and may leave processes behind. Its errors are shown as they come.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

fn expect_success(mut child: Child, command: &Command) -> Result<()> {
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?} ended with {status}: {}", errors(child)?);
    }
    Ok(())
}

fn errors(mut child: Child) -> Result<String> {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text)?;
    }
    child.wait()?;
    Ok(text.trim().to_owned())
}

/// The middle of some values, and their range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// Of at least one value.
pub(crate) fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    };
    Spread {
        median,
        least: sorted[0],
        most: sorted[sorted.len() - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Spread {
                median: 2.0,
                least: 1.0,
                most: 3.0
            }
        );
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn a_command_is_timed_to_its_output_and_its_failure_is_an_error() {
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        assert!(
            time(&mut shell("echo x; sleep 0.3"), Until::FirstByte).unwrap()
                < Duration::from_millis(300)
        );
        assert!(time(&mut shell("echo x; exit 3"), Until::FirstByte).is_err());
        assert!(
            time(
                &mut shell("echo a; echo the b; sleep 1000"),
                Until::Line("b")
            )
            .is_ok()
        );
        assert!(time(&mut shell("echo a >&2"), Until::Line("b")).is_err());
    }
}
