//! What `run` and `create` have in common.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use engine::options::{Attach, Options, Pull, Variable};
use engine::protocol::record::RestartPolicy;

use super::CreateRequest;
use super::health::HealthArgs;
use super::machine::MachineArgs;
use super::mounts::MountArgs;
use super::names::NameArgs;
use super::network::NetworkArgs;
use super::resources::ResourceArgs;
use super::security::SecurityArgs;
use crate::not_built::NotBuilt;
use values::lifecycle::{self, Stream};
use values::{OrDefault, environment, or_default, value};

/// The arguments that make a container.
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Attach to stdin, stdout or stderr alone
    #[arg(short, long, value_name = "STREAM", value_parser = lifecycle::stream)]
    attach: Vec<Stream>,
    /// Remove the container at its end
    #[arg(long)]
    rm: bool,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Write the container's identifier to a file
    #[arg(long, value_name = "FILE", value_parser = clap::value_parser!(OsString))]
    cidfile: Option<OsString>,
    /// Start it again at its end: no, on-failure[:TIMES], always or unless-stopped [default: no]
    #[arg(long, value_name = "POLICY", value_parser = lifecycle::restart)]
    restart: Option<RestartPolicy>,
    /// Signal that asks the container to stop [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = or_default(lifecycle::signal))]
    stop_signal: Option<OrDefault<i32>>,
    /// Seconds from that signal to KILL; negative waits without limit [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    stop_timeout: Option<i64>,
    /// Run a small init that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Set an environment variable; NAME alone passes the host's value on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = environment::label)]
    label: Vec<(String, String)>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an annotation of the OCI document
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = environment::annotation)]
    annotation: Vec<(String, String)>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Replace the image's entrypoint; "" means none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Where its output is kept: json-file, or none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// How it is kept: max-size=SIZE, max-file=COUNT
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value_t = PullWhen::Missing, value_name = "WHEN")]
    pull: PullWhen,
    /// Show nothing of a pull
    #[arg(short, long)]
    quiet: bool,
    /// Platform of the image: linux/amd64 is the only one
    #[arg(long, value_name = "PLATFORM", value_parser = values::machine::platform)]
    platform: Option<String>,
    /// Accepted; has no effect, since no signatures of images are verified
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = values::boolean)]
    disable_content_trust: Option<bool>,
    #[command(flatten)]
    names: NameArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    resources: ResourceArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    mounts: MountArgs,
    #[command(flatten)]
    security: SecurityArgs,
    #[command(flatten)]
    health: HealthArgs,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    #[command(flatten)]
    not_built: NotBuilt,
    /// The image
    #[arg(value_name = "IMAGE", required = true)]
    image: String,
    /// The command and its arguments, instead of the image's
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// When to ask the registry.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PullWhen {
    /// When the image is not here
    Missing,
    /// Each time
    Always,
    /// Not at all
    Never,
}

impl ContainerArgs {
    /// What is asked for by a command that stays with the container, or does not.
    pub(super) fn request(self, detached: bool) -> anyhow::Result<CreateRequest> {
        if let Some(refusal) = self.not_built.refusal {
            anyhow::bail!(refusal);
        }
        if self.disable_content_trust == Some(false) {
            anyhow::bail!(
                "--disable-content-trust=false: hull cannot verify Docker Content Trust's signatures"
            );
        }
        if detached && !self.attach.is_empty() {
            anyhow::bail!("--attach and --detach exclude each other");
        }
        let mut options = Options {
            image: self.image,
            command: self.command,
            interactive: self.interactive,
            terminal: self.tty,
            attach: attach(&self.attach, self.interactive, detached),
            name: given(self.name),
            labels: labels(&self.label_file, self.label)?,
            annotations: self.annotation.into_iter().collect(),
            env: variables(&self.env_file, &self.env)?,
            workdir: given(self.workdir),
            entrypoint: self.entrypoint.map(|word| vec![word]),
            auto_remove: self.rm,
            restart: self.restart.unwrap_or_default(),
            stop_signal: value(self.stop_signal),
            stop_timeout_s: self.stop_timeout,
            init: self.init,
            log: lifecycle::log(self.log_driver.as_deref(), &self.log_opt)?,
            health: self.health.options(),
            pull: match self.pull {
                PullWhen::Missing => Pull::Missing,
                PullWhen::Always => Pull::Always,
                PullWhen::Never => Pull::Never,
            },
            ..Options::default()
        };
        self.names.set(&mut options);
        self.network.set(&mut options)?;
        self.resources.set(&mut options);
        self.mounts.set(&mut options);
        self.security.set(&mut options)?;
        self.machine.set(&mut options, environment::of_host)?;
        Ok(CreateRequest {
            options,
            cid_file: self
                .cidfile
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            quiet: self.quiet,
        })
    }
}

/// An empty word is Docker's for an option that is left out.
pub(super) fn given(word: Option<String>) -> Option<String> {
    word.filter(|word| !word.is_empty())
}

/// Docker's rule: without -a stdout and stderr; with -i stdin in any case.
fn attach(streams: &[Stream], interactive: bool, detached: bool) -> Attach {
    if detached {
        return Attach::default();
    }
    let named = |stream| streams.contains(&stream);
    Attach {
        stdin: interactive || named(Stream::Stdin),
        stdout: streams.is_empty() || named(Stream::Stdout),
        stderr: streams.is_empty() || named(Stream::Stderr),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Files first, so that `-e` wins.
pub(crate) fn variables(files: &[PathBuf], variables: &[String]) -> anyhow::Result<Vec<Variable>> {
    let mut env = Vec::new();
    for path in files {
        let of_file = environment::env_file(&read(path)?, environment::of_host)
            .with_context(|| format!("{} is not an --env-file", path.display()))?;
        env.extend(of_file);
    }
    for text in variables {
        env.push(environment::variable(text, environment::of_host)?);
    }
    Ok(env)
}

/// Files first, so that `-l` wins.
fn labels(
    files: &[PathBuf],
    labels: Vec<(String, String)>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for path in files {
        let of_file = environment::label_file(&read(path)?)
            .with_context(|| format!("{} is not a --label-file", path.display()))?;
        all.extend(of_file);
    }
    all.extend(labels);
    Ok(all)
}
