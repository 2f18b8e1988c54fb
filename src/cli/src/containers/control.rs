//! Commands that change what containers do: stop, restart, kill, wait, rm, rename, pause and unpause.

use clap::Args;
use engine::{Engine, Remove, Stop, WaitCondition};

use super::each;
use crate::{complain, out};

/// Stop containers: their stop signal, and SIGKILL when their time is over
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Signal to send, instead of the container's own
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<i32>,
    /// Seconds to wait before SIGKILL; -1 waits without limit
    #[arg(
        short,
        long,
        alias = "timeout",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    time: Option<i64>,
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Send containers a signal
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: i32,
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Remove containers
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill them if they run
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too, unless others use them
    #[arg(short, long)]
    volumes: bool,
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Give a container another name
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// The container
    container: String,
    /// Its new name
    name: String,
}

/// Containers of a command that takes nothing else
#[derive(Debug, Args)]
pub(crate) struct Containers {
    /// Containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

fn signal(text: &str) -> Result<i32, values::lifecycle::Error> {
    values::lifecycle::signal(text)?
        .ok_or_else(|| values::lifecycle::Error::Signal(text.to_owned()))
}

impl StopArgs {
    fn how(&self) -> Stop {
        Stop {
            signal: self.signal,
            timeout_s: self.time,
        }
    }
}

/// `hull stop`.
pub(crate) fn stop(args: StopArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    each(&args.containers, |container| {
        engine.stop(container, args.how()).map(drop)
    })
}

/// `hull restart`.
pub(crate) fn restart(args: StopArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    each(&args.containers, |container| {
        engine.restart(container, args.how())
    })
}

/// `hull kill`.
pub(crate) fn kill(args: KillArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    each(&args.containers, |container| {
        engine.kill(container, args.signal)
    })
}

/// `hull wait`.
pub(crate) fn wait(args: Containers) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let mut code = 0;
    for container in &args.containers {
        match engine.wait(container, WaitCondition::NotRunning) {
            Ok(ended) => out(&format!("{}\n", ended.code))?,
            Err(error) => {
                complain(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

/// `hull rm`.
pub(crate) fn rm(args: RmArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    let how = Remove {
        force: args.force,
        volumes: args.volumes,
    };
    let mut code = 0;
    for container in &args.containers {
        match engine.remove(container, how) {
            Ok(()) => out(&format!("{container}\n"))?,
            Err(error) => {
                // What is not there need not be removed by force.
                if !args.force || error.kind() != engine::Kind::NotFound {
                    code = 1;
                }
                complain(&error.into());
            }
        }
    }
    Ok(code)
}

/// `hull rename`.
pub(crate) fn rename(args: RenameArgs) -> anyhow::Result<u8> {
    Engine::find()?.rename(&args.container, &args.name)?;
    Ok(0)
}

/// `hull pause`.
pub(crate) fn pause(args: Containers) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    each(&args.containers, |container| engine.pause(container))
}

/// `hull unpause`.
pub(crate) fn unpause(args: Containers) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    each(&args.containers, |container| engine.unpause(container))
}
