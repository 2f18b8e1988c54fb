//! The VM of a container or a pod.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use protocol::record::{JAIL_VARIABLE, JailPolicy, Machine, Vm};

use crate::install::Installation;
use crate::options::{Boot, Options, PodOptions};
use crate::size::{self, MilliCpus, VmSize};
use crate::{spec, template};

/// Kernel options for every VM: FACTS.md and resources/README.md say what each is for.
pub const CMDLINE: &str = "console=hvc0 earlyprintk=ttyS0 reboot=k panic=-1 nomodule 8250.nr_uarts=0 i8042.noaux \
    i8042.nomux i8042.nopnp i8042.dumbkbd swiotlb=noforce cryptomgr.notests no_timer_check noreplace-smp tsc=reliable \
    rcupdate.rcu_expedited=1 random.trust_cpu=on retain_initrd";

/// Why there can be no such VM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest kernel.
    #[error("cannot use the kernel {path}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The environment names a jail that does not exist.
    #[error(
        "HULL_JAIL is {0:?}; it may be unset, for the whole jail, or \"{value}\"",
        value = JAIL_VARIABLE.1
    )]
    JailPolicy(OsString),
    /// A size of what is not there.
    #[error(
        "--storage-opt size= bounds the writable layer, which --read-only leaves out; leave one of them out"
    )]
    ReadOnlyStorage,
    /// A saved VM has no boot log, and a user's kernel is for one VM.
    #[error("{0} boots a kernel; leave out --boot template")]
    BootsKernel(&'static str),
}

/// What decides about a VM.
struct Wanted<'a> {
    size: VmSize,
    cpus: Option<MilliCpus>,
    cpu_shares: Option<u64>,
    writable: bool,
    storage_bytes: Option<u64>,
    boot: Option<Boot>,
    kernel: Option<&'a Path>,
    console: bool,
}

/// The VM of a container that has one of its own.
pub(super) fn of_container(
    options: &Options,
    root: &Path,
    cards: u8,
    installation: &Installation,
) -> Result<Machine, super::Error> {
    let memory_bytes = options.memory_bytes.unwrap_or(size::DEFAULT_MEMORY_BYTES);
    let cpus = spec::cpu_limit(options);
    let mut size = size::vm_size(memory_bytes, cpus)?;
    if let Some(highest) = options.cpuset_cpus.as_ref().and_then(|set| set.highest()) {
        size = size.with_cpu(highest)?;
    }
    let wanted = Wanted {
        size,
        cpus,
        cpu_shares: options.cpu_shares,
        // A container without a writable layer needs no disk for one.
        writable: !options.read_only,
        storage_bytes: options.storage_bytes,
        boot: options.boot,
        kernel: options.kernel.as_deref(),
        console: options.console,
    };
    machine(&wanted, root, cards, installation)
}

/// The VM of a pod.
pub(super) fn of_pod(
    options: &PodOptions,
    root: &Path,
    cards: u8,
    installation: &Installation,
) -> Result<Machine, super::Error> {
    let memory_bytes = options.memory_bytes.unwrap_or(size::DEFAULT_MEMORY_BYTES);
    let wanted = Wanted {
        size: size::vm_size(memory_bytes, options.cpus)?,
        cpus: options.cpus,
        cpu_shares: None,
        writable: true,
        storage_bytes: options.storage_bytes,
        boot: options.boot,
        kernel: options.kernel.as_deref(),
        console: false,
    };
    machine(&wanted, root, cards, installation)
}

fn machine(
    wanted: &Wanted<'_>,
    root: &Path,
    cards: u8,
    installation: &Installation,
) -> Result<Machine, super::Error> {
    let boot = boot(wanted.boot, wanted.kernel.is_some(), wanted.console)?;
    let kernel = match wanted.kernel {
        None => installation.kernel()?,
        Some(path) => path.canonicalize().map_err(|source| Error::Kernel {
            path: path.to_owned(),
            source,
        })?,
    };
    if let Some(bytes) = wanted.storage_bytes {
        size::check_storage(bytes)?;
    }
    let scratch = match (wanted.writable, wanted.storage_bytes) {
        (false, None) => None,
        (false, Some(_)) => return Err(Error::ReadOnlyStorage.into()),
        (true, None) => Some(installation.scratch()?),
        (true, Some(_)) => Some(installation.growing_scratch()?),
    };
    let quiet = if wanted.console { "" } else { "quiet " };
    let memory_mib = wanted.size.memory_mib;
    let mut vm = Vm {
        program: installation.vmm()?,
        fs: Some(installation.fs()?),
        kernel,
        initramfs: installation.initramfs()?,
        cmdline: format!("{quiet}{CMDLINE} {}", caches(memory_mib)),
        memory_mib,
        vcpus: wanted.size.vcpus,
        cards,
        cpu_milli: wanted.cpus.map(|cpus| cpus.0.max(size::MIN_VM_MILLI_CPUS)),
        cpu_shares: wanted.cpu_shares,
        jail: jail_policy(std::env::var_os(JAIL_VARIABLE.0))?,
        scratch,
        scratch_bytes: wanted.storage_bytes,
        template: None,
        show_console: wanted.console,
    };
    if boot == Boot::Template {
        match template::path(root, &installation.monitor()?, &vm) {
            Ok(path) => vm.template = Some(path),
            // A part of the installation that cannot be used is reported when it is opened.
            Err(error) => {
                tracing::warn!(%error, "the VM's template has no name: it boots its kernel")
            }
        }
    }
    Ok(Machine::Vm(vm))
}

/// How the VM begins when all that was asked for is considered.
fn boot(asked: Option<Boot>, kernel: bool, console: bool) -> Result<Boot, Error> {
    let needs_kernel = [(kernel, "--kernel"), (console, "--console")];
    let needs_kernel = needs_kernel.into_iter().find(|(given, _)| *given);
    match (asked, needs_kernel) {
        (Some(Boot::Template), Some((_, option))) => Err(Error::BootsKernel(option)),
        (Some(Boot::Kernel), _) | (_, Some(_)) => Ok(Boot::Kernel),
        (Some(Boot::Template) | None, None) => Ok(Boot::Template),
    }
}

/// The jail that the environment asks for.
fn jail_policy(variable: Option<OsString>) -> Result<JailPolicy, Error> {
    match variable {
        None => Ok(JailPolicy::Full),
        Some(value) if value == JAIL_VARIABLE.1 => Ok(JailPolicy::NoUserNamespace),
        Some(value) => Err(Error::JailPolicy(value)),
    }
}

/// Linux makes the hash tables of its dentries and inodes for file servers: 1.5 MiB, touched at boot, in 512 MiB of memory.
/// A quarter is enough for what a container opens; both grow with the memory.
fn caches(memory_mib: u32) -> String {
    let dentries = u64::from(memory_mib) * 64;
    format!("dhash_entries={dentries} ihash_entries={}", dentries / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_boots_when_it_is_asked_for_and_when_something_needs_it() {
        let how = |asked, console| boot(asked, false, console);
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
    fn only_the_one_exception_from_the_jail_is_known() {
        assert_eq!(jail_policy(None).unwrap(), JailPolicy::Full);
        assert_eq!(
            jail_policy(Some(JAIL_VARIABLE.1.into())).unwrap(),
            JailPolicy::NoUserNamespace
        );
        assert!(matches!(
            jail_policy(Some("off".into())),
            Err(Error::JailPolicy(_))
        ));
    }
}
