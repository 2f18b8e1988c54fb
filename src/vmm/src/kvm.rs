//! KVM itself and the VM: capabilities, memory slots, interrupt chip, eventfds.

#![expect(
    unsafe_code,
    reason = "gives KVM memory that this process maps, and takes over a descriptor"
)]

use std::os::fd::{IntoRawFd, OwnedFd};

use arch::layout::{self, KVM_IDENTITY_MAP, KVM_TSS};
use devices::virtio::DeviceId;
use devices::virtio::mmio::Mmio;
use devices::virtio::mmio::registers::{INTERRUPT_ACK, INTERRUPT_USED_BUFFER, QUEUE_NOTIFY};
use kvm_bindings::{
    KVM_API_VERSION, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_clock_data, kvm_cpuid_entry2, kvm_irqchip,
    kvm_userspace_memory_region, kvm_xsave,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use memory::{Memory, PAGE_BYTES, Ram, Slot};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use crate::snapshot::Chips;

/// Capabilities that hull needs, by KVM's names.
const REQUIRED: [(Cap, &str); 9] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// The chips that KVM_CREATE_IRQCHIP makes.
const IRQCHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// Why KVM cannot run the VM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor is something else.
    #[error("the descriptor given as /dev/kvm is not KVM")]
    NotKvm,
    /// Another version of KVM's interface.
    #[error("this KVM has API version {found}, and {KVM_API_VERSION} is needed")]
    ApiVersion {
        /// Its version.
        found: i32,
    },
    /// KVM without something that hull needs.
    #[error("this KVM lacks {name}, which hull needs: the host's kernel is too old or cut down")]
    Capability {
        /// KVM's name for it.
        name: &'static str,
    },
    /// More vCPUs than KVM has.
    #[error("{asked} vCPUs are asked for, and this KVM allows {max}")]
    Vcpus {
        /// The number asked for.
        asked: u8,
        /// The most.
        max: usize,
    },
    /// There is no descriptor left.
    #[error("cannot make an eventfd for a device")]
    EventFd(#[source] std::io::Error),
    /// An ioctl failed.
    #[error("{ioctl} failed")]
    Ioctl {
        /// Its name.
        ioctl: &'static str,
        /// Why.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// A register that KVM does not take.
    #[error("KVM refuses model specific register {index:#x}")]
    Msr {
        /// Its number.
        index: u32,
    },
    /// vCPUs with more state than hull saves.
    #[error("vCPUs of this KVM have {bytes} bytes of extended state, and hull saves {XSAVE_BYTES}")]
    ExtendedState {
        /// KVM_CAP_XSAVE2.
        bytes: usize,
    },
    /// More devices than there are windows and interrupts.
    #[error(
        "{asked} virtio devices are asked for, and there is room for {}",
        layout::VIRTIO_MMIO_MAX_DEVICES
    )]
    Devices {
        /// The number asked for.
        asked: usize,
    },
}

/// What KVM_GET_XSAVE gives.
const XSAVE_BYTES: usize = size_of::<kvm_xsave>();

/// Makes an [`Error::Ioctl`].
pub(crate) fn failed(ioctl: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |source| Error::Ioctl { ioctl, source }
}

/// The result of KVM_CHECK_EXTENSION: 0 for what this KVM does not have.
fn extension(kvm: &Kvm, capability: Cap) -> Result<usize, Error> {
    // -1 is the call's failure, not KVM's answer.
    usize::try_from(kvm.check_extension_int(capability))
        .map_err(|_| failed("KVM_CHECK_EXTENSION")(kvm_ioctls::Error::last()))
}

/// An opened KVM that can run hull's VMs.
pub struct System {
    kvm: Kvm,
}

impl System {
    /// Checks that `kvm` is KVM and has what hull needs.
    pub fn new(kvm: OwnedFd) -> Result<Self, Error> {
        // SAFETY: the descriptor is owned, and `Kvm` owns it from here on. That it is KVM is checked next, and an ioctl on
        // something else fails.
        let kvm = unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(kvm.into_raw_fd()) };
        match kvm.get_api_version() {
            found if found < 0 => {
                let source = kvm_ioctls::Error::last();
                return Err(match source.errno() {
                    libc::ENOTTY => Error::NotKvm,
                    _ => failed("KVM_GET_API_VERSION")(source),
                });
            }
            found if found != KVM_API_VERSION as i32 => return Err(Error::ApiVersion { found }),
            _ => {}
        }
        for (capability, name) in REQUIRED {
            if extension(&kvm, capability)? == 0 {
                return Err(Error::Capability { name });
            }
        }
        Ok(Self { kvm })
    }

    /// Makes a VM with this memory, an interrupt chip and no vCPU; with `log_writes`, [`Vm::written`] can tell.
    pub fn create_vm(&self, ram: &Ram, vcpus: u8, log_writes: bool) -> Result<Vm, Error> {
        let max = self.kvm.get_max_vcpus();
        if usize::from(vcpus) > max {
            return Err(Error::Vcpus { asked: vcpus, max });
        }
        let fd = self.kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
        for (number, slot) in ram.slots().into_iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: number as u32,
                guest_phys_addr: slot.guest.0,
                memory_size: slot.len,
                userspace_addr: slot.host,
                flags: match log_writes {
                    true => KVM_MEM_LOG_DIRTY_PAGES,
                    false => 0,
                },
            };
            // SAFETY: the range is RAM's own mapping, which stays as long as the `Memory` that the VM keeps beside the
            // descriptor; the regions do not overlap.
            unsafe { fd.set_user_memory_region(region) }
                .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        fd.set_identity_map_address(KVM_IDENTITY_MAP)
            .map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(KVM_TSS as usize)
            .map_err(failed("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
        Ok(Vm {
            fd,
            slots: ram.slots(),
            _memory: ram.memory().clone(),
        })
    }

    /// Refuses a KVM with vCPUs that hull can neither save nor restore.
    pub fn check_snapshots(&self) -> Result<(), Error> {
        match extension(&self.kvm, Cap::Xsave2)? {
            bytes if bytes > XSAVE_BYTES => Err(Error::ExtendedState { bytes }),
            _ => Ok(()),
        }
    }

    /// The numbers of the model specific registers that a vCPU has to save.
    pub fn saved_msrs(&self) -> Result<Vec<u32>, Error> {
        let list = self
            .kvm
            .get_msr_index_list()
            .map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(list.as_slice().to_vec())
    }

    /// What CPUID this KVM can show a guest.
    pub fn supported_cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        let cpuid = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(cpuid.as_slice().to_vec())
    }

    /// Whether the local APIC's timer has the TSC-deadline mode.
    pub fn has_tsc_deadline(&self) -> bool {
        self.kvm.check_extension(Cap::TscDeadlineTimer)
    }
}

/// The numbers of the bits that are set.
fn pages(words: &[u64]) -> impl Iterator<Item = u64> {
    let bits = |(index, word): (usize, &u64)| {
        let word = *word;
        (0..64)
            .filter(move |bit| word >> bit & 1 == 1)
            .map(move |bit| index as u64 * 64 + bit)
    };
    words.iter().enumerate().flat_map(bits)
}

/// A VM.
pub struct Vm {
    fd: VmFd,
    slots: Vec<Slot>,
    /// KVM reads and writes it as long as the VM exists.
    _memory: Memory,
}

impl Vm {
    /// Makes vCPU number `index`.
    pub fn create_vcpu(&self, index: u8) -> Result<VcpuFd, Error> {
        self.fd
            .create_vcpu(index.into())
            .map_err(failed("KVM_CREATE_VCPU"))
    }

    /// Joins the device in window number `index` to KVM: its queues' notifications and its interrupt.
    pub fn connect(&self, index: usize, device: &Mmio) -> Result<(), Error> {
        if index >= layout::VIRTIO_MMIO_MAX_DEVICES {
            return Err(Error::Devices { asked: index + 1 });
        }
        let notify = IoEventAddress::Mmio(layout::virtio_mmio(index).0 + QUEUE_NOTIFY);
        for (queue, kick) in device.kicks().iter().enumerate() {
            self.fd
                .register_ioevent(kick, &notify, queue as u32)
                .map_err(failed("KVM_IOEVENTFD"))?;
        }
        if device.id() == DeviceId::FS {
            self.acknowledge_in_kvm(index)?;
        }
        self.interrupt(device.irqfd(), layout::virtio_gsi(index))
    }

    /// Lets KVM end the driver's acknowledgement of used buffers, and of nothing else, without an exit: the bit stays set in the
    /// interrupt status, so that a driver looks at its queues once too often when the configuration has changed. For the
    /// device whose driver waits for each request; others would be interrupted for nothing whenever they begin from a snapshot.
    fn acknowledge_in_kvm(&self, index: usize) -> Result<(), Error> {
        let address = IoEventAddress::Mmio(layout::virtio_mmio(index).0 + INTERRUPT_ACK);
        // Nothing reads it; KVM keeps it.
        let unread = EventFd::new(EFD_CLOEXEC).map_err(Error::EventFd)?;
        self.fd
            .register_ioevent(&unread, &address, INTERRUPT_USED_BUFFER)
            .map_err(failed("KVM_IOEVENTFD"))
    }

    /// A write of `eventfd` raises interrupt `gsi`.
    pub fn interrupt(&self, eventfd: &EventFd, gsi: u32) -> Result<(), Error> {
        self.fd
            .register_irqfd(eventfd, gsi)
            .map_err(failed("KVM_IRQFD"))
    }

    /// The pages that the guest has written since the last call, or since it began: guest addresses and lengths in bytes of
    /// unbroken runs.
    pub fn written(&self) -> Result<Vec<[u64; 2]>, Error> {
        let mut runs: Vec<[u64; 2]> = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let words = self
                .fd
                .get_dirty_log(number as u32, slot.len as usize)
                .map_err(failed("KVM_GET_DIRTY_LOG"))?;
            for page in pages(&words) {
                let at = slot.guest.0 + page * PAGE_BYTES;
                match runs.last_mut() {
                    Some([start, len]) if *start + *len == at => *len += PAGE_BYTES,
                    _ => runs.push([at, PAGE_BYTES]),
                }
            }
        }
        Ok(runs)
    }

    /// Interrupt chips and clock, to be saved.
    pub fn chips(&self) -> Result<Chips, Error> {
        let mut irqchips = IRQCHIPS.map(|chip_id| kvm_irqchip {
            chip_id,
            ..Default::default()
        });
        for chip in &mut irqchips {
            self.fd
                .get_irqchip(chip)
                .map_err(failed("KVM_GET_IRQCHIP"))?;
        }
        let clock = self.fd.get_clock().map_err(failed("KVM_GET_CLOCK"))?;
        Ok(Chips { irqchips, clock })
    }

    /// Sets chips and clock as they were saved, when the vCPUs are there. The clock goes on from there: for its guest, no time
    /// has passed.
    pub fn set_chips(&self, chips: &Chips) -> Result<(), Error> {
        for chip in &chips.irqchips {
            self.fd
                .set_irqchip(chip)
                .map_err(failed("KVM_SET_IRQCHIP"))?;
        }
        let clock = kvm_clock_data {
            clock: chips.clock.clock,
            ..Default::default()
        };
        self.fd.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))
    }

    /// The VM's descriptor, for its statistics.
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_numbered_across_words() {
        let found: Vec<_> = pages(&[1 << 63 | 1, 0, 0b110]).collect();
        assert_eq!(found, [0, 63, 129, 130]);
    }
}
