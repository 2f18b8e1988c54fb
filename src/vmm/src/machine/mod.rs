//! Where a VM is put together: memory, kernel, devices, vCPUs.
//!
//! The order is fixed: what the VM begins with is in memory before the VM exists, devices are on the bus before the
//! command line names them, and nothing runs before everything is there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arch::{cmdline, layout};
use devices::output::Output;
use devices::virtio::Reactor;
use devices::virtio::block;
use devices::virtio::fs;
use devices::virtio::net;
use memory::{HostRange, Ram};
use protocol::vmm::{Boot, Descriptor, MAX_VCPUS, MIN_MEMORY_MIB, Snapshot, VmConfig};

use crate::bus::Bus;
use crate::ends::Ends;
use crate::kvm::{System, Vm};
use crate::loader;
use crate::snapshot::{self, Saver};
use crate::stamps::Stamps;
use crate::vcpu::{Shared, Vcpu};

mod assembly;
mod initial;

pub use assembly::Backends;
use assembly::{Assembly, device};
use initial::InitialState;

/// Why a VM could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The monitor is of another build.
    #[error(
        "hull and hull-vmm are of different builds: {theirs} and {}",
        protocol::BUILD
    )]
    Build {
        /// The monitor's.
        theirs: String,
    },
    /// Memory out of bounds.
    #[error("{asked} MiB of memory are asked for; a VM has {MIN_MEMORY_MIB} to {} MiB", layout::RAM_MAX >> 20)]
    MemorySize {
        /// What was asked for.
        asked: u32,
    },
    /// vCPUs out of bounds.
    #[error("{asked} vCPUs are asked for; a VM has 1 to {MAX_VCPUS}")]
    Vcpus {
        /// What was asked for.
        asked: u8,
    },
    /// A descriptor that did not come, or came to be used twice.
    #[error("descriptor {0} did not come with the message, or is used twice")]
    Descriptor(u32),
    /// Guest memory.
    #[error("the VM's memory could not be made")]
    Memory(#[from] memory::Error),
    /// Guest memory could not be written below the kernel.
    #[error("the boot tables could not be written")]
    Tables(#[from] vm_memory::GuestMemoryError),
    /// The kernel.
    #[error("the guest kernel could not be loaded")]
    Kernel(#[source] loader::Error),
    /// The initramfs.
    #[error("the initramfs could not be loaded")]
    Initramfs(#[source] loader::Error),
    /// The command line.
    #[error("the kernel command line is not usable")]
    Cmdline(#[from] cmdline::Error),
    /// KVM.
    #[error("KVM could not make the VM")]
    Kvm(#[from] crate::kvm::Error),
    /// The snapshot.
    #[error("the VM cannot begin where it was saved")]
    Snapshot(#[from] snapshot::Error),
    /// A disk.
    #[error("disk {serial} could not be made")]
    Disk {
        /// Its serial.
        serial: String,
        /// Why.
        #[source]
        source: block::Error,
    },
    /// A disk that is not there.
    #[error("there is no disk {serial}")]
    NoDisk {
        /// The serial that was asked for.
        serial: String,
    },
    /// Extents for a disk of a running VM.
    #[error("disk {serial} did not get more extents")]
    AddExtents {
        /// Its serial.
        serial: String,
        /// Why.
        #[source]
        source: block::Error,
    },
    /// A network card that there is not, or not for such a wire.
    #[error("there is no network card {slot} for this wire")]
    NoCard {
        /// Its number.
        slot: u8,
    },
    /// A network device.
    #[error("a network device could not be made")]
    Net(#[from] net::Error),
    /// The file system device.
    #[error("the file system device could not be made")]
    Fs(#[from] fs::Error),
    /// A descriptor of a device's own.
    #[error("{device} could not be set up")]
    Device {
        /// Its name.
        device: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The descriptors of a packet, each to be taken once.
pub struct Descriptors(Vec<Option<OwnedFd>>);

impl Descriptors {
    /// Those of one packet, in their order.
    pub fn new(descriptors: Vec<OwnedFd>) -> Self {
        Self(descriptors.into_iter().map(Some).collect())
    }

    /// Takes one.
    pub fn take(&mut self, which: Descriptor) -> Result<OwnedFd, Error> {
        let found = self.0.get_mut(which.0 as usize).and_then(Option::take);
        found.ok_or(Error::Descriptor(which.0))
    }
}

/// A VM that has not run yet.
pub struct Machine {
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// What they share.
    pub shared: Shared,
    /// KVM's side.
    pub vm: Arc<Vm>,
    /// Its memory.
    pub ram: Ram,
    /// What of it is mapped from the kernel's file, or a snapshot's.
    pub file_memory: Vec<HostRange>,
    /// The console, to be flushed at the end.
    pub output: Output,
    /// What the monitor can give to its devices while it runs.
    pub backends: Backends,
}

impl Machine {
    /// Puts a VM together. `stamps` and `ends` record what its guest does.
    pub fn new(
        config: &VmConfig,
        descriptors: &mut Descriptors,
        reactor: &Reactor,
        stamps: Arc<Stamps>,
        ends: Ends,
    ) -> Result<Self, Error> {
        check(config)?;
        let system = System::new(descriptors.take(config.kvm)?)?;
        let save_to = match &config.boot {
            Boot::Kernel(boot) => boot.save_to,
            Boot::Snapshot(_) => None,
        };
        if save_to.is_some() || matches!(config.boot, Boot::Snapshot(_)) {
            system.check_snapshots()?;
        }
        let (ram, initial) = InitialState::load(config, descriptors)?;
        let vm = Arc::new(system.create_vm(&ram, config.vcpus, save_to.is_some())?);
        let console = config
            .console
            .map(|console| descriptors.take(console))
            .transpose()?;
        let output = Output::new(console).map_err(device("the console"))?;

        let mut assembly = Assembly {
            bus: Bus::new(stamps.clone()),
            vm: &vm,
            ram: &ram,
            reactor,
        };
        let backends = assembly.add_devices(config, descriptors, &output)?;
        let saver = saver(save_to, config, descriptors, &system, &vm)?;
        assembly.add_chips(&output, &stamps, &ends, saver.as_ref())?;
        let mut bus = assembly.bus;

        let file_memory = initial.file_memory(&ram);
        let (start, chips) = initial.finish(config, &ram, &mut bus)?;
        let supported = system.supported_cpuid()?;
        let tsc_deadline = system.has_tsc_deadline();
        let vcpu = |index| {
            let of = arch::cpuid::Vcpu {
                index,
                count: config.vcpus,
                tsc_deadline,
            };
            Vcpu::new(&vm, of, &supported)
        };
        let vcpus: Vec<_> = (0..config.vcpus).map(vcpu).collect::<Result<_, _>>()?;
        start.set(&vcpus)?;
        if let Some(chips) = chips {
            vm.set_chips(&chips)?;
        }
        let bus = Arc::new(bus);
        let shared = Shared {
            bus,
            ends,
            stamps,
            saver,
        };
        Ok(Self {
            vcpus,
            shared,
            vm,
            ram,
            file_memory,
            output,
            backends,
        })
    }
}

/// Where the VM is to be saved, if it is.
fn saver(
    to: Option<Snapshot>,
    config: &VmConfig,
    descriptors: &mut Descriptors,
    system: &System,
    vm: &Arc<Vm>,
) -> Result<Option<Arc<Saver>>, Error> {
    let Some(to) = to else {
        return Ok(None);
    };
    let file = descriptors.take(to.state)?.into();
    let saver = Saver::new(
        file,
        vm.clone(),
        config.memory_mib,
        config.vcpus,
        system.saved_msrs()?,
    );
    Ok(Some(Arc::new(saver)))
}

fn check(config: &VmConfig) -> Result<(), Error> {
    if config.build != protocol::BUILD {
        return Err(Error::Build {
            theirs: config.build.clone(),
        });
    }
    let asked = config.memory_mib;
    if asked < MIN_MEMORY_MIB || u64::from(asked) << 20 > layout::RAM_MAX {
        return Err(Error::MemorySize { asked });
    }
    if config.vcpus == 0 || config.vcpus > MAX_VCPUS {
        return Err(Error::Vcpus {
            asked: config.vcpus,
        });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;

    use super::*;

    pub(crate) fn config() -> VmConfig {
        VmConfig {
            build: protocol::BUILD.to_owned(),
            kvm: Descriptor(0),
            memory_mib: 32,
            vcpus: 1,
            boot: Boot::Kernel(protocol::vmm::Kernel {
                image: Descriptor(1),
                initramfs: None,
                cmdline: String::new(),
                save_to: None,
            }),
            console: None,
            disks: Vec::new(),
            nets: Vec::new(),
            vsock: None,
            rng: false,
            fs: None,
        }
    }

    #[test]
    fn bounds_and_builds_are_checked_before_anything_is_made() {
        assert!(check(&config()).is_ok());
        let refused = |change: fn(&mut VmConfig)| {
            let mut config = config();
            change(&mut config);
            check(&config).unwrap_err()
        };
        assert!(matches!(
            refused(|c| c.memory_mib = 31),
            Error::MemorySize { .. }
        ));
        assert!(matches!(
            refused(|c| c.memory_mib = u32::MAX),
            Error::MemorySize { .. }
        ));
        assert!(matches!(refused(|c| c.vcpus = 0), Error::Vcpus { .. }));
        assert!(matches!(refused(|c| c.vcpus = 33), Error::Vcpus { .. }));
        assert!(matches!(
            refused(|c| c.build = "x".into()),
            Error::Build { .. }
        ));
    }

    #[test]
    fn a_descriptor_is_given_out_once() {
        let mut descriptors = Descriptors::new(vec![File::open("/dev/null").unwrap().into()]);
        assert!(matches!(
            descriptors.take(Descriptor(1)),
            Err(Error::Descriptor(1))
        ));
        assert!(descriptors.take(Descriptor(0)).is_ok());
        assert!(matches!(
            descriptors.take(Descriptor(0)),
            Err(Error::Descriptor(0))
        ));
    }
}
