//! What a sandbox's containers run on: a VM, or the host's own kernel.
//!
//! ```text
//! warden:  start --fork--> into_host: the process and its place on the network
//!             |
//!             '---------> speaker: leave_host: the agent's connection, streams to offer, layers to add
//! ```

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use protocol::agent::{self, CONTROL_PORT, Failure, FailureKind, Interface, LayerExtent};
use protocol::monitor::Began;
use protocol::record::{
    LayerFile, Machine as Kind, Mount, Published, SandboxConfig, SandboxKind, Vm,
};
use protocol::timeline::Nanos;
use sys::signalfd::SignalFd;

use crate::bridge::{self, Attached};
use crate::console::Console;
use crate::devices::{Begin, LAYER_ALIGN_BYTES, LAYERS_LEN_BYTES, Own};
use crate::native::{self, Native, Ports};
use crate::process::{Ended, Process};
use crate::shares::{self, Shares};
use crate::template::{Beginning, NoVm};
use crate::vmm::{self, Vmm};
use crate::{chain, measure};

/// Why a machine cannot be started or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// hull-vmm.
    #[error(transparent)]
    Vmm(#[from] vmm::Error),
    /// There will be no VM.
    #[error(transparent)]
    NoVm(#[from] NoVm),
    /// hull-native.
    #[error(transparent)]
    Native(#[from] native::Error),
    /// Its surroundings.
    #[error("cannot prepare the sandbox")]
    Prepare(#[from] io::Error),
    /// hull-fs.
    #[error(transparent)]
    Shares(#[from] shares::Error),
    /// Its network.
    #[error("cannot set up the container's network")]
    Network(#[from] bridge::Error),
    /// The layer device is full.
    #[error("the sandbox's layer device has no room for {path}; use a new pod", path = .0.display())]
    NoRoom(std::path::PathBuf),
}

/// A machine whose agent has yet to say hello, or has.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) backend: Backend,
    /// The host's end of the agent's connection.
    pub(crate) control: OwnedFd,
    pub(crate) interface: Option<Interface>,
    network: Option<Attached>,
    shares: Option<Shares>,
    layers: LayerTable,
}

/// A layer that is not on the layer device: its index among those asked for, and the offset that it is to have.
pub(crate) type NewLayer = (usize, u64);

/// What stands behind the agent's connection.
#[derive(Debug)]
pub(crate) enum Backend {
    /// hull-vmm.
    Vm(Box<VmSide>),
    /// hull-native.
    Native { process: Process, ports: Ports },
}

/// What only a VM has.
#[derive(Debug)]
pub(crate) struct VmSide {
    pub(crate) vmm: Vmm,
    pub(crate) console: Console,
    pub(crate) show_console: bool,
    pub(crate) began: Began,
    pub(crate) template_made: Option<Nanos>,
    /// Only in the speaker.
    pub(crate) measurable: Option<Measurable>,
}

/// How a VM is measured.
#[derive(Debug)]
pub(crate) enum Measurable {
    /// By the speaker, from files that were opened while that was allowed.
    Here(measure::Files),
    /// By those who may look into its processes.
    Elsewhere(measure::Pids),
}

/// The warden's part of a machine: what takes rights. Dropped, it is taken down.
#[derive(Debug)]
pub(crate) struct HostSide {
    /// In the process's cgroup, which goes with that.
    shares: Option<Shares>,
    process: Process,
    network: Option<Attached>,
    /// The machine was ended because hull-fs had.
    without_shares: bool,
}

impl Machine {
    /// Starts the machine of a sandbox, with these layers on its layer device and these directories shared from the start.
    /// Returns it with what the user should know.
    pub(crate) fn start(
        config: &SandboxConfig,
        folder: &Path,
        layers: &[LayerFile],
        mounts: &[Mount],
        quit: &SignalFd,
    ) -> Result<(Machine, Vec<String>), Failure> {
        let started = match &config.machine {
            Kind::Vm(vm) => start_vm(config, vm, folder, layers, mounts, quit),
            Kind::Native { program } => {
                start_native(config, program, folder).map(|machine| (machine, Vec::new()))
            }
        };
        started.map_err(|fault| Failure::new(FailureKind::Other, chain(&fault)))
    }

    /// The user that belongs to its speaker, where there is one.
    pub(crate) fn speaker_user(&self) -> Option<u32> {
        self.process().monitor_user()
    }

    /// The warden's part. The rest was the speaker's, which has its own copy.
    pub(crate) fn into_host(self) -> HostSide {
        let process = match self.backend {
            Backend::Vm(side) => side.vmm.process,
            Backend::Native { process, .. } => process,
        };
        HostSide {
            process,
            network: self.network,
            shares: self.shares,
            without_shares: false,
        }
    }

    /// Leaves the warden's part to the warden, which writes to `status` how the process ended. Opens what measuring its
    /// memory needs only if the machine is `measured`: files of hull-vmm's memory, which other speakers do not hold.
    pub(crate) fn leave_host(&mut self, status: OwnedFd, measured: bool) -> io::Result<()> {
        self.network = None;
        if let Some(mut shares) = self.shares.take() {
            shares.part();
        }
        match &mut self.backend {
            Backend::Vm(side) => {
                side.vmm.process.part(status);
                let pid = side.vmm.process.pid();
                side.measurable = Some(match measured {
                    true => Measurable::Here(measure::Files::open(pid)?),
                    false => Measurable::Elsewhere(measure::Pids::new(pid)),
                });
            }
            Backend::Native { process, .. } => process.part(status),
        }
        Ok(())
    }

    /// Lets the agent open a stream to this port once, and joins it with `end`.
    pub(crate) fn offer(&mut self, port: u32, end: OwnedFd) -> Result<(), Fault> {
        match &mut self.backend {
            Backend::Vm(side) => Ok(side.vmm.offer(port, end)?),
            Backend::Native { ports, .. } => Ok(ports.offer(port, &end)?),
        }
    }

    /// Where layers are for the agent, and which of them are new: their files are to be added to the layer device.
    pub(crate) fn place_layers(
        &mut self,
        layers: &[LayerFile],
    ) -> Result<(Vec<agent::Layer>, Vec<NewLayer>), Fault> {
        match &self.backend {
            Backend::Vm(_) => {
                let (places, new) = self.layers.place(layers)?;
                Ok((places.into_iter().map(agent::Layer::Extent).collect(), new))
            }
            Backend::Native { .. } => {
                let file = |layer: &LayerFile| agent::Layer::File {
                    path: layer.path.to_string_lossy().into_owned(),
                };
                Ok((layers.iter().map(file).collect(), Vec::new()))
            }
        }
    }

    fn process(&self) -> &Process {
        match &self.backend {
            Backend::Vm(side) => &side.vmm.process,
            Backend::Native { process, .. } => process,
        }
    }
}

impl HostSide {
    /// The interface of the sandbox, if it has a network.
    pub(crate) fn interface(&self) -> Option<Interface> {
        self.network.as_ref().map(Attached::interface)
    }

    /// The ports of the sandbox that are reached by the host's addresses.
    pub(crate) fn ports(&self) -> &[Published] {
        self.network.as_ref().map_or(&[], Attached::ports)
    }

    /// To be polled for its end, until it has been waited for.
    pub(crate) fn end_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.process.end_descriptor()
    }

    /// Shares directories with a VM that runs. Returns hull-vmm's end of the socket of a hull-fs, if this is its first.
    pub(crate) fn share(
        &mut self,
        vm: &Vm,
        mounts: &[Mount],
    ) -> Result<Option<OwnedFd>, shares::Error> {
        if mounts.is_empty() {
            return Ok(None);
        }
        if let Some(shares) = &mut self.shares {
            return shares.add(mounts).map(|()| None);
        }
        let (shares, socket) = Shares::start(vm.fs.as_deref(), self.process.cgroup(), mounts)?;
        self.shares = Some(shares);
        Ok(Some(socket))
    }

    /// Shares no more than these.
    pub(crate) fn keep_shares(&mut self, mounts: &[&Mount]) {
        if let Some(shares) = &mut self.shares {
            shares.keep(mounts);
        }
    }

    /// To be polled for the end of hull-fs, while there is one.
    pub(crate) fn shares_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.shares.as_ref().and_then(Shares::end_descriptor)
    }

    /// hull-fs has ended. Unless it followed hull-vmm, the machine ends with it: what its containers have open there is lost
    /// (lifecycle H26).
    pub(crate) fn shares_ended(&mut self) {
        if let Some(why) = self.shares.take().and_then(Shares::end) {
            tracing::error!("{why}");
            self.without_shares = true;
            self.process.kill();
        }
    }

    /// Waits for its end and says how it was.
    pub(crate) fn wait(&mut self) -> Option<Ended> {
        let ended = self.process.wait()?;
        Some(match self.without_shares {
            true => ended.for_want_of_shares(),
            false => ended,
        })
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Takes everything down: the process, its cgroup, its place on the network.
    pub(crate) fn take_down(self) {
        drop(self.shares);
        drop(self.process);
        if let Some(network) = self.network {
            network.detach();
        }
    }
}

fn start_vm(
    config: &SandboxConfig,
    vm: &Vm,
    folder: &Path,
    layers: &[LayerFile],
    mounts: &[Mount],
    quit: &SignalFd,
) -> Result<(Machine, Vec<String>), Fault> {
    let mut table = LayerTable::default();
    table.place(layers)?;
    let mut beginning = Beginning::find(config, vm, folder, layers, quit)?;
    let mut network = None;
    let given = Given {
        config,
        vm,
        folder,
        layers,
        mounts,
    };
    let mut start = |begin| start_vmm(&given, begin, &mut network);
    let (vmm, shares, console, control) = match start(beginning.take()) {
        Err(Fault::Vmm(error)) if beginning.is_from_template() && error.is_refusal() => {
            beginning = beginning.without_template(&error);
            start(Begin::Kernel)
        }
        other => other,
    }?;
    let notice = beginning.finish();
    if let Some(network) = &mut network {
        network.release_tap();
    }
    let side = VmSide {
        vmm,
        console,
        show_console: vm.show_console,
        began: beginning.began,
        template_made: beginning.made,
        measurable: None,
    };
    let machine = Machine {
        backend: Backend::Vm(Box::new(side)),
        control,
        interface: network.as_ref().map(Attached::interface),
        network,
        shares,
        layers: table,
    };
    Ok((machine, notice.into_iter().collect()))
}

/// What a VM is started of, however it begins.
struct Given<'a> {
    config: &'a SandboxConfig,
    vm: &'a Vm,
    folder: &'a Path,
    layers: &'a [LayerFile],
    mounts: &'a [Mount],
}

/// Starts hull-vmm and its guest. hull-vmm is spawned first, so that it starts while its files are opened. The network is
/// attached unless it is.
fn start_vmm(
    given: &Given<'_>,
    begin: Begin,
    network: &mut Option<Attached>,
) -> Result<(Vmm, Option<Shares>, Console, OwnedFd), Fault> {
    let Given {
        config,
        vm,
        folder,
        layers,
        mounts,
    } = *given;
    let is_pod = config.kind != SandboxKind::Single;
    let mut vmm = Vmm::spawn(&config.id, vm, is_pod || !mounts.is_empty())?;
    let (console, console_end) = Console::new()?;
    if let Some(endpoint) = &config.network
        && network.is_none()
    {
        *network = Some(Attached::new(config, endpoint)?);
    }
    let tap = match network {
        Some(network) => network.tap()?,
        None => None,
    };
    let own = Own {
        begin,
        layers,
        folder,
        keeps_disk: keeps_disk(config)?,
        // Nobody knows what containers enter a pod.
        writes_shares: is_pod || mounts.iter().any(|mount| !mount.read_only),
        console: console_end,
        tap,
    };
    vmm.start(vm, own)?;
    let shares = match mounts {
        [] => None,
        mounts => {
            let (shares, socket) = Shares::start(vm.fs.as_deref(), vmm.process.cgroup(), mounts)?;
            vmm.serve_fs(socket)?;
            Some(shares)
        }
    };
    let (control, control_end) = sys::packet::stream_pair()?;
    vmm.offer(CONTROL_PORT, control_end)?;
    vmm.wait_until_it_runs()?;
    Ok((vmm, shares, console, control))
}

/// A sandbox whose only container is removed at its end needs no disk after it.
fn keeps_disk(config: &SandboxConfig) -> io::Result<bool> {
    if config.kind != SandboxKind::Single {
        return Ok(true);
    }
    let mut members = crate::warden::members::Members::new(&config.root, &config.id);
    let member = members.load(&config.id).map_err(io::Error::other)?;
    Ok(!member.config.auto_remove)
}

fn start_native(config: &SandboxConfig, program: &Path, folder: &Path) -> Result<Machine, Fault> {
    let Native {
        process,
        control,
        ports,
    } = native::start(program, folder)?;
    let endpoint = config.network.as_ref();
    let network = endpoint
        .map(|endpoint| Attached::new_native(config, endpoint))
        .transpose()?;
    Ok(Machine {
        backend: Backend::Native { process, ports },
        control,
        interface: network.as_ref().map(Attached::interface),
        network,
        shares: None,
        layers: LayerTable::default(),
    })
}

/// Which layer lies where on the layer device. A layer that several containers have lies there once.
#[derive(Debug, Default)]
struct LayerTable {
    placed: Vec<(LayerFile, LayerExtent)>,
    end_bytes: u64,
}

impl LayerTable {
    /// The places of `layers`, and of those that are new the index and the offset.
    fn place(&mut self, layers: &[LayerFile]) -> Result<(Vec<LayerExtent>, Vec<NewLayer>), Fault> {
        let (mut places, mut new) = (Vec::new(), Vec::new());
        for (index, layer) in layers.iter().enumerate() {
            let known = self.placed.iter().find(|(known, _)| known == layer);
            if let Some((_, extent)) = known {
                places.push(*extent);
                continue;
            }
            let extent = LayerExtent {
                offset_bytes: self.end_bytes,
                len_bytes: layer.len_bytes,
            };
            let end = extent.offset_bytes.checked_add(layer.len_bytes);
            let end = end.and_then(|end| end.checked_next_multiple_of(LAYER_ALIGN_BYTES));
            match end.filter(|end| *end <= LAYERS_LEN_BYTES) {
                Some(end) => self.end_bytes = end,
                None => return Err(Fault::NoRoom(layer.path.clone())),
            }
            self.placed.push((layer.clone(), extent));
            places.push(extent);
            new.push((index, extent.offset_bytes));
        }
        Ok((places, new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, len_bytes: u64) -> LayerFile {
        LayerFile {
            path: name.into(),
            len_bytes,
        }
    }

    #[test]
    fn a_layer_lies_on_the_device_once_and_new_ones_come_behind() {
        let mut table = LayerTable::default();
        let (a, b, c) = (
            layer("a", 4096),
            layer("b", LAYER_ALIGN_BYTES + 4096),
            layer("c", 4096),
        );
        let (first, new) = table.place(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(new, [(0, 0), (1, LAYER_ALIGN_BYTES)]);
        let (second, new) = table.place(&[c, b, a]).unwrap();
        assert_eq!(new, [(0, 3 * LAYER_ALIGN_BYTES)]);
        assert_eq!((second[1], second[2]), (first[1], first[0]));
    }

    #[test]
    fn a_device_that_is_full_takes_no_more() {
        let mut table = LayerTable::default();
        let big = layer("big", LAYERS_LEN_BYTES - LAYER_ALIGN_BYTES);
        table.place(&[big]).unwrap();
        table.place(&[layer("last", 4096)]).unwrap();
        let refused = table.place(&[layer("more", 4096)]).unwrap_err();
        assert!(refused.to_string().contains("more"));
        assert!(table.place(&[layer("endless", u64::MAX)]).is_err());
    }
}
