//! The command line: arguments in, words and exit codes out.
//!
//! Invariants: every string of the user's is parsed here; an error is printed once, as what was attempted, on what,
//! why, and what to do. Deliberately absent: anything that a container needs (that is `engine`).

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod containers;
mod doctor;
mod grammar;
mod images;
mod not_built;
mod progress;
mod run_args;
mod session;
mod table;
mod timing;
mod values;

use containers::control::{Containers, KillArgs, RenameArgs, RmArgs, StopArgs};
use containers::exec::ExecArgs;
use containers::run::{AttachArgs, StartArgs};
use run_args::{CreateArgs, RunArgs};

/// Exit code of hull's own failures, as Docker's.
const FAILED: u8 = 125;

/// Containers, each in a virtual machine of its own
#[derive(Debug, Parser)]
#[command(
    name = "hull",
    version,
    propagate_version = false,
    max_term_width = 100
)]
struct Hull {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(StartArgs),
    Attach(AttachArgs),
    Exec(ExecArgs),
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(StopArgs),
    Kill(KillArgs),
    /// Wait until containers have ended, and print their codes
    Wait(Containers),
    Rm(RmArgs),
    Rename(RenameArgs),
    /// Freeze all processes of containers
    Pause(Containers),
    /// Let frozen containers go on
    Unpause(Containers),
    Pull(images::PullArgs),
    Import(images::ImportArgs),
    Images(images::ImagesArgs),
    Rmi(images::RmiArgs),
    Doctor(doctor::DoctorArgs),
    /// Measure hull beside other ways to run the same container
    Bench {
        /// What to measure
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Show hull's version and build
    Version,
}

/// Runs hull, with `started` (T0) on the clock of DESIGN.md.
pub fn main() -> ExitCode {
    let started = engine::clock::monotonic_ns();
    log_if_asked();
    let hull: Hull = match grammar::parse(std::env::args_os().collect::<Vec<_>>()) {
        Ok(hull) => hull,
        Err(error) => return refused(&error),
    };
    match execute(hull.command, started) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn execute(command: Command, started: u64) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => Ok(containers::run::run(*args, started)),
        Command::Create(args) => containers::run::create(*args),
        Command::Start(args) => containers::run::start(args),
        Command::Attach(args) => containers::run::attach(args),
        Command::Exec(args) => containers::exec::exec(args),
        Command::Stop(args) => containers::control::stop(args),
        Command::Restart(args) => containers::control::restart(args),
        Command::Kill(args) => containers::control::kill(args),
        Command::Wait(args) => containers::control::wait(args),
        Command::Rm(args) => containers::control::rm(args),
        Command::Rename(args) => containers::control::rename(args),
        Command::Pause(args) => containers::control::pause(args),
        Command::Unpause(args) => containers::control::unpause(args),
        Command::Pull(args) => images::pull(args),
        Command::Import(args) => images::import(args),
        Command::Images(args) => images::list(args),
        Command::Rmi(args) => images::remove(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Bench { what } => bench::run(what).map(|()| 0),
        Command::Version => {
            out(&format!(
                "hull {} (build {})\n",
                env!("CARGO_PKG_VERSION"),
                engine::protocol::BUILD
            ))?;
            Ok(0)
        }
    }
}

/// What clap says, with Docker's exit code for wrong usage.
fn refused(error: &clap::Error) -> ExitCode {
    // A closed standard output or error has nobody to tell.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    }
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
    // Nobody who closes standard error wants to know.
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
