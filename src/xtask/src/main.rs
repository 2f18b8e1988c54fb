//! `cargo xtask`: one verb for each thing that is done to this tree. See resources/README.md for the guest kernel and
//! the test host, and `cargo xtask help`.

mod check;
mod cpio;
mod deb;
mod dist;
mod fuzz;
mod host;
mod image;
mod initramfs;
mod kernel;
mod package;
mod paths;
mod place;
mod reboot;
mod scratch;
mod soak;
mod step;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
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
    /// Build hull, its VMM, agent, guest kernel and demo image, and lay them out in target/dist
    Build {
        /// Without optimization
        #[arg(long)]
        debug: bool,
    },
    /// Format, lints, the direction of dependencies, the paths that documents name
    Check,
    /// All tests, or those whose name contains FILTER; end-to-end tests run in the test host where they must
    Test {
        /// Part of the tests' names
        filter: Option<String>,
        /// First what differs from where this branch began, then everything
        #[arg(long)]
        changed: bool,
    },
    /// Fuzz the targets of fuzz/, each for some minutes; print what was covered, and fail if something is found
    Fuzz(fuzz::Options),
    /// Run `hull ARGS` from target/dist, in the test host where it must be
    Run {
        /// What follows `hull`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run `hull bench NAME`, in the test host where it must be; `start` times hull-vmm's start here, on any KVM
    Bench {
        /// A benchmark; all of them without
        name: Option<String>,
    },
    /// Restart policies across a reboot: containers in one test host, and in another that has its disk
    Reboot,
    /// Long suites: mixed load, processes killed at any moment, a flood of short containers and execs
    Soak(soak::Options),
    /// Soak's own side
    #[command(hide = true)]
    SoakInside(soak::Options),
    /// Pack the installation: a .deb and a .tar.gz in target/package
    Package {
        /// Install the .deb in a test host that does not see the checkout, and run containers there, across an upgrade
        #[arg(long = "try")]
        try_it: bool,
        /// Pack twice, and fail unless both are the same
        #[arg(long)]
        twice: bool,
    },
    /// Build hull and write the manual pages of all its commands; print where they are
    Man,
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
        Verb::Build { debug } => dist::build(debug)?,
        Verb::Check => check::check()?,
        Verb::Test { filter, changed } => test::test(filter.as_deref(), changed)?,
        Verb::Fuzz(options) => fuzz::fuzz(&options)?,
        Verb::Run { arguments } => {
            place::foresee()?;
            return hull(arguments);
        }
        Verb::Bench { name } => {
            place::foresee()?;
            dist::build(false)?;
            if name.as_deref() == Some("start") {
                dist::time_starts()?;
                return Ok(ExitCode::SUCCESS);
            }
            return hull(["bench".to_string()].into_iter().chain(name).collect());
        }
        Verb::Soak(options) => {
            place::foresee()?;
            soak::soak(&options)?;
        }
        Verb::Reboot => reboot::reboot()?,
        Verb::SoakInside(options) => soak::inside(&options)?,
        Verb::Package { try_it, twice } => package::package(try_it, twice)?,
        Verb::Man => println!("{}", dist::man()?.display()),
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

/// Runs the built `hull` where VMs can run.
fn hull(arguments: Vec<String>) -> Result<ExitCode> {
    let hull = paths::dist().join("bin/hull");
    if !hull.exists() {
        dist::build(false)?;
    }
    let hull = hull.to_str().context("a path is not UTF-8")?.to_string();
    let argv: Vec<String> = [hull].into_iter().chain(arguments).collect();
    Ok(ExitCode::from(place::Place::find()?.run(&argv)?))
}
