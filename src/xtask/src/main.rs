//! `cargo xtask`: one verb for each thing that is done to this tree. See resources/README.md for the guest kernel and
//! the test host, and `cargo xtask help`.

mod cpio;
mod deb;
mod host;
mod kernel;
mod paths;
mod step;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, checks, tests and measures hull"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the guest kernel (once per machine; HULL_KERNEL_SOURCE names another source) and print where it is
    Kernel,
    /// Run a command in the test host: an emulated machine with a KVM of its own
    Host {
        /// Leave it running for further commands
        #[arg(long)]
        keep: bool,
        /// End the one that was kept
        #[arg(long, conflicts_with = "keep")]
        stop: bool,
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// The test host's own side
    #[command(hide = true)]
    HostServe {
        /// Serve, as a child of PID 1
        #[arg(long)]
        server: bool,
        /// The starter's state file
        state: PathBuf,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Kernel => {
            let kernel = step::step("guest kernel", kernel::kernel)?;
            println!("{}", kernel.folder.display());
        }
        Verb::Host { stop: true, .. } => host::stop()?,
        Verb::Host { keep, command, .. } => {
            let host = host::Host::reach(keep)?;
            if !command.is_empty() {
                return Ok(ExitCode::from(host.run(&command)?));
            }
        }
        Verb::HostServe { server, state } => {
            return if server {
                host::serve::serve(&state)
            } else {
                host::serve::init(&state)
            };
        }
    }
    Ok(ExitCode::SUCCESS)
}
