//! `machine`: one long-lived pod for those who want a single Linux VM with many containers in it.

use clap::{Args, Subcommand};
use engine::{Engine, Kind, Stop};

use crate::containers::inspect::unless_absent;
use crate::{out, output, pods};

/// The pod's name.
const NAME: &str = "machine";
/// What the shell's container is made of, without a choice.
const IMAGE: &str = "demo";

/// One virtual machine that many containers share
#[derive(Debug, Subcommand)]
#[command(
    after_help = "The machine is the pod named machine: containers are put into it by --isolation pod:machine."
)]
pub(crate) enum MachineCommand {
    Start(StartArgs),
    Stop(StopArgs),
    Ssh(SshArgs),
    Info(InfoArgs),
}

/// Start the machine, and make it at the first time
#[derive(Debug, Args)]
#[command(
    after_help = "Its memory, CPUs and network are those of the first start; to change them, remove it: hull pod rm -f machine"
)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    shape: pods::Shape,
}

/// Stop the machine, with all containers in it
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds that each container has before SIGKILL; -1 is no limit
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
}

/// Open a shell in the machine
#[derive(Debug, Args)]
#[command(
    after_help = "The machine has no SSH server and no user land of its own: this runs a privileged container in it, which is removed at
its end. The shell sees the machine's kernel, devices and network; it does not see the files of other containers, nor
their processes."
)]
pub(crate) struct SshArgs {
    /// The image of the shell
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// What to run instead of a shell
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// Show what the machine is and what runs in it
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `hull machine`, with `started` (T0) on the clock of DESIGN.md.
pub(crate) fn machine(command: MachineCommand, started: u64) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    match command {
        MachineCommand::Start(args) => {
            if unless_absent(engine.pod(NAME))?.is_none() {
                pods::create(&engine, NAME, &args.shape.options())?;
            }
            engine.pod_start(NAME)?;
            out(&format!("{NAME}\n"))?;
            Ok(0)
        }
        MachineCommand::Stop(args) => {
            let how = Stop {
                signal: None,
                timeout_s: args.time,
            };
            engine.pod_stop(NAME, how).map_err(explained)?;
            out(&format!("{NAME}\n"))?;
            Ok(0)
        }
        MachineCommand::Ssh(args) => ssh(&engine, args, started),
        MachineCommand::Info(args) => info(&engine, &args),
    }
}

/// A machine that was never made is told how to be.
fn explained(error: engine::Error) -> anyhow::Error {
    match error.kind() {
        Kind::NotFound => anyhow::anyhow!("there is no machine: make it with `hull machine start`"),
        _ => error.into(),
    }
}

fn ssh(engine: &Engine, args: SshArgs, started: u64) -> anyhow::Result<u8> {
    if !engine.pod(NAME).map_err(explained)?.running {
        anyhow::bail!("the machine is not running: start it with `hull machine start`");
    }
    Ok(crate::containers::run::run(shell(&args)?, started))
}

/// The run that gives a shell.
fn shell(args: &SshArgs) -> anyhow::Result<crate::run_args::RunArgs> {
    use std::io::IsTerminal;
    let mut words = vec![
        "run",
        "--rm",
        "-i",
        "--privileged",
        "--isolation",
        "pod:machine",
    ];
    // A command whose input is a file or a pipe gets that.
    if std::io::stdin().is_terminal() {
        words.push("-t");
    }
    words.extend(["--", args.image.as_str()]);
    match args.command.is_empty() {
        true => words.push("/bin/sh"),
        false => words.extend(args.command.iter().map(String::as_str)),
    }
    let run: Run = crate::grammar::parse(
        words
            .iter()
            .map(std::ffi::OsString::from)
            .collect::<Vec<_>>(),
    )?;
    Ok(run.args)
}

#[derive(Debug, clap::Parser)]
struct Run {
    #[command(flatten)]
    args: crate::run_args::RunArgs,
}

fn info(engine: &Engine, args: &InfoArgs) -> anyhow::Result<u8> {
    let pod = engine.pod(NAME).map_err(explained)?;
    let document = pods::document(engine, &pod)?;
    let text = match output::document(args.format.as_deref(), &document)? {
        Some(text) => text,
        None => text(&document),
    };
    out(&text)?;
    Ok(0)
}

fn text(document: &serde_json::Value) -> String {
    let word = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let memory = document["Machine"]["MemoryMiB"].as_u64().unwrap_or(0);
    let containers = document["Containers"].as_array().map_or(0, Vec::len);
    format!(
        "Name:       {}\nStatus:     {}\nMemory:     {}\nCPUs:       {}\nNetwork:    {}\nContainers: {containers}\n",
        word(&document["Name"]),
        word(&document["Status"]),
        output::binary_size(memory << 20),
        word(&document["Machine"]["CPUs"]),
        word(&document["NetworkMode"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_is_a_privileged_container_of_the_machine() {
        let args = SshArgs {
            image: "demo".into(),
            command: vec!["-weird".into(), "x".into()],
        };
        let create = shell(&args).unwrap().request().unwrap().create;
        assert!(create.options.privileged && create.options.auto_remove);
        assert_eq!(
            create.options.isolation,
            engine::options::Isolation::Pod("machine".into())
        );
        assert_eq!(
            (
                create.options.image.as_str(),
                create.options.command.as_slice()
            ),
            ("demo", &["-weird".to_owned(), "x".to_owned()][..])
        );
    }

    #[test]
    fn the_machine_is_described_in_lines() {
        let document = serde_json::json!({
            "Name": "machine", "Status": "running", "NetworkMode": "bridge",
            "Machine": {"MemoryMiB": 2048, "CPUs": 2}, "Containers": [{}, {}],
        });
        assert_eq!(
            text(&document),
            "Name:       machine\nStatus:     running\nMemory:     2GiB\nCPUs:       2\nNetwork:    bridge\nContainers: 2\n"
        );
    }
}
