//! From options and an image to what the monitor is told. Nothing is made here: what is wrong is found before anything is.

use std::path::{Path, PathBuf};

use image::Image;
use serde_json::value::RawValue;

use crate::install::{self, Installation};
use crate::options::{Boot, Isolation, Network, Options, Seccomp};
use crate::{capabilities, client, etc, id, seccomp, size, spec, template};
use monitor::config::{self, Config, Container, Layer, Machine, Vm};

/// Kernel options for every VM: FACTS.md and resources/README.md say what each is for.
pub const CMDLINE: &str = "console=hvc0 earlyprintk=ttyS0 reboot=k panic=-1 nomodule 8250.nr_uarts=0 i8042.noaux \
    i8042.nomux i8042.nopnp i8042.dumbkbd swiotlb=noforce cryptomgr.notests no_timer_check noreplace-smp tsc=reliable \
    rcupdate.rcu_expedited=1 random.trust_cpu=on retain_initrd";

/// Why the options cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// The VM's size.
    #[error(transparent)]
    Size(#[from] size::Error),
    /// The seccomp profile.
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
    /// A part of hull.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The guest kernel.
    #[error("cannot use the kernel {path}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An ordinary user cannot have what was asked for.
    #[error("{0} needs root; run hull as root, or leave it out")]
    NeedsRoot(&'static str),
    /// The environment says something about the jail that it does not know.
    #[error(
        "HULL_JAIL is {0:?}; it may be unset, for the whole jail, or \"{value}\"",
        value = monitor::jail::POLICY_VARIABLE.1
    )]
    JailPolicy(std::ffi::OsString),
    /// Options that exclude each other.
    #[error("{0} has no meaning with --isolation native")]
    NotNative(&'static str),
    /// A template has no log of its own, and a kernel of the user's is for one VM.
    #[error("{0} boots a kernel; leave out --boot template")]
    BootsKernel(&'static str),
    /// Privileges that would be the host's.
    #[error(
        "--privileged with --isolation native would hand this host to the container; in a VM, which is the default, the \
         privileges end at the VM"
    )]
    PrivilegedNative,
    /// A host name that is none.
    #[error("{0:?} is not a host name: at most 63 letters, digits, dots and hyphens")]
    Hostname(String),
    /// The document cannot be written.
    #[error("cannot write the container's document")]
    Json(#[from] serde_json::Error),
}

/// The network of a container when nobody says: the bridge, which needs root.
pub fn network(options: &Options, is_root: bool) -> Network {
    options.network.unwrap_or(if is_root {
        Network::Bridge
    } else {
        Network::None
    })
}

/// Prepares the sandbox `id`.
pub fn prepare(
    options: &Options,
    image: &Image,
    id: &str,
    root: &Path,
    installation: &Installation,
) -> Result<Config, Error> {
    let is_root = rustix::process::geteuid().is_root();
    let bridge = network(options, is_root) == Network::Bridge;
    if bridge && !is_root {
        return Err(Error::NeedsRoot("--network bridge"));
    }
    if options.isolation == Isolation::Native {
        refuse_for_native(options, is_root)?;
    }
    let hostname = options
        .hostname
        .clone()
        .unwrap_or_else(|| id::short(id).to_owned());
    if !is_hostname(&hostname) {
        return Err(Error::Hostname(hostname));
    }
    let image_config = image.config.config().as_ref();
    let memory_bytes = match options.isolation {
        Isolation::Vm => Some(options.memory_bytes.unwrap_or(size::DEFAULT_MEMORY_BYTES)),
        Isolation::Native => options.memory_bytes,
    };
    let cgroup = format!("/hull/{id}");
    let document = spec::build(&spec::Inputs {
        options,
        image: image_config,
        hostname: &hostname,
        memory_bytes,
        cgroup: &cgroup,
    })?;
    let capabilities = capabilities::of(options).map_err(spec::Error::from)?;
    let user = options
        .user
        .clone()
        .or_else(|| image_config.and_then(|config| config.user().clone()));
    let stdio = if options.terminal {
        let size = client::terminal::size().unwrap_or(protocol::agent::TerminalSize {
            rows: 24,
            columns: 80,
        });
        config::Stdio::Terminal { size }
    } else {
        config::Stdio::Pipes {
            stdin: options.interactive,
        }
    };
    Ok(Config {
        build: protocol::BUILD.into(),
        root: root.to_owned(),
        id: id.to_owned(),
        machine: machine(options, memory_bytes, root, bridge, installation)?,
        container: Container {
            spec: RawValue::from_string(serde_json::to_string(&document)?)?,
            user: user.filter(|user| !user.is_empty()),
            seccomp: seccomp::compile(&seccomp(options), &capabilities, Some(&root.join("cache")))?,
            init: options.init,
            stdio,
            etc: etc::files(&hostname, bridge),
            bridge,
            layers: image
                .layers
                .iter()
                .map(|layer| Layer {
                    path: layer.path.clone(),
                    len_bytes: layer.size_bytes,
                })
                .collect(),
        },
        measure: options.measure,
    })
}

/// A privileged container has no profile, unless the user names one.
fn seccomp(options: &Options) -> Seccomp {
    match &options.seccomp {
        Seccomp::Default if options.privileged => Seccomp::Unconfined,
        named => named.clone(),
    }
}

fn machine(
    options: &Options,
    memory_bytes: Option<u64>,
    root: &Path,
    bridge: bool,
    installation: &Installation,
) -> Result<Machine, Error> {
    if options.isolation == Isolation::Native {
        return Ok(Machine::Native);
    }
    let size = size::vm_size(
        memory_bytes.unwrap_or(size::DEFAULT_MEMORY_BYTES),
        options.cpus,
    )?;
    let kernel = match &options.kernel {
        None => installation.kernel()?,
        Some(path) => {
            let failed = |source| Error::Kernel {
                path: path.clone(),
                source,
            };
            path.canonicalize().map_err(failed)?
        }
    };
    // A container without a writable layer needs no disk for one.
    let scratch = if options.read_only {
        None
    } else {
        Some(installation.scratch()?)
    };
    let quiet = if options.console { "" } else { "quiet " };
    let cmdline = format!("{quiet}{CMDLINE} {}", caches(size.memory_mib));
    let mut vm = Vm {
        program: installation.vmm()?,
        kernel,
        initramfs: installation.initramfs()?,
        cmdline,
        memory_mib: size.memory_mib,
        vcpus: size.vcpus,
        cpu_milli: options.cpus.map(|cpus| cpus.0),
        jail: jail_policy()?,
        scratch,
        template: None,
        show_console: options.console,
    };
    if boot(options)? == Boot::Template {
        match template::path(root, &installation.monitor()?, &vm, bridge) {
            Ok(path) => vm.template = Some(path),
            // What of the installation cannot be used is told when it is opened.
            Err(error) => {
                tracing::warn!(%error, "the VM's template has no name: it boots its kernel")
            }
        }
    }
    Ok(Machine::Vm(vm))
}

/// How the VM begins when all that was asked for is considered.
fn boot(options: &Options) -> Result<Boot, Error> {
    let kernels = [
        (options.kernel.is_some(), "--kernel"),
        (options.console, "--console"),
    ];
    let kernels_own = kernels.into_iter().find(|(given, _)| *given);
    match (options.boot, kernels_own) {
        (Some(Boot::Template), Some((_, option))) => Err(Error::BootsKernel(option)),
        (Some(Boot::Kernel), _) | (_, Some(_)) => Ok(Boot::Kernel),
        (Some(Boot::Template) | None, None) => Ok(Boot::Template),
    }
}

/// What the user says about the jail, in the environment.
fn jail_policy() -> Result<config::Policy, Error> {
    let (name, value) = monitor::jail::POLICY_VARIABLE;
    match std::env::var_os(name) {
        None => Ok(config::Policy::Full),
        Some(said) if said == value => Ok(config::Policy::NoUserNamespace),
        Some(said) => Err(Error::JailPolicy(said)),
    }
}

/// Linux makes the hash tables of its dentries and inodes for file servers: 1.5 MiB, touched at boot, in 512 MiB of memory.
/// A quarter is enough for what a container opens; both grow with the memory.
fn caches(memory_mib: u32) -> String {
    let dentries = u64::from(memory_mib) * 64;
    format!("dhash_entries={dentries} ihash_entries={}", dentries / 2)
}

fn refuse_for_native(options: &Options, is_root: bool) -> Result<(), Error> {
    if !is_root {
        return Err(Error::NeedsRoot("--isolation native"));
    }
    if options.kernel.is_some() {
        return Err(Error::NotNative("--kernel"));
    }
    if options.boot.is_some() {
        return Err(Error::NotNative("--boot"));
    }
    if options.console {
        return Err(Error::NotNative("--console"));
    }
    if options.privileged {
        return Err(Error::PrivilegedNative);
    }
    Ok(())
}

fn is_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !name.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_network_depends_on_the_user() {
        assert_eq!(network(&Options::default(), true), Network::Bridge);
        assert_eq!(network(&Options::default(), false), Network::None);
        let none = Options {
            network: Some(Network::None),
            ..Options::default()
        };
        assert_eq!(network(&none, true), Network::None);
    }

    #[test]
    fn a_kernel_boots_when_it_is_asked_for_and_when_something_needs_it() {
        let how = |boot_option, console| {
            boot(&Options {
                boot: boot_option,
                console,
                ..Options::default()
            })
        };
        assert_eq!(how(None, false).unwrap(), Boot::Template);
        assert_eq!(how(Some(Boot::Kernel), false).unwrap(), Boot::Kernel);
        assert_eq!(how(None, true).unwrap(), Boot::Kernel);
        let refused = how(Some(Boot::Template), true).unwrap_err().to_string();
        assert_eq!(
            refused,
            "--console boots a kernel; leave out --boot template"
        );
    }

    #[test]
    fn host_names_are_checked() {
        assert!(is_hostname("web-1.example"));
        for bad in ["", "-a", "a b", "a/b", &"x".repeat(64)] {
            assert!(!is_hostname(bad), "{bad:?}");
        }
    }
}
