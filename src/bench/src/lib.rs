//! The same container through every backend.

use clap::Subcommand;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// From a command to its first byte of output, beside crun, runc and QEMU
    Boot,
}

/// Measures and prints.
pub fn run(what: Bench) -> anyhow::Result<()> {
    match what {
        Bench::Boot => anyhow::bail!("bench boot is not built yet"),
    }
}
