//! `hull run`'s arguments, and what the engine makes of them.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use engine::options::{Boot, Isolation, Network, Options, Pull, Tmpfs, Ulimit, Variable};
use engine::size::MilliCpus;

use crate::not_built::NotBuilt;
use crate::values::{self, SecurityOption};

/// Run a command in a new container, in a virtual machine of its own
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "hull run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "\
Examples:
  hull run --rm demo echo hello            say hello from a VM of its own
  hull run -it debian:12                   a shell in Debian
  hull run -i alpine sha256sum < file      standard input goes in, binary-safe
  hull run --timing demo true              show where the time goes

The container is removed at its end, with or without --rm. The exit code is the command's own; 125 when hull \
itself failed, 126 when the command cannot be executed, 127 when it is not found, 128+n when signal n ended it."
)]
pub(crate) struct RunArgs {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container at its end (in this version it always is)
    #[arg(long)]
    rm: bool,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Set an environment variable; NAME alone passes the host's value on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User name or number, looked up inside the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Replace the image's entrypoint; "" means none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Memory that the container may use [default: 512m]
    #[arg(short, long, value_name = "SIZE", value_parser = values::size)]
    memory: Option<u64>,
    /// CPUs that the container may use, fractions included [default: one vCPU]
    #[arg(long, value_name = "NUMBER", value_parser = values::cpus)]
    cpus: Option<MilliCpus>,
    /// Mount the container's root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = values::tmpfs)]
    tmpfs: Vec<Tmpfs>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// All capabilities and the VM's devices, nothing hidden: inside the VM, which stays between it and the host
    #[arg(long)]
    privileged: bool,
    /// no-new-privileges, seccomp=FILE, seccomp=unconfined or systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Set a resource limit
    #[arg(long, value_name = "TYPE=SOFT[:HARD]", value_parser = values::ulimit)]
    ulimit: Vec<Ulimit>,
    /// Run a small init that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value_t = PullWhen::Missing, value_name = "WHEN")]
    pull: PullWhen,
    /// Network: none, or bridge (root only) [default: bridge for root, else none]
    #[arg(long, alias = "net", value_enum, value_name = "NETWORK")]
    network: Option<NetworkMode>,
    /// What stands between the container and the host
    #[arg(long, value_enum, default_value_t = IsolationMode::Vm, value_name = "KIND")]
    isolation: IsolationMode,
    /// How the VM begins: from a template, which the first run of its shape makes, or by booting a kernel
    /// [default: template, but kernel with --kernel or --console]
    #[arg(long, value_enum, value_name = "WAY")]
    boot: Option<BootWay>,
    /// Boot this guest kernel (vmlinux or bzImage)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Show the guest kernel's log on standard error
    #[arg(long)]
    console: bool,
    /// Show where the time and the memory went, on standard error
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    timing: Option<TimingFormat>,
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

/// A network.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum NetworkMode {
    /// Loopback alone
    None,
    /// Hull's bridge with NAT
    Bridge,
}

/// An isolation.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum IsolationMode {
    /// A virtual machine of its own
    Vm,
    /// The host kernel's namespaces, no VM
    Native,
}

/// A way to begin.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum BootWay {
    /// Where a VM of this shape was saved
    Template,
    /// With a kernel
    Kernel,
}

/// How `--timing` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimingFormat {
    /// For people
    Text,
    /// For machines, one line
    Json,
}

impl RunArgs {
    /// How to print what was measured.
    pub(crate) fn timing(&self) -> Option<TimingFormat> {
        self.timing
    }

    /// What the engine is asked for.
    pub(crate) fn options(self) -> anyhow::Result<Options> {
        if let Some(option) = self.not_built.used {
            anyhow::bail!("{option} is not built yet; `hull run --help` lists what is");
        }
        let env = environment(&self.env_file, &self.env)?;
        let mut options = Options {
            image: self.image,
            command: self.command,
            interactive: self.interactive,
            terminal: self.tty,
            name: self.name,
            env,
            workdir: self.workdir,
            user: self.user,
            entrypoint: self.entrypoint,
            hostname: self.hostname,
            memory_bytes: self.memory,
            cpus: self.cpus,
            read_only: self.read_only,
            tmpfs: self.tmpfs,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            privileged: self.privileged,
            ulimits: self.ulimit,
            init: self.init,
            pull: match self.pull {
                PullWhen::Missing => Pull::Missing,
                PullWhen::Always => Pull::Always,
                PullWhen::Never => Pull::Never,
            },
            network: self.network.map(|network| match network {
                NetworkMode::None => Network::None,
                NetworkMode::Bridge => Network::Bridge,
            }),
            isolation: match self.isolation {
                IsolationMode::Vm => Isolation::Vm,
                IsolationMode::Native => Isolation::Native,
            },
            boot: self.boot.map(|way| match way {
                BootWay::Template => Boot::Template,
                BootWay::Kernel => Boot::Kernel,
            }),
            kernel: self.kernel,
            console: self.console,
            measure: self.timing.is_some(),
            ..Options::default()
        };
        for text in &self.security_opt {
            match values::security_option(text)? {
                SecurityOption::NoNewPrivileges(on) => options.no_new_privileges = on,
                SecurityOption::Seccomp(choice) => options.seccomp = choice,
                SecurityOption::Unmasked => options.unmasked = true,
                SecurityOption::Nothing => {}
            }
        }
        Ok(options)
    }
}

/// Files first, so that `-e` wins.
fn environment(files: &[PathBuf], variables: &[String]) -> anyhow::Result<Vec<Variable>> {
    let host = |name: &str| std::env::var(name).ok();
    let mut env = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let of_file = values::env_file(&text, host)
            .with_context(|| format!("{} is not an --env-file", path.display()))?;
        env.extend(of_file);
    }
    for text in variables {
        env.push(values::variable(text, host)?);
    }
    Ok(env)
}

#[cfg(test)]
#[path = "run_args/tests.rs"]
mod tests;
