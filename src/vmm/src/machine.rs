//! Where a VM is put together: memory, kernel, devices, vCPUs.
//!
//! The order is fixed: kernel and initramfs are in memory before the VM exists, devices are on the bus before the
//! command line names them, and nothing runs before everything is there.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arch::{Placed, cmdline, e820, layout, linux, mptable, pvh, registers::Entry, tables};
use devices::legacy::{Control, I8042, Serial};
use devices::output::Output;
use devices::virtio::block::{self, Block, BlockConfig, Extent};
use devices::virtio::console::Console;
use devices::virtio::mmio::Mmio;
use devices::virtio::net::{self, Net};
use devices::virtio::rng::Rng;
use devices::virtio::vsock::{Offers, Vsock};
use devices::virtio::{Device, Reactor};
use memory::{Bytes, HostRange, Ram};
use protocol::timeline::control;
use protocol::vmm::{Descriptor, DiskConfig, End, MAX_VCPUS, MIN_MEMORY_MIB, NetConfig, VmConfig};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::bus::Bus;
use crate::ends::Ends;
use crate::kvm::{System, Vm};
use crate::loader::{self, Kernel};
use crate::stamps::{Listener, Stamps};
use crate::vcpu::{Shared, Vcpu};

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
    #[error("descriptor {0} did not come with the configuration, or is used twice")]
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
    /// A disk.
    #[error("disk {serial} could not be made")]
    Disk {
        /// Its serial.
        serial: String,
        /// Why.
        #[source]
        source: block::Error,
    },
    /// A network device.
    #[error("a network device could not be made")]
    Net(#[from] net::Error),
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
    pub vm: Vm,
    /// Its memory.
    pub ram: Ram,
    /// What of it is mapped from the kernel's file.
    pub kernel_memory: Vec<HostRange>,
    /// The console, to be flushed at the end.
    pub output: Output,
    /// Streams for its vsock device.
    pub offers: Option<Offers>,
}

impl Machine {
    /// Puts a VM together. `stamps` and `ends` are told what its guest does.
    pub fn new(
        config: &VmConfig,
        descriptors: &mut Descriptors,
        reactor: &Reactor,
        stamps: Arc<Stamps>,
        ends: Ends,
    ) -> Result<Self, Error> {
        check(config)?;
        let system = System::new(descriptors.take(config.kvm)?)?;
        let ram_bytes = u64::from(config.memory_mib) << 20;
        let mut ram = Ram::new(&layout::ram(ram_bytes))?;
        let kernel_file = File::from(descriptors.take(config.kernel)?);
        let kernel = loader::load_kernel(&kernel_file, &mut ram).map_err(Error::Kernel)?;
        let initramfs = match config.initramfs {
            Some(descriptor) => {
                let file = File::from(descriptors.take(descriptor)?);
                Some(loader::load_initramfs(&file, &kernel, &mut ram).map_err(Error::Initramfs)?)
            }
            None => None,
        };
        let vm = system.create_vm(&ram, config.vcpus)?;
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
        let offers = assembly.add_devices(config, descriptors, &output)?;
        assembly.add_chips(&output, &stamps, &ends)?;
        let bus = Arc::new(assembly.bus);

        let line = cmdline::with_devices(&config.cmdline, bus.devices())?;
        write_tables(&ram, ram_bytes, config.vcpus, &kernel, initramfs, &line)?;
        let supported = system.supported_cpuid()?;
        let tsc_deadline = system.has_tsc_deadline();
        let vcpu = |index| {
            let of = arch::cpuid::Vcpu {
                index,
                count: config.vcpus,
                tsc_deadline,
            };
            Vcpu::new(&vm, of, &supported, kernel.entry)
        };
        let vcpus = (0..config.vcpus).map(vcpu).collect::<Result<_, _>>()?;
        let shared = Shared { bus, ends, stamps };
        Ok(Self {
            vcpus,
            shared,
            vm,
            ram,
            kernel_memory: kernel.mapped,
            output,
            offers,
        })
    }
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

fn device(device: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Device { device, source }
}

/// A machine's devices while they are put onto its bus.
struct Assembly<'a> {
    bus: Bus,
    vm: &'a Vm,
    ram: &'a Ram,
    reactor: &'a Reactor,
}

impl Assembly<'_> {
    /// The virtio devices, in the order in which the guest finds them: a new one is a line here.
    fn add_devices(
        &mut self,
        config: &VmConfig,
        descriptors: &mut Descriptors,
        output: &Output,
    ) -> Result<Option<Offers>, Error> {
        for disk in &config.disks {
            self.add("blk", block(disk, descriptors)?)?;
        }
        for net in &config.nets {
            self.add("net", net_device(net, descriptors)?)?;
        }
        let mut offers = None;
        if let Some(vsock) = &config.vsock {
            let (device, its_offers) = Vsock::new(vsock.guest_cid);
            self.add("vsock", device)?;
            offers = Some(its_offers);
        }
        if config.rng {
            self.add("rng", Rng::new())?;
        }
        if config.console.is_some() {
            self.add("console", Console::new(output.clone()))?;
        }
        Ok(offers)
    }

    fn add(&mut self, name: &'static str, device: impl Device + 'static) -> Result<(), Error> {
        let transport = Mmio::new(
            Box::new(device),
            self.ram.memory().clone(),
            self.reactor.clone(),
        )
        .map_err(|source| Error::Device {
            device: name,
            source,
        })?;
        self.vm.connect(self.bus.devices(), &transport)?;
        self.bus.add_device(name, transport);
        Ok(())
    }

    fn add_chips(
        &mut self,
        output: &Output,
        stamps: &Arc<Stamps>,
        ends: &Ends,
    ) -> Result<(), Error> {
        let interrupt =
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(device("the serial port"))?;
        self.vm.interrupt(&interrupt, layout::SERIAL_GSI)?;
        let serial = Serial::new(output.clone(), interrupt);
        self.bus
            .add_chip(layout::SERIAL_PORT, layout::SERIAL_LEN, Box::new(serial));

        let (ends, codes) = (ends.clone(), stamps.clone());
        let reset = move || match codes.exit_code() {
            Some(code) => ends.reach(End::Code { code }),
            None => ends.reach(End::Reset),
        };
        self.bus.add_chip(
            layout::I8042_PORT,
            layout::I8042_LEN,
            Box::new(I8042::new(reset)),
        );

        let control_device = Control::new(Listener(stamps.clone()));
        self.bus
            .add_chip(control::PORT, control::LEN, Box::new(control_device));
        Ok(())
    }
}

fn block(config: &DiskConfig, descriptors: &mut Descriptors) -> Result<Block, Error> {
    let mut extents = Vec::with_capacity(config.extents.len());
    for extent in &config.extents {
        let file = File::from(descriptors.take(extent.file)?);
        extents.push(Extent {
            file,
            len_bytes: extent.len_bytes,
        });
    }
    let serial = config.serial.clone();
    Block::new(BlockConfig {
        serial: serial.clone(),
        read_only: config.read_only,
        extents,
        align_bytes: config.align_bytes,
    })
    .map_err(|source| Error::Disk { serial, source })
}

fn net_device(config: &NetConfig, descriptors: &mut Descriptors) -> Result<Net, Error> {
    let tap = descriptors.take(config.tap)?;
    let NetConfig {
        mac, mtu, offload, ..
    } = *config;
    Ok(Net::new(net::NetConfig {
        tap,
        mac,
        mtu,
        offload,
    })?)
}

/// What the kernel finds in memory besides itself.
fn write_tables(
    ram: &Ram,
    ram_bytes: u64,
    vcpus: u8,
    kernel: &Kernel,
    initramfs: Option<arch::Initramfs>,
    line: &str,
) -> Result<(), Error> {
    if let Some(max) = kernel.header.as_ref().map(|header| header.cmdline_max)
        && line.len() as u64 > max
    {
        let len = line.len() as u64;
        return Err(Error::Kernel(loader::Error::CommandLine { max, len }));
    }
    let map = e820::map(ram_bytes);
    let mut placed = vec![tables::gdt(), mptable::table(vcpus), cmdline::placed(line)];
    match kernel.entry {
        Entry::Pvh(_) => placed.push(pvh::start_info(&map, initramfs)),
        Entry::Linux64(_) => {
            placed.push(linux::zero_page(kernel.header.as_ref(), &map, initramfs));
            placed.push(tables::identity_map());
        }
    }
    for Placed { at, bytes } in placed {
        ram.memory().write_slice(&bytes, at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VmConfig {
        VmConfig {
            build: protocol::BUILD.to_owned(),
            kvm: Descriptor(0),
            memory_mib: 32,
            vcpus: 1,
            kernel: Descriptor(1),
            initramfs: None,
            cmdline: String::new(),
            console: None,
            disks: Vec::new(),
            nets: Vec::new(),
            vsock: None,
            rng: false,
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
