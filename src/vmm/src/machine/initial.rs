//! The initial state of a VM: a kernel in memory and its tables, or the saved state of another VM.

use std::ffi::CString;
use std::fs::File;

use arch::{Placed, cmdline, e820, layout, linux, mptable, pvh, registers::Entry, tables};
use memory::{Bytes, GuestAddress, HostRange, Ram};
use protocol::vmm::{self, Boot, VmConfig};

use super::{Descriptors, Error};
use crate::bus::Bus;
use crate::loader::{self, Kernel};
use crate::snapshot::{Chips, State};
use crate::vcpu::Start;

/// What a VM starts from.
pub(super) enum InitialState {
    /// A kernel that is to boot.
    Kernel(Box<Loaded>),
    /// Another VM's memory and state.
    Snapshot(Box<State>),
}

/// A kernel in memory, with what its tables will hold.
pub(super) struct Loaded {
    kernel: Kernel,
    initramfs: Option<arch::Initramfs>,
    cmdline: String,
}

impl InitialState {
    /// Makes and fills the memory of `config`'s VM.
    pub(super) fn load(
        config: &VmConfig,
        descriptors: &mut Descriptors,
    ) -> Result<(Ram, Self), Error> {
        let ram_bytes = u64::from(config.memory_mib) << 20;
        let regions = layout::ram(ram_bytes);
        match &config.boot {
            Boot::Kernel(boot) => {
                let mut ram = match boot.save_to {
                    None => Ram::new(&regions)?,
                    Some(to) => Ram::shared(&regions, descriptors.take(to.memory)?.into())?,
                };
                let loaded = load_kernel(boot, descriptors, &mut ram)?;
                let initramfs = loaded.initramfs.map(|initramfs| initramfs.at);
                let (at, len) = layout::page_structures(ram_bytes, initramfs);
                ram.advise_huge_pages(at, len);
                Ok((ram, Self::Kernel(Box::new(loaded))))
            }
            Boot::Snapshot(from) => {
                let state = State::read(descriptors.take(from.state)?.into(), config)?;
                let mut ram = Ram::new(&regions)?;
                ram.map_saved(&descriptors.take(from.memory)?.into())?;
                for [at, len] in &state.written_soon {
                    ram.advise_own(GuestAddress(*at), *len);
                }
                Ok((ram, Self::Snapshot(Box::new(state))))
            }
        }
    }

    /// The part of the memory that is mapped from a file until the guest writes to it.
    pub(super) fn file_memory(&self, ram: &Ram) -> Vec<HostRange> {
        match self {
            Self::Kernel(loaded) => loaded.kernel.image.clone(),
            Self::Snapshot(_) => ram.file_ranges().to_vec(),
        }
    }

    /// Writes the kernel's tables, now that the machine has its devices, or gives the devices their saved states. Returns
    /// where the vCPUs begin, and chips to be set when these are there.
    pub(super) fn finish(
        self,
        config: &VmConfig,
        ram: &Ram,
        bus: &mut Bus,
    ) -> Result<(Start, Option<Chips>), Error> {
        match self {
            Self::Kernel(loaded) => {
                let line = cmdline::with_devices(&loaded.cmdline, bus.devices())?;
                loaded.write_tables(ram, config, line)?;
                Ok((Start::At(loaded.kernel.entry), None))
            }
            Self::Snapshot(state) => {
                let State {
                    vcpus,
                    chips,
                    devices,
                    ..
                } = *state;
                bus.set_saved(devices)?;
                Ok((Start::Saved(vcpus), Some(chips)))
            }
        }
    }
}

fn load_kernel(
    boot: &vmm::Kernel,
    descriptors: &mut Descriptors,
    ram: &mut Ram,
) -> Result<Loaded, Error> {
    let file = File::from(descriptors.take(boot.image)?);
    let kernel = loader::load_kernel(&file, ram).map_err(Error::Kernel)?;
    let initramfs = match boot.initramfs {
        Some(descriptor) => {
            let file = File::from(descriptors.take(descriptor)?);
            Some(loader::load_initramfs(&file, &kernel, ram).map_err(Error::Initramfs)?)
        }
        None => None,
    };
    Ok(Loaded {
        kernel,
        initramfs,
        cmdline: boot.cmdline.clone(),
    })
}

impl Loaded {
    /// What the kernel finds in memory besides itself.
    fn write_tables(&self, ram: &Ram, config: &VmConfig, line: CString) -> Result<(), Error> {
        let Self {
            kernel, initramfs, ..
        } = self;
        if let Some(max) = kernel.header.as_ref().map(|header| header.cmdline_max)
            && line.count_bytes() as u64 > max
        {
            let len = line.count_bytes() as u64;
            return Err(Error::Kernel(loader::Error::CommandLine { max, len }));
        }
        let map = e820::map(u64::from(config.memory_mib) << 20);
        let mut placed = vec![
            tables::gdt(),
            mptable::table(config.vcpus),
            cmdline::placed(line),
        ];
        match kernel.entry {
            Entry::Pvh(_) => placed.push(pvh::start_info(&map, *initramfs)),
            Entry::Linux64(_) => {
                placed.push(linux::zero_page(kernel.header.as_ref(), &map, *initramfs));
                placed.push(tables::identity_map());
            }
        }
        for Placed { at, bytes } in placed {
            ram.memory().write_slice(&bytes, at)?;
        }
        Ok(())
    }
}
