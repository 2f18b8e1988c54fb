//! The same container through every backend, and what each costs.
//!
//! Figures of one machine and one run are comparable with each other, not with those of another machine: in the
//! emulated test host quote ratios. Deliberately absent: statistics beyond the median; noise is shown by the range.

use anyhow::Result;
use clap::Subcommand;

mod boot;
mod bundle;
mod exec;
mod sample;
mod table;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// From a command to its first byte of output, beside crun, runc and QEMU's microvm
    Boot {
        /// How often each is run
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// A process in a running container beside crun exec, and a container in a running pod beside crun run
    Exec {
        /// How often each is run
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// In a native container, which needs no VM
        #[arg(long)]
        native: bool,
    },
}

/// Measures and prints.
pub fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Boot { runs } => boot::run(runs),
        Bench::Exec { runs, native } => exec::run(runs, native),
    }
}

/// Root is who owns its own process's folder as user 0.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
