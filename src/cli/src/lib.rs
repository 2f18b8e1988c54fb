//! The command line: arguments in, words and exit codes out.
//!
//! Invariants: every string of the user's is parsed here; an error is printed once, as what was attempted, on what,
//! why, and what to do. Deliberately absent: anything that a container needs (that is `engine`).

use std::io::Write;
use std::process::ExitCode;

mod commands;
mod completion;
mod containers;
mod doctor;
mod events;
mod format;
mod grammar;
mod images;
mod machine;
mod man;
mod networks;
mod not_built;
mod output;
mod pods;
mod progress;
mod prune;
mod run_args;
mod serve;
mod service;
mod session;
mod system;
mod timing;
mod top;
mod usage;
mod volumes;

pub use commands::command;
use commands::{Hull, execute, failure_code};

/// Exit code of hull's own failures, as Docker's.
const FAILED: u8 = 125;

/// Runs hull, with `started` (T0) on the clock of DESIGN.md.
pub fn main() -> ExitCode {
    let started = engine::clock::monotonic_ns();
    log_if_asked();
    let hull: Hull = match grammar::parse(std::env::args_os().collect::<Vec<_>>()) {
        Ok(hull) => hull,
        Err(error) => return refused(&error),
    };
    let code = failure_code(&hull.command);
    match execute(hull.command, started) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(code)
        }
    }
}

/// What clap says, with Docker's exit code for wrong usage.
fn refused(error: &clap::Error) -> ExitCode {
    // There is no reader to tell that standard output or error is closed.
    let _ = error.print();
    ExitCode::from(usage::code(error))
}

/// Prints an error and its causes as one line.
fn complain(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Transparent errors repeat what they hold.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    say(&text);
}

/// A line of hull's own, told apart from the container's by its beginning.
fn say(text: &str) {
    err(&format!("hull: {}\n", printable(text)));
}

/// Text that cannot drive a terminal: parts of errors are what a guest, an image or a registry has said.
fn printable(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(replace).collect()
}

fn err(text: &str) {
    // Standard error may be closed on purpose.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // `hull images | head -1` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// `HULL_LOG=debug` (tracing's filter) logs to standard error.
fn log_if_asked() {
    if let Ok(filter) = std::env::var("HULL_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(std::io::stderr)
            .init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_say_cannot_drive_a_terminal() {
        assert_eq!(
            printable("a\x1b[2J\u{9b}1m\r\n\tb"),
            "a\u{fffd}[2J\u{fffd}1m\u{fffd}\n\tb"
        );
    }
}
