//! The arguments of `hull run` and `hull create`, and what the engine makes of them.
//!
//! - [`ContainerArgs`]: what both have; its parts are in the modules below.
//! - [`RunArgs`]: what only a command has that starts the container and may stay with it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use engine::options::Options;

use values::lifecycle::{self, DetachKeys};

mod container;
mod health;
mod machine;
mod mounts;
mod names;
mod network;
mod resources;
mod security;

use container::ContainerArgs;
pub(crate) use container::variables;
pub(crate) use machine::default_isolation;
pub(crate) use network::PlaceArgs;

/// Run a command in a new container, in a virtual machine of its own
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "hull run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "\
Examples:
  hull run --rm demo echo hello            say hello from a VM of its own
  hull run -it debian:12                   a shell in Debian
  hull run -d --name web --restart always nginx
  hull run -i alpine sha256sum < file      standard input goes in, binary-safe
  hull run --timing demo true              show where the time goes

The exit code is the command's own; 125 when hull itself failed, 126 when the command cannot be executed, 127 when it \
is not found, 128+n when signal n ended it."
)]
pub(crate) struct RunArgs {
    /// Run the container in the background and print its identifier
    #[arg(short, long)]
    detach: bool,
    /// Keys that detach from the container, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS", value_parser = lifecycle::detach_keys)]
    detach_keys: Option<DetachKeys>,
    /// Pass signals on to the container's process (--sig-proxy=false does not) [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean)]
    sig_proxy: Option<bool>,
    /// Show where the time and the memory went, on standard error
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    timing: Option<TimingFormat>,
    #[command(flatten)]
    container: ContainerArgs,
}

/// Make a new container without starting it, and print its identifier
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "hull create [OPTIONS] IMAGE [COMMAND] [ARG...]"
)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    container: ContainerArgs,
}

/// How `--timing` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimingFormat {
    /// For people
    Text,
    /// For machines, one line
    Json,
}

/// A container to make, and what the command does around that.
#[derive(Debug)]
pub(crate) struct CreateRequest {
    /// What the engine is asked for. `console_size` is for the caller to fill in, which knows its terminal.
    pub(crate) options: Options,
    /// Where to write the container's identifier: a file that must not exist.
    pub(crate) cid_file: Option<PathBuf>,
    /// Show nothing of a pull.
    pub(crate) quiet: bool,
}

/// A container to make and start, and how to stay with it.
#[derive(Debug)]
pub(crate) struct RunRequest {
    /// The container.
    pub(crate) create: CreateRequest,
    /// Do not stay with it.
    pub(crate) detach: bool,
    /// The keys by which the terminal detaches.
    pub(crate) detach_keys: DetachKeys,
    /// Pass signals on.
    pub(crate) sig_proxy: bool,
    /// Print what was measured.
    pub(crate) timing: Option<TimingFormat>,
}

impl CreateArgs {
    /// What is asked for.
    pub(crate) fn request(self) -> anyhow::Result<CreateRequest> {
        self.container.request(false)
    }
}

impl RunArgs {
    /// What is asked for.
    pub(crate) fn request(self) -> anyhow::Result<RunRequest> {
        let mut create = self.container.request(self.detach)?;
        create.options.measure = self.timing.is_some();
        if self.detach && create.options.measure {
            anyhow::bail!("--timing measures a run to its end, so it excludes --detach");
        }
        Ok(RunRequest {
            create,
            detach: self.detach,
            detach_keys: self.detach_keys.unwrap_or_default(),
            sig_proxy: self.sig_proxy.unwrap_or(true),
            timing: self.timing,
        })
    }
}

#[cfg(test)]
mod tests;
