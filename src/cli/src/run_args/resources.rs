//! Limits.

use clap::Args;
use engine::options::{CpuSet, Options, Swap, Ulimit};
use engine::size::MilliCpus;

use values::{OrDefault, or_default, value};

/// What the container may use.
#[derive(Debug, Args)]
pub(super) struct ResourceArgs {
    /// Memory that the container may use [default: 512m]
    #[arg(short, long, value_name = "SIZE", value_parser = values::size)]
    memory: Option<u64>,
    /// Memory that is left to it when others have more than theirs
    #[arg(long, value_name = "SIZE", value_parser = or_default(values::optional_size))]
    memory_reservation: Option<OrDefault<u64>>,
    /// Memory and swap together; a VM has no swap, so there it is the same as -m
    #[arg(long, value_name = "SIZE", value_parser = or_default(values::swap))]
    memory_swap: Option<OrDefault<Swap>>,
    /// CPUs that the container may use, fractions included, at least 0.01 [default: one vCPU]
    #[arg(long, value_name = "NUMBER", value_parser = values::cpus)]
    cpus: Option<MilliCpus>,
    /// CPU time in each period, in microseconds, instead of --cpus
    #[arg(long, value_name = "MICROSECONDS", value_parser = or_default(values::limit))]
    cpu_quota: Option<OrDefault<u64>>,
    /// That period, in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS", value_parser = or_default(values::count))]
    cpu_period: Option<OrDefault<u64>>,
    /// Weight against other containers when CPU time is short [default: 1024]
    #[arg(short = 'c', long, value_name = "WEIGHT", value_parser = or_default(values::count))]
    cpu_shares: Option<OrDefault<u64>>,
    /// CPUs of the VM that it may run on, such as 0-1,3; the VM has as many as that takes
    #[arg(long, value_name = "LIST", value_parser = or_default(values::cpu_set))]
    cpuset_cpus: Option<OrDefault<CpuSet>>,
    /// Memory nodes that it may use; a VM has node 0
    #[arg(long, value_name = "LIST", value_parser = or_default(values::cpu_set))]
    cpuset_mems: Option<OrDefault<CpuSet>>,
    /// Processes and threads that it may have; -1 is no limit
    #[arg(long, value_name = "COUNT", value_parser = or_default(values::limit))]
    pids_limit: Option<OrDefault<u64>>,
    /// Set a resource limit
    #[arg(long, value_name = "TYPE=SOFT[:HARD]", value_parser = values::ulimit)]
    ulimit: Vec<Ulimit>,
    /// How readily the kernel kills it when memory is short: -1000 to 1000
    #[arg(long, value_name = "SCORE", value_parser = values::oom_score)]
    oom_score_adj: Option<i32>,
    /// size=SIZE: how much the writable layer of its VM may hold, 128m to 1t [default: 64g]
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::machine::storage)]
    storage_opt: Option<u64>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = or_default(values::optional_size))]
    shm_size: Option<OrDefault<u64>>,
}

impl ResourceArgs {
    pub(super) fn set(self, options: &mut Options) {
        options.memory_bytes = self.memory;
        options.memory_reservation_bytes = value(self.memory_reservation);
        options.memory_swap = value(self.memory_swap);
        options.cpus = self.cpus;
        options.cpu_quota_us = value(self.cpu_quota);
        options.cpu_period_us = value(self.cpu_period);
        options.cpu_shares = value(self.cpu_shares);
        options.cpuset_cpus = value(self.cpuset_cpus);
        options.cpuset_mems = value(self.cpuset_mems);
        options.pids_limit = value(self.pids_limit);
        options.ulimits = self.ulimit;
        options.oom_score_adj = self.oom_score_adj;
        options.storage_bytes = self.storage_opt;
        options.shm_size_bytes = value(self.shm_size);
    }
}
