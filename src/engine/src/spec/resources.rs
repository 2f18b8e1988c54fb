//! Limits of the container's cgroup: `linux.resources` of the document.
//!
//! In a VM they hold inside it; what the VM takes of the host has limits of its own (see [`protocol::record::Vm`]).

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::options::{CpuSet, Isolation, Options, Swap};
use crate::size::{self, MilliCpus};

/// The period of `--cpus`, in microseconds: the kernel's and Docker's default.
const CPU_PERIOD_US: u64 = 100_000;
/// Periods that the kernel takes, in microseconds (max_cfs_quota_period, min_cfs_quota_period).
const CPU_PERIODS_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// The least quota that the kernel takes, in microseconds.
const MIN_CPU_QUOTA_US: u64 = 1_000;

/// Why a limit cannot be held.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A sum of which one part is not known.
    #[error(
        "--memory-swap is the sum of memory and swap, so it needs a limit for the memory; add -m"
    )]
    SwapWithoutMemory,
    /// A sum below one of its parts.
    #[error(
        "--memory-swap {total} is less than the memory limit of {memory} bytes; it is the sum of memory and swap"
    )]
    SwapBelowMemory {
        /// The sum, in bytes.
        total: u64,
        /// memory.max, in bytes.
        memory: u64,
    },
    /// Swap in a VM.
    #[error(
        "--memory-swap {total} asks for swap, and a VM has none; give the container more memory with -m, or leave --memory-swap out"
    )]
    NoSwapInVm {
        /// The sum, in bytes.
        total: u64,
    },
    /// A soft limit above the hard one.
    #[error("--memory-reservation {reservation} is more than the memory limit of {memory} bytes")]
    ReservationAboveMemory {
        /// memory.low, in bytes.
        reservation: u64,
        /// memory.max, in bytes.
        memory: u64,
    },
    /// Two ways to say the same.
    #[error("--cpus excludes --cpu-quota and --cpu-period: it stands for both")]
    CpusAndQuota,
    /// A period that the kernel does not take.
    #[error("--cpu-period {0} is out of range: 1000 to 1000000 microseconds")]
    CpuPeriod(u64),
    /// A quota that the kernel does not take.
    #[error("--cpu-quota {0} is too little: the least is {MIN_CPU_QUOTA_US} microseconds")]
    CpuQuota(u64),
    /// A size that no container can have.
    #[error(transparent)]
    Size(#[from] size::Error),
    /// A CPU that the machine lacks.
    #[error("--cpuset-cpus {asked} names CPUs that {machine} does not have: it has {available}")]
    NoSuchCpu {
        /// What was asked for.
        asked: CpuSet,
        /// Whose CPUs these are.
        machine: &'static str,
        /// What there is.
        available: CpuSet,
    },
    /// A memory node that the machine lacks.
    #[error(
        "--cpuset-mems {asked} names memory nodes that {machine} does not have: it has {available}"
    )]
    NoSuchNode {
        /// What was asked for.
        asked: CpuSet,
        /// Whose nodes these are.
        machine: &'static str,
        /// What there is.
        available: CpuSet,
    },
}

/// Sets the limits that the options ask for; `memory_bytes` is memory.max, whose default depends on the machine.
pub(super) fn set(
    resources: &mut LinuxResources,
    options: &Options,
    memory_bytes: Option<u64>,
) -> Result<(), Error> {
    if let Some(memory) = memory(options, memory_bytes)? {
        resources.set_memory(Some(memory));
    }
    let cpu = cpu(options)?;
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = options.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(signed(limit));
        resources.set_pids(Some(pids));
    }
    Ok(())
}

/// What the kernel's interfaces and the OCI document take as signed.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn memory(options: &Options, limit: Option<u64>) -> Result<Option<LinuxMemory>, Error> {
    let mut memory = LinuxMemory::default();
    if let Some(bytes) = limit {
        memory.set_limit(Some(signed(bytes)));
        memory.set_swap(Some(swap(options, bytes)?));
    } else if matches!(options.memory_swap, Some(Swap::Total(_))) {
        return Err(Error::SwapWithoutMemory);
    }
    if let Some(reservation) = options.memory_reservation_bytes {
        if let Some(memory) = limit.filter(|limit| *limit < reservation) {
            return Err(Error::ReservationAboveMemory {
                reservation,
                memory,
            });
        }
        memory.set_reservation(Some(signed(reservation)));
    }
    Ok((memory != LinuxMemory::default()).then_some(memory))
}

/// The sum of memory and swap, -1 for no limit. Without the option there is no swap.
fn swap(options: &Options, memory: u64) -> Result<i64, Error> {
    let native = options.isolation == Isolation::Native;
    match options.memory_swap {
        None => Ok(signed(memory)),
        // All the swap of a VM is none.
        Some(Swap::Unlimited) => Ok(if native { -1 } else { signed(memory) }),
        Some(Swap::Total(total)) if total < memory => Err(Error::SwapBelowMemory { total, memory }),
        Some(Swap::Total(total)) if total > memory && !native => Err(Error::NoSwapInVm { total }),
        Some(Swap::Total(total)) => Ok(signed(total)),
    }
}

fn cpu(options: &Options) -> Result<LinuxCpu, Error> {
    let mut cpu = LinuxCpu::default();
    match (options.cpus, options.cpu_quota_us, options.cpu_period_us) {
        (None, None, None) => {}
        (Some(cpus), None, None) => {
            size::check_cpus(cpus)?;
            let quota = signed(cpus.0.saturating_mul(CPU_PERIOD_US / 1000));
            cpu.set_period(Some(CPU_PERIOD_US)).set_quota(Some(quota));
        }
        (Some(_), ..) => return Err(Error::CpusAndQuota),
        (None, quota, period) => {
            if let Some(period) = period.filter(|period| !CPU_PERIODS_US.contains(period)) {
                return Err(Error::CpuPeriod(period));
            }
            if let Some(quota) = quota.filter(|quota| *quota < MIN_CPU_QUOTA_US) {
                return Err(Error::CpuQuota(quota));
            }
            cpu.set_period(Some(period.unwrap_or(CPU_PERIOD_US)));
            cpu.set_quota(quota.map(signed));
        }
    }
    if let Some(shares) = options.cpu_shares {
        cpu.set_shares(Some(shares));
    }
    if let Some(set) = &options.cpuset_cpus {
        if options.isolation == Isolation::Native {
            let available = online("/sys/devices/system/cpu/online");
            has_cpus(set, "this host", available)?;
        }
        cpu.set_cpus(Some(set.to_string()));
    }
    if let Some(set) = &options.cpuset_mems {
        has_nodes(set, options)?;
        cpu.set_mems(Some(set.to_string()));
    }
    Ok(cpu)
}

/// The CPU time that the options allow: of a quota without its own period, the default one's part.
pub(crate) fn cpu_limit(options: &Options) -> Option<MilliCpus> {
    let of_quota = || {
        let quota = u128::from(options.cpu_quota_us?) * 1000;
        let period = options.cpu_period_us.filter(|period| *period > 0);
        let milli = quota / u128::from(period.unwrap_or(CPU_PERIOD_US));
        Some(MilliCpus(u64::try_from(milli).unwrap_or(u64::MAX)))
    };
    options.cpus.or_else(of_quota)
}

/// Whether the CPUs that the options name are among a running machine's, which has `vcpus` of them.
pub(crate) fn fits_vcpus(options: &Options, vcpus: u8) -> Result<(), Error> {
    match &options.cpuset_cpus {
        None => Ok(()),
        Some(set) => {
            let available = CpuSet((0..u16::from(vcpus)).collect());
            has_cpus(set, "the pod's VM", Some(available))
        }
    }
}

fn has_cpus(asked: &CpuSet, machine: &'static str, available: Option<CpuSet>) -> Result<(), Error> {
    match available {
        Some(available) if !asked.0.is_subset(&available.0) => Err(Error::NoSuchCpu {
            asked: asked.clone(),
            machine,
            available,
        }),
        _ => Ok(()),
    }
}

fn has_nodes(asked: &CpuSet, options: &Options) -> Result<(), Error> {
    let (machine, available) = match options.isolation {
        Isolation::Native => ("this host", online("/sys/devices/system/node/online")),
        Isolation::Vm | Isolation::Pod(_) => ("a VM", Some(CpuSet([0].into()))),
    };
    match available {
        Some(available) if !asked.0.is_subset(&available.0) => Err(Error::NoSuchNode {
            asked: asked.clone(),
            machine,
            available,
        }),
        _ => Ok(()),
    }
}

/// A list of the host's; `None` where it does not tell.
fn online(path: &str) -> Option<CpuSet> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &Options, memory: Option<u64>) -> Result<serde_json::Value, Error> {
        let mut resources = LinuxResources::default();
        resources.set_devices(None);
        set(&mut resources, options, memory)?;
        Ok(serde_json::to_value(resources).unwrap())
    }

    fn swap_of(swap: Swap, isolation: Isolation) -> Result<serde_json::Value, Error> {
        let options = Options {
            memory_swap: Some(swap),
            isolation,
            ..Options::default()
        };
        Ok(of(&options, Some(1000))?["memory"]["swap"].clone())
    }

    #[test]
    fn swap_is_what_the_machine_has() {
        assert_eq!(swap_of(Swap::Total(1000), Isolation::Vm).unwrap(), 1000);
        assert_eq!(swap_of(Swap::Unlimited, Isolation::Vm).unwrap(), 1000);
        assert_eq!(swap_of(Swap::Total(3000), Isolation::Native).unwrap(), 3000);
        assert_eq!(swap_of(Swap::Unlimited, Isolation::Native).unwrap(), -1);
        let refused = swap_of(Swap::Total(3000), Isolation::Vm);
        assert_eq!(refused, Err(Error::NoSwapInVm { total: 3000 }));
        assert!(matches!(
            swap_of(Swap::Total(999), Isolation::Vm),
            Err(Error::SwapBelowMemory { .. })
        ));
        let options = Options {
            memory_swap: Some(Swap::Total(1)),
            ..Options::default()
        };
        assert_eq!(of(&options, None), Err(Error::SwapWithoutMemory));
    }

    #[test]
    fn a_reservation_is_at_most_the_limit() {
        let options = Options {
            memory_reservation_bytes: Some(500),
            ..Options::default()
        };
        assert_eq!(
            of(&options, Some(500)).unwrap()["memory"]["reservation"],
            500
        );
        assert_eq!(of(&options, None).unwrap()["memory"]["reservation"], 500);
        assert!(matches!(
            of(&options, Some(499)),
            Err(Error::ReservationAboveMemory { .. })
        ));
    }

    #[test]
    fn a_quota_has_a_period_that_the_kernel_takes() {
        let options = |quota, period| Options {
            cpu_quota_us: quota,
            cpu_period_us: period,
            ..Options::default()
        };
        let half = options(Some(50_000), None);
        assert_eq!(of(&half, None).unwrap()["cpu"]["period"], 100_000);
        assert_eq!(cpu_limit(&half), Some(MilliCpus(500)));
        assert_eq!(
            cpu_limit(&options(Some(30_000), Some(20_000))),
            Some(MilliCpus(1500))
        );
        assert_eq!(
            of(&options(Some(999), None), None),
            Err(Error::CpuQuota(999))
        );
        assert_eq!(of(&options(None, Some(5)), None), Err(Error::CpuPeriod(5)));
        let both = Options {
            cpus: Some(MilliCpus(1000)),
            ..half
        };
        assert_eq!(of(&both, None), Err(Error::CpusAndQuota));
    }

    #[test]
    fn too_little_of_a_cpu_is_refused_at_once() {
        let options = Options {
            cpus: Some(MilliCpus(1)),
            ..Options::default()
        };
        let message = of(&options, None).unwrap_err().to_string();
        assert!(message.contains("the least is 0.01"), "{message}");
    }

    #[test]
    fn weights_and_sets_are_passed_on() {
        let options = Options {
            cpu_shares: Some(512),
            cpuset_cpus: Some("0-1,3".parse().unwrap()),
            cpuset_mems: Some("0".parse().unwrap()),
            pids_limit: Some(64),
            ..Options::default()
        };
        let resources = of(&options, None).unwrap();
        assert_eq!(resources["cpu"]["shares"], 512);
        assert_eq!(resources["cpu"]["cpus"], "0-1,3");
        assert_eq!(resources["pids"]["limit"], 64);
    }

    #[test]
    fn cpus_and_nodes_that_the_machine_lacks_are_refused() {
        let options = Options {
            cpuset_cpus: Some("0,2".parse().unwrap()),
            ..Options::default()
        };
        let message = fits_vcpus(&options, 2).unwrap_err().to_string();
        assert_eq!(
            message,
            "--cpuset-cpus 0,2 names CPUs that the pod's VM does not have: it has 0-1"
        );
        assert_eq!(fits_vcpus(&options, 3), Ok(()));
        let options = Options {
            cpuset_mems: Some("1".parse().unwrap()),
            ..Options::default()
        };
        assert!(matches!(of(&options, None), Err(Error::NoSuchNode { .. })));
        let options = Options {
            cpuset_cpus: Some("8000".parse().unwrap()),
            isolation: Isolation::Native,
            ..Options::default()
        };
        assert!(matches!(of(&options, None), Err(Error::NoSuchCpu { .. })));
    }
}
