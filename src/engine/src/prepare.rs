//! From options and an image to the records of a sandbox and a container. No file is made here: whatever is wrong with
//! the options is found before anything exists.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use image::Image;
use protocol::agent::PidNamespace;
use protocol::record::{
    self, ContainerConfig, Endpoint, LayerFile, MAX_NETWORKS, Machine, RestartPolicy, Run,
    SandboxConfig, SandboxKind, Stdio, VERSION,
};
use protocol::subnet::Subnet;
use serde_json::value::RawValue;

use crate::asked::Asked;
use crate::install::{self, Installation};
use crate::options::{
    DEFAULT_STOP_TIMEOUT_S, HostAddress, Isolation, Options, Place, PodOptions, Seccomp,
};
use crate::{capabilities, etc, id, networks, seccomp, size, spec};

mod machine;
pub(crate) mod place;

pub use machine::CMDLINE;

/// Why the options cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// The VM.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The VM's size.
    #[error(transparent)]
    Size(#[from] size::Error),
    /// The seccomp profile.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    /// A part of hull.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// Names and resolvers.
    #[error(transparent)]
    Etc(#[from] etc::Error),
    /// An ordinary user cannot have what was asked for.
    #[error("{0} needs root; run hull as root, or leave it out")]
    NeedsRoot(&'static str),
    /// An option of VMs.
    #[error("{0} has no meaning with --isolation native")]
    NotNative(&'static str),
    /// An option of the machine, for one container of several.
    #[error(
        "{0} is decided by `hull pod create`, for all containers of the pod; leave it out here"
    )]
    NotInPod(&'static str),
    /// Privileges that would be the host's.
    #[error(
        "--privileged with --isolation native would hand this host to the container; in a VM, which is the default, the \
         privileges end at the VM"
    )]
    PrivilegedNative,
    /// What only a network gives.
    #[error("{0} needs a network: leave out --network none, and be root")]
    NeedsNetwork(&'static str),
    /// A network that is not there.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// The default network gives addresses as it likes, as in Docker.
    #[error("user specified IP address is supported on user defined networks only")]
    AddressOnDefault,
    /// Likewise names.
    #[error("network-scoped alias is supported only for containers in user defined networks")]
    AliasOnDefault,
    /// The default network has no names of its own.
    #[error(
        "--link needs a network of your own, which has a DNS server: hull network create, and --network for both containers"
    )]
    LinkOnDefault,
    /// Docker's rule.
    #[error(
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
    )]
    MixedNetworks,
    /// A network is named twice.
    #[error("network {0:?} is specified multiple times")]
    NetworkTwice(String),
    /// More than there are interfaces for.
    #[error("a container is on {MAX_NETWORKS} networks at most, and these are {0}")]
    TooManyNetworks(usize),
    /// An address of another network.
    #[error(
        "invalid endpoint settings: no configured subnet contains IP address {address}: the network {network} is {subnet}"
    )]
    AddressOutside {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        network: String,
        /// Its addresses.
        subnet: Subnet,
    },
    /// Nothing comes in by an internal network.
    #[error(
        "ports cannot be published on the network {0}, which is internal: it has no way in or out"
    )]
    PublishOnInternal(String),
    /// An image's port that cannot be published.
    #[error("cannot publish the port {0:?} that the image exposes: hull forwards tcp and udp")]
    ExposedPort(String),
    /// A container cannot be removed at its end and started again.
    #[error(
        "--restart and --rm exclude each other: a container that is removed at its end cannot be restarted"
    )]
    RestartAndRemove,
    /// The document does not fit the frame that carries it into the machine.
    #[error(
        "the container's configuration takes {len} bytes as JSON and may take {MAX_DOCUMENT_LEN}; shorten the command or \
         the environment, of which a control character takes six bytes"
    )]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The document cannot be written.
    #[error("cannot write the container's document")]
    Json(#[from] serde_json::Error),
}

/// The longest document, in bytes of JSON: the rest of a frame is for a compiled seccomp program (4096 instructions of 8
/// bytes, each up to four characters long) and the files in /etc.
const MAX_DOCUMENT_LEN: usize = protocol::frame::MAX_LEN - (1 << 20);

impl Error {
    /// The exit code of a `run` that fails so, as Docker's: 127 for a command that does not exist, 126 for one that cannot
    /// be executed, 125 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Spec(error) => error.exit_code(),
            Error::TooLong { .. } => 126,
            _ => 125,
        }
    }
}

/// A container to prepare.
#[derive(Debug, Clone, Copy)]
pub struct ContainerInputs<'a> {
    /// What the user asked for.
    pub options: &'a Options,
    /// The image.
    pub image: &'a Image,
    /// The container's identifier: 64 hexadecimal digits.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// When it is created, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// The root of all state.
    pub root: &'a Path,
    /// Hull's parts.
    pub installation: &'a Installation,
    /// What of the host's it has mounted: [`crate::Engine::resolve_mounts`].
    pub mounts: &'a [record::Mount],
    /// The networks of the user's that it is on: [`crate::Engine::chosen_networks`], or for a container of a pod
    /// [`crate::Engine::networks_of`].
    pub networks: &'a [record::Network],
}

/// A pod to prepare.
#[derive(Debug, Clone, Copy)]
pub struct PodInputs<'a> {
    /// What the user asked for.
    pub options: &'a PodOptions,
    /// The sandbox's identifier: 64 hexadecimal digits.
    pub id: &'a str,
    /// The pod's name.
    pub name: &'a str,
    /// When it is created, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// The root of all state.
    pub root: &'a Path,
    /// Hull's parts.
    pub installation: &'a Installation,
    /// The network of the user's that it is on: [`crate::Engine::chosen_network`].
    pub networks: &'a [record::Network],
}

/// Prepares a container with a sandbox of its own. Its options' isolation is [`Isolation::Vm`] or [`Isolation::Native`];
/// for a pod, see [`prepare_in_pod`].
pub fn prepare(new: &ContainerInputs<'_>) -> Result<(SandboxConfig, ContainerConfig), Error> {
    let options = new.options;
    let publish = place::published(options, new.image)?;
    let place = Place {
        publish,
        ..options.place.clone()
    };
    let endpoints = place::endpoints(
        options.network.as_ref(),
        &place,
        &options.further_networks,
        new.networks,
    )?;
    let native = options.isolation == Isolation::Native;
    if native {
        refuse_for_native(options)?;
    }
    let memory_bytes = match native {
        false => Some(options.memory_bytes.unwrap_or(size::DEFAULT_MEMORY_BYTES)),
        true => options.memory_bytes,
    };
    // First what the user can get wrong, then what hull's installation can lack.
    let container = container(new, new.id, memory_bytes, &endpoints, PidNamespace::Own)?;
    let machine = if native {
        Machine::Native {
            program: new.installation.native()?,
        }
    } else {
        machine::of_container(
            options,
            new.root,
            record::cards(&endpoints),
            new.installation,
        )?
    };
    let mut sandbox = SandboxConfig {
        version: VERSION,
        root: new.root.to_owned(),
        id: new.id.to_owned(),
        machine,
        kind: SandboxKind::Single,
        net: net(&endpoints, new.installation)?,
        networks: Vec::new(),
        measure: options.measure,
    };
    sandbox.set_networks(endpoints);
    Ok((sandbox, container))
}

/// Prepares a container that shares the sandbox of a pod.
pub fn prepare_in_pod(
    new: &ContainerInputs<'_>,
    pod: &SandboxConfig,
) -> Result<ContainerConfig, Error> {
    let options = new.options;
    refuse_in_pod(options)?;
    if let Machine::Vm(vm) = &pod.machine {
        spec::fits_vcpus(options, vm.vcpus).map_err(spec::Error::from)?;
    }
    let pid = match &pod.kind {
        SandboxKind::Pod {
            shared_pid: true, ..
        } => PidNamespace::Sandbox,
        _ => PidNamespace::Own,
    };
    container(new, &pod.id, options.memory_bytes, &pod.networks, pid)
}

/// Prepares a pod.
pub fn prepare_pod(new: &PodInputs<'_>) -> Result<SandboxConfig, Error> {
    let options = new.options;
    let choice = options.network.as_ref();
    let endpoints = place::endpoints(choice, &options.place, &[], new.networks)?;
    Ok(SandboxConfig {
        version: VERSION,
        root: new.root.to_owned(),
        id: new.id.to_owned(),
        machine: machine::of_pod(
            options,
            new.root,
            record::cards(&endpoints),
            new.installation,
        )?,
        kind: SandboxKind::Pod {
            name: new.name.to_owned(),
            shared_pid: options.shared_pid,
            created_ns: new.created_ns,
            labels: options.labels.clone(),
        },
        net: net(&endpoints, new.installation)?,
        networks: endpoints,
        measure: false,
    })
}

/// hull-net, if a sandbox on these networks needs one.
pub(crate) fn net(
    endpoints: &[Endpoint],
    installation: &Installation,
) -> Result<Option<PathBuf>, install::Error> {
    let needs_one = |endpoint: &Endpoint| match network::Host::of_this_user() {
        network::Host::Bridge => endpoint.network != record::DEFAULT_NETWORK,
        network::Host::Switch => true,
    };
    let needed = endpoints.iter().any(needs_one);
    needed.then(|| installation.net()).transpose()
}

/// The container's record. `endpoints` are its sandbox's.
fn container(
    new: &ContainerInputs<'_>,
    sandbox: &str,
    memory_bytes: Option<u64>,
    endpoints: &[Endpoint],
    pid: PidNamespace,
) -> Result<ContainerConfig, Error> {
    let options = new.options;
    if options.auto_remove && options.restart != RestartPolicy::No {
        return Err(Error::RestartAndRemove);
    }
    if let Some(bytes) = memory_bytes {
        size::check_memory(bytes)?;
    }
    let image = new.image.config.config().as_ref();
    let names = etc::Names::of(options, id::short(new.id))?;
    let cgroup = format!("/hull/{}", new.id);
    let inputs = spec::Inputs {
        options,
        image,
        hostname: &names.hostname,
        memory_bytes,
        cgroup: &cgroup,
        mounts: new.mounts,
    };
    let document = spec::build(&inputs)?;
    let text = serde_json::to_string(&document)?;
    if text.len() > MAX_DOCUMENT_LEN {
        return Err(Error::TooLong { len: text.len() });
    }
    let health = spec::health::check(options, new.image, document.process().as_ref())
        .map_err(spec::Error::from)?;
    let asked = Asked::new(options, new.image, &names.hostname)?;
    let resolvers = networks::resolv_conf(endpoints, new.networks);
    let image_labels = asked.image_labels.clone();
    Ok(ContainerConfig {
        version: VERSION,
        id: new.id.to_owned(),
        name: new.name.to_owned(),
        created_ns: new.created_ns,
        sandbox: sandbox.to_owned(),
        image: options.image.clone(),
        image_id: new.image.id.to_string(),
        labels: labels(image_labels, options),
        annotations: options.annotations.clone(),
        restart: options.restart,
        auto_remove: options.auto_remove,
        stop_signal: options
            .stop_signal
            .unwrap_or_else(|| spec::stop_signal(image)),
        stop_timeout_s: options.stop_timeout_s.unwrap_or(DEFAULT_STOP_TIMEOUT_S),
        log: options.log,
        health,
        network: Some(
            endpoints
                .first()
                .map_or("none", |endpoint| &*endpoint.network)
                .to_owned(),
        ),
        networks: Some(endpoints.iter().map(|it| it.network.clone()).collect()),
        run: Run {
            volumes: spec::volumes(&document, image).map_err(spec::Error::from)?,
            mounts: new.mounts.to_vec(),
            spec: RawValue::from_string(text)?,
            user: spec::user(options, image)?,
            groups: options.groups.clone(),
            seccomp: compile_seccomp(options, new.root)?,
            init: options.init,
            stdio: stdio(options),
            etc: etc::files(options, &names, resolvers.as_deref())?,
            own_names: names.own,
            gateway_names: gateway_names(options),
            layers: layers(new.image),
            read_only: options.read_only,
            pid,
            network: !endpoints.is_empty() || sandbox != new.id,
        },
        asked: RawValue::from_string(serde_json::to_string(&asked)?)?,
    })
}

fn compile_seccomp(options: &Options, root: &Path) -> Result<Option<Vec<u8>>, Error> {
    let capabilities = capabilities::of(options).map_err(spec::Error::from)?;
    // A privileged container has no profile, unless the user names one.
    let choice = match &options.seccomp {
        Seccomp::Default if options.privileged => &Seccomp::Unconfined,
        named => named,
    };
    let cache = root.join("cache");
    Ok(Some(seccomp::compile(choice, &capabilities, Some(&cache))?))
}

fn stdio(options: &Options) -> Stdio {
    if options.terminal {
        Stdio::Terminal {
            size: options.console_size.unwrap_or_default(),
        }
    } else {
        Stdio::Pipes {
            stdin: options.interactive,
            stdin_once: options.interactive && options.attach.stdin,
        }
    }
}

fn layers(image: &Image) -> Vec<LayerFile> {
    image
        .layers
        .iter()
        .map(|layer| LayerFile {
            path: layer.path.clone(),
            len_bytes: layer.size_bytes,
        })
        .collect()
}

fn gateway_names(options: &Options) -> Vec<String> {
    options
        .extra_hosts
        .iter()
        .filter(|host| host.address == HostAddress::Gateway)
        .map(|host| host.name.clone())
        .collect()
}

fn labels(mut image: BTreeMap<String, String>, options: &Options) -> BTreeMap<String, String> {
    image.extend(options.labels.clone());
    image
}

fn refuse_for_native(options: &Options) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NeedsRoot("--isolation native"));
    }
    let of_vms = [
        (options.kernel.is_some(), "--kernel"),
        (options.boot.is_some(), "--boot"),
        (options.console, "--console"),
        (options.storage_bytes.is_some(), "--storage-opt"),
    ];
    if let Some((_, option)) = of_vms.into_iter().find(|(given, _)| *given) {
        return Err(Error::NotNative(option));
    }
    if options.privileged {
        return Err(Error::PrivilegedNative);
    }
    Ok(())
}

fn refuse_in_pod(options: &Options) -> Result<(), Error> {
    let of_machines = [
        (options.network.is_some(), "--network"),
        (!options.place.publish.is_empty(), "--publish"),
        (options.publish_all, "--publish-all"),
        (options.place.address.is_some(), "--ip"),
        (options.place.mac.is_some(), "--mac-address"),
        (!options.place.aliases.is_empty(), "--network-alias"),
        (!options.place.links.is_empty(), "--link"),
        (options.kernel.is_some(), "--kernel"),
        (options.boot.is_some(), "--boot"),
        (options.console, "--console"),
        (options.storage_bytes.is_some(), "--storage-opt"),
        (options.measure, "--timing"),
    ];
    match of_machines.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(Error::NotInPod(option)),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "prepare/tests.rs"]
mod tests;
