//! `exec`: a further process in a running container.

use std::path::PathBuf;

use clap::Args;
use engine::Engine;
use engine::exec::{self, ExecOptions, NewExec};
use engine::protocol::agent::{Failure, FailureKind};

use super::failed;
use crate::run_args::variables;
use crate::say;
use crate::session::{self, End, Manner};
use values::lifecycle::{self, DetachKeys};

/// Execute a command in a running container
#[derive(Debug, Args)]
#[command(override_usage = "hull exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
pub(crate) struct ExecArgs {
    /// Execute it in the background
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; NAME alone passes the host's value on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User name or number, looked up inside the container
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// All capabilities, and no seccomp profile
    #[arg(long)]
    privileged: bool,
    /// Keys that detach from the process, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS", value_parser = lifecycle::detach_keys)]
    detach_keys: Option<DetachKeys>,
    /// The container
    container: String,
    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// `hull exec`.
pub(crate) fn exec(args: ExecArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let attached = !args.detach;
    let input = args.interactive && attached;
    if input && args.tty && !session::terminal::input_is_terminal() {
        anyhow::bail!("the input device is not a TTY");
    }
    let container = match engine.container(&args.container) {
        Ok(container) => container,
        Err(error) => return Ok(first_code(failed(error))),
    };
    let options = ExecOptions {
        command: args.command,
        env: variables(&args.env_file, &args.env)?,
        user: args.user,
        workdir: args.workdir,
        privileged: args.privileged,
        terminal: args
            .tty
            .then(|| session::terminal::size().unwrap_or_default()),
        stdin: args.interactive,
        attach: [input, attached, attached && !args.tty],
    };
    let new = NewExec::new(exec::prepare(&container.config, &options)?);
    let signals = session::take_signals()?;
    let mut session = match engine.exec(&container, new) {
        Ok(session) => session,
        Err(error) => return Ok(first_code(failed(error))),
    };
    if args.detach {
        return loop {
            match session.next() {
                Ok(engine::session::Event::Started { .. }) => break Ok(0),
                Ok(engine::session::Event::Failed(failure)) => {
                    break Ok(not_executed(failure));
                }
                Ok(_) => {}
                Err(error) => break Ok(failed(error)),
            }
        };
    }
    let manner = Manner {
        input,
        terminal: args.tty,
        // As Docker: signals end the command here, and its terminal passes on what is typed.
        sig_proxy: false,
        detach_keys: args.detach_keys.unwrap_or_default(),
        measure: false,
        started: false,
    };
    match session::stay(&mut session, signals, manner)? {
        End::Exited { exit, .. } => {
            if let Some(error) = &exit.error {
                say(error);
            }
            Ok(session::code(&exit))
        }
        End::Failed(failure) => Ok(not_executed(failure)),
        End::Interrupted(signal) => Ok(128 + u8::try_from(signal).unwrap_or(0)),
        End::Detached => Ok(0),
    }
}

/// Prints why a process was not executed; Docker's code, which is 126 where it is not 127.
fn not_executed(failure: Failure) -> u8 {
    const NOT_EXECUTED: u8 = 126;
    let is_state = failure.kind == FailureKind::WrongState;
    match failed(engine::Error::Failure(failure)) {
        crate::FAILED if is_state => 1,
        crate::FAILED => NOT_EXECUTED,
        other => other,
    }
}

/// Docker's code where the container itself is the trouble is 1.
fn first_code(code: u8) -> u8 {
    match code {
        crate::FAILED => 1,
        other => other,
    }
}
