//! Putting devices onto a machine's bus.

use std::fs::File;
use std::io;
use std::sync::Arc;

use arch::layout;
use devices::legacy::{Control, I8042, Serial};
use devices::output::Output;
use devices::virtio::block::{self, Block, BlockConfig, Extent};
use devices::virtio::console::Console;
use devices::virtio::fs::{self, Fs};
use devices::virtio::mmio::Mmio;
use devices::virtio::net::{self, Net};
use devices::virtio::rng::Rng;
use devices::virtio::vsock::{Offers, Vsock};
use devices::virtio::{Device, Reactor};
use memory::Ram;
use protocol::timeline::control;
use protocol::vmm::{
    Descriptor, DiskConfig, DiskExtent, End, NetConfig, PlacedExtent, VmConfig, Wire,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Descriptors, Error};
use crate::bus::Bus;
use crate::confine;
use crate::ends::Ends;
use crate::kvm::Vm;
use crate::snapshot::Saver;
use crate::stamps::{Listener, Stamps};

const _: () = assert!(protocol::vmm::MAX_EXTENTS == block::MAX_EXTENTS);
const _: () = assert!(protocol::fs::MAX_MESSAGE_LEN == fs::MAX_MESSAGE_LEN);
const _: () = assert!(protocol::fs::MAX_DATA_BYTES == fs::MAX_DATA_BYTES);

/// What the monitor can give to devices while the VM runs.
#[derive(Default)]
pub struct Backends {
    disks: Vec<block::Handle>,
    /// Streams for the vsock device, if there is one.
    pub offers: Option<Offers>,
    /// Network cards, by their slots.
    nets: Vec<net::Handle>,
    /// Where the file system device, if there is one, gets its hull-fs.
    pub fs: Option<fs::Handle>,
}

impl Backends {
    /// Adds extents to the disk with this serial: all of them, or an error.
    pub fn add_extents(
        &self,
        serial: &str,
        extents: Vec<PlacedExtent>,
        descriptors: &mut Descriptors,
    ) -> Result<(), Error> {
        let mut disks = self.disks.iter();
        let Some(disk) = disks.find(|disk| disk.serial() == serial) else {
            return Err(Error::NoDisk {
                serial: serial.to_owned(),
            });
        };
        let mut added = Vec::with_capacity(extents.len());
        for placed in &extents {
            added.push(block::PlacedExtent {
                offset_bytes: placed.offset_bytes,
                extent: extent(&placed.extent, descriptors)?,
            });
        }
        disk.add(added).map_err(|source| Error::AddExtents {
            serial: serial.to_owned(),
            source,
        })
    }
}

impl Backends {
    /// Has a network card lead to another wire, or to none.
    pub fn plug(
        &self,
        slot: u8,
        wire: Option<(Descriptor, Wire)>,
        descriptors: &mut Descriptors,
    ) -> Result<(), Error> {
        let no_card = || Error::NoCard { slot };
        let card = self.nets.get(usize::from(slot)).ok_or_else(no_card)?;
        let wire = match wire {
            Some((descriptor, kind)) => Some((descriptors.take(descriptor)?, kind_of(kind))),
            None => None,
        };
        match card.plug(wire) {
            true => Ok(()),
            false => Err(no_card()),
        }
    }
}

/// A machine's devices while they are put onto its bus.
pub(super) struct Assembly<'a> {
    pub(super) bus: Bus,
    pub(super) vm: &'a Vm,
    pub(super) ram: &'a Ram,
    pub(super) reactor: &'a Reactor,
}

impl Assembly<'_> {
    /// The virtio devices, in the order in which the guest finds them: a new one is a line here.
    pub(super) fn add_devices(
        &mut self,
        config: &VmConfig,
        descriptors: &mut Descriptors,
        output: &Output,
    ) -> Result<Backends, Error> {
        let mut backends = Backends::default();
        for disk in &config.disks {
            let device = block_device(disk, descriptors)?;
            backends.disks.push(device.handle());
            self.add("blk", device)?;
        }
        for net in &config.nets {
            let device = net_device(net, descriptors)?;
            backends.nets.push(device.handle());
            self.add("net", device)?;
        }
        if let Some(vsock) = &config.vsock {
            let (device, offers) = Vsock::new(vsock.guest_cid);
            self.add("vsock", device)?;
            backends.offers = Some(offers);
        }
        if config.rng {
            self.add("rng", Rng::new())?;
        }
        if let Some(fs) = &config.fs {
            let device = Fs::new(fs::FsConfig {
                tag: fs.tag.clone(),
                max_open_files: confine::max_open_files(),
            })?;
            backends.fs = Some(device.handle());
            self.add("fs", device)?;
        }
        if config.console.is_some() {
            self.add("console", Console::new(output.clone()))?;
        }
        Ok(backends)
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

    pub(super) fn add_chips(
        &mut self,
        output: &Output,
        stamps: &Arc<Stamps>,
        ends: &Ends,
        saver: Option<&Arc<Saver>>,
    ) -> Result<(), Error> {
        let interrupt =
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(device("the serial port"))?;
        self.vm.interrupt(&interrupt, layout::SERIAL_GSI)?;
        let serial = Serial::new(output.clone(), interrupt);
        self.bus
            .add_chip(layout::SERIAL_PORT, layout::SERIAL_LEN, Box::new(serial));

        let ends_at_ready = ends.clone();
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

        let control_device = Control::new(Listener {
            stamps: stamps.clone(),
            to_be_saved: saver.map(|saver| (saver.clone(), ends_at_ready)),
        });
        self.bus
            .add_chip(control::PORT, control::LEN, Box::new(control_device));
        Ok(())
    }
}

fn extent(config: &DiskExtent, descriptors: &mut Descriptors) -> Result<Extent, Error> {
    let DiskExtent { file, len_bytes } = *config;
    let file = File::from(descriptors.take(file)?);
    Ok(Extent { file, len_bytes })
}

fn block_device(config: &DiskConfig, descriptors: &mut Descriptors) -> Result<Block, Error> {
    let mut extents = Vec::with_capacity(config.extents.len());
    for config in &config.extents {
        extents.push(extent(config, descriptors)?);
    }
    let serial = config.serial.clone();
    Block::new(BlockConfig {
        serial: serial.clone(),
        read_only: config.read_only,
        extents,
        align_bytes: config.align_bytes,
        min_len_bytes: config.min_len_bytes,
    })
    .map_err(|source| Error::Disk { serial, source })
}

fn net_device(config: &NetConfig, descriptors: &mut Descriptors) -> Result<Net, Error> {
    let NetConfig { mac, mtu, .. } = *config;
    Ok(Net::new(net::NetConfig {
        descriptor: match config.descriptor {
            Some(descriptor) => Some(descriptors.take(descriptor)?),
            None => None,
        },
        wire: kind_of(config.wire),
        mac,
        mtu,
    })?)
}

fn kind_of(wire: Wire) -> net::Wire {
    match wire {
        Wire::Plain => net::Wire::Plain,
        Wire::Tap => net::Wire::Tap,
        Wire::Switch => net::Wire::Switch,
    }
}

pub(super) fn device(device: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Device { device, source }
}
