//! The same container through every backend, and what each costs.
//!
//! Figures of one machine and one run are comparable with each other, not with those of another machine: in the
//! emulated test host quote ratios. Deliberately absent: statistics beyond the median; noise is shown by the range.

use anyhow::Result;
use clap::Subcommand;

mod boot;
mod bundle;
mod sample;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// From a command to its first byte of output, beside crun, runc and QEMU's microvm
    Boot {
        /// How often each is run
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
}

/// Measures and prints.
pub fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Boot { runs } => boot::run(runs),
    }
}
