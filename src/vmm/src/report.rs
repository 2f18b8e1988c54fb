//! Reports on a VM, in the protocol's types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memory::{HostRange, Memory, Ram};
use protocol::vmm::Report;

use crate::bus::Bus;
use crate::stamps::Stamps;
use crate::stats::Stats;
use crate::vcpu::Running;

/// Everything that a report is made of. Locks are held for as long as a copy takes.
pub struct Sources {
    /// The stamps.
    pub stamps: Arc<Stamps>,
    /// Accesses.
    pub bus: Arc<Bus>,
    /// The vCPUs.
    pub vcpus: Vec<Running>,
    vm_stats: Option<Stats>,
    guest_memory: Vec<HostRange>,
    file_memory: Vec<HostRange>,
    /// The ranges stay mapped as long as they are reported.
    _memory: Memory,
}

impl Sources {
    /// Of a VM with started vCPUs.
    pub fn new(
        stamps: Arc<Stamps>,
        bus: Arc<Bus>,
        vcpus: Vec<Running>,
        vm_stats: Option<Stats>,
        ram: &Ram,
        file_memory: Vec<HostRange>,
    ) -> Self {
        let guest_memory = ram.host_ranges();
        let _memory = ram.memory().clone();
        Self {
            stamps,
            bus,
            vcpus,
            vm_stats,
            guest_memory,
            file_memory,
            _memory,
        }
    }

    /// A report of this moment.
    pub fn report(&self) -> Report {
        let mut user_exits = self.bus.counts();
        let sum = |count: fn(&Running) -> u64| self.vcpus.iter().map(count).sum();
        user_exits.insert(
            "hlt".to_owned(),
            sum(|vcpu| vcpu.counts.halts.load(Ordering::Relaxed)),
        );
        user_exits.insert(
            "interrupted".to_owned(),
            sum(|vcpu| vcpu.counts.interrupted.load(Ordering::Relaxed)),
        );
        user_exits.retain(|_, count| *count != 0);
        Report {
            timeline: self.stamps.timeline(),
            kvm_stats: self.kvm_stats(),
            user_exits,
            guest_memory: self.guest_memory.clone(),
            kernel_memory: self.file_memory.clone(),
        }
    }

    fn kvm_stats(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let vcpus = self.vcpus.iter().filter_map(|vcpu| vcpu.stats.as_ref());
        for stats in vcpus.chain(&self.vm_stats) {
            if let Err(error) = stats.add_to(&mut counts) {
                tracing::warn!(%error, "KVM's statistics could not be read");
            }
        }
        counts
    }
}
