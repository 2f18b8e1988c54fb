//! `run`, `create`, `start` and `attach`: making a container, starting it, and staying with it.

use clap::Args;
use engine::options::{Isolation, Options};
use engine::prepare;
use engine::protocol::agent::{Failure, FailureKind};
use engine::protocol::monitor::Exit;
use engine::protocol::timeline::Timeline;
use engine::{Engine, MakeError, images};

use super::{RUN_FAILED, failed, write_cid};
use crate::run_args::{CreateArgs, CreateRequest, RunArgs, RunRequest, TimingFormat};
use crate::session::{self, End, Manner};
use crate::timing::{self, Timing};
use crate::{complain, err, out, progress, say};
use values::lifecycle::{self, DetachKeys};

/// Start containers that do not run
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Attach to the container's output, and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input too
    #[arg(short, long)]
    interactive: bool,
    /// Keys that detach from the container, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS", value_parser = lifecycle::detach_keys)]
    detach_keys: Option<DetachKeys>,
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Attach to a running container's streams
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Keys that detach from the container, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS", value_parser = lifecycle::detach_keys)]
    detach_keys: Option<DetachKeys>,
    /// Do not attach to its input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to its process (--sig-proxy=false does not) [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean)]
    sig_proxy: Option<bool>,
    /// The container
    container: String,
}

/// `hull create`.
pub(crate) fn create(args: CreateArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let request = args.request()?;
    match make(&engine, request) {
        Ok(id) => {
            out(&format!("{id}\n"))?;
            Ok(0)
        }
        // As Docker: what is created has no code of its own yet that 125 would have to be told apart from.
        Err(error) => {
            told(error);
            Ok(1)
        }
    }
}

/// `hull run`, with `started` (T0) on the clock of DESIGN.md.
pub(crate) fn run(args: RunArgs, started: u64) -> u8 {
    match args.request().and_then(|request| try_run(request, started)) {
        Ok(code) => code,
        Err(error) => told(error),
    }
}

fn try_run(request: RunRequest, started: u64) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let RunRequest {
        create,
        detach,
        detach_keys,
        sig_proxy,
        timing,
    } = request;
    let options = create.options.clone();
    let attach = options.attach;
    let manner = Manner {
        input: options.interactive && attach.stdin,
        terminal: options.terminal,
        sig_proxy,
        detach_keys,
        measure: timing.is_some(),
        started: false,
    };
    if !detach && manner.input && manner.terminal && !session::terminal::input_is_terminal() {
        anyhow::bail!("the input device is not a TTY");
    }
    // From here on a signal is read by the session, which knows what is to be undone.
    let signals = session::take_signals()?;
    let id = make(&engine, create)?;
    if detach {
        return match engine.start(&id) {
            Ok(()) => {
                out(&format!("{id}\n"))?;
                Ok(0)
            }
            Err(error) => {
                let code = failed(error);
                forget(&engine, &id, &options);
                Ok(code)
            }
        };
    }
    let streams = [manner.input, attach.stdout, attach.stderr];
    let mut session = match engine.begin_start(&id, Some(streams)) {
        Ok(session) => session,
        Err(error) => {
            let code = failed(error);
            forget(&engine, &id, &options);
            return Ok(code);
        }
    };
    let end = match session::stay(&mut session, signals, manner) {
        Ok(end) => end,
        Err(error) => {
            session.leave();
            forget_unless_running(&engine, &id, &options);
            return Err(error.into());
        }
    };
    match end {
        End::Exited {
            exit,
            idle,
            first_output,
        } => {
            session.finish()?;
            if options.auto_remove {
                engine.reap_volumes()?;
            }
            report(&exit, &options);
            show_timing(&exit, idle.map(|idle| *idle), first_output, started, timing);
            Ok(session::code(&exit))
        }
        End::Failed(failure) => {
            session.finish()?;
            forget(&engine, &id, &options);
            Ok(failed(engine::Error::Failure(with_advice(
                failure, &options,
            ))))
        }
        End::Interrupted(signal) => {
            session.leave();
            give_up(&engine, &id, &options);
            Ok(128 + u8::try_from(signal).unwrap_or(0))
        }
        End::Detached => {
            session.leave();
            Ok(0)
        }
    }
}

/// `hull start`.
pub(crate) fn start(args: StartArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    if !args.attach && !args.interactive {
        return super::each(&args.containers, |container| engine.start(container));
    }
    let [container] = &args.containers[..] else {
        anyhow::bail!("you cannot start and attach multiple containers at once");
    };
    let stdio = engine.container(container)?.config.run.stdio;
    let manner = Manner {
        input: args.interactive,
        terminal: is_terminal(stdio),
        sig_proxy: true,
        detach_keys: args.detach_keys.unwrap_or_default(),
        measure: false,
        started: false,
    };
    let signals = session::take_signals()?;
    let mut session = engine.begin_start(container, Some([args.interactive, true, true]))?;
    let end = session::stay(&mut session, signals, manner)?;
    ended(end, session)
}

/// `hull attach`.
pub(crate) fn attach(args: AttachArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let stdio = engine.container(&args.container)?.config.run.stdio;
    let manner = Manner {
        input: !args.no_stdin,
        terminal: is_terminal(stdio),
        sig_proxy: args.sig_proxy.unwrap_or(true),
        detach_keys: args.detach_keys.unwrap_or_default(),
        measure: false,
        started: true,
    };
    let signals = session::take_signals()?;
    let mut session = engine.attach(&args.container, [!args.no_stdin, true, true])?;
    let end = session::stay(&mut session, signals, manner)?;
    ended(end, session)
}

fn ended(end: End, session: engine::session::Session<'_>) -> anyhow::Result<u8> {
    match end {
        End::Exited { exit, .. } => {
            session.finish()?;
            if let Some(error) = &exit.error {
                say(error);
            }
            Ok(session::code(&exit))
        }
        End::Failed(failure) => Ok(failed(engine::Error::Failure(failure))),
        End::Interrupted(signal) => Ok(128 + u8::try_from(signal).unwrap_or(0)),
        End::Detached => Ok(0),
    }
}

fn is_terminal(stdio: engine::protocol::record::Stdio) -> bool {
    matches!(stdio, engine::protocol::record::Stdio::Terminal { .. })
}

/// Makes the container, and returns its identifier.
fn make(engine: &Engine, request: CreateRequest) -> anyhow::Result<String> {
    let CreateRequest {
        mut options,
        cid_file,
        quiet,
    } = request;
    if let Some(path) = cid_file.as_deref().filter(|path| path.exists()) {
        anyhow::bail!(
            "the container identifier's file {} exists: remove it or name another one",
            path.display()
        );
    }
    options.console_size = session::terminal::size();
    let reporter = progress::Reporter::new();
    let progress: &dyn engine::image::Progress = match quiet {
        true => &(),
        false => &reporter,
    };
    let id = engine
        .make(&options, progress)
        .map_err(|error| match error {
            MakeError::Image(error) => anyhow::Error::from(error),
            MakeError::Prepare(error) => error.into(),
            MakeError::Engine(error) => error.into(),
        })?;
    if let Some(path) = cid_file {
        write_cid(&path, &id)?;
    }
    Ok(id)
}

/// A container that could not be started and is to be removed at its end is removed now.
fn forget(engine: &Engine, id: &str, options: &Options) {
    remove_at_end(engine, id, options, true);
}

/// The conversation with the container's monitor broke: a container that goes on is removed by its monitor, at its end.
fn forget_unless_running(engine: &Engine, id: &str, options: &Options) {
    remove_at_end(engine, id, options, false);
}

fn remove_at_end(engine: &Engine, id: &str, options: &Options, force: bool) {
    if options.auto_remove
        && let Err(error) = engine.remove(
            id,
            engine::Remove {
                force,
                volumes: true,
            },
        )
    {
        tracing::debug!(%error, "it runs, or was removed by its monitor");
    }
}

/// The user gave the run up: the container is not left running behind the user's back.
fn give_up(engine: &Engine, id: &str, options: &Options) {
    let how = engine::Stop {
        signal: Some(libc::SIGKILL),
        timeout_s: Some(0),
    };
    if let Err(error) = engine.stop(id, how) {
        tracing::debug!(%error, "it had ended before");
    }
    forget(engine, id, options);
}

/// What a person should know of an end.
fn report(exit: &Exit, options: &Options) {
    if exit.oom_killed {
        say("the container ran out of memory; give it more with -m");
    }
    if let Some(error) = &exit.error {
        let failure = Failure::new(FailureKind::Other, error.clone());
        say(&with_advice(failure, options).message);
        // With --console the lines have been shown as they came.
        if !exit.console.is_empty() && !options.console {
            say(&format!(
                "the guest's last words were:\n  {}",
                exit.console.join("\n  ")
            ));
        }
    }
}

/// The commonest cause of a guest that dies young is that it is too small.
fn with_advice(failure: Failure, options: &Options) -> Failure {
    const SMALL_BYTES: u64 = 64 << 20;
    let small = options.isolation == Isolation::Vm
        && options
            .memory_bytes
            .is_some_and(|bytes| bytes < SMALL_BYTES);
    if !small || !failure.message.starts_with("the guest") {
        return failure;
    }
    let (first, rest) = match failure.message.split_once('\n') {
        Some((first, rest)) => (first, format!("\n{rest}")),
        None => (failure.message.as_str(), String::new()),
    };
    Failure {
        message: format!("{first}; perhaps its memory is too little: try a larger -m{rest}"),
        ..failure
    }
}

fn show_timing(
    exit: &Exit,
    idle: Option<engine::protocol::monitor::Measured>,
    first_output: Option<u64>,
    started: u64,
    format: Option<TimingFormat>,
) {
    let (Some(format), Some(at_end)) = (format, &exit.measured) else {
        return;
    };
    let timing = Timing {
        timeline: Timeline {
            hull_started: Some(started),
            first_output,
            ..at_end.timeline
        },
        at_end: (**at_end).clone(),
        idle,
    };
    match format {
        TimingFormat::Text => err(&timing::text(&timing)),
        TimingFormat::Json => err(&format!("{}\n", timing::json(&timing))),
    }
}

/// Prints why a run failed; Docker's exit code for it.
fn told(error: anyhow::Error) -> u8 {
    match error.downcast::<engine::Error>() {
        Ok(error) => failed(error),
        Err(error) => {
            let help = error
                .downcast_ref::<images::Error>()
                .and_then(images::Error::help);
            let code = error
                .downcast_ref::<prepare::Error>()
                .map_or(RUN_FAILED, prepare::Error::exit_code);
            complain(&error);
            if let Some(help) = help {
                say(&help);
            }
            code
        }
    }
}
