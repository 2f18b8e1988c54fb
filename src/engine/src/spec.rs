//! The OCI runtime-spec document of a container: Docker's defaults, then the image, then the options.
//!
//! - [`process`]: the command, its environment, user, capabilities and rlimits.
//! - [`mounts`]: what is mounted, parents first; the image's volumes.
//! - [`resources`], [`devices`], [`sysctl`]: what the kernel is asked to hold.
//! - [`health`]: the health check, a process document of its own.
//!
//! Invariant: an option that the container's machine cannot carry out is an error here, in the words of the command
//! line. Deliberately absent: the lookup of user names (in the container's own files, by the agent) and seccomp
//! (compiled by `seccomp`).

use oci_spec::image::Config;
use oci_spec::runtime::{Linux, Spec};
use protocol::record;

use crate::capabilities;
use crate::options::{Isolation, Options};

pub mod devices;
pub mod health;
pub mod mounts;
mod privileges;
pub mod process;
pub mod resources;
pub mod sysctl;

pub(crate) use mounts::{image_volumes, volumes};
pub(crate) use process::{user, words};
pub(crate) use resources::{cpu_limit, fits_vcpus};

/// Why a container cannot be as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the image nor the user says what to run.
    #[error(
        "no command specified: the image has no Cmd or Entrypoint; name a command after the image"
    )]
    NoCommand,
    /// The command is an empty word, which names no file.
    #[error("the command is an empty string: executable file not found in $PATH")]
    EmptyCommand,
    /// The kernel would not execute it.
    #[error(transparent)]
    TooLong(#[from] process::TooLong),
    /// A working directory that depends on where one is.
    #[error("the working directory {0:?} is not absolute")]
    RelativeWorkdir(String),
    /// A user or group number that Linux runtimes do not take.
    #[error(
        "the user {0:?} is out of range: numbers of users and groups are in the range 0-2147483647"
    )]
    UserRange(String),
    /// A capability that does not exist.
    #[error(transparent)]
    Capability(#[from] capabilities::Unknown),
    /// A resource limit that does not exist.
    #[error("unknown ulimit {0:?}; the known ones are {names}", names = process::ULIMITS.join(", "))]
    Ulimit(String),
    /// A string that no C program could receive.
    #[error("the {0} contains a zero byte")]
    ZeroByte(&'static str),
    /// A mount or volume.
    #[error(transparent)]
    Mount(#[from] mounts::Error),
    /// A limit.
    #[error(transparent)]
    Resource(#[from] resources::Error),
    /// A device.
    #[error(transparent)]
    Device(#[from] devices::Error),
    /// A kernel parameter.
    #[error(transparent)]
    Sysctl(#[from] sysctl::Error),
    /// The health check.
    #[error(transparent)]
    Health(#[from] health::Error),
}

impl Error {
    /// As shells have it: 127 for a command that does not exist, 126 for one that cannot be executed, and Docker's 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::EmptyCommand => 127,
            Error::TooLong(_) => 126,
            _ => 125,
        }
    }
}

/// What a container's document is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the user asked for.
    pub options: &'a Options,
    /// What the image says.
    pub image: Option<&'a Config>,
    /// The container's host name.
    pub hostname: &'a str,
    /// memory.max, if any.
    pub memory_bytes: Option<u64>,
    /// Path of its cgroup below the root of the hierarchy.
    pub cgroup: &'a str,
    /// What of the host's is mounted.
    pub mounts: &'a [record::Mount],
}

/// Builds the document.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec, Error> {
    let mut spec: Spec = serde_json::from_str(include_str!("spec/default.json"))
        .expect("the built-in document is valid");
    let options = inputs.options;
    process::set(&mut spec, inputs)?;
    spec.set_hostname(Some(inputs.hostname.to_owned()));
    let domainname = options.domainname.clone();
    spec.set_domainname(domainname.filter(|name| !name.is_empty()));
    if !options.annotations.is_empty() {
        spec.set_annotations(Some(options.annotations.clone().into_iter().collect()));
    }
    if let Some(root) = spec.root_mut() {
        root.set_readonly(Some(options.read_only));
    }
    let mounts = mounts::of(
        options,
        inputs.mounts,
        spec.mounts().clone().unwrap_or_default(),
    )?;
    spec.set_mounts(Some(mounts));
    if let Some(linux) = spec.linux_mut() {
        set_linux(linux, inputs)?;
    }
    Ok(spec)
}

fn set_linux(linux: &mut Linux, inputs: &Inputs<'_>) -> Result<(), Error> {
    let options = inputs.options;
    linux.set_cgroups_path(Some(inputs.cgroup.into()));
    let mut resources = linux.resources().clone().unwrap_or_default();
    resources::set(&mut resources, options, inputs.memory_bytes)?;
    let (nodes, rules) = devices::of(options)?;
    if options.privileged {
        privileges::of_devices(&mut resources);
    } else if !rules.is_empty() {
        let mut all = resources.devices().clone().unwrap_or_default();
        all.extend(rules);
        resources.set_devices(Some(all));
    }
    linux.set_resources(Some(resources));
    if !nodes.is_empty() {
        linux.set_devices(Some(nodes));
    }
    let mut parameters = linux.sysctl().clone().unwrap_or_default();
    parameters.extend(sysctl::of(options)?);
    linux.set_sysctl(Some(parameters));
    if options.privileged || options.unmasked {
        linux.set_masked_paths(None).set_readonly_paths(None);
    } else if options.isolation == Isolation::Native {
        let mut masked = linux.masked_paths().clone().unwrap_or_default();
        masked.extend(privileges::thermal_throttle());
        linux.set_masked_paths(Some(masked));
    }
    Ok(())
}

/// The signal that the image names, if it is one.
pub(crate) fn image_stop_signal(image: Option<&Config>) -> Option<i32> {
    image
        .and_then(|config| config.stop_signal().as_deref())
        .and_then(crate::signals::number)
}

/// The signal that stops the container politely: the image's StopSignal or SIGTERM.
pub fn stop_signal(image: Option<&Config>) -> i32 {
    image_stop_signal(image).unwrap_or(libc::SIGTERM)
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
