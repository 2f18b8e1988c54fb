//! What hull-vmm is told of a VM: how it begins, and its devices, which are the same in every VM of a shape.
//!
//! A template knows no image and no address: the layer device has a fixed length, and the network device a fixed MAC
//! address and MTU, which the agent sets to the container's.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use network::Host;
use protocol::agent::TO_BE_SAVED;
use protocol::fs::TAG;
use protocol::record::{LayerFile, Vm};
use protocol::vmm::{
    Boot, Descriptor, DiskConfig, DiskExtent, FsConfig, Kernel, NetConfig, Snapshot, VmConfig,
    VsockConfig, Wire, card_mac,
};

use crate::scratch;
use crate::vmm::{Error, open, open_kvm, open_own};

/// Layers begin at multiples of this on their device, so that they can be mapped with huge pages.
pub(crate) const LAYER_ALIGN_BYTES: u64 = 2 << 20;
/// Length of the layer device, whatever the layers: a template is to serve every image.
pub(crate) const LAYERS_LEN_BYTES: u64 = 1 << 40;
/// The guest's name for the device that holds the layers.
pub(crate) const LAYERS_SERIAL: &str = "layers";
/// The guest's name for the writable disk.
pub(crate) const SCRATCH_SERIAL: &str = "scratch";
/// Length of the writable disk, whatever the size of its file: for the same reason. A guest cannot write beyond the file.
const SCRATCH_LEN_BYTES: u64 = protocol::record::MAX_SCRATCH_BYTES;
/// The first context id that a guest may have (virtio 1.2, 5.10.4); each VM has a vsock of its own.
const GUEST_CID: u32 = 3;
/// The largest packet of a network card: the most that a bridge of hull's takes. The container's interface may have less.
const MTU: u16 = 1500;

/// What the networks of this user are to a VM.
pub(crate) fn wire_of_this_user() -> Wire {
    match Host::of_this_user() {
        Host::Bridge => Wire::Tap,
        Host::Switch => Wire::Switch,
    }
}

/// The host's end of the VM's network device.
#[derive(Debug)]
pub(crate) struct NetworkEnd {
    /// Where packets go and come from.
    pub(crate) descriptor: OwnedFd,
    /// What that leads to.
    pub(crate) wire: Wire,
}

impl NetworkEnd {
    /// One that leads nowhere, of the kind that a network of this user has: for a VM that is to be saved.
    pub(crate) fn unattached(id: &str, host: Host) -> io::Result<NetworkEnd> {
        match host {
            Host::Bridge => {
                // No bridge's port has such a name.
                let end = id.len().min(sys::tap::MAX_NAME_LEN - 5);
                let tap = sys::tap::create(&format!("hull-{}", &id[..end]))?;
                sys::tap::set_offload(&tap, network::OFFLOAD)?;
                Ok(NetworkEnd {
                    descriptor: tap,
                    wire: Wire::Tap,
                })
            }
            Host::Switch => {
                let (ours, _theirs) = sys::packet::pair()?;
                sys::nonblocking::set_nonblocking(&ours)?;
                Ok(NetworkEnd {
                    descriptor: ours,
                    wire: Wire::Switch,
                })
            }
        }
    }

    /// Another descriptor of it.
    pub(crate) fn try_clone(&self) -> io::Result<NetworkEnd> {
        Ok(NetworkEnd {
            descriptor: self.descriptor.try_clone()?,
            wire: self.wire,
        })
    }
}

/// A saved VM's files.
#[derive(Debug)]
pub(crate) struct SavedVm {
    /// Its state.
    pub(crate) state: File,
    /// Its memory.
    pub(crate) memory: File,
}

/// How a VM is to begin.
#[derive(Debug)]
pub(crate) enum Begin {
    /// With its kernel.
    Kernel,
    /// With its kernel, to be saved when its agent is ready.
    ToBeSaved(SavedVm),
    /// Where another was saved.
    Saved(SavedVm),
}

/// What one VM of a shape has of its own.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    /// How it begins.
    pub(crate) begin: Begin,
    /// What its layer device holds.
    pub(crate) layers: &'a [LayerFile],
    /// Where its writable disk is made.
    pub(crate) folder: &'a Path,
    /// Its writable disk outlives it.
    pub(crate) keeps_disk: bool,
    /// Where its console output goes.
    pub(crate) console: OwnedFd,
    /// It may write to files that are shared with it.
    pub(crate) writes_shares: bool,
    /// The other end of its first network card.
    pub(crate) network: Option<NetworkEnd>,
    /// How many network cards it has: the others lead nowhere yet.
    pub(crate) cards: u8,
    /// What they are made to lead to.
    pub(crate) wire: Wire,
}

/// Whether these layers fit the layer device of a template.
pub(crate) fn layers_fit(layers: &[LayerFile]) -> bool {
    let mut end = 0u64;
    layers.iter().all(|layer| {
        let len = layer.len_bytes.checked_next_multiple_of(LAYER_ALIGN_BYTES);
        end = len.map_or(u64::MAX, |len| end.saturating_add(len));
        end <= LAYERS_LEN_BYTES
    })
}

/// Opens what the VM needs; returns what hull-vmm is told, and the descriptors that go with it.
pub(crate) fn assemble(vm: &Vm, own: Own<'_>) -> Result<(VmConfig, Vec<OwnedFd>), Error> {
    assemble_on(open_kvm()?.into(), vm, own)
}

fn assemble_on(kvm: OwnedFd, vm: &Vm, own: Own<'_>) -> Result<(VmConfig, Vec<OwnedFd>), Error> {
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    let mut pass = |fd: OwnedFd| {
        descriptors.push(fd);
        Descriptor(descriptors.len() as u32 - 1)
    };
    let kvm = pass(kvm);
    let snapshot = |saved: SavedVm, pass: &mut dyn FnMut(OwnedFd) -> Descriptor| Snapshot {
        state: pass(saved.state.into()),
        memory: pass(saved.memory.into()),
    };
    let boot = match own.begin {
        Begin::Saved(saved) => Boot::Snapshot(snapshot(saved, &mut pass)),
        Begin::Kernel => Boot::Kernel(kernel(vm, None, &mut pass)?),
        Begin::ToBeSaved(saved) => {
            let save_to = snapshot(saved, &mut pass);
            Boot::Kernel(kernel(vm, Some(save_to), &mut pass)?)
        }
    };
    let mut extents = Vec::new();
    for layer in own.layers {
        extents.push(DiskExtent {
            file: pass(open_own(&layer.path)?.into()),
            len_bytes: layer.len_bytes,
        });
    }
    let mut disks = vec![DiskConfig {
        serial: LAYERS_SERIAL.into(),
        read_only: true,
        extents,
        align_bytes: LAYER_ALIGN_BYTES,
        min_len_bytes: LAYERS_LEN_BYTES,
    }];
    if let Some(template) = &vm.scratch {
        let made = match own.keeps_disk {
            true => scratch::open_or_make(template, vm.scratch_bytes, own.folder),
            false => scratch::make(template, vm.scratch_bytes, own.folder),
        };
        let (file, len_bytes) = made.map_err(|source| Error::Scratch {
            folder: own.folder.to_owned(),
            source,
        })?;
        disks.push(DiskConfig {
            serial: SCRATCH_SERIAL.into(),
            read_only: false,
            extents: vec![DiskExtent {
                file: pass(file.into()),
                len_bytes,
            }],
            align_bytes: 512,
            min_len_bytes: SCRATCH_LEN_BYTES,
        });
    }
    let console = Some(pass(own.console));
    let mut first = own.network.map(|end| pass(end.descriptor));
    let nets = (0..own.cards).map(|slot| NetConfig {
        descriptor: first.take(),
        wire: own.wire,
        mac: card_mac(slot),
        mtu: MTU,
    });
    let config = VmConfig {
        build: protocol::BUILD.into(),
        kvm,
        memory_mib: vm.memory_mib,
        vcpus: vm.vcpus,
        boot,
        console,
        disks,
        nets: nets.collect(),
        vsock: Some(VsockConfig {
            guest_cid: GUEST_CID,
        }),
        rng: true,
        // In every VM, for a template to serve them all.
        fs: Some(FsConfig {
            tag: TAG.into(),
            unbounded_files: own.writes_shares,
        }),
    };
    Ok((config, descriptors))
}

fn kernel(
    vm: &Vm,
    save_to: Option<Snapshot>,
    pass: &mut dyn FnMut(OwnedFd) -> Descriptor,
) -> Result<Kernel, Error> {
    Ok(Kernel {
        image: pass(open(&vm.kernel)?.into()),
        initramfs: Some(pass(open(&vm.initramfs)?.into())),
        cmdline: match save_to {
            None => vm.cmdline.clone(),
            Some(_) => format!("{} {TO_BE_SAVED}", vm.cmdline),
        },
        save_to,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_layers_and_all_devices_fit_one_packet() {
        use protocol::vmm::{MAX_DESCRIPTORS, MAX_LAYERS, MAX_PACKET_LEN, ToVmm};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let file = || File::open(&path).unwrap();
        let vm = Vm {
            program: path.clone(),
            fs: None,
            kernel: path.clone(),
            initramfs: path.clone(),
            cmdline: "x".repeat(4096),
            memory_mib: 128,
            cpu_shares: None,
            cpu_milli: None,
            vcpus: 1,
            cards: 4,
            jail: Default::default(),
            scratch: Some(path.clone()),
            scratch_bytes: None,
            template: None,
            show_console: true,
        };
        let layer = || LayerFile {
            path: path.clone(),
            len_bytes: LAYERS_LEN_BYTES,
        };
        let layers: Vec<LayerFile> = std::iter::repeat_with(layer).take(MAX_LAYERS).collect();
        let own = Own {
            begin: Begin::ToBeSaved(SavedVm {
                state: file(),
                memory: file(),
            }),
            layers: &layers,
            folder: folder.path(),
            keeps_disk: false,
            writes_shares: true,
            console: file().into(),
            network: Some(NetworkEnd {
                descriptor: file().into(),
                wire: Wire::Switch,
            }),
            cards: 4,
            wire: Wire::Switch,
        };
        let (config, descriptors) = assemble_on(file().into(), &vm, own).unwrap();
        assert_eq!(config.disks[0].extents.len(), MAX_LAYERS);
        assert!(
            descriptors.len() <= MAX_DESCRIPTORS,
            "{}",
            descriptors.len()
        );
        let packet = serde_json::to_vec(&ToVmm::Start(Box::new(config))).unwrap();
        assert!(packet.len() <= MAX_PACKET_LEN, "{}", packet.len());
    }

    #[test]
    fn layers_fit_until_the_device_is_full() {
        let layers = |lens: &[u64]| -> Vec<LayerFile> {
            let layer = |len_bytes: &u64| LayerFile {
                path: "/layer".into(),
                len_bytes: *len_bytes,
            };
            lens.iter().map(layer).collect()
        };
        assert!(layers_fit(&layers(&[])));
        assert!(layers_fit(&layers(&[
            4096,
            LAYERS_LEN_BYTES - LAYER_ALIGN_BYTES
        ])));
        assert!(!layers_fit(&layers(&[4096, LAYERS_LEN_BYTES])));
        assert!(!layers_fit(&layers(&[u64::MAX, u64::MAX])));
    }
}
