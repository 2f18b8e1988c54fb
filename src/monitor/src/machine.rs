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
use std::time::Duration;

use protocol::agent::{self, CONTROL_PORT, Failure, FailureKind, Interface};
use protocol::monitor::Began;
use protocol::record::{
    Attachment, LayerFile, Machine as Kind, Mount, Published, SandboxConfig, SandboxKind, Vm,
};
use protocol::timeline::Nanos;
use sys::signalfd::SignalFd;

use crate::attached::{self, Changed, Networks};
use crate::console::Console;
use crate::devices::{Begin, Own, wire_of_this_user};
use crate::native::{self, Native, Ports};
use crate::process::{Ended, Process};
use crate::shares::{self, NativeUse, Shares};
use crate::template::{Beginning, NoVm};
use crate::vmm::{self, Vmm};
use crate::{chain, measure};

mod layers;

use layers::LayerTable;
pub(crate) use layers::NewLayer;

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
    Network(#[from] attached::Error),
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
    pub(crate) interfaces: Vec<Interface>,
    networks: Networks,
    shares: Option<Shares>,
    native_use: Option<NativeUse>,
    layers: LayerTable,
}

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

/// The warden's part of a machine: what takes rights. Dropped, it is taken down: hull-fs, the process, its cgroup, its place
/// on the network.
#[derive(Debug)]
pub(crate) struct HostSide {
    /// In the process's cgroup, which goes with that.
    shares: Option<Shares>,
    process: Process,
    /// Given up after the process has ended.
    _native_use: Option<NativeUse>,
    networks: Networks,
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
                start_native(config, program, folder, mounts).map(|machine| (machine, Vec::new()))
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
            networks: self.networks,
            shares: self.shares,
            _native_use: self.native_use,
            without_shares: false,
        }
    }

    /// Leaves the warden's part to the warden, which writes to `status` how the process ended. Opens what measuring its
    /// memory needs only if the machine is `measured`: files of hull-vmm's memory, which other speakers do not hold.
    pub(crate) fn leave_host(&mut self, status: &OwnedFd, measured: bool) -> io::Result<()> {
        self.networks.part();
        self.native_use = None;
        if let Some(mut shares) = self.shares.take() {
            shares.part();
        }
        let status = status.try_clone()?;
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
    /// The interfaces of the sandbox.
    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        self.networks.attachments()
    }

    /// The ports of the sandbox that are reached by the host's addresses.
    pub(crate) fn ports(&self) -> Vec<Published> {
        self.networks.ports()
    }

    /// Has the sandbox, which runs, be on the networks that its record names.
    pub(crate) fn bring_networks(
        &mut self,
        config: &SandboxConfig,
    ) -> Result<Changed, attached::Error> {
        let changed = self.networks.bring(config);
        self.networks.release_ends();
        changed
    }

    /// To be polled for its end, until it has been waited for.
    pub(crate) fn end_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.process.end_descriptor()
    }

    /// Shares directories with a VM that runs. Returns hull-vmm's end of the socket of a hull-fs, if this is its first.
    pub(crate) fn share(
        &mut self,
        vm: &Vm,
        root: &Path,
        mounts: &[Mount],
    ) -> Result<Option<OwnedFd>, shares::Error> {
        if mounts.is_empty() {
            return Ok(None);
        }
        if let Some(shares) = &mut self.shares {
            shares.add(mounts)?;
            shares.wait();
            return Ok(None);
        }
        let cgroup = self.process.cgroup();
        let (shares, socket) = Shares::start(vm.fs.as_deref(), root, cgroup, mounts)?;
        shares.wait();
        self.shares = Some(shares);
        Ok(Some(socket))
    }

    /// How long until [`HostSide::renew`] has something to do, if it ever has.
    pub(crate) fn next_renewal(&self) -> Option<Duration> {
        let leases = self.shares.as_ref().and_then(Shares::next_renewal);
        let network = self.networks.next_join();
        leases.into_iter().chain(network).min()
    }

    /// When it is time: lets the guest remember again of volumes that are its own again, joins another hull-net.
    pub(crate) fn renew(&mut self) {
        if let Some(shares) = &mut self.shares {
            shares.renew();
        }
        self.networks.join_again();
    }

    /// To be polled for the ends of the networks' hull-nets, where they are networks, each with its slot.
    pub(crate) fn network_descriptors(&self) -> impl Iterator<Item = (u8, BorrowedFd<'_>)> {
        self.networks.memberships()
    }

    /// The hull-net of the network in this slot has ended.
    pub(crate) fn network_ended(&mut self, slot: u8) {
        self.networks.expelled(slot);
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
    let mut networks = Networks::none(config);
    let given = Given {
        config,
        vm,
        folder,
        layers,
        mounts,
    };
    let mut start = |begin| start_vmm(&given, begin, &mut networks);
    let (vmm, shares, console, control) = match start(beginning.take()) {
        Err(Fault::Vmm(error)) if beginning.is_from_template() && error.is_refusal() => {
            beginning = beginning.without_template(&error);
            start(Begin::Kernel)
        }
        other => other,
    }?;
    let notice = beginning.finish();
    networks.release_ends();
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
        interfaces: interfaces(&networks),
        networks,
        shares,
        native_use: None,
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

/// Starts hull-vmm and its guest. hull-vmm is spawned first, so that it starts while its files are opened. The networks are
/// attached unless they are.
fn start_vmm(
    given: &Given<'_>,
    begin: Begin,
    networks: &mut Networks,
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
    networks.bring(config)?;
    let mut ends = networks.ends()?.into_iter();
    let first = ends.next().map(|(_, end)| end);
    let own = Own {
        begin,
        layers,
        folder,
        keeps_disk: keeps_disk(config)?,
        // Nobody knows what containers enter a pod.
        writes_shares: is_pod || mounts.iter().any(|mount| !mount.read_only),
        console: console_end,
        network: first,
        cards: vm.cards,
        wire: wire_of_this_user(),
    };
    vmm.start(vm, own)?;
    for (slot, end) in ends {
        vmm.plug(slot, end)?;
    }
    let shares = match mounts {
        [] => None,
        mounts => {
            let cgroup = vmm.process.cgroup();
            let (shares, socket) = Shares::start(vm.fs.as_deref(), &config.root, cgroup, mounts)?;
            vmm.serve_fs(socket)?;
            Some(shares)
        }
    };
    let (control, control_end) = sys::packet::stream_pair()?;
    vmm.offer(CONTROL_PORT, control_end)?;
    vmm.wait_until_it_runs()?;
    if let Some(shares) = &shares {
        shares.wait();
    }
    Ok((vmm, shares, console, control))
}

fn interfaces(networks: &Networks) -> Vec<Interface> {
    let attachments = networks.attachments().into_iter();
    attachments.map(|it| it.interface).collect()
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

fn start_native(
    config: &SandboxConfig,
    program: &Path,
    folder: &Path,
    mounts: &[Mount],
) -> Result<Machine, Fault> {
    let native_use = NativeUse::begin(&config.root, mounts)?;
    let Native {
        process,
        control,
        ports,
    } = native::start(program, folder)?;
    let mut networks = Networks::none(config);
    networks.bring(config)?;
    Ok(Machine {
        backend: Backend::Native { process, ports },
        control,
        interfaces: interfaces(&networks),
        networks,
        shares: None,
        native_use: Some(native_use),
        layers: LayerTable::default(),
    })
}
