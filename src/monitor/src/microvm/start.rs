//! Starting a VM, and what its agent will be asked for its container.

use std::os::fd::OwnedFd;
use std::path::Path;

use protocol::agent::{CONTROL_PORT, Create, EtcFiles, Interface, LayerExtent, Mount, Writable};

use super::Fault;
use crate::bridge::Attached;
use crate::config::{Config, Vm};
use crate::console::Console;
use crate::devices::{Begin, LAYER_ALIGN_BYTES, Own, SCRATCH_SERIAL};
use crate::streams::Streams;
use crate::vmm::Vmm;

/// A VM whose guest runs and has yet to say hello.
pub(super) struct Started {
    pub(super) vmm: Vmm,
    pub(super) console: Console,
    pub(super) control: OwnedFd,
    pub(super) streams: Streams,
}

/// Starts hull-vmm and its guest. hull-vmm is spawned first, so that it starts while its files are opened. The network is
/// attached unless it is.
pub(super) fn begin(
    config: &Config,
    vm: &Vm,
    folder: &Path,
    begin: Begin,
    network: &mut Option<Attached>,
) -> Result<Started, Fault> {
    let mut vmm = Vmm::spawn(&config.id, vm)?;
    let (console, console_end) = Console::new()?;
    if config.container.bridge && network.is_none() {
        *network = Some(Attached::new(&config.id)?);
    }
    let tap = match network {
        Some(network) => network.tap()?,
        None => None,
    };
    vmm.start(
        vm,
        Own {
            begin,
            layers: &config.container.layers,
            folder,
            console: console_end,
            tap,
        },
    )?;
    let (control, control_end) = sys::packet::stream_pair()?;
    vmm.offer(CONTROL_PORT, control_end)?;
    let streams = Streams::new(config.container.stdio, |port, end| {
        Ok::<(), Fault>(vmm.offer(port, end)?)
    })?;
    vmm.wait_until_it_runs()?;
    Ok(Started {
        vmm,
        console,
        control,
        streams,
    })
}

/// Its root.
pub(super) fn mount(config: &Config, vm: &Vm) -> Mount {
    let mut offset_bytes = 0u64;
    let layers = config
        .container
        .layers
        .iter()
        .map(|layer| {
            let extent = LayerExtent {
                offset_bytes,
                len_bytes: layer.len_bytes,
            };
            offset_bytes = (offset_bytes + layer.len_bytes).next_multiple_of(LAYER_ALIGN_BYTES);
            extent
        })
        .collect();
    let writable = match &vm.scratch {
        Some(_) => Writable::Disk {
            serial: SCRATCH_SERIAL.into(),
        },
        None => Writable::Nothing,
    };
    Mount {
        container: config.id.clone(),
        layers,
        writable,
    }
}

/// The container itself.
pub(super) fn create(config: &Config, streams: &Streams, interface: Option<Interface>) -> Create {
    let container = &config.container;
    let etc = EtcFiles {
        hosts: crate::bridge::hosts(
            &container.etc,
            interface.as_ref().map(|interface| interface.address),
        ),
        ..container.etc.clone()
    };
    Create {
        container: config.id.clone(),
        spec: container.spec.clone(),
        user: container.user.clone(),
        seccomp: Some(container.seccomp.clone()),
        init: container.init,
        stdio: streams.stdio(),
        etc,
        interface,
    }
}
