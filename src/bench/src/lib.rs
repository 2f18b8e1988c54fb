//! The same container through every backend, and what each costs.
//!
//! Figures of one machine and one run are comparable with each other, not with those of another machine: in the
//! emulated test host quote ratios. Deliberately absent: statistics beyond the median; noise is shown by the range.

use anyhow::Result;
use clap::Subcommand;

mod boot;
mod bundle;
mod density;
mod exec;
mod network;
mod sample;
mod shares;
mod steps;
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
    /// Many idle containers: the last start beside the first, `hull ps`, memory for each, starts at once
    Density {
        /// How many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        containers: u32,
        /// How many more are started at the same time
        #[arg(long, default_value_t = 8)]
        at_once: u32,
        /// Memory of each VM, in MiB
        #[arg(long, default_value_t = 64)]
        memory_mib: u32,
        /// Native containers instead of VMs
        #[arg(long)]
        native: bool,
    },
    /// Bytes and connections of VMs on a bridge and of an ordinary user's, beside native containers (root)
    Network {
        /// How much is sent each way, in MiB
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
        mib: u32,
        /// How many connections are made one after the other
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        connections: u32,
        /// How often each container does all of it
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// The ordinary user, who must be allowed to open /dev/kvm
        #[arg(long, value_name = "UID", default_value_t = 65534, value_parser = clap::value_parser!(u32).range(1..))]
        user: u32,
    },
    /// Small files and a large one in a directory of the host and in a volume of a VM, beside a native container (root)
    Shares {
        /// How many small files
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
        files: u32,
        /// How large the large one is, in MiB
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
        mib: u32,
        /// How often each container does all of it
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
}

/// Measures and prints.
pub fn run(what: Bench) -> Result<()> {
    match what {
        Bench::Boot { runs } => boot::run(runs),
        Bench::Exec { runs, native } => exec::run(runs, native),
        Bench::Density {
            containers,
            at_once,
            memory_mib,
            native,
        } => density::run(density::Options {
            containers,
            at_once,
            memory_mib,
            native,
        }),
        Bench::Network {
            mib,
            connections,
            runs,
            user,
        } => network::run(network::Options {
            mib,
            connections,
            runs,
            user,
        }),
        Bench::Shares { files, mib, runs } => shares::run(shares::Options { files, mib, runs }),
    }
}

/// Whether this process is root's: its folder in /proc is user 0's then.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
