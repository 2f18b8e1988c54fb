//! How large a VM is for what its container was promised. The defaults of memory and CPUs stand here and nowhere else.

use std::fmt;

use protocol::record::MAX_SCRATCH_BYTES;
use protocol::vmm::{MAX_VCPUS, MIN_MEMORY_MIB};
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// What a container in a VM may use without `-m`: room for most programs, and only touched pages cost the host.
pub const DEFAULT_MEMORY_BYTES: u64 = 512 * MIB;

/// vCPUs of a VM without `--cpus`. One, since each further one costs boot time (its bring-up is serial) and memory in
/// the guest, and most short commands use one; `--cpus` gives more.
pub const DEFAULT_VCPUS: u8 = 1;

/// The least that a container may be given, as Docker has it.
pub const MIN_CONTAINER_BYTES: u64 = 6 * MIB;

/// What the guest needs besides the container's memory: the kernel's text and data, its initramfs, the agent, slabs.
/// README.md of this crate says how it was measured.
const GUEST_FIXED_BYTES: u64 = 40 * MIB;
/// The guest's page structures: 64 bytes for each page of 4096, which is 1/64; doubled for slabs and page tables, which
/// grow with use.
const GUEST_SHARE: u64 = 32;

/// The least size of a writable layer: that of its file system before it is grown.
pub const MIN_STORAGE_BYTES: u64 = 128 * MIB;

/// The least that a container may be given of a CPU, as in Docker: Linux's cpu.max takes no quota below 1 ms, of a period
/// of 100 ms.
pub const MIN_CONTAINER_MILLI_CPUS: u64 = 10;

/// The least that a VM may take of a host's CPU, so that it starts within its time even where its container, which its
/// cgroup in the guest holds to `--cpus`, is given less.
pub const MIN_VM_MILLI_CPUS: u64 = 100;

/// Why a VM of this size cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Less than any container needs.
    #[error("a memory limit of {0} bytes is too small: the least is 6 MiB (`-m 6m`)")]
    TooLittleMemory(u64),
    /// More than a VM of hull can have.
    #[error("a memory limit of {0} bytes is more than a VM can have")]
    TooMuchMemory(u64),
    /// More processors than a VM can have.
    #[error("--cpus asks for {0} vCPUs and a VM has at most {MAX_VCPUS}")]
    TooManyCpus(u64),
    /// A processor that no VM can have.
    #[error(
        "--cpuset-cpus names CPU {0}; the CPUs are the VM's, which has at most {MAX_VCPUS}, numbered from 0"
    )]
    NoSuchCpu(u16),
    /// Less than the smallest file system.
    #[error("--storage-opt size={0}: the least is 128 MiB (size=128m)")]
    TooLittleStorage(u64),
    /// More than a disk can hold.
    #[error("--storage-opt size={0}: the most is 1 TiB (size=1t)")]
    TooMuchStorage(u64),
    /// Less time than the kernel can give.
    #[error("{0} is too little of a CPU: the least is 0.01 (`--cpus 0.01`)")]
    TooLittleCpu(MilliCpus),
}

/// Refuses a size that no writable layer can have.
pub fn check_storage(bytes: u64) -> Result<(), Error> {
    match bytes {
        ..MIN_STORAGE_BYTES => Err(Error::TooLittleStorage(bytes)),
        MIN_STORAGE_BYTES..=MAX_SCRATCH_BYTES => Ok(()),
        _ => Err(Error::TooMuchStorage(bytes)),
    }
}

/// Thousandths of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliCpus(pub u64);

impl fmt::Display for MilliCpus {
    /// As `--cpus` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, thousandths) = (self.0 / 1000, self.0 % 1000);
        if thousandths == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{thousandths:03}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// A VM's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmSize {
    /// The VM's memory.
    pub memory_mib: u32,
    /// Its vCPUs.
    pub vcpus: u8,
}

impl VmSize {
    /// The same with enough vCPUs for one to have this number.
    pub fn with_cpu(self, number: u16) -> Result<VmSize, Error> {
        let needed = u8::try_from(number)
            .ok()
            .and_then(|number| number.checked_add(1))
            .filter(|needed| *needed <= MAX_VCPUS)
            .ok_or(Error::NoSuchCpu(number))?;
        Ok(VmSize {
            vcpus: self.vcpus.max(needed),
            ..self
        })
    }
}

/// The VM for a container that may use `memory_bytes` and `cpus`.
pub fn vm_size(memory_bytes: u64, cpus: Option<MilliCpus>) -> Result<VmSize, Error> {
    check_memory(memory_bytes)?;
    let total = memory_bytes
        .checked_add(GUEST_FIXED_BYTES + memory_bytes / GUEST_SHARE)
        .ok_or(Error::TooMuchMemory(memory_bytes))?;
    // Whole multiples of 2 MiB, so that a huge page never straddles the end.
    let mib = total.div_ceil(2 * MIB) * 2;
    let memory_mib = u32::try_from(mib)
        .ok()
        .filter(|mib| *mib <= MAX_MEMORY_MIB)
        .ok_or(Error::TooMuchMemory(memory_bytes))?;
    let vcpus = match cpus {
        None => DEFAULT_VCPUS,
        Some(cpus @ MilliCpus(milli)) => {
            check_cpus(cpus)?;
            let whole = milli.div_ceil(1000).max(1);
            u8::try_from(whole)
                .ok()
                .filter(|n| *n <= MAX_VCPUS)
                .ok_or(Error::TooManyCpus(whole))?
        }
    };
    Ok(VmSize {
        memory_mib: memory_mib.max(MIN_MEMORY_MIB),
        vcpus,
    })
}

/// Whether a container can do with so much memory.
pub fn check_memory(bytes: u64) -> Result<(), Error> {
    if bytes < MIN_CONTAINER_BYTES {
        return Err(Error::TooLittleMemory(bytes));
    }
    Ok(())
}

/// Whether a container can do with so much CPU time.
pub fn check_cpus(cpus: MilliCpus) -> Result<(), Error> {
    if cpus.0 < MIN_CONTAINER_MILLI_CPUS {
        return Err(Error::TooLittleCpu(cpus));
    }
    Ok(())
}

/// 1 TiB: beyond it the guest's physical addresses would not fit every processor's 40 bits.
const MAX_MEMORY_MIB: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writable_layer_has_a_least_and_a_greatest_size() {
        let (least, most) = (128 * MIB, 1 << 40);
        assert_eq!(
            check_storage(least - 1),
            Err(Error::TooLittleStorage(least - 1))
        );
        assert_eq!(check_storage(least).and(check_storage(most)), Ok(()));
        assert_eq!(
            check_storage(most + 1),
            Err(Error::TooMuchStorage(most + 1))
        );
    }

    #[test]
    fn a_vm_has_what_the_container_may_use_and_its_own_needs_beside_it() {
        let size = vm_size(DEFAULT_MEMORY_BYTES, None).unwrap();
        assert_eq!(
            size,
            VmSize {
                memory_mib: 568,
                vcpus: 1
            }
        );
        assert!(vm_size(6 * MIB, None).unwrap().memory_mib >= 46);
    }

    #[test]
    fn a_fraction_of_a_cpu_is_rounded_up() {
        assert_eq!(vm_size(64 * MIB, Some(MilliCpus(500))).unwrap().vcpus, 1);
        assert_eq!(vm_size(64 * MIB, Some(MilliCpus(2001))).unwrap().vcpus, 3);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(vm_size(MIB, None), Err(Error::TooLittleMemory(MIB)));
        assert_eq!(vm_size(u64::MAX, None), Err(Error::TooMuchMemory(u64::MAX)));
        assert_eq!(
            vm_size(64 * MIB, Some(MilliCpus(33_000))),
            Err(Error::TooManyCpus(33))
        );
        let error = vm_size(64 * MIB, Some(MilliCpus(1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "0.001 is too little of a CPU: the least is 0.01 (`--cpus 0.01`)"
        );
        assert!(vm_size(64 * MIB, Some(MilliCpus(10))).is_ok());
    }

    #[test]
    fn a_named_cpu_is_there() {
        let size = vm_size(64 * MIB, Some(MilliCpus(1500))).unwrap();
        assert_eq!(size.with_cpu(0).unwrap().vcpus, 2);
        assert_eq!(size.with_cpu(3).unwrap().vcpus, 4);
        assert_eq!(
            size.with_cpu(u16::from(MAX_VCPUS)),
            Err(Error::NoSuchCpu(u16::from(MAX_VCPUS)))
        );
        assert_eq!(size.with_cpu(300), Err(Error::NoSuchCpu(300)));
    }
}
